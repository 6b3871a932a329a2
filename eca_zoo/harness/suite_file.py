"""The file of a suite: its keys, their types and meanings, and the table of them for the documentation."""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.data_spec import PACKAGED, DataSpec
from eca_zoo.harness.data.labels import NAMED_CLASS_LISTS
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.speed.settings import ThroughputSettings
from eca_zoo.strict_yaml import RecordError, typed_record
from eca_zoo.vocabulary import OTHER_NAMES, with_own_names

VERSION = 1
BENCHES = ('inference', 'train', 'both')
# Settings that are files, or one of these names.
_FILES_OR_NAMES = {'real_labels': (PACKAGED,), 'valid_labels': NAMED_CLASS_LISTS}
_Record = TypeVar('_Record')


@dataclass(frozen=True)
class SuiteFile:
    """What stands in the file.

    Attributes:
        version: of the format, which is 1.
        models: networks, in the order of the rows: names, patterns, ``zoo``, ``plain``, ``all``, text files of names,
            or mappings with the keys of ``models[]``.
        baseline: network that ``relative_throughput`` refers to: a label, name or architecture among the models, or
            another network, which is added to them; ``plain`` is each network's own counterpart without ECA layers.
        bench: what is timed: inference, train or both.
        img_size: height and width of the images in pixels, for validation, complexity and throughput. That of
            ``accuracy`` or ``throughput[]`` goes before it, and that of a model before all; without any it is each
            network's own, and one for all throughputs with a baseline.
        data: what the networks are validated on; without it there are no accuracies.
        accuracy: settings of the validation.
        throughput: settings of the benchmark, a row a network for each entry; without it there is complexity alone.
        check: tolerances of ``--check``.
    """

    version: int
    models: tuple[str | dict[str, Any], ...]
    baseline: str | None = None
    bench: str = 'inference'
    img_size: int | None = None
    data: dict[str, Any] | None = None
    accuracy: dict[str, Any] = field(default_factory=dict)
    throughput: tuple[dict[str, Any], ...] = ()
    check: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            RecordError: one is out of range.
        """
        if self.version != VERSION:
            raise RecordError('version', f'expected {VERSION}, found {self.version}')
        if not self.models:
            raise RecordError('models', 'it names none; list at least one, such as eca_resnet50')
        if self.img_size is not None and self.img_size < 1:
            raise RecordError('img_size', f'must be at least 1, not {self.img_size}')
        if self.bench not in BENCHES:
            raise RecordError('bench', f'use one of {", ".join(BENCHES)}, not {self.bench!r}')


@dataclass(frozen=True)
class SuiteData(DataSpec):
    """A data set, and which networks are validated on it.

    Attributes:
        label: what the table calls the data set, which is required; figures that were reported on a data set of this
            name are compared.
        models: networks of the suite that are validated on it; by default all.
    """

    models: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check that there is a name.

        Raises:
            RecordError: there is none.
        """
        super().__post_init__()
        if not self.label:
            raise RecordError('name', 'what the table calls the data set is missing')


@dataclass(frozen=True)
class Check:
    """What passes.

    Attributes:
        top1: largest difference to the reported top-1, in percentage points, that passes ``--check``.
    """

    top1: float = 0.1

    def __post_init__(self) -> None:
        """Check the value.

        Raises:
            RecordError: it is out of range.
        """
        if not 0 <= self.top1 <= 100:
            raise RecordError('top1', f'a tolerance in percentage points, not {self.top1:g}')


@dataclass(frozen=True)
class _Place:
    """Keys of one record: those of its fields, but what is ``left_out``, under ``keys`` where they differ."""

    kind: type
    left_out: tuple[str, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)


_PLACES = {
    '': _Place(SuiteFile),
    'models[]': _Place(ModelSpec, ('module',)),
    'data': _Place(SuiteData, (), {'label': 'name', 'root': 'data_dir'}),
    'accuracy': _Place(EvalSettings),
    'throughput[]': _Place(ThroughputSettings, ('train',)),
    'check': _Place(Check),
}
# They are flags of the command too, under which messages name them.
_FLAGS = ('device', 'precision', 'batch_size', 'workers')

