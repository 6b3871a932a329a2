"""``validate`` of detectors: the flags that fit, the table of COCO's figures, results in COCO's format."""

import argparse
import contextlib
import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eca_zoo.cli.flags import restart_of
from eca_zoo.errors import InputError

if TYPE_CHECKING:
    from eca_zoo.detection.evaluation.results import DetectorResult

# Flags of validate that mean the same for detectors, by the names of their values.
_FITTING = {
    'version', 'command', 'run', 'debug', 'verbose', 'quiet', 'owns_process', 'print_completion', 'default_of',
    'no_counterpart', 'data', 'data_dir', 'split', 'model', 'checkpoint', 'num_classes', 'model_kwargs', 'workers',
    'device', 'precision', 'amp', 'amp_dtype', 'model_dtype', 'channels_last', 'fuse', 'results_file', 'results_format',
    'predictions', 'per_class', 'run_dir', 'record_every', 'restart', 'pretrained', 'retry', 'log_freq', 'seed',
    'batch_size',
}  # fmt: skip
DETECTOR_FLAGS = ('annotations', 'images', 'task', 'baseline', 'resamples', 'save_pictures')


def add_flags(parser: Any) -> None:
    """Add what ``validate`` takes for detectors alone."""
    group = parser.add_argument_group('detectors', "on data in COCO's format, by COCO's average precision")
    group.add_argument('--annotations', metavar='FILE', type=Path, help='of the data set (default: below --data-dir)')
    group.add_argument('--images', metavar='DIR', type=Path, help='of the data set (default: below --data-dir)')
    group.add_argument('--task', choices=('bbox', 'segm'), help='boxes or masks (default: all that a detector has)')
    group.add_argument('--baseline', metavar='MODEL', help='one of the models: differences to it, with intervals')
    group.add_argument(
        '--resamples', metavar='N', type=int, default=1000, help='of the intervals of AP; 0 for none (default: 1000)'
    )
    group.add_argument(
        '--save-pictures', metavar='N', type=int, help='draw the N worst images beside the --results-file or --run-dir'
    )


def are_detectors(names: Sequence[str]) -> bool:
    """Whether all names stand for detectors.

    Raises:
        InputError: some do.
    """
    from eca_zoo.weights.manifest import load_manifest

    entries = load_manifest().models.items()
    checkpoints = [name for name, entry in entries if entry.is_detector]
    known = {*checkpoints, *(name.partition('.')[0] for name in checkpoints)}
    found = [name for name in names if name.partition('.')[0] in known or _matches_alone(name, known)]
    if found and len(found) < len(names):
        other = next(name for name in names if name not in found)
        raise InputError(f'{found[0]} is a detector and {other} is none; validate them in two commands')
    return bool(found)


def _matches_alone(pattern: str, known: set[str]) -> bool:
    """Whether a shell pattern matches detectors and no classifier."""
    if not any(sign in pattern for sign in '*?[') or not fnmatch.filter(known, pattern):
        return False
    import timm

    return not timm.list_models(pattern)


def check_classifier_flags(args: argparse.Namespace) -> None:
    """Refuse flags of detectors for classifiers.

    Raises:
        InputError: there is one.
    """
    check_defaults(args, DETECTOR_FLAGS, 'is for detectors, and these models are classifiers')


def run(args: argparse.Namespace, precision: str) -> int:
    """Validate detectors."""
    from eca_zoo.cli.detectors.report import files_of, report
    from eca_zoo.detection.coco_images import open_coco
    from eca_zoo.detection.evaluation.run import evaluate_detectors
    from eca_zoo.harness.machine.processes import agreed, process_group
    from eca_zoo.harness.resume.signals import stop_on_signals
    from eca_zoo.progress import ProgressBars

    others = [name for name in vars(args) if name not in _FITTING and name not in DETECTOR_FLAGS]
    check_defaults(args, others, 'is for classifiers, and these models are detectors')
    with stop_on_signals() as stop, process_group(stop.ends_waiting) as processes:
        models, settings, files = agreed(lambda: (_specs(args), _settings(args, precision), files_of(args)))
        data = agreed(lambda: open_coco(args.data_dir, args.split, args.annotations, args.images))
        shown = processes.is_main and not args.quiet
        with _directory(args, models, processes.rank) as journal, ProgressBars(shown) as bars:
            results = evaluate_detectors(
                models, data, settings, tasks=(args.task,) if args.task else ('bbox', 'segm'),
                resamples=args.resamples, seed=args.seed, baseline=args.baseline, journal=journal, stop=stop,
                progress=lambda state: bars.show(state.part, state.done, state.total, unit=state.unit),
                record_every=args.record_every,
            )  # fmt: skip
        if not processes.is_main:
            return exit_code(results)
        return report(args, results, data, files)


def _directory(args: argparse.Namespace, models: Sequence[Any], rank: int) -> Any:
    """The run directory that was asked for, or nothing, for a ``with`` statement."""
    from eca_zoo.harness.machine.processes import agreed
    from eca_zoo.harness.resume.journal import RunDirectory
    from eca_zoo.harness.resume.restart import restarted

    restart = restart_of(args)
    if args.run_dir is None:
        if restart:
            raise InputError('--restart is about a --run-dir; name one')
        return contextlib.nullcontext()
    again = agreed(lambda: restarted(restart, [spec.title for spec in models]))
    return RunDirectory(args.run_dir, {'command': 'validate'}, again, rank)


def exit_code(results: Sequence['DetectorResult']) -> int:
    """0 without errors; 2 if nothing but wrong input went wrong with every detector; else 1."""
    codes = {result.exit_code for result in results}
    return max(codes) if len(codes) == 1 else 1


def check_defaults(args: argparse.Namespace, names: Sequence[str], what: str) -> None:
    """Refuse flags that were given another value than their default.

    Raises:
        InputError: there is one; ``what`` is the matter with it.
    """
    for name in names:
        if getattr(args, name) != args.default_of(name):
            raise InputError(f'--{name.replace("_", "-")} {what}; leave it out')


def _specs(args: argparse.Namespace) -> list[Any]:
    from eca_zoo.detection.evaluation.detector_spec import DetectorSpec, expand_detector_names

    names = expand_detector_names(args.model)
    if args.resamples < 0:
        raise InputError(f'--resamples is at least 0, not {args.resamples}')
    if args.checkpoint is not None and len(names) > 1:
        raise InputError(f'--checkpoint goes with one model, not with {len(names)}; name the one it belongs to')
    options = dict(args.model_kwargs)
    if args.num_classes is not None:
        options['num_classes'] = args.num_classes
    return [DetectorSpec(name, path, options) for name in names for path in args.checkpoint or (None,)]


def _settings(args: argparse.Namespace, precision: str) -> Any:
    from eca_zoo.detection.evaluation.detector_spec import DetectorSettings

    return DetectorSettings(args.device, precision, args.channels_last, args.fuse, args.workers)
