"""``benchmark`` of detectors: complexity, and images a second one by one."""

import argparse
from typing import Any

from eca_zoo.cli.detectors import validate
from eca_zoo.cli.logs import complain
from eca_zoo.cli.names import names_in
from eca_zoo.errors import InputError

# Flags of benchmark that mean the same for detectors, by the names of their values.
_FITTING = {
    'version', 'command', 'run', 'debug', 'verbose', 'quiet', 'owns_process', 'print_completion', 'default_of', 'names',
    'model', 'model_kwargs', 'num_classes', 'baseline', 'bench', 'device', 'precision', 'amp', 'amp_dtype',
    'channels_last', 'fuse', 'img_size', 'rounds', 'round_seconds', 'warmup_steps', 'threads', 'results_file',
    'results_format',
}  # fmt: skip


def are_detectors(args: argparse.Namespace) -> bool:
    """Whether the names stand for detectors.

    Raises:
        InputError: some do.
    """
    return validate.are_detectors(names_in(args))


def run(args: argparse.Namespace) -> int:
    """Count and time detectors, print the table and write it; returns the exit code."""
    from eca_zoo.detection.evaluation.table import complexity_cells, speed_cells, to_text, write_table
    from eca_zoo.detection.speed import time_detectors
    from eca_zoo.harness.resume.signals import terminated_as_interrupted
    from eca_zoo.harness.table.results_file import ResultsFile
    from eca_zoo.progress import ProgressBars

    others = [name for name in vars(args) if name not in _FITTING]
    validate.check_defaults(args, others, 'is for classifiers, and these models are detectors')
    if args.bench not in ('inference', 'profile'):
        raise InputError(f'--bench {args.bench}: of detectors inference is timed; use inference or profile')
    file = None if args.results_file is None else ResultsFile(args.results_file, args.results_format)
    specs, settings, speed = _specs(args), _settings(args), _speed(args)
    if args.bench == 'profile':
        results = [_counted(spec) for spec in specs]
    else:
        with terminated_as_interrupted(), ProgressBars(not args.quiet) as bars:

            def show(done: int, total: int, text: str) -> None:
                bars.show('benchmark', done, total, text, 'round')

            results = time_detectors(specs, settings, speed, args.baseline, show)
    rows = []
    for one in results:
        cells = complexity_cells(one.complexity) if one.complexity is not None else {}
        rows.append({'model': one.model, **cells, **speed_cells(one)})
    print(to_text(rows))
    if file is not None:
        write_table(file, rows)
        print(f'The table is in {file.path}', flush=True)
    for one in results:
        if one.error is not None:
            complain(f'eca-zoo benchmark: failed: {one.model}: {one.error}')
    return 1 if any(one.error is not None for one in results) else 0


def _specs(args: argparse.Namespace) -> list[Any]:
    from eca_zoo.detection.evaluation.detector_spec import DetectorSpec, expand_detector_names

    options = dict(args.model_kwargs)
    if args.num_classes is not None:
        options['num_classes'] = args.num_classes
    names = names_in(args)
    if args.baseline is not None and args.baseline not in names:
        names.append(args.baseline)
    return [DetectorSpec(name, options=options) for name in expand_detector_names(names)]


def _settings(args: argparse.Namespace) -> Any:
    from eca_zoo.detection.evaluation.detector_spec import DetectorSettings

    if (args.amp and args.precision) or (args.precision and len(args.precision) > 1):
        raise InputError('detectors are timed in one precision; give one --precision, or --amp')
    precision = f'amp_{args.amp_dtype}' if args.amp else args.precision[0] if args.precision else 'fp32'
    return DetectorSettings(args.device, precision, bool(args.channels_last), args.fuse)


def _speed(args: argparse.Namespace) -> Any:
    from eca_zoo.detection.speed import SpeedSettings

    size = {'image_size': (args.img_size, args.img_size)} if args.img_size is not None else {}
    return SpeedSettings(
        rounds=args.rounds, round_seconds=args.round_seconds, warmup_steps=args.warmup_steps, threads=args.threads,
        **size,
    )  # fmt: skip


def _counted(spec: Any) -> Any:
    from eca_zoo.detection.complexity import detector_complexity
    from eca_zoo.detection.speed import DetectorSpeed

    return DetectorSpeed(spec.title, complexity=detector_complexity(spec.name, **spec.options))
