"""ECA-Net for timm: importing this package registers the networks with timm's model factory.

What is listed in ``__all__`` is imported when it is first used.
"""

import importlib
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eca_zoo.api import benchmark, complexity, evaluate, leaderboard, read_table, train, write_timm_files
    from eca_zoo.models import EcaLayer, optimize_for_inference

    __version__: str

_MODULES = {
    'EcaLayer': 'eca_zoo.models',
    'benchmark': 'eca_zoo.api',
    'compare': 'eca_zoo.api',
    'complexity': 'eca_zoo.api',
    'evaluate': 'eca_zoo.api',
    'leaderboard': 'eca_zoo.api',
    'optimize_for_inference': 'eca_zoo.models',
    'read_table': 'eca_zoo.api',
    'report': 'eca_zoo.api',
    'train': 'eca_zoo.api',
    'write_timm_files': 'eca_zoo.api',
}

__all__ = [
    'EcaLayer',
    '__version__',
    'benchmark',
    'compare',
    'complexity',
    'evaluate',
    'leaderboard',
    'optimize_for_inference',
    'read_table',
    'report',
    'train',
    'write_timm_files',
]


def _is_command() -> bool:
    """Whether this process is the console script ``eca-zoo`` or ``python -m eca_zoo``.

    The command imports torch only when it needs it, so that --help answers at once, and reports a manifest that cannot
    be read in one line; it imports ``eca_zoo.models`` before it builds a network.
    """
    if sys.argv[:1] == ['-m']:
        return ('-m', 'eca_zoo') in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    return bool(sys.argv) and PurePath(sys.argv[0]).name in ('eca-zoo', 'eca-zoo.exe')


if not _is_command():
    from eca_zoo import models  # noqa: F401


def __getattr__(name: str) -> Any:
    if name == '__version__':
        from importlib.metadata import version

        return version('eca-zoo')
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return __all__
