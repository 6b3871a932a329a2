"""One evaluation of many models: the pass that each takes part in, the journal, and the sums of all processes."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from eca_zoo.errors import EcaZooError, InputError, one_line, with_names
from eca_zoo.harness.accuracy.input_plan import InputPlan, plan_input
from eca_zoo.harness.accuracy.loaded_network import load_network
from eca_zoo.harness.accuracy.passes import NetworkInPass, OutOfMemoryError, Pass, PassOptions, StoppedError, blocks_of
from eca_zoo.harness.accuracy.predictions import Part, PredictionStore
from eca_zoo.harness.accuracy.results import AccuracyResult, Progress
from eca_zoo.harness.accuracy.run_log import log_continued, log_position, log_result
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.accuracy.tally import DeviceTally, Tally
from eca_zoo.harness.data.batches import Loader, PixelTransform
from eca_zoo.harness.data.datasets import OpenData
from eca_zoo.harness.data.images import BadImage
from eca_zoo.harness.machine import processes as between
from eca_zoo.harness.machine.device_errors import is_device_lost, is_out_of_memory, without_frames
from eca_zoo.harness.machine.devices import hardware_name
from eca_zoo.harness.machine.gpus import hardware_kind
from eca_zoo.harness.machine.memory import release_memory, room_for_weights, weight_bytes
from eca_zoo.harness.machine.processes import Processes, agreed, from_main, gather, shard, sum_counts
from eca_zoo.harness.networks.class_names import names_of_classes
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.networks.pretrained import label_names, weights_identity
from eca_zoo.harness.resume.journal import RunDirectory
from eca_zoo.harness.resume.signals import InterruptedRunError, StopRequest

_logger = logging.getLogger(__name__)

_TABLE = 'accuracy'
# They move work about and no digit.
_FREE_SETTINGS = ('workers', 'pin_memory', 'prefetch')


@dataclass
class AccuracyRun:
    """One call of ``evaluate``: its arguments, the results by title, and class indices by title and class count."""

    data: OpenData
    settings: EvalSettings
    processes: Processes
    journal: RunDirectory | None
    progress: Callable[[Progress], None] | None
    stop: StopRequest
    record_every: float
    names: Mapping[str, str] = field(default_factory=dict)
    store: PredictionStore | None = None
    results: dict[str, AccuracyResult] = field(default_factory=dict)
    class_indices: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    loader: Loader = field(init=False)

    def __post_init__(self) -> None:
        settings = self.settings
        assert settings.batch_size is not None
        self.loader = Loader(
            self.data.images, settings.batch_size, settings.workers or 0, bool(settings.pin_memory), settings.prefetch
        )

    def evaluate(self, models: Sequence[ModelSpec]) -> dict[str, AccuracyResult]:
        self._continue_from_journal(models)
        groups: dict[PixelTransform, list[tuple[ModelSpec, InputPlan]]] = {}
        for spec in models:
            if spec.title in self.results:
                continue
            try:
                plan = plan_input(spec, self.settings, self.data.spec.input_img_mode)
                if plan.num_classes:
                    # Before any weights are fetched.
                    self._class_indices(spec.title, plan.num_classes, plan)
            except EcaZooError as error:
                self.fail(spec, None, error)
            else:
                groups.setdefault(plan.pixels, []).append((spec, plan))
        try:
            for group in groups.values():
                self._run_passes(list(group))
        finally:
            self.loader.close()
        return self.results

    def _run_passes(self, group: list[tuple[ModelSpec, InputPlan]]) -> None:
        """Evaluate models of one transform: together as far as they fit, each alone if none does beside the others."""
        queue, passes = [group], 0
        while queue:
            put_back, others, has_finished = self._run_pass(queue.pop(0))
            passes += 1
            if put_back and not has_finished:
                # The same models together would only fail again.
                queue = [[one] for one in put_back] + ([others] if others else []) + queue
            elif put_back or others:
                queue.insert(0, put_back + others)
            if queue:
                _logger.warning(
                    '%d more models of this transform do not fit into memory beside the others; the images are '
                    'read again for them (pass %d)', sum(map(len, queue)), passes + 1,
                )  # fmt: skip

    def meanwhile(self, titles: Sequence[str]) -> None:
        """Show that models are evaluated elsewhere, unless a stop was asked for."""
        if self.stop.signal_name is not None:
            raise self._interrupted()
        if self.progress is not None:
            self.progress(Progress(0, len(self.data.images), titles))

    def take(self, result: AccuracyResult, parts: list[Part]) -> None:
        """Take a result, and guesses, that another process has counted."""
        self.results[result.model] = result
        if self.store is not None:
            self.store.put(result.model, parts)
        if result.error is None and self.journal is not None:
            self.journal.record_row(result.model, result.to_json(), _TABLE)

    def say(self, remarks: Sequence[str]) -> None:
        """Log what a user has to know, once for all processes."""
        for remark in remarks if self.processes.is_main else ():
            _logger.warning('%s', with_names(remark, self.names))

    def _class_indices(self, title: str, num_classes: int, plan: InputPlan) -> list[int]:
        """The class index of each label for a model; what there is to say of it is said once."""
        key = title, num_classes
        if key not in self.class_indices:
            names, remarks = label_names(plan.cfg, num_classes), list[str]()
            self.class_indices[key] = self.data.class_indices(num_classes, title, names, remarks)
            self.say(remarks)
        return self.class_indices[key]

    def _continue_from_journal(self, models: Sequence[ModelSpec]) -> None:
        """Check that the journal is of this evaluation, and take the rows that it holds."""
        if self.journal is None:
            return
        journal = self.journal

        def check() -> dict[str, dict[str, Any]]:
            if not self.processes.is_main:
                return {}
            journal.require(_TABLE, self._identity())
            for spec in models:
                try:
                    weights = weights_identity(spec) | spec.own_input()
                except InputError as error:
                    _logger.debug('%s; it fails by itself when it is loaded', error)
                else:
                    journal.require(f'{_TABLE}/{spec.title}', weights)
            return journal.finished_rows(_TABLE)

        rows = from_main(agreed(check))
        self.results |= {
            spec.title: AccuracyResult.from_json(rows[spec.title]) for spec in models if spec.title in rows
        }
        log_continued(len(self.results), len(models))
        if self.store is not None:
            for title, (_, partials) in self._counted_before(list(self.results)).items():
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

    def _run_pass(
        self, waiting: list[tuple[ModelSpec, InputPlan]]
    ) -> tuple[list[tuple[ModelSpec, InputPlan]], list[tuple[ModelSpec, InputPlan]], bool]:
        """Evaluate as many of the models as fit into memory.

        Returns:
            Those that ran out of memory beside the others, those that were not loaded, and whether any has an outcome.
        """
        members, others = self._load(waiting)
        if not members:
            return [], others, True
        before = self._counted_before([spec.title for spec, _ in members])
        for spec, member in members:
            member.done = frozenset(before[spec.title][0])
        log_position({title: blocks for title, (blocks, _) in before.items()}, self.data, self.settings.batch_size or 1)
        todo = [
            block
            for block in blocks_of(self.data, self.settings.batch_size or 1)
            if any(block not in member.done for _, member in members)
        ]
        options = PassOptions(
            self.settings, self._record, self._shown(len(todo)), lambda: self.stop.signal_name is not None,
            self.record_every, self.store is not None,
        )  # fmt: skip
        try:
            one = Pass(self.data, [member for _, member in members], options)
            one.run(shard(todo, self.processes), self.loader)
        except StoppedError:
            raise self._interrupted() from None
        put_back = [
            (spec, member.plan)
            for spec, member in members
            if self._finish(spec, member, before[spec.title], alone=len(members) == 1)
        ]
        outcome = put_back, others, len(put_back) < len(members)
        del members, member, one
        release_memory()
        return outcome

    def _load(
        self, waiting: list[tuple[ModelSpec, InputPlan]]
    ) -> tuple[list[tuple[ModelSpec, NetworkInPass]], list[tuple[ModelSpec, InputPlan]]]:
        members: list[tuple[ModelSpec, NetworkInPass]] = []
        room = room_for_weights(torch.device(self.settings.device))
        used = 0
        for number, (spec, plan) in enumerate(waiting):
            member: NetworkInPass | None = None
            error: Exception | None = None
            try:
                member = self._member(spec, plan)
                used += weight_bytes(member.network.module)
            except Exception as own:
                if is_device_lost(own):
                    raise
                # Its frames hold the network.
                error = without_frames(own)
            full = error is not None and is_out_of_memory(error) and bool(members)
            outcomes = gather((between.described(error), full, room is not None and used >= room))
            if any(is_full for _, is_full, _ in outcomes):
                return members, waiting[number:]
            first = next((outcome for outcome, _, _ in outcomes if outcome is not None), None)
            if first is not None:
                self.fail(spec, plan, between.raised(first))
            elif member is not None:
                members.append((spec, member))
            if any(is_used for _, _, is_used in outcomes):
                return members, waiting[number + 1 :]
        return members, []

    def _member(self, spec: ModelSpec, plan: InputPlan) -> NetworkInPass:
        network = load_network(spec, self.settings, plan)
        indices = self._class_indices(spec.title, network.num_classes, plan)
        valid = self.data.valid_labels
        if valid is not None and max(valid) >= network.num_classes:
            raise InputError(f'valid label {max(valid)} is none of the {network.num_classes} classes of {spec.title}')
        assert self.settings.batch_size is not None
        return NetworkInPass(
            spec.title, network, plan, self.settings.batch_size, torch.tensor(indices), frozenset(), valid,
            DeviceTally(network.num_classes, torch.device(self.settings.device)),
        )  # fmt: skip

    def _counted_before(self, titles: Sequence[str]) -> dict[str, tuple[list[int], list[dict[str, Any]]]]:
        """For each model the blocks that the journal has counts of, and these counts (in the main process alone)."""
        found: dict[str, tuple[list[int], list[dict[str, Any]]]] = {title: ([], []) for title in titles}
        if self.journal is not None and self.processes.is_main:
            for title in titles:
                blocks: set[int] = set()
                for partial in self.journal.partials(f'{_TABLE}/{title}'):
                    # A process that outlived its run may have recorded blocks that were counted again since.
                    if blocks.isdisjoint(partial['blocks']):
                        blocks.update(partial['blocks'])
                        found[title][1].append(partial)
                found[title][0].extend(sorted(blocks))
        blocks_alone = from_main({title: blocks for title, (blocks, _) in found.items()})
        return {title: (blocks_alone[title], found[title][1]) for title in titles}

    def _record(self, member: NetworkInPass) -> None:
        """Write what a model has counted since the last time, with its predictions, to the journal."""
        if self.store is not None:
            file = self.store.add(member.title, member.predictions)
            member.predictions = []
        else:
            file = None
        if self.journal is None or self.data.images.is_stream:
            return
        tally = member.tally.take()
        new = tally - member.recorded if member.recorded is not None else tally
        self.journal.record_partial(
            f'{_TABLE}/{member.title}',
            {
                'blocks': member.new_blocks,
                'counts': new.to_json(),
                'bad': [list(image) for image in member.new_bad],
                'predictions': file,
                'weights': member.network.weights_sha256,
            },
        )
        member.recorded = tally
        member.bad += member.new_bad
        member.new_blocks, member.new_bad = [], []

    def _shown(self, todo: int) -> Callable[[int, int, Sequence[str]], None] | None:
        if self.progress is None or not self.processes.is_main:
            return None
        progress, size = self.progress, len(self.data.images)
        assert self.settings.batch_size is not None
        before = size - min(size, todo * self.settings.batch_size)

        def show(done: int, total: int, titles: Sequence[str]) -> None:
            progress(Progress(min(size or done, before + done * self.processes.world_size), size, titles))

        return show

    def _interrupted(self) -> InterruptedRunError:
        if self.journal is not None and not self.data.images.is_stream:
            where = f'what was counted is in {self.journal.path}; the same command continues'
        else:
            lost = 'what was counted of the other models is lost' if self.results else 'nothing was saved'
            where = f'{lost}; with --run-dir DIR the same command would continue'
        assert self.stop.signal_name is not None
        text = f'stopped by {self.stop.signal_name}; {where}'
        return InterruptedRunError(text, not self.processes.is_main, self.stop.signal_name)

    def _finish(
        self, spec: ModelSpec, member: NetworkInPass, before: tuple[list[int], list[dict[str, Any]]], alone: bool
    ) -> bool:
        """Add up what all processes counted; returns whether the model needs another pass for lack of memory."""
        errors = gather(between.described(member.error))
        first = next((error for error in errors if error is not None), None)
        if first is not None:
            if not alone and any(error is not None and error[0] is OutOfMemoryError for error in errors):
                return True
            self.fail(spec, member.plan, between.raised(first, spec.title))
            return False
        tally = member.tally.take()
        stored = [image for partial in before[1] for image in partial['bad']]
        for partial in before[1]:
            tally += Tally.from_json(partial['counts'], member.network.num_classes)
        found = [image for part in gather([*member.bad, *member.new_bad]) for image in part]
        bad = sorted({BadImage(*image) for image in [*from_main(stored), *found]})
        if self.store is not None:
            self.store.collect(member.title, [partial['predictions'] for partial in before[1]])
        summed = sum_counts(torch.cat([tally.per_class.flatten(), torch.tensor([tally.loss])]))
        total = Tally(summed[:-1].reshape(tally.per_class.shape), int(summed[-1]))
        result = self._result(spec, member, total, tuple(bad))
        if result.error is None and self.journal is not None and self.processes.is_main:
            self.journal.record_row(spec.title, result.to_json(), _TABLE)
        self.results[spec.title] = result
        log_result(result)
        return False

    def _result(
        self, spec: ModelSpec, member: NetworkInPass, total: Tally, bad: tuple[BadImage, ...]
    ) -> AccuracyResult:
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
            fuse=self.settings.fuse,
            gpu=hardware_name(torch.device(self.settings.device)),
            error=error,
            exit_code=1 if error else 0,
            **_transform_columns(member.plan),
        )


def _transform_columns(plan: InputPlan | None) -> dict[str, Any]:
    if plan is None:
        return {}
    pixels = plan.pixels
    return {'img_size': pixels.input_size[-1], 'crop_pct': pixels.crop_pct, 'interpolation': pixels.interpolation}
