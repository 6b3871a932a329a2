"""The names of settings: each has one, in Python, in suites and as a flag; here are the others that are understood."""

from collections.abc import Mapping
from typing import Any

#: By a setting's name those of timm's scripts.
TIMM_NAMES = {
    'compile': ('torchcompile',),
    'compile_mode': ('torchcompile_mode',),
    'download': ('dataset_download',),
    'global_pool': ('gp',),
    'normalize_in_workers': ('no_prefetcher',),
    'pin_memory': ('pin_mem',),
    'prefetch': ('prefetch_factor',),
    'reparameterize': ('reparam',),
    'trust_remote_code': ('dataset_trust_remote_code',),
    'warmup_steps': ('num_warm_iter',),
}
#: By a setting's name those that this package had for it before.
EARLIER_NAMES = {
    'data_dir': ('root',),
    'downloads': ('jobs',),
    'folder': ('out',),
    'predictions': ('save_predictions',),
    'run_dir': ('out',),
}
OTHER_NAMES = {**TIMM_NAMES, 'data_dir': EARLIER_NAMES['data_dir']}
_NAMES = {other: name for name, others in OTHER_NAMES.items() for other in others}


def name_of(given: str) -> str:
    """The name of the setting that is called ``given`` somewhere."""
    return _NAMES.get(given, given)


def with_own_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` under their names.

    Raises:
        ValueError: one is there under two names.
    """
    named: dict[str, Any] = {}
    for given, value in settings.items():
        name = name_of(given)
        if name in named:
            raise ValueError(f'{given} and {next(g for g in settings if name_of(g) == name)} are one setting; give one')
        named[name] = value
    return named
