"""A benchmark of many networks under several settings, as rows that grow while it runs."""

import dataclasses
import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from eca_zoo.errors import InputError, RunError
from eca_zoo.harness.networks.baselines import Baseline, baseline_of
from eca_zoo.harness.networks.complexity import complexity_of_spec
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.speed.own_process import runs_apart
from eca_zoo.harness.speed.results import ThroughputResult
from eca_zoo.harness.speed.rounds import Progress, throughput_groups
from eca_zoo.harness.speed.settings import ThroughputSettings
from eca_zoo.harness.table.columns import cells_of
from eca_zoo.harness.table.rows import (
    Accuracies,
    ComplexityKey,
    Measured,
    complexity_key,
    join_measurements,
    reported_cells,
)
from eca_zoo.weights.manifest import usable_manifest

_logger = logging.getLogger(__name__)

MODES = {'inference': (False,), 'train': (True,), 'both': (False, True), 'profile': ()}


@dataclass
class Measurements:
    """What to measure, and what is known so far.

    Attributes:
        specs: networks, in the order of the rows; baselines are among them, or one that all share comes after them.
        settings: of the throughputs; a row for each of them. With a baseline one image size holds for all, by
            default that of the first network.
        bench: ``inference``, ``train``, ``both``, or ``profile`` for complexity alone.
        baseline: the network that relative throughputs refer to, or by title each network's own.
        measured: throughputs by setting.
        complexities: their cells.
    """

    specs: list[ModelSpec]
    settings: list[ThroughputSettings]
    bench: str = 'inference'
    baseline: Baseline = None
    measured: list[tuple[ThroughputSettings, Measured]] = field(init=False)
    complexities: dict[ComplexityKey, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the settings before anything runs.

        Raises:
            InputError: a setting is not possible on this machine, or occurs twice.
        """
        if self.baseline is not None:
            first = next((spec for spec in self.specs if baseline_of(spec, self.baseline) != spec), self.specs[0])
            img_size = _own_img_size(first)
            self.settings = [dataclasses.replace(one, img_size=one.img_size or img_size) for one in self.settings]
        modes = MODES[self.bench]
        every = [[dataclasses.replace(given, train=train).checked() for train in modes] for given in self.settings]
        self.measured = [(dataclasses.replace(checked[0], train=False), Measured()) for checked in every if checked]
        if not modes:
            self.measured = [(given, Measured()) for given in self.settings[:1]]
        for index, (settings, _) in enumerate(self.measured):
            if any(settings == other for other, _ in self.measured[:index]):
                raise InputError(f'a throughput setting occurs twice: {settings.precision} on {settings.device}')
        if isinstance(self.baseline, ModelSpec) and self.baseline.title not in {spec.title for spec in self.specs}:
            self.specs = [*self.specs, self.baseline]

    def run(self, progress: Progress | None = None) -> Iterator[list[ThroughputResult]]:
        """Measure the throughputs that are missing; yields each group's results once they are in ``measured``."""
        for given, (settings, results) in zip(self.settings, self.measured, strict=False):
            for train in MODES[self.bench]:
                known = results.train if train else results.infer
                missing = [spec for spec in self.specs if spec.title not in known]
                if not missing:
                    continue
                # The device as it was given: without an index it stands for all GPUs.
                wanted = dataclasses.replace(settings, train=train, device=given.device)
                _log_start(missing, wanted, self.baseline)
                for group in throughput_groups(missing, wanted, self.baseline, progress=progress):
                    new = [result for result in group if result.model not in known]
                    known.update({result.model: result for result in new})
                    for result in new:
                        _log_result(result)
                    yield new

    def count_complexities(self, accuracies: Accuracies) -> Iterator[ComplexityKey]:
        """Count what the rows need and is not known yet; yields the key of each count."""
        for spec in self.specs:
            for (settings, _), cells in itertools.product(self.measured, accuracies.get(spec.title) or [{}]):
                key = self._own(complexity_key(spec.title, settings, cells))
                if key not in self.complexities:
                    self.complexity_of(key)
                    yield key

    def complexity_of(self, key: ComplexityKey) -> dict[str, Any]:
        """Cells of a complexity, counted once."""
        key = self._own(key)
        name, img_size, reparameterize = key
        if key not in self.complexities:
            spec = next(spec for spec in self.specs if spec.title == name)
            try:
                counts = complexity_of_spec(spec, img_size, reparameterize)
                folded = {'reparameterized': 'yes'} if reparameterize else {}
                self.complexities[key] = cells_of('complexity', counts) | folded
                size = f'{counts.params / 1e6:.2f} M parameters, {counts.macs / 1e9:.3g} GMACs'
                _logger.info('%s: %s at %d pixels', name, size, counts.input_size[-1])
            except RunError as error:
                self.complexities[key] = {'error': str(error).removeprefix(f'{spec.name}: ')}
        return self.complexities[key]

    def _own(self, key: ComplexityKey) -> ComplexityKey:
        """``key`` with the image size that the network says itself, if it says one."""
        spec = next(spec for spec in self.specs if spec.title == key[0])
        return spec.title, spec.img_size or key[1], key[2]

    def table(self, accuracies: Accuracies | None = None, count: bool = True) -> pd.DataFrame:
        """The table as far as it is known.

        Args:
            accuracies: cells of a network's rows on each data set; by default what its authors report.
            count: count the complexities that are not known yet.
        """
        names = [spec.title for spec in self.specs]
        if accuracies is None:
            manifest = usable_manifest()
            accuracies = {name: [reported_cells(name, manifest)] for name in names}
        complexity_of = self.complexity_of if count else lambda key: self.complexities.get(self._own(key), {})
        return join_measurements(names, self.measured, complexity_of, accuracies)


def _log_start(specs: list[ModelSpec], settings: ThroughputSettings, baseline: Baseline) -> None:
    own = ' beside its own baseline each' if baseline is not None else ''
    beside = f' beside {baseline.title}' if isinstance(baseline, ModelSpec) else own
    what = f'{"training" if settings.train else "inference"} of {len(specs)} networks{beside}'
    checked = settings.checked()
    apart = any(runs_apart(spec, checked) for spec in specs) and len(checked.spans) > 1
    processes = f' in {len(checked.spans)} processes' if apart else ''
    how = f'{settings.rounds} rounds of {settings.round_seconds:g} s{processes}'
    _logger.info('throughput: %s on %s, %s, %s; %s', what, settings.device, settings.backend, settings.precision, how)


def _log_result(result: ThroughputResult) -> None:
    if result.error is None:
        spread = 'one round' if result.spread_percent is None else f'spread {result.spread_percent:.1f} %'
        rate = f'{result.samples_per_sec:.2f} img/s ({spread})'
        _logger.info('%s: %s at batch size %d', result.model, rate, result.batch_size)


def _own_img_size(spec: ModelSpec) -> int | None:
    """Side of the images that a network is evaluated with by default; None if it cannot be built."""
    try:
        return complexity_of_spec(spec).input_size[-1]
    except RunError:
        return None
