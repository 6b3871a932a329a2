"""Suites: typed, strict YAML files that name networks, data and settings of a leaderboard."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eca_zoo.errors import InputError
from eca_zoo.files import read_text
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.data_spec import LABELS, DataSpec
from eca_zoo.harness.networks.baselines import PLAIN, Baseline, with_baseline
from eca_zoo.harness.networks.model_names import expand_model_names
from eca_zoo.harness.networks.model_spec import LOCAL_DIR, ModelSpec
from eca_zoo.harness.networks.user_checkpoint import training_title
from eca_zoo.harness.speed.settings import ThroughputSettings
from eca_zoo.harness.suite_file import SuiteData, SuiteFile, key_of, record_at, with_paths_from
from eca_zoo.resources import packaged_names, packaged_path
from eca_zoo.strict_yaml import RecordError, load_yaml


class SuiteError(InputError):
    """A suite that cannot be used as it is: names the file, the key and the reason."""


@dataclass(frozen=True)
class ValidationData:
    """A data set of a suite.

    Attributes:
        spec: the data set, without its folder if the suite names none.
        models: titles of the networks that are validated on it.
        images: name of the data set whose images these are with other labels; empty where they are its own.
        key: of the data set in the file.
    """

    spec: DataSpec
    models: tuple[str, ...]
    images: str = ''
    key: str = 'data'


@dataclass(frozen=True)
class Suite:
    """What a leaderboard runs.

    Attributes:
        name: of the file, without its extension.
        path: of the file.
        models: networks, in the order of the rows; baselines are among them.
        baseline: title of the network that relative throughputs refer to; ``plain`` for each network's own counterpart.
        bench: ``inference``, ``train`` or ``both``.
        img_size: height and width for all that is measured, where nothing else is said.
        data: what the networks are validated on; nothing for no accuracies.
        accuracy: settings of the validation.
        throughput: settings of the benchmark; a row a network for each of them.
        top1_tolerance: largest difference to the reported top-1, in percentage points, that passes a check.
        files: files and folders that it names, by key.
    """

    name: str
    path: Path
    models: tuple[ModelSpec, ...]
    baseline: str | None = None
    bench: str = 'inference'
    img_size: int | None = None
    data: tuple[ValidationData, ...] = ()
    accuracy: EvalSettings = field(default_factory=EvalSettings)
    throughput: tuple[ThroughputSettings, ...] = ()
    top1_tolerance: float = 0.1
    files: Mapping[str, Path] = field(default_factory=dict)


def read_suite(name_or_path: str, baseline: str | None = None) -> Suite:
    """Read and check a suite: a file, or the name of one that comes with the package (``imagenet``).

    Args:
        name_or_path: the file or name.
        baseline: in the place of the suite's own.

    Raises:
        SuiteError: there is none, it is no YAML, or a key is unknown, missing, repeated, of a wrong type or range.
        InputError: it names a model that timm does not know.
    """
    path = _find(name_or_path)
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f'{path}: cannot read the suite: {error}') from None
    return parse_suite(text, path, baseline)


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


def parse_suite(text: str, path: Path, baseline: str | None = None) -> Suite:
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
    return _Parser(path).suite(raw if baseline is None else raw | {'baseline': baseline})


@dataclass
class _Parser:
    """Reads one file, and collects the files and folders that it names."""

    path: Path
    files: dict[str, Path] = field(default_factory=dict)

    def suite(self, raw: dict[str, Any]) -> Suite:
        file: SuiteFile = self.record('', raw)
        listed = [spec for index, given in enumerate(file.models) for spec in self._specs(given, f'models[{index}]')]
        listed = list({spec.title: spec for spec in listed}.values())
        models, baseline = self._compared(listed, file.baseline)
        # A counterpart without weights is there for its speed.
        counted = [spec.title for spec in models if spec in listed or spec.pretrained]
        data = self._all_data(file.data, [spec.title for spec in models], counted)
        accuracy: EvalSettings = self.record('accuracy', file.accuracy)
        if accuracy.img_size is None and accuracy.input_size is None:
            accuracy = dataclasses.replace(accuracy, img_size=file.img_size)
        throughput = [
            self.record('throughput[]', entry, f'throughput[{index}]') for index, entry in enumerate(file.throughput)
        ]
        return Suite(
            name=self.path.stem,
            path=self.path,
            models=tuple(models),
            baseline=PLAIN if file.baseline == PLAIN else baseline.title if isinstance(baseline, ModelSpec) else None,
            bench=file.bench,
            img_size=file.img_size,
            data=data,
            accuracy=accuracy,
            throughput=tuple(dataclasses.replace(one, img_size=one.img_size or file.img_size) for one in throughput),
            top1_tolerance=self.record('check', file.check).top1,
            files=self.files,
        )

    def record(self, place: str, raw: Mapping[str, Any], key: str | None = None) -> Any:
        """The record of a part of the file, with paths from the file's folder; errors name file and key."""
        with self.named(place if key is None else key):
            record, files = with_paths_from(self.path.parent, record_at(place, raw))
        key = place if key is None else key
        self.files |= {f'{key}.{key_of(place, name)}': path for name, path in files.items()}
        return record

    @contextlib.contextmanager
    def named(self, key: str) -> Iterator[None]:
        try:
            yield
        except RecordError as error:
            where = '.'.join(filter(None, [key, error.key]))
            raise SuiteError(': '.join(filter(None, [str(self.path), where, error.reason]))) from None
        except InputError as error:
            raise SuiteError(f'{self.path}: {key}: {error}') from None

    def _specs(self, given: str | dict[str, Any], key: str) -> list[ModelSpec]:
        spec = self.record('models[]', {'name': given} if isinstance(given, str) else given, key)
        with self.named(key):
            EvalSettings(**spec.own_input()).check_values()
            names = self._expanded(spec.name)
        if len(names) > 1 and (spec.label or spec.checkpoint):
            raise SuiteError(
                f'{self.path}: {key}: {spec.name!r} stands for {len(names)} networks; a label or checkpoint is one'
            )
        if spec.checkpoint is not None and not spec.label:
            trained = training_title(spec.checkpoint)
            spec = dataclasses.replace(spec, label=trained and f'{trained}@{spec.checkpoint.name}')
        if names[0].startswith(LOCAL_DIR):
            # What the file says, wherever it lies.
            return [dataclasses.replace(spec, name=names[0], label=spec.label or spec.title)]
        return [dataclasses.replace(spec, name=name) for name in names]

    def _expanded(self, name: str) -> list[str]:
        """The networks that a name or pattern stands for; folders and lists are those from the file's folder."""
        if name.startswith(LOCAL_DIR):
            return expand_model_names([f'{LOCAL_DIR}{self.path.parent / name.removeprefix(LOCAL_DIR)}'])
        return expand_model_names([str(self.path.parent / name) if name.endswith('.txt') else name])

    def _compared(self, models: list[ModelSpec], name: str | None) -> tuple[list[ModelSpec], Baseline]:
        if name is None:
            return models, None
        with self.named('baseline'):
            return with_baseline(models, name)

    def _all_data(
        self, raw: dict[str, Any] | Sequence[dict[str, Any]] | None, titles: list[str], counted: list[str]
    ) -> tuple[ValidationData, ...]:
        """The data sets; models are validated on each: those ``counted`` by default."""
        if raw is None:
            return ()
        if isinstance(raw, dict):
            return (self._data(raw, 'data', titles, counted, {}),)
        found: dict[str, ValidationData] = {}
        rows: dict[str, str] = {}
        for index, given in enumerate(raw):
            one = self._data(given, f'data[{index}]', titles, counted, found)
            name = one.spec.results_name
            if one.spec.name in found or name in rows:
                raise SuiteError(f'{self.path}: {one.key}.name: the data set {name} is there twice; name each row once')
            found[one.spec.name], rows[name] = one, one.key
        return tuple(found.values())

    def _data(
        self, raw: dict[str, Any], key: str, titles: list[str], counted: list[str], before: dict[str, ValidationData]
    ) -> ValidationData:
        data: SuiteData = self.record('data', raw, key)
        spec = DataSpec(**{one.name: getattr(data, one.name) for one in dataclasses.fields(DataSpec)})
        if data.images is not None:
            spec = self._same_images(spec, data.images, key, before)
        chosen: list[str] = []
        with self.named(f'{key}.models'):
            for pattern in data.models or ():
                chosen += [pattern] if pattern in titles else expand_model_names([pattern])
        for name in chosen:
            if name not in titles:
                raise SuiteError(
                    f'{self.path}: {key}.models: {name} is not among the models of the suite; add it there'
                )
        models = counted if data.models is None else list(dict.fromkeys(chosen))
        return ValidationData(spec, tuple(models), data.images or '', key)

    def _same_images(self, spec: DataSpec, name: str, key: str, before: dict[str, ValidationData]) -> DataSpec:
        """``spec`` with the images of an earlier data set."""
        own = [one.name for one in dataclasses.fields(DataSpec) if one.name not in LABELS]
        given = [field for field in own if getattr(spec, field) != getattr(DataSpec(), field)]
        if given:
            raise SuiteError(
                f'{self.path}: {key}.{key_of("data", given[0])}: it is that of {name}, whose images these are; '
                'leave it out'
            )
        if name not in before or before[name].images:
            known = ', '.join(known for known, one in before.items() if not one.images) or 'none'
            raise SuiteError(
                f'{self.path}: {key}.images: {name} is no earlier data set with images of its own; there are {known}'
            )
        return dataclasses.replace(before[name].spec, **{field: getattr(spec, field) for field in LABELS})


