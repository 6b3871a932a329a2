"""Flags that several commands have: one name, one meaning and one default each.

A flag is called as the setting is in Python and in suites; timm's name stands beside it in the help, and earlier names
of this package are accepted without being there.
"""

import argparse
import ast
import contextlib
import math
from pathlib import Path
from typing import Any

from eca_zoo.vocabulary import EARLIER_NAMES, TIMM_NAMES

#: What names of networks can be.
NAMES = (
    "networks of timm's registry, zoo (the authors' six), plain (the same without ECA layers), all (every one with "
    "weights), patterns such as 'eca_resnet*', or text files of names"
)
#: What names of checkpoints can be; they stand for the same networks.
CHECKPOINTS = "checkpoint, network, zoo (the authors' six), all, pattern such as 'eca_resnet*', or text file of names"


def seconds(text: str) -> float:
    """A time that is not negative."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f'{text!r} is no time in seconds')


def add_setting(group: Any, name: str, *short: str, **options: Any) -> None:
    """Add the flag of a setting with all its names; the first of ``short`` are letters."""
    flags = [f'--{one.replace("_", "-")}' for one in (name, *TIMM_NAMES.get(name, ()))]
    group.add_argument(*short, *flags, **{'dest': name, **options})
    hidden = {key: value for key, value in options.items() if key not in ('dest', 'default', 'help', 'required')}
    for earlier in EARLIER_NAMES.get(name, ()):
        flag = f'--{earlier.replace("_", "-")}'
        group.add_argument(flag, dest=name, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **hidden)


def add_running(group: Any) -> None:
    """Add flags that say how a network runs, wherever it does."""
    add_setting(group, 'device', default='auto', help='auto, cpu, cuda, cuda:1, mps or xpu (default: auto)')
    add_setting(
        group, 'batch_size', '-b', metavar='N', type=int, help='images a step (default: 256 on a GPU, 16 on the CPU)'
    )
    group.add_argument('--amp', action='store_true', help='autocast to the --amp-dtype; same as --precision amp')
    group.add_argument('--amp-dtype', default='float16', choices=('float16', 'bfloat16'), help='of --amp')
    add_setting(
        group, 'channels_last', action=argparse.BooleanOptionalAction,
        help='memory format of parameters and images (default: contiguous where they are timed, as a network is built; '
        'where they are only counted, the faster one: channels-last on the CPU and CUDA)',
    )  # fmt: skip
    add_setting(group, 'compile_mode', metavar='MODE', default='', help='of torch.compile, such as max-autotune')
    add_setting(group, 'fuse', action='store_true', help='run the form for inference: batch norms folded')
    add_setting(group, 'reparameterize', action='store_true', help='fold the branches of models that are made for it')


def add_device(group: Any) -> None:
    """Add flags that say how one network runs over a few images."""
    add_setting(group, 'device', default='auto', help='auto, cpu, cuda, cuda:1, mps or xpu (default: auto)')
    group.add_argument('--precision', metavar='P', help='fp32, tf32, fp16, bf16, amp or amp_bf16 (default: fp32)')
    add_setting(group, 'fuse', action='store_true', help='run the form for inference: batch norms folded')


def add_compile(group: Any) -> None:
    """Add the flag of the compiler."""
    add_setting(
        group, 'compile', metavar='BACKEND', nargs='?', const='inductor', default='',
        help='torch.compile, with this backend (inductor if none is named)',
    )  # fmt: skip


def add_workers(group: Any) -> None:
    """Add the flag of the processes that decode images."""
    add_setting(group, 'workers', '-j', metavar='N', type=int, help='processes that decode (default: by processors)')


def add_run_dir(group: Any, **options: Any) -> None:
    """Add the flag of the folder in which a run that was killed goes on."""
    add_setting(group, 'run_dir', metavar='DIR', type=Path, **options)


def add_restart(group: Any) -> None:
    """Add the flag that forgets what a run has measured: nothing (None), all of it (an empty list), or some models."""
    group.add_argument(
        '--restart', nargs='*', metavar='MODEL',
        help='forget what the --run-dir holds, or what it holds of these models (names or patterns), such as one with '
        'new weights',
    )  # fmt: skip


def restart_of(args: argparse.Namespace) -> bool | list[str]:
    """What ``--restart`` asks for, as the functions of the package take it."""
    return args.restart is not None and (args.restart or True)


class KeyValues(argparse.Action):
    """``key=value`` pairs; a value is a Python literal, or text."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        pairs = {}
        for item in values:
            key, equals, text = item.partition('=')
            if not equals:
                parser.error(f'{option_string}: expected KEY=VALUE, not {item!r}')
            try:
                pairs[key] = ast.literal_eval(text)
            except (ValueError, SyntaxError):
                pairs[key] = text
        setattr(namespace, self.dest, pairs)
