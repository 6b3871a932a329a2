"""Suites of detectors: strict YAML files like those of classifiers, with the key ``detectors`` for ``models``."""

import fnmatch
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eca_zoo.detection.evaluation.detector_spec import DetectorSettings, DetectorSpec, expand_detector_names
from eca_zoo.detection.speed import SpeedSettings
from eca_zoo.errors import InputError
from eca_zoo.files import read_text
from eca_zoo.harness.suites import SuiteError, find_suite
from eca_zoo.strict_yaml import RecordError, load_yaml, typed_record

VERSION = 1


@dataclass(frozen=True)
class CocoSuite:
    """What stands in the file.

    Attributes:
        version: of the format, which is 1.
        detectors: names and patterns, in the order of the rows.
        evaluated: detectors of the suite, or patterns, that run over the images; by default all.
        data_dir: folder into which COCO was unpacked; the command's goes before it.
        annotations: file in the place of the one below ``data_dir``.
        images: folder in the place of the one below ``data_dir``.
        split: validation or train, or how the annotations are called (val2017).
        baseline: one of the detectors, which differences of AP and relative throughputs refer to.
        resamples: of the intervals of AP; 0 for none.
        seed: of the resamples.
        settings: device, precision, channels_last, fuse and workers.
        throughput: settings of the benchmark; without it nothing is timed.
    """

    version: int
    detectors: tuple[str, ...]
    evaluated: tuple[str, ...] | None = None
    data_dir: Path | None = None
    annotations: Path | None = None
    images: Path | None = None
    split: str = 'validation'
    baseline: str | None = None
    resamples: int = 1000
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    throughput: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            RecordError: one is out of range.
        """
        if self.version != VERSION:
            raise RecordError('version', f'expected {VERSION}, found {self.version}')
        if not self.detectors:
            raise RecordError('detectors', 'it names none; list at least one, such as maskrcnn_eca_resnet50_fpn')
        if self.resamples < 0:
            raise RecordError('resamples', f'must be at least 0, not {self.resamples}')
        self.detector_settings()
        self.speed_settings()

    def specs(self) -> list[DetectorSpec]:
        """The detectors that its names stand for."""
        return [DetectorSpec(name) for name in expand_detector_names(self.detectors)]

    def is_evaluated(self, title: str) -> bool:
        """Whether a detector runs over the images."""
        return self.evaluated is None or any(fnmatch.fnmatch(title, pattern) for pattern in self.evaluated)

    def detector_settings(self, **flags: Any) -> DetectorSettings:
        """How its detectors run; ``flags`` that are not None go before."""
        given = {name: value for name, value in flags.items() if value is not None}
        return _within('settings', {**self.settings, **given}, DetectorSettings)

    def speed_settings(self) -> SpeedSettings | None:
        """How they are timed; None for not at all."""
        return None if self.throughput is None else _within('throughput', self.throughput, SpeedSettings)


def _within(key: str, raw: dict[str, Any], kind: type[Any]) -> Any:
    try:
        return typed_record(raw, kind)
    except RecordError as error:
        raise RecordError('.'.join(filter(None, [key, error.key])), error.reason) from None
    except InputError as error:
        raise RecordError(key, str(error)) from None


def read_coco_suite(name_or_path: str) -> CocoSuite | None:
    """The suite of detectors in a file, or of a packaged name; None where it is none of detectors.

    Raises:
        SuiteError: there is no such suite, or a key is unknown, missing, of a wrong type or range.
    """
    path = find_suite(name_or_path)
    try:
        raw = load_yaml(read_text(path))
    except (OSError, ValueError):
        return None
    if not isinstance(raw, dict) or 'detectors' not in raw:
        return None
    try:
        return typed_record(raw, CocoSuite)
    except RecordError as error:
        raise SuiteError(f'{path}: {error}') from None