#: Names of settings in messages about a suite: its keys.
KEYS = {
    name: f'{place}.{keys.get(name, name)}'
    for place, keys in [(place, _PLACES[place].keys) for place in ('accuracy', 'models[]', 'data')]
    for name in [field.name for field in dataclasses.fields(_PLACES[place].kind)]
    if name not in _FLAGS
}

#: Settings of the benchmark that messages name by their keys.
THROUGHPUT_KEYS = tuple(one.name for one in dataclasses.fields(ThroughputSettings) if one.name not in _FLAGS)


def record_at(place: str, raw: Mapping[str, Any]) -> Any:
    """The record of a part of the file: ``''``, ``models[]``, ``data``, ``accuracy``, ``throughput[]`` or ``check``.

    Raises:
        RecordError: a key is unknown or missing, there under two names, or a value is of a wrong type or range.
    """
    known = _PLACES[place]
    try:
        named = with_own_names(raw)
    except ValueError as error:
        raise RecordError('', str(error)) from None
    return typed_record(named, known.kind, known.left_out, known.keys)


def key_of(place: str, name: str) -> str:
    """The key of a field of the record at ``place``."""
    return _PLACES[place].keys.get(name, name)


def keys_as_markdown() -> str:
    """All keys of a suite as a Markdown table."""
    lines = ['| key | value | default | meaning |', '|---|---|---|---|']
    for place, known in _PLACES.items():
        hints, meanings = typing.get_type_hints(known.kind), _meanings(known.kind)
        for one in dataclasses.fields(known.kind):
            if one.name not in known.left_out:
                key = known.keys.get(one.name, one.name)
                others = ''.join(f', `{other}`' for other in OTHER_NAMES.get(key, ()))
                name = f'`{place}.{key}`' if place else f'`{key}`'
                lines.append(f'| {name}{others} | {_value(hints[one.name])} | {_default(one)} | {meanings[one.name]} |')
    return '\n'.join(lines)


def _meanings(kind: type) -> dict[str, str]:
    """What the fields of a dataclass mean, from its docstring and those of its bases."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__[:-1]):
        section = inspect.cleandoc(one.__doc__ or '').partition('Attributes:\n')[2]
        for name, text in re.findall(r'^    (\w+): (.*(?:\n {5,}.*)*)', section, re.MULTILINE):
            found[name] = ' '.join(text.split()).replace('``', '`').replace('|', r'\|')
    return found


def _value(hint: Any) -> str:
    """A type as people say it."""
    if typing.get_origin(hint) is Literal:
        return ', '.join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return ' or '.join(dict.fromkeys(_value(part) for part in typing.get_args(hint) if part is not type(None)))
    if typing.get_origin(hint) is tuple:
        return 'list'
    words = {str: 'text', int: 'integer', float: 'number', bool: 'true, false', Path: 'path'}
    return words.get(hint, 'mapping')


def _default(one: 'dataclasses.Field[Any]') -> str:
    if one.default is dataclasses.MISSING:
        return 'required' if one.default_factory is dataclasses.MISSING else ''
    if isinstance(one.default, bool):
        return str(one.default).lower()
    return '' if one.default in (None, '', ()) else str(one.default)


def with_paths_from(folder: Path, record: _Record) -> tuple[_Record, dict[str, Path]]:
    """A record whose relative paths are those from ``folder``, and its files and folders by key.

    A class map that is not there stays as it is: it is looked for in the data set's folder, as timm does.
    """
    found: dict[str, Path] = {}
    for one in dataclasses.fields(record):  # type: ignore[arg-type]
        value = getattr(record, one.name)
        is_file = one.name in _FILES_OR_NAMES and value is not None and value not in _FILES_OR_NAMES[one.name]
        if isinstance(value, Path) or is_file:
            found[one.name] = folder / Path(value).expanduser()
    given = Path(getattr(record, 'class_map', None) or '')
    root = found.get('root')
    if 'class_map' in found and not found['class_map'].exists() and root is not None and (root / given).exists():
        found['class_map'] = root / given
    paths: dict[str, Any] = {name: str(path) if name in _FILES_OR_NAMES else path for name, path in found.items()}
    return dataclasses.replace(record, **paths), found  # type: ignore[type-var]
