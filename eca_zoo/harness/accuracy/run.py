"""One evaluation of many models: passes over the images, in which each model is counted on all sets of labels."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from eca_zoo.errors import EcaZooError, with_names
from eca_zoo.harness.accuracy.input_plan import InputPlan, plan_input
from eca_zoo.harness.accuracy.label_sets.counting import TABLE, Before, LabelSet
from eca_zoo.harness.accuracy.loaded_network import LoadedNetwork, load_network
from eca_zoo.harness.accuracy.passes import NetworkInPass, OutOfMemoryError, Pass, PassOptions, StoppedError, blocks_of
from eca_zoo.harness.accuracy.predictions import PredictionStore
from eca_zoo.harness.accuracy.results import AccuracyResult, Progress
from eca_zoo.harness.accuracy.run_log import log_position
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.batches import Loader, PixelTransform
from eca_zoo.harness.data.datasets import OpenData
from eca_zoo.harness.machine import processes as between
from eca_zoo.harness.machine.device_errors import is_device_lost, is_out_of_memory, without_frames
from eca_zoo.harness.machine.memory import release_memory, room_for_weights, weight_bytes
from eca_zoo.harness.machine.processes import Processes, agreed, from_main, gather, shard
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.resume.journal import RunDirectory
from eca_zoo.harness.resume.signals import InterruptedRunError, StopRequest

_logger = logging.getLogger(__name__)


class _Counted(NamedTuple):
    """A model in a pass, on one label set, with what was counted of it before."""

    spec: ModelSpec
    member: NetworkInPass
    labels: LabelSet
    before: Before = ([], [])


@dataclass
class AccuracyRun:
    """One evaluation on the images of one data set, with one or several sets of labels.

    Attributes:
        data: the images.
        settings: checked settings.
        processes: this process among those of the run.
        journal: an open run directory.
        progress: called a few times a second by the main process.
        stop: ends the run when it is set.
        record_every: seconds between two records of partial counts.
        names: of settings in messages.
        label_sets: that the models are counted on, see ``add``.
    """

    data: OpenData
    settings: EvalSettings
    processes: Processes
    journal: RunDirectory | None
    progress: Callable[[Progress], None] | None
    stop: StopRequest
    record_every: float
    names: Mapping[str, str] = field(default_factory=dict)
    label_sets: list[LabelSet] = field(default_factory=list)
    loader: Loader = field(init=False)
    _said: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        settings = self.settings
        assert settings.batch_size is not None
        self.loader = Loader(
            self.data.images, settings.batch_size, settings.workers or 0, bool(settings.pin_memory), settings.prefetch
        )

    def add(
        self, models: Sequence[ModelSpec], data: OpenData, table: str = TABLE, store: PredictionStore | None = None
    ) -> LabelSet:
        """Count ``models`` on the labels of ``data``, whose images are those of the run."""
        self.label_sets.append(
            LabelSet(data, models, self.settings, self.processes, self.journal, self.say, self.names, table, store)
        )
        self.say(data.remarks())
        return self.label_sets[-1]

    @property
    def results(self) -> list[AccuracyResult]:
        """What is known so far, label set by label set, in the order of the models."""
        return [
            labels.results[spec.title]
            for labels in self.label_sets
            for spec in labels.models
            if spec.title in labels.results
        ]

    def waiting(self) -> list[ModelSpec]:
        """The models that have to be counted on any label set."""
        specs = {spec.title: spec for labels in self.label_sets for spec in labels.models}
        return [spec for spec in specs.values() if self._sets_of(spec)]

    def _sets_of(self, spec: ModelSpec) -> list[LabelSet]:
        """The label sets that a model has to be counted on."""
        return [labels for labels in self.label_sets if labels.waits_for(spec)]

    def evaluate(self) -> None:
        """Count all models on their label sets, but for what the journal holds."""
        self._continue_from_journal()
        groups: dict[PixelTransform, list[tuple[ModelSpec, InputPlan]]] = {}
        for spec in self.waiting():
            try:
                plan = plan_input(spec, self.settings, self.data.spec.input_img_mode)
            except EcaZooError as error:
                self.fail(spec, None, error)
                continue
            for labels in self._sets_of(spec) if plan.num_classes else ():
                try:
                    # Before any weights are fetched.
                    labels.class_indices(spec.title, plan.num_classes or 0, plan)
                except EcaZooError as error:
                    labels.fail(spec, None, error)
            if self._sets_of(spec):
                groups.setdefault(plan.pixels, []).append((spec, plan))
        try:
            for group in groups.values():
                self._run_passes(list(group))
        finally:
            self.loader.close()

    def _continue_from_journal(self) -> None:
        if self.journal is None:
            return
        rows = from_main(agreed(lambda: [labels.require() for labels in self.label_sets]))
        for labels, known in zip(self.label_sets, rows, strict=True):
            labels.take_rows(known)

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

    def say(self, remarks: Sequence[str]) -> None:
        """Log what a user has to know, once, and once for all processes."""
        for remark in remarks if self.processes.is_main else ():
            if remark not in self._said:
                self._said.add(remark)
                _logger.warning('%s', with_names(remark, self.names))

    def fail(self, spec: ModelSpec, plan: InputPlan | None, error: Exception) -> None:
        """Take it that a model cannot be evaluated."""
        for labels in self._sets_of(spec):
            labels.fail(spec, plan, error)

    def _run_pass(
        self, waiting: list[tuple[ModelSpec, InputPlan]]
    ) -> tuple[list[tuple[ModelSpec, InputPlan]], list[tuple[ModelSpec, InputPlan]], bool]:
        """Evaluate as many of the models as fit into memory.

        Returns:
            Those that ran out of memory beside the others, those that were not loaded, and whether any has an outcome.
        """
        counted, others = self._load(waiting)
        if not counted:
            return [], others, True
        counted = self._with_counts_before(counted)
        todo = [
            block
            for block in blocks_of(self.data, self.settings.batch_size or 1)
            if any(block not in one.member.done for one in counted)
        ]
        labels_of = {id(one.member): one.labels for one in counted}
        options = PassOptions(
            self.settings, lambda member: labels_of[id(member)].record(member), self._shown(len(todo)),
            lambda: self.stop.signal_name is not None, self.record_every,
            any(labels.store is not None for labels in self.label_sets),
        )  # fmt: skip
        try:
            one_pass = Pass(self.data, [one.member for one in counted], options)
            one_pass.run(shard(todo, self.processes), self.loader)
        except StoppedError:
            raise self._interrupted() from None
        alone = len({one.spec.title for one in counted}) == 1
        put_back = {one.spec.title: (one.spec, one.member.plan) for one in counted if self._finish(one, alone)}
        outcome = list(put_back.values()), others, len(put_back) < len({one.spec.title for one in counted})
        del counted, one_pass
        release_memory()
        return outcome

    def _with_counts_before(self, counted: list[_Counted]) -> list[_Counted]:
        """The same with what the journal holds of each."""
        found: list[_Counted] = []
        for labels in self.label_sets:
            own = [one for one in counted if one.labels is labels]
            before = labels.counted_before([one.spec.title for one in own])
            for one in own:
                one.member.done = frozenset(before[one.spec.title][0])
                found.append(one._replace(before=before[one.spec.title]))
            blocks = {title: blocks for title, (blocks, _) in before.items()}
            log_position(blocks, labels.data, self.settings.batch_size or 1)
        return found

    def _load(
        self, waiting: list[tuple[ModelSpec, InputPlan]]
    ) -> tuple[list[_Counted], list[tuple[ModelSpec, InputPlan]]]:
        counted: list[_Counted] = []
        room = room_for_weights(torch.device(self.settings.device))
        used = 0
        for number, (spec, plan) in enumerate(waiting):
            network: LoadedNetwork | None = None
            error: Exception | None = None
            try:
                network = load_network(spec, self.settings, plan)
                used += weight_bytes(network.module)
            except Exception as own:
                if is_device_lost(own):
                    raise
                # Its frames hold the network.
                error = without_frames(own)
            full = error is not None and is_out_of_memory(error) and bool(counted)
            outcomes = gather((between.described(error), full, room is not None and used >= room))
            if any(is_full for _, is_full, _ in outcomes):
                return counted, waiting[number:]
            first = next((outcome for outcome, _, _ in outcomes if outcome is not None), None)
            if first is not None:
                self.fail(spec, plan, between.raised(first))
            elif network is not None:
                counted += self._members(spec, plan, network)
            if any(is_used for _, _, is_used in outcomes):
                return counted, waiting[number + 1 :]
        return counted, []

    def _members(self, spec: ModelSpec, plan: InputPlan, network: LoadedNetwork) -> list[_Counted]:
        """A model on each label set that it has to be counted on; on the others it fails."""
        found = []
        for labels in self._sets_of(spec):
            try:
                found.append(_Counted(spec, self._member(spec, plan, network, labels), labels))
            except EcaZooError as error:
                labels.fail(spec, plan, error)
        return found

    def _member(self, spec: ModelSpec, plan: InputPlan, network: LoadedNetwork, labels: LabelSet) -> NetworkInPass:
        return labels.member(spec, plan, network)

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

    def _finish(self, one: _Counted, alone: bool) -> bool:
        """Add up what all processes counted; returns whether the model needs another pass for lack of memory."""
        errors = gather(between.described(one.member.error))
        first = next((error for error in errors if error is not None), None)
        if first is not None:
            if not alone and any(error is not None and error[0] is OutOfMemoryError for error in errors):
                return True
            one.labels.fail(one.spec, one.member.plan, between.raised(first, one.spec.title))
            return False
        one.labels.finish(one.spec, one.member, one.before)
        return False
