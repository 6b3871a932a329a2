"""Which class of a model a label stands for: folder names, WordNet ids, class maps, ReaL labels, parts of classes."""

import json
import pkgutil
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from eca_zoo.errors import InputError
from eca_zoo.files import read_text

_WORDNET_ID = re.compile(r'n\d{8}')
_NUMBER = re.compile(r'\d+')
_VALIDATION_NAME = re.compile(r'ILSVRC2012_val_(\d{8})')
_SHOWN = 3
#: Names of lists of class indices that timm carries, for results over a part of the classes.
NAMED_CLASS_LISTS = ('imagenet-a', 'imagenet-r')
_SUBSET_SIZE = 200


class LabelError(InputError):
    """Labels that do not line up with the classes of a model."""


def map_classes(
    names: Sequence[str],
    num_classes: int,
    where: str,
    model: str = 'the model',
    label_names: Mapping[int, str] | None = None,
    remarks: list[str] | None = None,
) -> list[int]:
    """The model's class index of each class of a data set.

    Names that the model's config gives to its classes map by name. WordNet ids map to the ImageNet classes of a model
    that has as many classes as an ImageNet label set (1000, 11821, 21841, ...), subsets included. Numbers map by value.
    All other names map in the given order, and must be as many as the model has classes; a warning says so where the
    model names its classes otherwise.

    Args:
        names: classes of the data set, in the natural order of their names.
        num_classes: of the model.
        where: the data set, for messages.
        model: the model's name, for messages.
        label_names: of the model's class indices, where its config has them.
        remarks: gets what a user has to know.

    Raises:
        LabelError: the classes do not line up with the model's.
    """
    remarks = [] if remarks is None else remarks
    if label_names:
        by_name = _by_label_names(names, label_names, where, model, remarks)
        if by_name is not None:
            return by_name
    if all(_WORDNET_ID.fullmatch(name) for name in names):
        indices = _by_wordnet_id(names, num_classes, where, model)
    elif all(_NUMBER.fullmatch(name) for name in names):
        indices = _by_value(names, num_classes)
        label_names = None if indices is not None else label_names
    else:
        indices = None
    if indices is None and len(names) == num_classes:
        indices = list(range(num_classes))
    if indices is None:
        raise LabelError(
            f'{where}: it has {_counted(names)} and {model} has {num_classes} classes{_named(label_names)}; name '
            f'another data set or split, the --checkpoint of a network with {len(names)} classes, or say which is '
            'which with --class-map FILE'
        )
    if label_names:
        remarks.append(
            f'{where}: {model} has other names{_named(label_names)} for its classes: whether the order is the same is '
            'not known; say which is which with --class-map FILE'
        )
    return indices


def is_wordnet_id(name: str) -> bool:
    """Whether a name is one of WordNet's ids, as ImageNet's folders have: ``n01440764``."""
    return _WORDNET_ID.fullmatch(name) is not None


def natural_key(name: str) -> list[str | int]:
    """Sorts as ``timm.utils.natural_key`` does, numbers by value and letters of either case alike."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r'(\d+)', name.lower()))]


def _by_label_names(
    names: Sequence[str], label_names: Mapping[int, str], where: str, model: str, remarks: list[str]
) -> list[int] | None:
    """The class indices that the model's config gives to the names; None where it does not know them all."""
    known = {normal(name): index for index, name in label_names.items()}
    unknown = [name for name in names if normal(name) not in known]
    if len(known) < len(label_names) or len(unknown) == len(names):
        return None
    if unknown:
        if all(map(_WORDNET_ID.fullmatch, [*names, *known])):
            raise LabelError(
                f'{where}: {_counted(unknown)} of its {len(names)} are not among those of {model}; name another data '
                'set, or say which is which with --class-map FILE'
            )
        return None
    if len(names) < len(known) and not all(_WORDNET_ID.fullmatch(name) for name in names):
        remarks.append(f'{where}: it has {len(names)} of the {len(known)} classes of {model}')
    return [known[normal(name)] for name in names]


def _named(label_names: Mapping[int, str] | None) -> str:
    return f' ({_first(list(label_names.values()))})' if label_names else ''


def normal(name: str) -> str:
    """A name in the one of its Unicode forms in which names are compared: file systems and editors differ in theirs."""
    return unicodedata.normalize('NFC', name)


