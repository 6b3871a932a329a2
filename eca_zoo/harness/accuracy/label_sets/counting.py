"""Models that are counted on one set of labels: its part of the journal, the results, and the sums of all processes."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from eca_zoo.errors import EcaZooError, InputError, one_line, with_names
from eca_zoo.harness.accuracy.input_plan import InputPlan
from eca_zoo.harness.accuracy.label_sets.right_images import from_text, to_text, union
from eca_zoo.harness.accuracy.label_sets.set_counts import counts_by_set
from eca_zoo.harness.accuracy.loaded_network import LoadedNetwork
from eca_zoo.harness.accuracy.passes import NetworkInPass
from eca_zoo.harness.accuracy.predictions import Part, PredictionStore
from eca_zoo.harness.accuracy.results import AccuracyResult
from eca_zoo.harness.accuracy.run_log import log_continued, log_result
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.accuracy.tally import DeviceTally, Tally
from eca_zoo.harness.data.datasets import OpenData
from eca_zoo.harness.data.images import BadImage
from eca_zoo.harness.machine.devices import hardware_name
from eca_zoo.harness.machine.gpus import hardware_kind
from eca_zoo.harness.machine.processes import Processes, from_main, gather, sum_counts
from eca_zoo.harness.networks.class_names import names_of_classes
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.networks.pretrained import label_names, weights_identity
from eca_zoo.harness.resume.journal import RunDirectory

_logger = logging.getLogger(__name__)

#: Part of the journal of a run on one data set.
TABLE = 'accuracy'
# They move work about and no digit.
_FREE_SETTINGS = ('workers', 'pin_memory', 'prefetch')

#: What the journal holds of a model that is not finished: its blocks, and in the main process their counts.
Before = tuple[list[int], list[dict[str, Any]]]


def table_of(dataset: str) -> str:
    """Part of the journal for one data set of several; what stands after a slash there is a model."""
    return f'{TABLE} on {dataset.replace("/", "_")}'


@dataclass
class LabelSet:
    """One set of labels of the images of a run, and the models that are counted on it.

    Attributes:
        data: the images with these labels.
        models: that are counted.
        settings: checked settings.
        processes: this process among those of the run.
        journal: an open run directory.
        say: tells users what they have to know, once.
        names: of settings in messages.
        table: part of the journal.
        store: keeps predictions.
        results: by title.
    """

    data: OpenData
    models: Sequence[ModelSpec]
    settings: EvalSettings
    processes: Processes
    journal: RunDirectory | None
    say: Callable[[Sequence[str]], None]
    names: Mapping[str, str] = field(default_factory=dict)
    table: str = TABLE
    store: PredictionStore | None = None
    results: dict[str, AccuracyResult] = field(default_factory=dict)
    _class_indices: dict[tuple[str, int], list[int]] = field(default_factory=dict)

    def waits_for(self, spec: ModelSpec) -> bool:
        """Whether a model has to be counted."""
        return spec.title not in self.results and any(spec.title == own.title for own in self.models)

    def class_indices(self, title: str, num_classes: int, plan: InputPlan) -> list[int]:
        """The class index of each label for a model; what there is to say of it is said once."""
        key = title, num_classes
        if key not in self._class_indices:
            names, remarks = label_names(plan.cfg, num_classes), list[str]()
            self._class_indices[key] = self.data.class_indices(num_classes, title, names, remarks)
            self.say(remarks)
        return self._class_indices[key]

    def require(self) -> dict[str, dict[str, Any]]:
        """Check that the journal is of this evaluation; returns the rows that it holds. For the main process."""
        if self.journal is None or not self.processes.is_main:
            return {}
        self.journal.require(self.table, self._identity())
        for spec in self.models:
            try:
                weights = weights_identity(spec) | spec.own_input()
            except InputError as error:
                _logger.debug('%s; it fails by itself when it is loaded', error)
            else:
                self.journal.require(f'{self.table}/{spec.title}', weights)
        return self.journal.finished_rows(self.table)

    def take_rows(self, rows: Mapping[str, dict[str, Any]]) -> None:
        """Take the rows that the journal holds."""
        titles = [spec.title for spec in self.models]
        self.results |= {title: AccuracyResult.from_json(rows[title]) for title in titles if title in rows}
        log_continued(len(self.results), len(titles))
        if self.store is not None:
            for title, (_, partials) in self.counted_before(list(self.results)).items():
                self.store.collect(title, [partial['predictions'] for partial in partials])

    def _identity(self) -> dict[str, Any]:
        settings = dataclasses.asdict(self.settings)
        for name in _FREE_SETTINGS:
            del settings[name]
        device = torch.device(self.settings.device)
        settings['device'] = device.type
        return {
            'gpu': hardware_kind(device),
            'data': self.data.fingerprints(),
            'settings': settings,
            'predictions': self.store is not None,
        }

    def take(self, result: AccuracyResult, parts: list[Part]) -> None:
        """Take a result, and guesses, that another process has counted."""
        self.results[result.model] = result
        if self.store is not None:
            self.store.put(result.model, parts)
        if result.error is None and self.journal is not None:
            self.journal.record_row(result.model, result.to_json(), self.table)

    def fail(self, spec: ModelSpec, plan: InputPlan | None, error: Exception) -> None:
        """Take it that a model cannot be evaluated."""
        text = str(error) if isinstance(error, EcaZooError) else f'{spec.title}: {one_line(error)}'
        _logger.debug('%s failed', spec.title, exc_info=error)
        self.results[spec.title] = AccuracyResult(
            model=spec.title,
            name=spec.name,
            dataset=self.data.spec.results_name,
            checkpoint=spec.checkpoint,
            error=with_names(text, self.names),
            exit_code=error.exit_code if isinstance(error, EcaZooError) else 1,
            **_transform_columns(plan),
        )
        log_result(self.results[spec.title])

    def member(self, spec: ModelSpec, plan: InputPlan, network: LoadedNetwork) -> NetworkInPass:
        """A model for a pass.

        Raises:
            InputError: its classes do not line up with the labels.
        """
        indices = self.class_indices(spec.title, network.num_classes, plan)
        valid = self.data.valid_labels
        if valid is not None and max(valid) >= network.num_classes:
            raise InputError(f'valid label {max(valid)} is none of the {network.num_classes} classes of {spec.title}')
        assert self.settings.batch_size is not None
        images = None if self.data.images.is_stream else len(self.data.images)
        return NetworkInPass(
            spec.title, network, plan, self.settings.batch_size, torch.tensor(indices), frozenset(), valid,
            DeviceTally(network.num_classes, torch.device(self.settings.device), images), data=self.data,
        )  # fmt: skip

    def counted_before(self, titles: Sequence[str]) -> dict[str, Before]:
        """For each model the blocks that the journal has counts of, and these counts (in the main process alone)."""
        found: dict[str, Before] = {title: ([], []) for title in titles}
        if self.journal is not None and self.processes.is_main:
            for title in titles:
                blocks: set[int] = set()
                for partial in self.journal.partials(f'{self.table}/{title}'):
                    # A process that outlived its run may have recorded blocks that were counted again since.
                    if blocks.isdisjoint(partial['blocks']):
                        blocks.update(partial['blocks'])
                        found[title][1].append(partial)
                found[title][0].extend(sorted(blocks))
        blocks_alone = from_main({title: blocks for title, (blocks, _) in found.items()})
        return {title: (blocks_alone[title], found[title][1]) for title in titles}

    def record(self, member: NetworkInPass) -> None:
        """Write what a model has counted since the last time, with its predictions, to the journal."""
        if self.store is not None:
            file = self.store.add(member.title, member.predictions)
            member.predictions = []
        else:
            file = None
        if self.journal is None or self.data.images.is_stream:
            return
        tally, right = member.tally.take(), member.tally.right()
        new = tally - member.recorded if member.recorded is not None else tally
        self.journal.record_partial(
            f'{self.table}/{member.title}',
            {
                'blocks': member.new_blocks,
                'counts': new.to_json(),
                'right': None if right is None else to_text(right[self._positions(member.new_blocks)]),
                'bad': [list(image) for image in member.new_bad],
                'by_gpu': member.new_by_gpu,
                'predictions': file,
                'weights': member.network.weights_sha256,
            },
        )
        member.recorded = tally
        member.bad += member.new_bad
        member.by_gpu += member.new_by_gpu
        member.new_blocks, member.new_bad, member.new_by_gpu = [], [], 0

    def _positions(self, blocks: Sequence[int]) -> list[int]:
        """Positions of the images of ``blocks``, block by block."""
        size, count = self.settings.batch_size, len(self.data.images)
        assert size is not None
        return [at for block in blocks for at in range(block * size, min((block + 1) * size, count))]

    def finish(self, spec: ModelSpec, member: NetworkInPass, before: Before) -> None:
        """Add up what all processes counted of a model, and record its result."""
        tally = member.tally.take()
        stored = [image for partial in before[1] for image in partial['bad']]
        for partial in before[1]:
            tally += Tally.from_json(partial['counts'], member.network.num_classes)
        found = [image for part in gather([*member.bad, *member.new_bad]) for image in part]
        bad = sorted({BadImage(*image) for image in [*from_main(stored), *found]})
        if self.store is not None:
            self.store.collect(member.title, [partial['predictions'] for partial in before[1]])
        by_gpu = member.by_gpu + member.new_by_gpu + sum(partial.get('by_gpu', 0) for partial in before[1])
        summed = sum_counts(torch.cat([tally.per_class.flatten(), torch.tensor([tally.loss, by_gpu])]))
        total = Tally(summed[:-2].reshape(tally.per_class.shape), int(summed[-2]))
        result = self._result(spec, member, total, tuple(bad), self._right(member, before[1]), int(summed[-1]))
        if result.error is None and self.journal is not None and self.processes.is_main:
            self.journal.record_row(spec.title, result.to_json(), self.table)
        self.results[spec.title] = result
        log_result(result)

    def _right(self, member: NetworkInPass, partials: Sequence[Mapping[str, Any]]) -> str | None:
        """Which images all processes, and earlier runs, found right; None where one of them did not keep it."""
        right: torch.Tensor | None = member.tally.right()
        for partial in partials:
            if right is None or partial.get('right') is None:
                right = None
                break
            positions = self._positions(partial['blocks'])
            right[positions] = from_text(partial['right'], len(positions))
        texts = gather(None if right is None else to_text(right))
        known = [text for text in texts if text is not None]
        return union(known) if len(known) == len(texts) else None

    def _result(
        self,
        spec: ModelSpec,
        member: NetworkInPass,
        total: Tally,
        bad: tuple[BadImage, ...],
        right: str | None,
        by_gpu: int,
    ) -> AccuracyResult:
        on_gpu = self.settings.preprocess == 'gpu'
        error = self.data.incomplete(total.images)
        count = member.network.num_classes
        named = names_of_classes(self.data, member.class_indices.tolist(), count, label_names(member.plan.cfg, count))
        return AccuracyResult(
            model=spec.title,
            name=spec.name,
            dataset=self.data.spec.results_name,
            weights_sha256=member.network.weights_sha256,
            num_images=total.images,
            top1_count=total.top1,
            top5_count=total.top5,
            loss=total.mean_loss,
            per_class=tuple(tuple(row) for row in total.per_class.tolist()),
            class_names=named,
            confusion=() if self.store is None else self.store.confusion(spec.title),
            params=member.network.params,
            batch_size=member.chunk,
            skipped=bad,
            checkpoint=spec.checkpoint,
            preprocess=self.settings.preprocess,
            gpu_decoded=by_gpu if on_gpu else None,
            cpu_decoded=len(self.data.images) - len(bad) - by_gpu if on_gpu else None,
            fuse=self.settings.fuse,
            gpu=hardware_name(torch.device(self.settings.device)),
            right=right,
            sets=() if right is None else counts_by_set(self.data, right, bad),
            error=error,
            exit_code=1 if error else 0,
            **_transform_columns(member.plan),
        )


def _transform_columns(plan: InputPlan | None) -> dict[str, Any]:
    if plan is None:
        return {}
    pixels = plan.pixels
    return {'img_size': pixels.input_size[-1], 'crop_pct': pixels.crop_pct, 'interpolation': pixels.interpolation}
