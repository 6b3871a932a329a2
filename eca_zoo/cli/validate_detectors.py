"""``validate`` of detectors: the flags that fit, the table of COCO's figures, results in COCO's format."""

import argparse
import fnmatch
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eca_zoo.errors import InputError

if TYPE_CHECKING:
    from eca_zoo.detection.coco_images import CocoSet
    from eca_zoo.detection.evaluation.results import DetectorResult

# Flags of validate that mean the same for detectors, by the names of their values.
_FITTING = {
    'version', 'command', 'run', 'debug', 'verbose', 'default_of', 'no_counterpart', 'data', 'data_dir', 'split',
    'model', 'checkpoint', 'num_classes', 'model_kwargs', 'workers', 'device', 'precision', 'amp', 'amp_dtype',
    'model_dtype', 'channels_last', 'fuse', 'results_file', 'results_format', 'save_predictions', 'run_dir',
    'record_every', 'restart', 'pretrained', 'retry', 'log_freq', 'seed', 'batch_size',
}  # fmt: skip


def add_flags(parser: Any) -> None:
    """Add what ``validate`` takes for detectors alone."""
    group = parser.add_argument_group('detectors', "on data in COCO's format, by COCO's average precision")
    group.add_argument('--annotations', metavar='FILE', type=Path, help='of the data set (default: below --data-dir)')
    group.add_argument('--images', metavar='DIR', type=Path, help='of the data set (default: below --data-dir)')
    group.add_argument('--task', choices=('bbox', 'segm'), help='boxes or masks (default: all that a detector has)')
    group.add_argument('--per-class', metavar='FILE', type=Path, help='CSV: AP, AP50 and AP75 of each category')
    group.add_argument('--baseline', metavar='NAME', help='one of the models: differences to it, with intervals')
    group.add_argument(
        '--resamples', metavar='N', type=int, default=1000, help='of the intervals of AP; 0 for none (default: 1000)'
    )
    group.add_argument(
        '--save-pictures', metavar='N', type=int, help='draw the N worst images beside the --results-file or --run-dir'
    )


DETECTOR_FLAGS = ('annotations', 'images', 'task', 'per_class', 'baseline', 'resamples', 'save_pictures')


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
    _check(args, DETECTOR_FLAGS, 'is for detectors, and these models are classifiers')


def run(args: argparse.Namespace, precision: str) -> int:
    """Validate detectors."""
    from eca_zoo.cli.coco_report import report
    from eca_zoo.detection.coco_images import open_coco
    from eca_zoo.detection.evaluation.run import evaluate_detectors
    from eca_zoo.harness.machine.processes import agreed, process_group
    from eca_zoo.harness.resume.journal import RunDirectory
    from eca_zoo.harness.resume.signals import stop_on_signals
    from eca_zoo.progress import ProgressBars

    others = [name for name in vars(args) if name not in _FITTING and name not in DETECTOR_FLAGS]
    _check(args, others, 'is for classifiers, and these models are detectors')
    if args.restart and args.run_dir is None:
        raise InputError('--restart is about a --run-dir; name one')
    with stop_on_signals() as stop, process_group() as processes:
        models, settings, data = agreed(
            lambda: (
                _specs(args),
                _settings(args, precision),
                open_coco(args.data_dir or args.data, args.split, args.annotations, args.images),
            )
        )
        _check_output(args)
        directory: Any = _NoDirectory()
        if args.run_dir is not None:
            directory = RunDirectory(args.run_dir, {'command': 'validate'}, args.restart, processes.rank)
        with directory as journal, ProgressBars(processes.is_main) as bars:
            results = evaluate_detectors(
                models, data, settings, tasks=(args.task,) if args.task else ('bbox', 'segm'),
                resamples=args.resamples, seed=args.seed, baseline=args.baseline, journal=journal, stop=stop,
                progress=lambda state: bars.show(state.part, state.done, state.total, unit=state.unit),
                record_every=args.record_every,
            )  # fmt: skip
            if processes.is_main:
                _save(args, results, data)
        return report(args, results, data) if processes.is_main else max(result.exit_code for result in results)


class _NoDirectory:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *exception: object) -> None:
        return None


def _check(args: argparse.Namespace, names: Sequence[str], what: str) -> None:
    for name in names:
        if getattr(args, name) != args.default_of(name):
            raise InputError(f'--{name.replace("_", "-")} {what}; leave it out')


def _check_output(args: argparse.Namespace) -> None:
    if args.save_pictures is not None and args.save_pictures < 1:
        raise InputError(f'--save-pictures is a number of images, at least 1, not {args.save_pictures}')
    if args.save_pictures is not None and args.run_dir is None and args.results_file is None:
        raise InputError('--save-pictures puts them beside the --results-file or into the --run-dir; name one')
    if args.resamples < 0:
        raise InputError(f'--resamples is at least 0, not {args.resamples}')


def _specs(args: argparse.Namespace) -> list[Any]:
    from eca_zoo.detection.evaluation.detector_spec import DetectorSpec, expand_detector_names

    names = expand_detector_names(args.model)
    if args.checkpoint is not None and len(names) > 1:
        raise InputError(f'--checkpoint goes with one model, not with {len(names)}; name the one it belongs to')
    options = dict(args.model_kwargs)
    if args.num_classes is not None:
        options['num_classes'] = args.num_classes
    return [DetectorSpec(name, args.checkpoint, options) for name in names]


def _settings(args: argparse.Namespace, precision: str) -> Any:
    from eca_zoo.detection.evaluation.detector_spec import DetectorSettings

    return DetectorSettings(args.device, precision, args.channels_last, args.fuse, args.workers)


def _save(args: argparse.Namespace, results: Sequence['DetectorResult'], data: 'CocoSet') -> None:
    """Write the results in COCO's format, and pictures."""
    from eca_zoo.files import write_atomically

    good = [result for result in results if result.detections is not None]
    if args.save_predictions is not None:
        for result in good:
            for task in result.tasks:
                assert result.detections is not None
                path = results_path(args.save_predictions, result.model, task, len(good))
                write_atomically(path, result.detections.to_json(task), '--save-predictions')
    if args.save_pictures is not None:
        from eca_zoo.detection.evaluation.worst import draw_worst

        folder = (args.run_dir or args.results_file.parent) / 'pictures'
        for result in good:
            for path in draw_worst(result, data, folder / result.model, args.save_pictures):
                print(path, file=sys.stderr)


def results_path(given: Path, model: str, task: str, models: int) -> Path:
    """Where the results of a model and task go: ``given`` with the task, and the model's name if there are several."""
    stem = given.name.removesuffix('.json')
    return given.with_name(f'{stem}{f".{model}" if models > 1 else ""}.{task}.json')