def _by_wordnet_id(names: Sequence[str], num_classes: int, where: str, model: str) -> list[int] | None:
    """Indices among the ImageNet classes of a model with ``num_classes``; None if it has no ImageNet label set."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({'num_classes': num_classes})
    if subset is None:
        return None
    known = {name: index for index, name in enumerate(ImageNetInfo(subset).label_names())}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise LabelError(
            f'{where}: {_counted(unknown)} of its {len(names)} are not among the classes of {subset}, which {model} '
            'has; name another data set, or say which is which with --class-map FILE'
        )
    return [known[name] for name in names]


def _by_value(names: Sequence[str], num_classes: int) -> list[int] | None:
    """The numbers that the names are; None where they cannot be class indices of this model.

    Names from 0 or 1 to fewer than the model's classes without a gap are a complete set of other classes (ten digits
    are not the first ten of ImageNet); numbers with gaps are a part of the model's.
    """
    values = [int(name) for name in names]
    if len(set(values)) < len(values) or max(values) >= num_classes:
        return None
    if max(values) - min(values) == len(values) - 1 and min(values) <= 1 and len(values) < num_classes:
        return None
    return values


def _counted(names: Sequence[str]) -> str:
    return f'{len(names)} {"class" if len(names) == 1 else "classes"} ({_first(names)})'


def _first(names: Sequence[str]) -> str:
    return ', '.join(names[:_SHOWN]) + (', ...' if len(names) > _SHOWN else '')


def read_class_map(path: Path) -> dict[str, int]:
    """Class indices by name: a text file whose line numbers (from 0) are the indices, or a JSON object.

    An empty line is an index without a name, as in timm.

    Raises:
        InputError: the file cannot be read or holds something else.
    """
    text = _read_text(path, 'class map')
    if path.suffix.lower() == '.json':
        pairs = _json_pairs(path, text)
    else:
        pairs = [(line.strip(), index) for index, line in enumerate(text.split('\n')) if line.strip()]
    indices = {normal(name): index for name, index in pairs}
    if len(indices) < len(pairs) or not indices:
        raise InputError(f'{path}: a class map names each class once, one a line')
    return indices


def _json_pairs(path: Path, text: str) -> list[tuple[str, int]]:
    """Names and indices in a JSON object, also those that it holds twice."""
    try:
        # Whatever is an object is a list of pairs, so that a list that is none is no JSON object.
        value = json.loads(text, object_pairs_hook=tuple)
    except ValueError as error:
        raise InputError(f'{path}: no readable JSON: {error}') from None
    if not isinstance(value, tuple) or not all(type(index) is int and index >= 0 for _, index in value) or not value:
        raise InputError(f'{path}: a class map in JSON is an object of class names and integer indices')
    return list(value)


def read_class_list(name: str) -> tuple[int, ...]:
    """The class indices of ``name``: one of ``NAMED_CLASS_LISTS``, or a text file with one index a line.

    Raises:
        InputError: it cannot be read, or holds anything but different indices.
    """
    if name in NAMED_CLASS_LISTS:
        content = pkgutil.get_data('timm.data', f'_info/{name.replace("-", "_")}_indices.txt')
        assert content is not None
        text = content.decode()
    else:
        text = _read_text(Path(name), 'list of class indices')
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    indices = tuple(int(line) for line in lines if _NUMBER.fullmatch(line))
    if not lines or len(set(indices)) < len(lines):
        raise InputError(f'{name}: a list of valid labels has one class index a line, each once')
    return indices


def named_subset(names: Sequence[str]) -> str | None:
    """The one of ``NAMED_CLASS_LISTS`` that has exactly these WordNet ids as classes; None if there is none."""
    if len(names) != _SUBSET_SIZE:
        return None
    from timm.data import ImageNetInfo

    synsets = ImageNetInfo('imagenet-1k').label_names()
    wanted = set(names)
    return next((n for n in NAMED_CLASS_LISTS if {synsets[index] for index in read_class_list(n)} == wanted), None)


def read_real_labels(path: Path | None, names: Sequence[str]) -> list[list[int]]:
    """The ReaL labels of ImageNet validation images; an image that nobody could label has none.

    Source: L. Beyer et al., Are we done with ImageNet? (arXiv:2006.07159).

    Args:
        path: the authors' ``real.json``; the copy that timm carries if it is None.
        names: file names of the images, with or without folders: ``ILSVRC2012_val_00000001.JPEG``.

    Raises:
        InputError: the file cannot be read, or a name is no validation image's.
    """
    if path is None:
        content = pkgutil.get_data('timm.data', '_info/imagenet_real_labels.json')
        assert content is not None
        text = content.decode()
    else:
        text = _read_text(path, 'ReaL labels')
    try:
        labels = json.loads(text)
    except ValueError as error:
        raise InputError(f'{path}: no readable JSON: {error}') from None
    if not isinstance(labels, list) or not all(isinstance(row, list) for row in labels):
        raise InputError(f'{path}: ReaL labels are a JSON list with a list of class indices for each validation image')
    result = []
    for name in names:
        number = validation_number(name)
        if number is None or number > len(labels):
            raise InputError(
                f'{name}: not an ImageNet validation image (ILSVRC2012_val_00000001.JPEG to {len(labels):08d}), so it '
                'has no ReaL labels; leave out --real-labels'
            )
        result.append([int(index) for index in labels[number - 1]])
    return result


def validation_number(name: str) -> int | None:
    """The number, from 1, of an ImageNet validation image by its file name; None for another file."""
    match = _VALIDATION_NAME.search(name)
    return int(match.group(1)) if match else None


def _read_text(path: Path, what: str) -> str:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'{path}: cannot read the {what}: {getattr(error, "strerror", None) or error}') from None
