"""Suites: typed, strict YAML files that name networks, data and settings of a leaderboard."""

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from eca_zoo.errors import InputError
from eca_zoo.files import read_text
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.networks.model_names import expand_model_names, expand_one
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.speed.settings import ThroughputSettings
from eca_zoo.resources import packaged_names, packaged_path
from eca_zoo.strict_yaml import RecordError, Strict, load_yaml, typed, typed_record

VERSION = 1
_BENCHES = ('inference', 'train', 'both')
_T = TypeVar('_T')


class SuiteError(InputError):
    """A suite that cannot be used as it is: names the file, the key and the reason."""


@dataclass(frozen=True)
class Suite:
    """What a leaderboard runs.

    Attributes:
        name: of the file, without its extension.
        models: networks, in the order of the rows; the baseline is one of them.
        baseline: title of the network that relative throughputs refer to.
        bench: ``inference``, ``train`` or ``both``.
        img_size: height and width for the complexity, where no throughput setting has one.
        data: what the networks are validated on, without its folder if the suite names none; None for no accuracies.
        validated: titles of the networks that are validated.
        accuracy: settings of the validation.
        throughput: settings of the benchmark; a row a network for each of them.
        top1_tolerance: largest difference to the reported top-1, in percentage points, that passes a check.
    """

    name: str
    models: tuple[ModelSpec, ...]
    baseline: str | None = None
    bench: str = 'inference'
    img_size: int | None = None
    data: DataSpec | None = None
    validated: tuple[str, ...] = ()
    accuracy: EvalSettings = field(default_factory=EvalSettings)
    throughput: tuple[ThroughputSettings, ...] = ()
    top1_tolerance: float = 0.1


class _Model(Strict, frozen=True):
    name: str
    label: str = ''
    pretrained: bool = True
    checkpoint: Path | None = None
    num_classes: int | None = None
    in_chans: int | None = None
    model_kwargs: dict[str, Any] = msgspec.field(default_factory=dict)


class _Check(Strict, frozen=True):
    top1: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.top1 <= 100:
            raise ValueError(f'top1 is a tolerance in percentage points, not {self.top1}')


class _File(Strict, frozen=True):
    version: int
    models: tuple[str | _Model, ...]
    baseline: str | None = None
    bench: str = 'inference'
    img_size: int | None = None
    data: dict[str, Any] | None = None
    accuracy: dict[str, Any] = msgspec.field(default_factory=dict)
    throughput: tuple[dict[str, Any], ...] = ()
    check: _Check = _Check()

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(f'version: expected {VERSION}, found {self.version}')
        if not self.models:
            raise ValueError('models: it names none; list at least one, such as eca_resnet50')
        if self.img_size is not None and self.img_size < 1:
            raise ValueError(f'img_size: must be at least 1, not {self.img_size}')
        if self.bench not in _BENCHES:
            raise ValueError(f'bench: use one of {", ".join(_BENCHES)}, not {self.bench!r}')


#: Names of settings in messages about a suite: its keys.
KEYS = {
    field.name: f'{place}.{field.name}'
    for place, kind in (('accuracy', EvalSettings), ('models', ModelSpec), ('data', DataSpec))
    for field in dataclasses.fields(kind)
}


def read_suite(name_or_path: str) -> Suite:
    """Read and check a suite: a file, or the name of one that comes with the package (``imagenet``).

    Raises:
        SuiteError: there is none, it is no YAML, or a key is unknown, missing, repeated, of a wrong type or range.
        InputError: it names a model that timm does not know.
    """
    path = _find(name_or_path)
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f'{path}: cannot read the suite: {error}') from None
    return parse_suite(text, path)


