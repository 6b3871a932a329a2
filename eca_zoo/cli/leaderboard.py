"""The subcommand of ``eca-zoo`` that runs a suite and writes the table."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eca_zoo.harness.leaderboard import Leaderboard

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
    parser.add_argument('suite', metavar='SUITE', help='YAML file, or imagenet, complexity, throughput or digits')
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
    from eca_zoo.cli.benchmark import PartBars
    from eca_zoo.harness.leaderboard import run_leaderboard
    from eca_zoo.harness.machine.processes import agreed, process_group
    from eca_zoo.harness.resume.signals import stop_on_signals
    from eca_zoo.harness.suites import read_suite

    with stop_on_signals() as stop, process_group() as processes, PartBars() as bars:
        suite = agreed(lambda: read_suite(args.suite))
        leaderboard = run_leaderboard(
            suite,
            args.out,
            args.data_dir,
            restart=args.restart,
            timm_format=args.format == 'timm',
            processes=processes,
            command_line=sys.argv,
            report=bars.show,
            stop=stop,
        )
    if leaderboard is None:
        return 0
    return _print(leaderboard, suite.top1_tolerance if args.check else None)


def _print(leaderboard: 'Leaderboard', tolerance: float | None) -> int:
    """Print the table and what belongs to it; returns the exit code."""
    from eca_zoo.harness.leaderboard import check_reported
    from eca_zoo.harness.table.text import to_text

    print(to_text(leaderboard.table))
    for note in leaderboard.notes:
        print(note)
    print(f'written: {", ".join(map(str, leaderboard.files))}', flush=True)
    for error in leaderboard.errors:
        print(f'eca-zoo leaderboard: failed: {error}', file=sys.stderr)
    deviations = [] if tolerance is None else check_reported(leaderboard.table, tolerance)
    for deviation in deviations:
        print(f'eca-zoo leaderboard: check: {deviation}', file=sys.stderr)
    return 1 if leaderboard.errors or deviations else 0
