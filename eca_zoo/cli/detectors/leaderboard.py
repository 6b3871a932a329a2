"""``leaderboard`` of a suite of detectors."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from eca_zoo.cli.flags import restart_of
from eca_zoo.cli.logs import complain
from eca_zoo.errors import InputError

if TYPE_CHECKING:
    from eca_zoo.detection.coco_suite import CocoSuite


def read(name: str) -> 'CocoSuite | None':
    """The suite of detectors that ``name`` stands for; None where it is one of classifiers."""
    from eca_zoo.detection.coco_suite import read_coco_suite

    return read_coco_suite(name)


def run(args: argparse.Namespace, suite: 'CocoSuite') -> int:
    """Run a suite of detectors; returns the exit code."""
    from eca_zoo.detection.evaluation.results import Progress
    from eca_zoo.detection.evaluation.table import to_text
    from eca_zoo.detection.leaderboard import run_coco_leaderboard
    from eca_zoo.harness.machine.processes import process_group
    from eca_zoo.harness.resume.signals import stop_on_signals
    from eca_zoo.progress import ProgressBars

    if args.batch_size is not None or args.check or args.format != 'eca':
        raise InputError('--batch-size, --check and --format are for suites of classifiers; leave them out')
    if len(args.data_dir or ()) > 1:
        raise InputError(f'--data-dir {args.data_dir[1]}: a suite of detectors has one data set; name its folder')
    folder = Path(args.data_dir[0]) if args.data_dir else None
    settings = suite.detector_settings(device=args.device, precision=args.precision, workers=args.workers)
    with stop_on_signals() as stop, process_group(stop.ends_waiting) as processes:
        bars = ProgressBars(processes.is_main and not args.quiet)

        def report(state: Progress) -> None:
            bars.show(state.part, state.done, state.total, unit=state.unit)

        with bars:
            done = run_coco_leaderboard(
                suite, args.run_dir, folder, settings=settings, restart=restart_of(args), processes=processes,
                command_line=sys.argv, report=report, stop=stop,
            )  # fmt: skip
    if done is None:
        return 0
    print(to_text(done.rows))
    for note in done.notes:
        print(note)
    print(f'written: {", ".join(map(str, done.files))}', flush=True)
    for error in done.errors:
        complain(f'eca-zoo leaderboard: failed: {error}')
    return 1 if done.errors else 0