def check_files(suite: Suite, left_out: Sequence[str] = ()) -> None:
    """Refuse a suite whose files are not there, before anything runs.

    Args:
        suite: what names them.
        left_out: keys of those that something else stands for.

    Raises:
        SuiteError: some are not there; all of them are named with their keys.
    """
    problems = []
    for key, path in suite.files.items():
        if key not in left_out and not path.exists():
            problems.append(f'{key}: there is no {path}')
        elif path.is_dir() and key.endswith('.checkpoint'):
            problems.append(f'{key}: {path} is a folder; name a file in it')
    if problems:
        raise SuiteError(f'{suite.path}: {"; ".join(problems)} (paths are relative to the folder of the suite)')


def with_settings(suite: Suite, settings: Mapping[str, Any]) -> Suite:
    """``suite`` with other settings for its validation and for all its throughputs, which are there once each then.

    Args:
        suite: what to change.
        settings: by name; one that is None, or that one of the two does not have, changes nothing there.
    """
    given = {name: value for name, value in settings.items() if value is not None}

    def changed(record: Any) -> Any:
        own = {one.name for one in dataclasses.fields(record)}
        return dataclasses.replace(record, **{name: value for name, value in given.items() if name in own})

    throughput = tuple(dict.fromkeys(changed(one) for one in suite.throughput))
    return dataclasses.replace(suite, accuracy=changed(suite.accuracy), throughput=throughput)
