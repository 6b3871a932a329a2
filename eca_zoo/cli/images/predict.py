"""The subcommand ``predict``: the best classes of images without labels."""

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eca_zoo.cli.flags import add_device, add_setting, add_workers
from eca_zoo.cli.logs import complain

if TYPE_CHECKING:
    from eca_zoo.harness.accuracy.unlabelled.classifying import Classified

_FORMATS = ('table', 'csv', 'json', 'parquet')


def add_commands(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add this module's subcommands."""
    parser = subparsers.add_parser('predict', parents=parents, help='the best classes of image files and folders')
    parser.add_argument('images', nargs='+', metavar='IMAGES', type=Path, help='files, and folders with such')
    parser.add_argument('--model', '-m', metavar='NAME', required=True, help='timm model, hf-hub:... or local-dir:DIR')
    parser.add_argument('--topk', type=int, default=5, metavar='N', help='classes of each image (default: 5)')
    parser.add_argument('--checkpoint', metavar='FILE', type=Path, help='weights in place of those of the name')
    parser.add_argument('--num-classes', metavar='N', type=int, help="of the model (default: the checkpoint's)")
    parser.add_argument('--class-map', metavar='FILE', type=Path, help='class names, one a line, or JSON name: index')
    parser.add_argument('--img-size', metavar='N', type=int, help="height and width (default: the model's)")
    parser.add_argument('--crop-pct', metavar='F', type=float, help='share of the resized image that the crop keeps')
    parser.add_argument(
        '--preprocess', choices=('exact', 'fast'), default='exact', help="fast: nearly timm's pixels, in less time"
    )
    add_device(parser)
    add_setting(
        parser, 'batch_size', '-b', metavar='N', type=int, help='images a step (default: 256 on a GPU, 16 on the CPU)'
    )
    add_workers(parser)
    parser.add_argument('--format', choices=_FORMATS, help="default: that of --out's extension, else table")
    parser.add_argument('--out', metavar='FILE', type=Path, help='default: standard output')
    parser.add_argument('--skip-bad-images', action='store_true', help='list images that cannot be decoded')
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from eca_zoo.cli.detectors.validate import are_detectors
    from eca_zoo.errors import InputError
    from eca_zoo.harness.accuracy.settings import EvalSettings
    from eca_zoo.harness.accuracy.unlabelled.classifying import classify
    from eca_zoo.harness.accuracy.unlabelled.image_files import image_files
    from eca_zoo.harness.machine.processes import process_group
    from eca_zoo.progress import ProgressBars

    kind = _format(args)
    if are_detectors([args.model]):
        raise InputError(f'{args.model} is a detector; eca-zoo detect draws what it finds')
    settings = EvalSettings(
        batch_size=args.batch_size, workers=args.workers, img_size=args.img_size, crop_pct=args.crop_pct,
        device=args.device, precision=args.precision or 'fp32', fuse=args.fuse, preprocess=args.preprocess,
    )  # fmt: skip
    files = image_files(args.images)
    with process_group() as processes, ProgressBars(processes.is_main and not args.quiet) as bars:
        classified = classify(
            _spec(args), files, settings, args.topk, args.class_map, args.skip_bad_images,
            lambda done, total: bars.show(args.model, done, total, unit='img'),
        )  # fmt: skip
    if not processes.is_main:
        return 0
    _write(classified, kind, args.out)
    for one in classified:
        if one.error is not None:
            complain(f'eca-zoo predict: skipped {one.file}: {one.error}')
    return 0


def _format(args: argparse.Namespace) -> str:
    from eca_zoo.errors import InputError

    suffix = args.out.suffix[1:].lower() if args.out is not None else ''
    kind = args.format or (suffix if suffix in _FORMATS else 'table')
    if kind == 'parquet':
        if args.out is None:
            raise InputError('--format parquet needs a file; name one with --out')
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise InputError('--format parquet needs pyarrow: pip install pyarrow') from None
    return kind


def _spec(args: argparse.Namespace) -> Any:
    from eca_zoo.harness.networks.model_names import expand_one
    from eca_zoo.harness.networks.model_spec import ModelSpec

    return ModelSpec(expand_one(args.model), checkpoint=args.checkpoint, num_classes=args.num_classes)


def _write(classified: Sequence['Classified'], kind: str, path: Path | None) -> None:
    from eca_zoo.harness.table.files import write_text

    if kind == 'parquet':
        assert path is not None
        _write_parquet(classified, path)
        return
    text = {'csv': _as_csv, 'json': _as_json, 'table': _as_table}[kind](classified)
    if path is None:
        print(text, end='', flush=True)
    else:
        write_text(path, text)


def _rows(classified: Sequence['Classified']) -> list[dict[str, Any]]:
    """A row for each image and class."""
    return [
        {
            'file': one.file,
            'rank': rank,
            'class': guess.class_index,
            'name': guess.name,
            'probability': guess.probability,
        }
        for one in classified
        for rank, guess in enumerate(one.guesses, 1)
    ]


def _as_csv(classified: Sequence['Classified']) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ['file', 'rank', 'class', 'name', 'probability'], lineterminator='\n')
    writer.writeheader()
    writer.writerows(row | {'probability': f'{row["probability"]:.6f}'} for row in _rows(classified))
    return text.getvalue()


def _as_json(classified: Sequence['Classified']) -> str:
    images = []
    for one in classified:
        classes = [{'class': g.class_index, 'name': g.name, 'probability': g.probability} for g in one.guesses]
        images.append({'file': one.file, 'classes': classes} | ({'error': one.error} if one.error else {}))
    return json.dumps(images, indent=2, ensure_ascii=False) + '\n'


def _as_table(classified: Sequence['Classified']) -> str:
    rows = _rows(classified)
    shown = [
        (row['file'] if row['rank'] == 1 else '', f'{100 * row["probability"]:.2f} %', row['name']) for row in rows
    ]
    widths = [max((len(row[column]) for row in shown), default=0) for column in range(2)]
    return ''.join(f'{file.ljust(widths[0])}  {share.rjust(widths[1])}  {name}\n' for file, share, name in shown)


def _write_parquet(classified: Sequence['Classified'], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    from eca_zoo.files import replacing

    rows = _rows(classified)
    types = {
        'file': pyarrow.string(), 'rank': pyarrow.int32(), 'class': pyarrow.int32(), 'name': pyarrow.string(),
        'probability': pyarrow.float32(),
    }  # fmt: skip
    table = pyarrow.table({key: pyarrow.array([row[key] for row in rows], kind) for key, kind in types.items()})
    with replacing(path, '--out') as temporary:
        pyarrow.parquet.write_table(table, temporary)
