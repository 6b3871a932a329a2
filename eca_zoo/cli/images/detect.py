"""The subcommand ``detect``: pictures of what a detector finds in images, and the detections as JSON."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eca_zoo.cli.flags import add_device

if TYPE_CHECKING:
    from eca_zoo.detection.networks.detectors import Detector


def add_commands(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add this module's subcommands."""
    parser = subparsers.add_parser('detect', parents=parents, help='draw what a detector finds in images')
    parser.add_argument('images', nargs='+', metavar='IMAGES', type=Path, help='files, and folders with such')
    parser.add_argument('--model', '-m', metavar='NAME', required=True, help='a detector: eca-zoo list shows them')
    parser.add_argument('--out', metavar='DIR', type=Path, required=True, help='for the pictures and detections.json')
    parser.add_argument('--threshold', type=float, default=0.5, metavar='F', help='least score (default: 0.5)')
    parser.add_argument('--checkpoint', metavar='FILE', type=Path, help='weights in place of those of the name')
    add_device(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from eca_zoo.detection.evaluation.detector_spec import (
        DetectorSettings,
        DetectorSpec,
        expand_detector_names,
        load_detector,
    )
    from eca_zoo.errors import InputError
    from eca_zoo.files import write_atomically
    from eca_zoo.harness.accuracy.unlabelled.image_files import image_files
    from eca_zoo.harness.machine.flags import numeric_flags

    if not 0 <= args.threshold <= 1:
        raise InputError(f'--threshold is from 0 to 1, not {args.threshold}')
    names = expand_detector_names([args.model])
    if len(names) > 1:
        raise InputError(f'{args.model!r} stands for {len(names)} detectors; name one')
    settings = DetectorSettings(args.device, args.precision or 'fp32', fuse=args.fuse).checked()
    files = image_files(args.images)
    if args.out.exists() and not args.out.is_dir():
        raise InputError(f'{args.out}: is a file; name a folder with --out')
    detector = load_detector(DetectorSpec(names[0], args.checkpoint), settings).module
    with numeric_flags(settings.precision):
        found = _draw_all(detector, files, args.out, args.threshold, settings.precision, not args.quiet)
    text = json.dumps(found, indent=1, ensure_ascii=False) + '\n'
    write_atomically(args.out / 'detections.json', text.encode(), '--out')
    count = sum(len(image['detections']) for image in found)
    print(f'{count} objects in {len(files)} images: {args.out / "detections.json"} and a picture each')
    return 0


def _draw_all(
    detector: 'Detector', files: Sequence[Path], out: Path, threshold: float, precision: str, progress: bool
) -> list[dict[str, Any]]:
    """Draw what is found in each file; returns the detections."""
    import torch
    from PIL import Image

    from eca_zoo.detection.networks.files import read_image
    from eca_zoo.detection.pictures import draw, objects_of
    from eca_zoo.files import replacing
    from eca_zoo.harness.machine.devices import autocast
    from eca_zoo.progress import ProgressBars

    device = next(detector.parameters()).device
    found = []
    names = _picture_names(files)
    with ProgressBars(progress) as bars:
        for done, (file, name) in enumerate(zip(files, names, strict=True), 1):
            pixels = read_image(file)
            with torch.inference_mode(), autocast(precision, device):
                [result] = detector([pixels])
            image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
            with replacing(out / name, '--out') as temporary:
                draw(image, objects_of(result, detector.categories, threshold)).save(temporary, 'PNG')
            found.append({'file': str(file), 'picture': name, 'width': image.width, 'height': image.height,
                          'detections': _entries(result, detector.categories, threshold)})  # fmt: skip
            bars.show('detect', done, len(files), unit='img')
    return found


def _picture_names(files: Sequence[Path]) -> list[str]:
    """Names of pictures: those of the files, numbered where two have one."""
    taken: dict[str, int] = {}
    names = []
    for file in files:
        number = taken[file.stem] = taken.get(file.stem, 0) + 1
        names.append(f'{file.stem}.png' if number == 1 else f'{file.stem}.{number}.png')
    return names


def _entries(result: Mapping[str, Any], categories: Mapping[int, str], threshold: float) -> list[dict[str, Any]]:
    """Detections as JSON, boxes and masks as in COCO's results."""
    masks = result.get('masks')
    entries = []
    rows = zip(result['boxes'].tolist(), result['labels'].tolist(), result['scores'].tolist(), strict=True)
    for index, ((x1, y1, x2, y2), label, score) in enumerate(rows):
        if score < threshold:
            continue
        entry = {'category_id': label, 'name': categories[label], 'score': score, 'bbox': [x1, y1, x2 - x1, y2 - y1]}
        if masks is not None:
            entry['segmentation'] = {'size': masks[index]['size'], 'counts': masks[index]['counts'].decode()}
        entries.append(entry)
    return entries
