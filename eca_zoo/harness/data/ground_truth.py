"""Labels of a flat folder of images, from the ground-truth files that people have for ImageNet's validation set."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from eca_zoo.errors import InputError
from eca_zoo.files import read_text
from eca_zoo.harness.data.labels import natural_key, normal, validation_number

_WORDNET_ID = re.compile(r'n\d{8}')
_SYNSETS_OF_THE_DEVKIT = ('meta.mat', 'map_clsloc.txt')
_ILSVRC_CLASSES = 1000
_SEPARATORS = r'[\s,]+'
_PAIR = re.compile(rf'(.*[^\s,]){_SEPARATORS}([^\s,]+)')

Label = str | int


def read_ground_truth(path: Path, names: Sequence[str], remarks: list[str] | None = None) -> list[Label]:
    """The label of each image: a WordNet id, or a class index from 0.

    Understood are:

    - Kaggle's ``LOC_val_solution.csv`` (``ImageId,PredictionString``);
    - lines of a path and a WordNet id or class index from 0 (Caffe's ``val.txt``), separated by space, tab or comma;
      the path is that below the data set's folder, or ends alike, or is the file's name where only one has it;
    - one WordNet id a line, in the order of the file names (``imagenet_2012_validation_synset_labels.txt``);
    - the development kit's ``ILSVRC2012_validation_ground_truth.txt``: one number from 1 to 1000 a line, in the order
      of the file names. These numbers are *not* class indices: the kit's ``meta.mat`` (or ``map_clsloc.txt``) gives
      their WordNet ids, and must lie in the same folder as the file or beside it.
    - one class index from 0 a line, in the order of the file names, if 0 occurs.

    Args:
        path: the file.
        names: paths of the images below the data set's folder, in any order.
        remarks: gets what a user has to know.

    Raises:
        InputError: the file cannot be read, has another form, does not label every image, or may mean another image by
            a label.
    """
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'{path}: cannot read the ground truth: {getattr(error, "strerror", None) or error}') from None
    lines = [line.strip() for line in text.split('\n') if line.strip()]
    if not lines:
        raise InputError(f'{path}: the ground-truth file is empty; download it again')
    if lines[0].replace(' ', '') == 'ImageId,PredictionString':
        return _by_name(path, _kaggles(path, text), names, remarks)
    if len(re.split(_SEPARATORS, lines[0])) > 1:
        return _by_name(path, _pairs(path, lines), names, remarks)
    return _by_order(path, lines, names)


def _kaggles(path: Path, text: str) -> Iterator[tuple[str, str]]:
    for row in list(csv.reader(io.StringIO(text)))[1:]:
        if row and (len(row) != 2 or not row[1].split()):
            raise InputError(f'{path}: {row[0]} has no label; expected an image and its PredictionString')
        if row:
            yield row[0], row[1].split()[0]


def _pairs(path: Path, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """File names and labels; a name may have spaces in it, if it ends like a file name."""
    for number, line in enumerate(lines, 1):
        found = _PAIR.fullmatch(line)
        name, label = (part.strip('"') for part in found.groups()) if found else ('', '')
        words = re.split(_SEPARATORS, name)
        if not name or (len(words) > 1 and not PurePosixPath(name).suffix[1:].isalnum()):
            raise InputError(f'{path}: line {number}: expected a file name and its class, found {line!r}')
        yield name, label


def _by_name(
    path: Path, pairs: Iterable[tuple[str, str]], names: Sequence[str], remarks: list[str] | None
) -> list[Label]:
    """The label of each image: of its path, or of one that ends alike, or of the only one with its name.

    Paths in the file may begin above the data set's folder or below it, and lack their extension.
    """
    labels: dict[tuple[str, ...], str] = {}
    for name, label in pairs:
        if labels.setdefault(_parts(name), label) != label:
            raise InputError(
                f'{path}: it has two labels for {name}: {labels[_parts(name)]} and {label}; remove the wrong one'
            )
    by_stem: dict[str, list[tuple[str, ...]]] = {}
    for parts in labels:
        by_stem.setdefault(_stem(parts[-1]), []).append(parts)
    taken: dict[tuple[str, ...], str] = {}
    result: list[Label] = []
    for name in names:
        parts = _line_of(path, name, labels, by_stem)
        if taken.setdefault(parts, name) != name:
            raise InputError(
                f"{path}: {'/'.join(parts)} may be {taken[parts]} or {name}; write paths below the data set's folder"
            )
        result.append(_parsed(path, labels[parts]))
    unused = ['/'.join(parts) for parts, label in labels.items() if parts not in taken and _is_label(label)]
    if unused and remarks is not None:
        remarks.append(f'{path}: {len(unused)} of its {len(labels)} labels belong to no image here ({unused[0]})')
    return result


def _line_of(
    path: Path, name: str, labels: Mapping[tuple[str, ...], str], by_stem: Mapping[str, list[tuple[str, ...]]]
) -> tuple[str, ...]:
    """The path in the file that is meant by the image ``name``."""
    own = _parts(name)
    if own in labels:
        return own
    same_name = by_stem.get(_stem(own[-1]), [])
    if not same_name:
        raise InputError(f'{path}: it has no label for {name}; name the ground-truth file of these images')
    alike = [parts for parts in same_name if _end_alike(parts, own)]
    alike = [parts for parts in alike if parts[-1] == own[-1]] or alike
    longest = max((min(len(parts), len(own)) for parts in alike), default=0)
    found = [parts for parts in alike if min(len(parts), len(own)) == longest] or same_name
    if len(found) > 1:
        shown = ' or '.join('/'.join(parts) for parts in found[:2])
        raise InputError(f"{path}: whether {name} is {shown} is not known; write paths below the data set's folder")
    return found[0]


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in normal(name).replace('\\', '/').split('/') if part not in ('', '.'))


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _end_alike(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether one of the paths ends with all of the other, extensions apart."""
    shared = min(len(one), len(other)) - 1
    return one[len(one) - 1 - shared : -1] == other[len(other) - 1 - shared : -1]


def _by_order(path: Path, lines: Sequence[str], names: Sequence[str]) -> list[Label]:
    if len(lines) != len(names):
        raise InputError(
            f'{path}: it labels {len(lines)} images by their order, and there are {len(names)}; name the ground-truth '
            'file of these images, or one with file names in it'
        )
    labels = [_parsed(path, line) for line in lines]
    numbers = [label for label in labels if isinstance(label, int)]
    if numbers and 0 not in numbers:
        synsets = _devkit_synsets(path)
        if max(numbers) > len(synsets):
            raise InputError(f'{path}: class {max(numbers)} is not among the {len(synsets)} of the development kit')
        labels = [synsets[label - 1] if isinstance(label, int) else label for label in labels]
    return [labels[place] for place in _places(path, names)]


def _places(path: Path, names: Sequence[str]) -> list[int]:
    """The place of each image in the order of the file names, where there is only one that can be meant."""
    numbers = [validation_number(name) for name in names]
    if None not in numbers and len(set(numbers)) == len(numbers):
        orders = [sorted(range(len(names)), key=lambda position: numbers[position] or 0)]
    else:
        files = [PurePosixPath(name).name for name in names]
        keys: list[Sequence[Any]] = [names, files, list(map(natural_key, names)), list(map(natural_key, files))]
        orders = [sorted(range(len(names)), key=key.__getitem__) for key in keys]
    for other in orders[1:]:
        for one, another in zip(orders[0], other, strict=True):
            if one != another:
                raise InputError(
                    f'{path}: it labels images by their order, and whether {names[one]} or {names[another]} comes '
                    'first is not known; give a file with file names in it'
                )
    places = [0] * len(names)
    for place, position in enumerate(orders[0]):
        places[position] = place
    return places


def _is_label(text: str) -> bool:
    return _WORDNET_ID.fullmatch(text) is not None or text.isdecimal()


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
    words = [line.split() for line in read_text(path).split('\n') if line.strip()]
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
