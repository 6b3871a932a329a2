"""Average precision of detectors on a set: shared out over processes, recorded in a journal, and put together."""

import dataclasses
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from eca_zoo.detection.coco_images import CocoSet
from eca_zoo.detection.evaluation.average_precision import accumulate
from eca_zoo.detection.evaluation.bootstrap import ap_interval, difference_interval
from eca_zoo.detection.evaluation.detections import TASKS, Task
from eca_zoo.detection.evaluation.detector_spec import DetectorSettings, DetectorSpec, load_detector, weights_identity
from eca_zoo.detection.evaluation.matching import match, toolbox_masks
from eca_zoo.detection.evaluation.passes import (
    DetectorInPass,
    Part,
    PassOptions,
    StoppedError,
    blocks_of,
    detections_of,
    joined,
    run_pass,
)
from eca_zoo.detection.evaluation.results import DetectorResult, Progress, TaskResult
from eca_zoo.errors import EcaZooError, InputError, one_line
from eca_zoo.files import replacing
from eca_zoo.harness.machine.flags import numeric_flags
from eca_zoo.harness.machine.processes import (
    Processes,
    agreed,
    check_own_devices,
    current,
    from_main,
    gather,
    local_device,
    shard,
)
from eca_zoo.harness.resume.journal import RunDirectory
from eca_zoo.harness.resume.signals import InterruptedRunError, StopRequest

_logger = logging.getLogger(__name__)

_TABLE = 'detection'
#: Seconds between two records of what was found.
RECORD_EVERY = 5.0
Report = Callable[[Progress], None]


def evaluate_detectors(
    models: Sequence[DetectorSpec],
    data: CocoSet,
    settings: DetectorSettings | None = None,
    *,
    tasks: Sequence[Task] = TASKS,
    resamples: int = 1000,
    seed: int = 0,
    baseline: str | None = None,
    journal: RunDirectory | None = None,
    progress: Report | None = None,
    stop: StopRequest | None = None,
    record_every: float = RECORD_EVERY,
    in_training: bool = False,
) -> list[DetectorResult]:
    """Evaluate detectors as COCO's toolbox does; one result each, in their order.

    A detector that fails is a result with an ``error`` and does not stop the others. Under ``torchrun`` each process
    runs over its part of the images, and all return the same figures.

    Args:
        models: titles must differ.
        data: the set.
        settings: how detectors run.
        tasks: ``bbox``, ``segm`` or both; detectors without masks are evaluated by their boxes.
        resamples: of the intervals; 0 for none.
        seed: of the resamples.
        baseline: title of the detector that the others are compared with.
        journal: an open run directory: what was found before is not sought again, and what is found is recorded.
        progress: called now and then by the main process.
        stop: when it is set, what was found is recorded and the evaluation ends.
        record_every: seconds between two records.
        in_training: it is a part of a training: what a user has to know is in the results and not logged, and what
            detectors cost is not counted.

    Raises:
        InputError: the set or a setting cannot be used, or the run directory belongs to another run.
        InterruptedRunError: ``stop`` was set.
    """
    processes = current()
    run = _Run(
        data, processes, journal, progress or _no_report, stop or StopRequest(), record_every, tuple(tasks),
        in_training,
    )  # fmt: skip
    run.settings = agreed(lambda: run.checked(models, settings or DetectorSettings(), baseline))
    agreed(lambda: check_own_devices(torch.device(run.settings.device)))
    run.say(data.annotations.remarks)
    with numeric_flags(run.settings.precision, search=False, deterministic=True):
        run.find(models)
    if processes.is_main:
        run.judge(models, resamples, seed, baseline)
    shared = from_main({title: _without_arrays(result) for title, result in run.results.items()})
    return [run.results[spec.title] if processes.is_main else shared[spec.title] for spec in models]


