"""A benchmark of many networks under several settings, as rows that grow while it runs."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from eca_zoo.errors import InputError, RunError
from eca_zoo.harness.networks.complexity import complexity_of_spec
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.speed.results import ThroughputResult
from eca_zoo.harness.speed.rounds import Progress, throughput_groups
from eca_zoo.harness.speed.settings import ThroughputSettings
from eca_zoo.harness.table.columns import cells_of
from eca_zoo.harness.table.rows import ComplexityKey, Measured, complexity_key, join_measurements, reported_cells
from eca_zoo.weights.manifest import load_manifest

MODES = {'inference': (False,), 'train': (True,), 'both': (False, True), 'profile': ()}


@dataclass
class Measurements:
    """What to measure, and what is known so far.

    Attributes:
        specs: networks, in the order of the rows; the baseline is one of them.
        settings: of the throughputs; a row for each of them. With a baseline one image size holds for all, by
            default that of the first network.
        bench: ``inference``, ``train``, ``both``, or ``profile`` for complexity alone.
        baseline: the network that relative throughputs refer to.
        measured: throughputs by setting.
        complexities: their cells.
    """

    specs: list[ModelSpec]
    settings: list[ThroughputSettings]
    bench: str = 'inference'
    baseline: ModelSpec | None = None
    measured: list[tuple[ThroughputSettings, Measured]] = field(init=False)
    complexities: dict[ComplexityKey, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the settings before anything runs.

        Raises:
            InputError: a setting is not possible on this machine, or occurs twice.
        """
        if self.baseline is not None:
            img_size = _own_img_size(next((spec for spec in self.specs if spec != self.baseline), self.baseline))
            self.settings = [dataclasses.replace(one, img_size=one.img_size or img_size) for one in self.settings]
        modes = MODES[self.bench]
        every = [[dataclasses.replace(given, train=train).checked() for train in modes] for given in self.settings]
        self.measured = [(dataclasses.replace(checked[0], train=False), Measured()) for checked in every if checked]
        if not modes:
            self.measured = [(given, Measured()) for given in self.settings[:1]]
        for index, (settings, _) in enumerate(self.measured):
            if any(settings == other for other, _ in self.measured[:index]):
                raise InputError(f'a throughput setting occurs twice: {settings.precision} on {settings.device}')
        if self.baseline is not None and self.baseline.title not in {spec.title for spec in self.specs}:
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
                for group in throughput_groups(missing, wanted, self.baseline, progress=progress):
                    new = [result for result in group if result.model not in known]
                    known.update({result.model: result for result in new})
                    yield new

    def count_complexities(self, shared_cells: Mapping[str, Mapping[str, Any]]) -> Iterator[ComplexityKey]:
        """Count what the rows need and is not known yet; yields the key of each count."""
        for spec in self.specs:
            for settings, _ in self.measured:
                key = complexity_key(spec.title, settings, shared_cells.get(spec.title, {}))
                if key not in self.complexities:
                    self.complexity_of(key)
                    yield key

    def complexity_of(self, key: ComplexityKey) -> dict[str, Any]:
        """Cells of a complexity, counted once."""
        name, img_size, reparameterize = key
        if key not in self.complexities:
            spec = next(spec for spec in self.specs if spec.title == name)
            try:
                counts = complexity_of_spec(spec, img_size, reparameterize)
                folded = {'reparameterized': 'yes'} if reparameterize else {}
                self.complexities[key] = cells_of('complexity', counts) | folded
            except RunError as error:
                self.complexities[key] = {'error': str(error).removeprefix(f'{spec.name}: ')}
        return self.complexities[key]

    def table(self, shared_cells: dict[str, dict[str, Any]] | None = None, count: bool = True) -> pd.DataFrame:
        """The table as far as it is known.

        Args:
            shared_cells: cells that all rows of a network share; by default what its authors report.
            count: count the complexities that are not known yet.
        """
        names = [spec.title for spec in self.specs]
        if shared_cells is None:
            manifest = load_manifest()
            shared_cells = {name: reported_cells(name, manifest) for name in names}
        complexity_of = self.complexity_of if count else lambda key: self.complexities.get(key, {})
        return join_measurements(names, self.measured, complexity_of, shared_cells)


def _own_img_size(spec: ModelSpec) -> int | None:
    """Side of the images that a network is evaluated with by default; None if it cannot be built."""
    try:
        return complexity_of_spec(spec).input_size[-1]
    except RunError:
        return None