def _find(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.suffix in ('.yaml', '.yml') or path.is_file():
        if path.is_file():
            return path
        raise SuiteError(f'{path}: there is no such suite; the packaged ones are {", ".join(packaged_names("suites"))}')
    if name_or_path in packaged_names('suites'):
        return packaged_path(f'suites/{name_or_path}.yaml')
    raise SuiteError(f'{name_or_path!r} is no suite: name a .yaml file or one of {", ".join(packaged_names("suites"))}')


def _packaged() -> str:
    return ', '.join(packaged_names('suites'))


def parse_suite(text: str, path: Path) -> Suite:
    """Check and type the suite ``text``, which was read from ``path``.

    Raises:
        SuiteError: as ``read_suite``.
        InputError: it names a model that timm does not know.
    """
    try:
        raw = load_yaml(text)
    except ValueError as error:
        raise SuiteError(f'{path}: not a readable suite: {error}') from None
    if not isinstance(raw, dict):
        raise SuiteError(f'{path}: a suite is a mapping with the keys version and models, at least')
    with _named(path, ''):
        file = typed(raw, _File)
    models = {spec.title: spec for given in file.models for spec in _model_specs(given, path)}
    baseline = _baseline(file.baseline, models, path) if file.baseline else None
    if baseline is not None:
        models.setdefault(baseline.title, baseline)
    data, validated = _data(file.data, list(models), path)
    return Suite(
        name=path.stem,
        models=tuple(models.values()),
        baseline=baseline.title if baseline is not None else None,
        bench=file.bench,
        img_size=file.img_size,
        data=data,
        validated=validated,
        accuracy=_record(file.accuracy, EvalSettings, path, 'accuracy'),
        throughput=tuple(
            _record(entry, ThroughputSettings, path, f'throughput[{index}]', left_out=('train',))
            for index, entry in enumerate(file.throughput)
        ),
        top1_tolerance=file.check.top1,
    )


def _baseline(name: str, models: dict[str, ModelSpec], path: Path) -> ModelSpec:
    if name in models:
        return models[name]
    try:
        return ModelSpec(expand_one(name))
    except InputError as error:
        raise SuiteError(f'{path}: baseline: {error}') from None


def _model_specs(given: str | _Model, path: Path) -> list[ModelSpec]:
    if isinstance(given, str):
        return [ModelSpec(name) for name in expand_model_names([given])]
    names = expand_model_names([given.name])
    if len(names) > 1 and (given.label or given.checkpoint):
        raise SuiteError(
            f'{path}: models: {given.name!r} stands for {len(names)} networks; a label or checkpoint is one'
        )
    return [ModelSpec(**{**msgspec.structs.asdict(given), 'name': name}) for name in names]


def _data(raw: dict[str, Any] | None, titles: list[str], path: Path) -> tuple[DataSpec | None, tuple[str, ...]]:
    """The data set, and the titles of the models that are validated on it."""
    if raw is None:
        return None, ()
    raw = dict(raw)
    name, patterns = raw.pop('name', None), raw.pop('models', None)
    if not isinstance(name, str):
        raise SuiteError(f'{path}: data.name: what the table calls the data set, not {name!r}')
    spec = dataclasses.replace(_record(raw, DataSpec, path, 'data', left_out=('label',)), label=name)
    if patterns is None:
        return spec, tuple(titles)
    if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
        raise SuiteError(f'{path}: data.models: a list of names, not {patterns!r}')
    chosen = [
        name for pattern in patterns for name in ([pattern] if pattern in titles else expand_model_names([pattern]))
    ]
    for name in chosen:
        if name not in titles:
            raise SuiteError(f'{path}: data.models: {name} is not among the models of the suite; add it there')
    return spec, tuple(chosen)


def _record(raw: dict[str, Any], kind: type[_T], path: Path, key: str, left_out: tuple[str, ...] = ()) -> _T:
    """A dataclass from a mapping, whose unknown keys are errors."""
    with _named(path, key):
        return typed_record(raw, kind, left_out)


@contextlib.contextmanager
def _named(path: Path, key: str) -> Iterator[None]:
    """Errors of the records in it name the file and the whole key."""
    try:
        yield
    except RecordError as error:
        where = '.'.join(filter(None, [key, error.key]))
        raise SuiteError(f'{path}: {where}: {error.reason}' if where else f'{path}: {error.reason}') from None
