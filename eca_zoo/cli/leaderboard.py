"""The subcommand of ``eca-zoo`` that runs a suite and writes the table."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eca_zoo.cli.collector import collect_as_usual
from eca_zoo.cli.flags import add_restart, add_run_dir, add_setting, restart_of
from eca_zoo.cli.logs import complain
from eca_zoo.errors import InputError
from eca_zoo.resources import packaged_names

if TYPE_CHECKING:
    import pandas as pd

_EPILOG = """\
A run that was killed continues when the same command is given again. On several GPUs or machines:
  torchrun --nproc-per-node 8 -m eca_zoo leaderboard imagenet --data-dir /data/imagenet --run-dir runs/table
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
    parser.add_argument(
        'suite', nargs='?', metavar='SUITE', help=f'YAML file, or one of {", ".join(packaged_names("suites"))}'
    )
    add_run_dir(parser, help='folder of the run; the table goes there, and a run that was killed goes on in it')
    parser.add_argument(
        '--data-dir', action='append', metavar='DIR',
        help="folder or tar of the suite's data set; NAME=DIR for each of several, or one folder that holds them all",
    )  # fmt: skip
    parser.add_argument(
        '--baseline', metavar='MODEL',
        help='network that accuracies and throughputs are compared with, or plain: each one without ECA layers '
        '(default: what the suite says)',
    )  # fmt: skip
    parser.add_argument('--format', choices=('eca', 'timm'), default='eca', help="timm: write timm's result files too")
    parser.add_argument('--report', action='store_true', help='write a page of the table too: report.html')
    parser.add_argument(
        '--check', action='store_true', help='exit with 1 if a top-1 is off by more than the tolerance of the suite'
    )
    # They go before the suite's own settings, of validation and throughput.
    own = '(default: what the suite says)'
    add_setting(parser, 'device', help=f'auto, cpu, cuda, cuda:1, mps or xpu {own}')
    add_setting(parser, 'batch_size', '-b', type=int, metavar='N', help=f'images a step {own}')
    add_setting(parser, 'precision', metavar='P', help=f'fp32, tf32, fp16, bf16, amp or amp_bf16 {own}')
    add_setting(parser, 'workers', '-j', type=int, metavar='N', help=f'processes that decode {own}')
    add_restart(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from eca_zoo.api import leaderboard
    from eca_zoo.harness.machine.processes import process_group
    from eca_zoo.harness.resume.signals import stop_on_signals

    if args.suite is None and args.restart:
        # `--restart SUITE`: the list of models has taken it.
        args.suite = args.restart.pop()
    if args.suite is None:
        raise InputError(f'name a suite: a YAML file, or one of {", ".join(packaged_names("suites"))}')
    if args.run_dir is None:
        raise InputError('the run needs a folder; name one with --run-dir DIR')
    from eca_zoo.cli.detectors import leaderboard as of_detectors

    collect_as_usual()
    if (detectors := of_detectors.read(args.suite)) is not None:
        return of_detectors.run(args, detectors)
    settings = {name: getattr(args, name) for name in ('device', 'batch_size', 'precision', 'workers')}
    with stop_on_signals() as stop, process_group(stop.ends_waiting):
        if args.owns_process:
            _keep_memory(args.suite, settings)
        table = leaderboard(
            args.suite, args.run_dir, data_dir=_folders(args.data_dir), baseline=args.baseline,
            restart=restart_of(args), format=args.format, report=args.report,
            progress=not args.quiet, command_line=sys.argv, stop=stop, **settings,
        )  # fmt: skip
    return 0 if table is None else _print(table, args.check)


def _folders(given: list[str] | None) -> dict[str, str] | None:
    """Folders by the name of their data set, which is empty for one without."""
    folders: dict[str, str] = {}
    for text in given or ():
        name, equals, folder = text.partition('=')
        name, folder = ('', text) if not equals or Path(text).exists() else (name, folder)
        if name in folders:
            raise InputError(
                f'--data-dir {text}: {name or folders[name]} was given before; name several data sets with '
                '--data-dir NAME=DIR'
            )
        folders[name] = folder
    return folders or None


def _keep_memory(name: str, flags: dict[str, Any]) -> None:
    """Keep freed memory where no throughput of the suite depends on it."""
    from eca_zoo.harness.machine.devices import resolve_device
    from eca_zoo.harness.machine.memory import keep_freed_memory
    from eca_zoo.harness.machine.processes import agreed
    from eca_zoo.harness.suites import read_suite, with_settings

    timed = agreed(lambda: [resolve_device(one.device) for one in with_settings(read_suite(name), flags).throughput])
    if not any(device.type == 'cpu' for device in timed):
        keep_freed_memory()


def _print(table: 'pd.DataFrame', check: bool) -> int:
    """Print the table and what belongs to it; returns the exit code."""
    from eca_zoo.harness.leaderboard_rows import check_reported
    from eca_zoo.harness.table.text import to_text

    print(to_text(table))
    for note in table.attrs['notes']:
        print(note)
    print(f'written: {", ".join(table.attrs["files"])}', flush=True)
    for error in table.attrs['errors']:
        complain(f'eca-zoo leaderboard: failed: {error}')
    deviations = check_reported(table, table.attrs['top1_tolerance']) if check else []
    for deviation in deviations:
        complain(f'eca-zoo leaderboard: check: {deviation}')
    return 1 if table.attrs['errors'] or deviations else 0
