"""``export`` of a detector."""

import argparse
from pathlib import Path

from eca_zoo.cli.detectors import validate
from eca_zoo.errors import InputError


def is_detector(name: str) -> bool:
    """Whether ``name`` stands for a detector."""
    return validate.are_detectors([name])


def run(args: argparse.Namespace, pattern: str) -> int:
    """Export a detector; returns the exit code."""
    from eca_zoo.detection.evaluation.detector_spec import DetectorSpec, expand_detector_names
    from eca_zoo.detection.export import export_detector

    names = expand_detector_names([pattern])
    if len(names) > 1:
        raise InputError(f'{pattern!r} stands for {len(names)} detectors; name one')
    if args.format == 'torch-export' or (args.format is None and args.out is not None and args.out.suffix == '.pt2'):
        raise InputError(f'{names[0]}: detectors are exported to onnx; leave out --format, or name a file .onnx')
    if args.img_size is not None:
        raise InputError('--img-size: a detector is exported for images of any size; leave it out')
    options = dict(args.model_kwargs)
    if args.num_classes is not None:
        options['num_classes'] = args.num_classes
    spec = DetectorSpec(names[0], args.checkpoint, options)
    reports = export_detector(
        spec, args.out or Path(f'{names[0]}.onnx'), not args.random_weights, args.opset, args.fuse
    )  # fmt: skip
    for report in reports:
        print(
            f'{report.path}: {report.size} bytes, onnx, opset {report.opset}, dynamic height and width, outputs differ '
            f'from the eager ones by {report.error:.1e} (relative)'
        )
    return 0
