"""Labels of a flat folder of images, from the ground-truth files that people have for ImageNet's validation set."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from eca_zoo.errors import InputError

_WORDNET_ID = re.compile(r'n\d{8}')
_SYNSETS_OF_THE_DEVKIT = ('meta.mat', 'map_clsloc.txt')
_ILSVRC_CLASSES = 1000

Label = str | int


def read_ground_truth(path: Path, names: Sequence[str]) -> list[Label]:
    """The label of each image: a WordNet id, or a class index from 0.

    Understood are:

    - Kaggle's ``LOC_val_solution.csv`` (``ImageId,PredictionString``);
    - lines of a file name and a WordNet id or class index from 0 (Caffe's ``val.txt``), separated by space, tab or
      comma;
    - one WordNet id a line, in the order of the file names (``imagenet_2012_validation_synset_labels.txt``);
    - the development kit's ``ILSVRC2012_validation_ground_truth.txt``: one number from 1 to 1000 a line, in the order
      of the file names. These numbers are *not* class indices: the kit's ``meta.mat`` (or ``map_clsloc.txt``) gives
      their WordNet ids, and must lie in the same folder as the file or beside it.
    - one class index from 0 a line, in the order of the file names, if 0 occurs.

    Args:
        path: the file.
        names: file names of the images, sorted.

    Raises:
        InputError: the file cannot be read, has another form, or does not label every image.
    """
    try:
        text = path.read_text(encoding='utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'{path}: cannot read the ground truth: {getattr(error, "strerror", None) or error}') from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f'{path}: the ground-truth file is empty; download it again')
    if lines[0].replace(' ', '') == 'ImageId,PredictionString':
        return _by_name(
            path, {row[0]: row[1].split()[0] for row in csv.reader(io.StringIO(text)) if len(row) > 1}, names
        )
    if len(re.split(r'[\s,]+', lines[0])) == 2:
        return _by_name(path, _pairs(path, lines), names)
    return _by_order(path, lines, names)


def _pairs(path: Path, lines: Sequence[str]) -> dict[str, str]:
    pairs = [re.split(r'[\s,]+', line) for line in lines]
    for number, pair in enumerate(pairs, 1):
        if len(pair) != 2:
            raise InputError(f'{path}: line {number}: expected a file name and its class, found {lines[number - 1]!r}')
    return {PurePosixPath(name).name: label for name, label in pairs}


def _by_name(path: Path, labels: dict[str, str], names: Sequence[str]) -> list[Label]:
    stems = {PurePosixPath(name).stem: label for name, label in labels.items()}
    result: list[Label] = []
    for name in names:
        label = stems.get(PurePosixPath(name).stem)
        if label is None:
            raise InputError(f'{path}: it has no label for {name}; name the ground-truth file of these images')
        result.append(_parsed(path, label))
    return result


def _by_order(path: Path, lines: Sequence[str], names: Sequence[str]) -> list[Label]:
    if len(lines) != len(names):
        raise InputError(
            f'{path}: it labels {len(lines)} images by their order, and there are {len(names)}; name the ground-truth '
            'file of these images, or one with file names in it'
        )
    labels = [_parsed(path, line) for line in lines]
    numbers = [label for label in labels if isinstance(label, int)]
    if not numbers or 0 in numbers:
        return labels
    synsets = _devkit_synsets(path)
    if max(numbers) > len(synsets):
        raise InputError(f'{path}: class {max(numbers)} is not among the {len(synsets)} of the development kit')
    return [synsets[number - 1] for number in numbers]


def _parsed(path: Path, label: str) -> Label:
    if _WORDNET_ID.fullmatch(label):
        return label
    if label.isdecimal():
        return int(label)
    raise InputError(f'{path}: {label!r} is neither a WordNet id (n01440764) nor a class index')


def _devkit_synsets(path: Path) -> list[str]:
    """WordNet ids in the order of the development kit's numbers, from a file of the kit in the folder of ``path``."""
    for folder in (path.parent, *(child for child in path.parent.iterdir() if child.is_dir())):
        for name in _SYNSETS_OF_THE_DEVKIT:
            file = folder / name
            if file.is_file():
                synsets = _read_meta(file) if file.suffix == '.mat' else _read_map(file)
                if len(synsets) >= _ILSVRC_CLASSES:
                    return synsets[:_ILSVRC_CLASSES]
                raise InputError(f'{file}: it names {len(synsets)} classes, expected {_ILSVRC_CLASSES}')
    raise InputError(
        f'{path}: its numbers from 1 are the order of the development kit, not class indices; put meta.mat of the kit '
        '(or map_clsloc.txt) beside the file, or give a ground-truth file with WordNet ids'
    )


def _read_map(path: Path) -> list[str]:
    """WordNet ids in the kit's ``map_clsloc.txt`` (``n02119789 1 kit_fox``), by their number from 1."""
    words = [line.split() for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]
    return [row[0] for row in sorted(words, key=lambda row: int(row[1]))]


def _read_meta(path: Path) -> list[str]:
    """WordNet ids of the leaves in the kit's ``meta.mat``, by their number from 1."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise InputError(f'{path}: reading it needs scipy (pip install scipy); or use map_clsloc.txt') from None
    records = loadmat(path, squeeze_me=True)['synsets']
    leaves = {int(record['ILSVRC2012_ID']): str(record['WNID']) for record in records if record['num_children'] == 0}
    return [leaves[number] for number in sorted(leaves)]