@dataclass
class _Run:
    data: CocoSet
    processes: Processes
    journal: RunDirectory | None
    report: Report
    stop: StopRequest
    record_every: float
    tasks: tuple[Task, ...]
    in_training: bool = False
    settings: DetectorSettings = field(default_factory=DetectorSettings)
    results: dict[str, DetectorResult] = field(default_factory=dict)
    parts: dict[str, list[Part]] = field(default_factory=dict)

    def checked(
        self, models: Sequence[DetectorSpec], settings: DetectorSettings, baseline: str | None
    ) -> DetectorSettings:
        """Find what is wrong before a detector is loaded."""
        toolbox_masks()
        settings = dataclasses.replace(settings, device=local_device(settings.device, self.processes)).checked()
        titles = [spec.title for spec in models]
        repeated = next((title for title in titles if titles.count(title) > 1), None)
        if repeated is not None:
            raise InputError(f'the model {repeated} is named twice; name it once')
        if baseline is not None and baseline not in titles:
            raise InputError(f'the baseline {baseline} is none of the models: {", ".join(titles)}')
        return settings

    def find(self, models: Sequence[DetectorSpec]) -> None:
        """Run the detectors over what no process has run them over before."""
        self._continue_from_journal(models)
        members = [member for spec in models if (member := self._load(spec)) is not None]
        before = self._found_before([member.title for member in members])
        for member in members:
            member.done = frozenset(before[member.title][0])
        todo = [block for block in blocks_of(self.data) if any(block not in member.done for member in members)]
        own = shard(todo, self.processes)
        options = PassOptions(
            self.settings, self._record, self._shown(len(members)), lambda: self.stop.signal_name is not None,
            self.record_every,
        )  # fmt: skip
        try:
            run_pass(self.data, members, own, options)
        except StoppedError:
            where = f'what was found is in {self.journal.path}; the same command continues' if self.journal else ''
            text = f'stopped by {self.stop.signal_name}; {where or "nothing was kept; --run-dir DIR would keep it"}'
            raise InterruptedRunError(text, not self.processes.is_main, self.stop.signal_name or 'SIGINT') from None
        for member in members:
            self._collect(member, before[member.title][1])

    def _load(self, spec: DetectorSpec) -> DetectorInPass | None:
        """The detector, or None in every process if one of them cannot load it."""
        loaded, error, remarks = None, None, list[str]()
        try:
            loaded = load_detector(spec, self.settings, self.data.annotations.categories, not self.in_training)
            remarks = self.data.annotations.check_categories(loaded.module.categories, spec.title)
            if not self._tasks_of(loaded.module) and self.tasks:
                raise InputError(f'{spec.title}: it has no masks; evaluate its boxes with --task bbox')
            if 'segm' in self._tasks_of(loaded.module):
                self.data.annotations.check_masks()
        except Exception as own:
            error = own
        first = next((found for found in gather(_described(error)) if found is not None), None)
        result = DetectorResult(spec.title, self.data.name, checkpoint=spec.checkpoint)
        if first is not None or loaded is None:
            self.results[spec.title] = _failed(result, *(first or ('', 1)))
            return None
        self.say(remarks)
        self.results[spec.title] = dataclasses.replace(
            result, num_images=len(self.data), weights_sha256=loaded.weights_sha256, complexity=loaded.complexity,
            remarks=tuple(remarks),
        )  # fmt: skip
        return DetectorInPass(spec.title, loaded.module)

    def say(self, remarks: Sequence[str]) -> None:
        """Log what a user has to know."""
        for remark in remarks if self.processes.is_main and not self.in_training else ():
            _logger.warning('%s', remark)

    def _tasks_of(self, module: Any) -> tuple[Task, ...]:
        return self.tasks if module.has_masks else tuple(task for task in self.tasks if task == 'bbox')

    def _continue_from_journal(self, models: Sequence[DetectorSpec]) -> None:
        if self.journal is None:
            return
        journal, settings = self.journal, self.settings
        how = {
            'device': torch.device(settings.device).type, 'precision': settings.precision, 'fuse': settings.fuse,
            'channels_last': settings.channels_last,
        }  # fmt: skip

        def check() -> None:
            if self.processes.is_main:
                journal.require(_TABLE, {'data': self.data.fingerprints(), 'settings': how})
                for spec in models:
                    journal.require(f'{_TABLE}/{spec.title}', weights_identity(spec))

        agreed(check)

    def _found_before(self, titles: Sequence[str]) -> dict[str, tuple[list[int], list[str]]]:
        """For each detector the blocks in the journal, and the files (in the main process alone)."""
        found: dict[str, tuple[list[int], list[str]]] = {title: ([], []) for title in titles}
        if self.journal is not None and self.processes.is_main:
            for title in titles:
                blocks: set[int] = set()
                for partial in self.journal.partials(f'{_TABLE}/{title}'):
                    # A process that outlived its run may have recorded blocks that were run again since.
                    if blocks.isdisjoint(partial['blocks']):
                        blocks.update(partial['blocks'])
                        found[title][1].append(partial['predictions'])
                found[title][0].extend(sorted(blocks))
        blocks_alone = from_main({title: blocks for title, (blocks, _) in found.items()})
        return {title: (blocks_alone[title], found[title][1]) for title in titles}

    def _record(self, member: DetectorInPass) -> None:
        part, blocks = joined(member.new_parts), member.new_blocks
        member.new_parts, member.new_blocks = [], []
        self.parts.setdefault(member.title, []).append(part)
        if self.journal is not None:
            path = self.journal.predictions / f'{self.processes.rank:05d}-{uuid.uuid4().hex}.pt'
            with replacing(path, '--run-dir') as temporary:
                torch.save(part, temporary)
            self.journal.record_partial(f'{_TABLE}/{member.title}', {'blocks': blocks, 'predictions': path.name})

    def _shown(self, detectors: int) -> Callable[[int], None]:
        total, size = len(self.data), self.processes.world_size

        def show(done: int) -> None:
            if self.processes.is_main:
                self.report(Progress(f'{detectors} detectors', min(done * size, total), total, 'img'))

        return show

    def _collect(self, member: DetectorInPass, files: Sequence[str]) -> None:
        """Put together what all processes found, and what was found before; the main process keeps it."""
        result = self.results[member.title]
        failed = next((found for found in gather(_described(member.error)) if found is not None), None)
        parts = [part for own in gather(self.parts.pop(member.title, [])) for part in own]
        if failed is not None:
            self.results[member.title] = _failed(result, *failed)
        elif self.processes.is_main:
            if self.journal is not None:
                folder = self.journal.predictions
                parts += [torch.load(folder / name, weights_only=True) for name in files]
            found = detections_of(self.data, [part for part in parts if part], member.module.has_masks)
            remarks = list(result.remarks)
            if not len(found) and len(self.data):
                remarks.append(f'{member.title}: it found nothing in {len(self.data)} images; are these its weights?')
                self.say(remarks[-1:])
            tasks = {task: TaskResult({}, {}) for task in self._tasks_of(member.module)}
            self.results[member.title] = dataclasses.replace(
                result, detections=found, tasks=tasks, remarks=tuple(remarks)
            )

    def judge(self, models: Sequence[DetectorSpec], resamples: int, seed: int, baseline: str | None) -> None:
        """Compare what was found with the annotations."""
        good = [spec.title for spec in models if self.results[spec.title].error is None]
        for title in sorted(good, key=lambda title: title != baseline):
            result = self.results[title]
            assert result.detections is not None
            tasks = {}
            for task in result.tasks:
                matches = match(self.data.annotations, result.detections, task)
                curves = accumulate(matches)

                def show(done: int, total: int, part: str = f'{title}, interval of {task}') -> None:
                    self.report(Progress(part, done, total, 'resample'))

                interval = ap_interval(matches, resamples, seed, show) if resamples else None
                own = TaskResult(
                    curves.figures(), curves.per_category(), None if interval is None else interval.half_width,
                    matches=matches,
                )  # fmt: skip
                tasks[task] = self._compared(own, title, baseline, task, resamples, seed)
            self.results[title] = dataclasses.replace(result, tasks=tasks)

    def _compared(
        self, own: TaskResult, title: str, baseline: str | None, task: Task, resamples: int, seed: int
    ) -> TaskResult:
        other = self.results[baseline].tasks.get(task) if baseline not in (None, title) else None
        if other is None or other.matches is None or own.matches is None or not resamples:
            return own
        interval = difference_interval(own.matches, other.matches, resamples, seed)
        return own if interval is None else dataclasses.replace(own, difference=(interval.value, interval.half_width))


def _failed(result: DetectorResult, text: str, exit_code: int) -> DetectorResult:
    shown = text if text.startswith((result.model, '/')) or result.model in text else f'{result.model}: {text}'
    return dataclasses.replace(result, error=shown, exit_code=exit_code, detections=None, tasks={})


def _described(error: Exception | None) -> tuple[str, int] | None:
    """An exception so that it can be sent to other processes: its text and exit code."""
    if error is None:
        return None
    _logger.debug('failed', exc_info=error)
    return one_line(error), error.exit_code if isinstance(error, EcaZooError) else 1


def _without_arrays(result: DetectorResult) -> DetectorResult:
    tasks: Mapping[Task, TaskResult] = {
        task: dataclasses.replace(one, matches=None) for task, one in result.tasks.items()
    }
    return dataclasses.replace(result, detections=None, tasks=tasks)


def _no_report(progress: Progress) -> None:
    pass
