"""The subcommand of ``eca-zoo`` that exports a network for deployment."""

import argparse
from pathlib import Path
from typing import Any

from eca_zoo.cli.flags import KeyValues
from eca_zoo.cli.names import add_names, one_name_in


def add_commands(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add this module's subcommands."""
    parser = subparsers.add_parser(
        'export', parents=parents, help='write a network as ONNX or torch.export, checked against its eager logits'
    )
    add_names(parser, "network of timm's registry, or local-dir:DIR")
    parser.add_argument('--checkpoint', type=Path, metavar='FILE', help='weights in the place of those of the name')
    parser.add_argument(
        '--format', choices=('onnx', 'torch-export'), help='default: by the end of --out (.onnx, .pt2), else onnx'
    )
    parser.add_argument('--out', type=Path, metavar='FILE', help='default: NAME.onnx or NAME.pt2')
    parser.add_argument('--random-weights', action='store_true', help='export it without a checkpoint')
    parser.add_argument('--img-size', type=int, metavar='N', help="height and width (default: the network's own)")
    parser.add_argument('--num-classes', type=int, metavar='N', help='classes (default: those of the checkpoint)')
    parser.add_argument(
        '--model-kwargs', metavar='KEY=VALUE', nargs='*', action=KeyValues, default={}, help='of its entry point'
    )
    parser.add_argument('--opset', type=int, metavar='N', help="ONNX operator set (default: PyTorch's current one)")
    parser.add_argument('--fuse', action='store_true', help='export the form for inference: batch norms folded')
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from eca_zoo.cli.detectors import export as of_detectors
    from eca_zoo.harness.networks.export import FORMATS, export_network
    from eca_zoo.harness.networks.model_names import expand_one

    given = one_name_in(args, 'network')
    if of_detectors.is_detector(given):
        return of_detectors.run(args, given)
    name = expand_one(given)
    format = args.format or next((kind for kind, end in FORMATS.items() if args.out and args.out.suffix == end), 'onnx')
    model_kwargs = dict(args.model_kwargs)
    if args.num_classes is not None:
        model_kwargs['num_classes'] = args.num_classes
    path = args.out or Path(Path(name).name + FORMATS[format])
    report = export_network(
        name, path, format, not args.random_weights, args.img_size, model_kwargs, args.opset, args.fuse,
        checkpoint=args.checkpoint,
    )  # fmt: skip
    opset = f', opset {report.opset}' if report.opset else ''
    print(f'{report.path}: {report.size} bytes, {report.format}{opset}, dynamic batch')
    print(f'logits differ from the eager ones by {report.error:.1e} (relative)')
    return 0
