"""The subcommand of ``eca-zoo`` that runs a suite and writes the table."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eca_zoo.cli.collector import collect_as_usual
from eca_zoo.resources import packaged_names

if TYPE_CHECKING:
    import pandas as pd

_EPILOG = """\
A run that was killed continues when the same command is given again. On several GPUs or machines:
  torchrun --nproc-per-node 8 -m eca_zoo leaderboard imagenet --data-dir /data/imagenet --out runs/table
"""


def add_commands(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add this module's subcommands."""
    parser = subparsers.add_parser(
        'leaderboard',
        parents=parents,
        help='accuracy, complexity and throughput of a suite of networks, as CSV',
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('suite', metavar='SUITE', help=f'YAML file, or one of {", ".join(packaged_names("suites"))}')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='run directory; the table goes there')
    parser.add_argument('--data-dir', type=Path, metavar='DIR', help="folder or tar of the suite's data set")
    parser.add_argument(
        '--format', choices=('eca', 'timm'), default='eca', help="timm: write the two files of timm's leaderboard too"
    )
    parser.add_argument(
        '--check', action='store_true', help='exit with 1 if a top-1 is off by more than the tolerance of the suite'
    )
    parser.add_argument('--restart', action='store_true', help='forget what the run directory holds')
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from eca_zoo.api import leaderboard
    from eca_zoo.harness.machine.processes import process_group
    from eca_zoo.harness.resume.signals import stop_on_signals

    collect_as_usual()
    with stop_on_signals() as stop, process_group(stop.ends_waiting):
        if args.owns_process:
            _keep_memory(args.suite)
        table = leaderboard(
            args.suite, args.out, data_dir=args.data_dir, restart=args.restart, format=args.format, progress=True,
            command_line=sys.argv, stop=stop,
        )  # fmt: skip
    return 0 if table is None else _print(table, args.check)


def _keep_memory(name: str) -> None:
    """Keep freed memory where no throughput of the suite depends on it."""
    from eca_zoo.harness.machine.devices import resolve_device
    from eca_zoo.harness.machine.memory import keep_freed_memory
    from eca_zoo.harness.machine.processes import agreed
    from eca_zoo.harness.suites import read_suite

    timed = agreed(lambda: [resolve_device(settings.device) for settings in read_suite(name).throughput])
    if not any(device.type == 'cpu' for device in timed):
        keep_freed_memory()


def _print(table: 'pd.DataFrame', check: bool) -> int:
    """Print the table and what belongs to it; returns the exit code."""
    from eca_zoo.harness.leaderboard import check_reported
    from eca_zoo.harness.table.text import to_text

    print(to_text(table))
    for note in table.attrs['notes']:
        print(note)
    print(f'written: {", ".join(table.attrs["files"])}', flush=True)
    for error in table.attrs['errors']:
        print(f'eca-zoo leaderboard: failed: {error}', file=sys.stderr)
    deviations = check_reported(table, table.attrs['top1_tolerance']) if check else []
    for deviation in deviations:
        print(f'eca-zoo leaderboard: check: {deviation}', file=sys.stderr)
    return 1 if table.attrs['errors'] or deviations else 0
