"""A leaderboard of detectors: AP, complexity and images a second, in a run directory that a killed run continues in."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eca_zoo.detection.coco_images import CocoSet, open_coco
from eca_zoo.detection.coco_suite import CocoSuite
from eca_zoo.detection.complexity import detector_complexity
from eca_zoo.detection.evaluation.detections import TASKS
from eca_zoo.detection.evaluation.detector_spec import DetectorSettings, DetectorSpec
from eca_zoo.detection.evaluation.results import DetectorResult, Progress, TaskResult
from eca_zoo.detection.evaluation.run import evaluate_detectors
from eca_zoo.detection.evaluation.table import rows_of, to_csv
from eca_zoo.detection.networks.registry import list_detector_architectures
from eca_zoo.detection.speed import DetectorSpeed, time_detectors
from eca_zoo.errors import InputError
from eca_zoo.harness.machine.environment import describe_environment
from eca_zoo.harness.machine.processes import Processes, agreed, gather
from eca_zoo.harness.resume.journal import RunDirectory
from eca_zoo.harness.resume.restart import restarted
from eca_zoo.harness.resume.signals import InterruptedRunError, StopRequest
from eca_zoo.harness.table.files import write_text
from eca_zoo.weights.checkpoint_names import expand_checkpoint_names
from eca_zoo.weights.manifest import usable_manifest

TABLE_FILE, ENVIRONMENT_FILE = 'coco.csv', 'environment.json'
_THROUGHPUT = 'throughput'
Report = Callable[[Progress], None]


@dataclass(frozen=True)
class CocoLeaderboard:
    """A finished run: the rows of its table, what was written, why cells are empty, and what failed."""

    rows: list[dict[str, Any]]
    files: list[Path]
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def run_coco_leaderboard(
    suite: CocoSuite,
    out: Path,
    data_dir: Path | None = None,
    *,
    settings: DetectorSettings | None = None,
    restart: bool | Sequence[str] = False,
    processes: Processes | None = None,
    command_line: Sequence[str] = (),
    report: Report | None = None,
    stop: StopRequest | None = None,
) -> CocoLeaderboard | None:
    """Measure what the run directory ``out`` does not hold yet, and write the table.

    Under ``torchrun`` all processes evaluate; then the main one times, and the others return None.

    Args:
        suite: what to run.
        out: run directory.
        data_dir: folder of the data, in the place of the suite's own.
        settings: how detectors run; by default the suite's.
        restart: forget what ``out`` holds, or what it holds of some detectors: their names, or patterns.
        processes: this process among those of the run.
        command_line: for the environment file.
        report: called now and then, in the main process.
        stop: when it is set, what was found is recorded and the run ends.

    Raises:
        InputError: the data, a setting or the run directory cannot be used.
        InterruptedRunError: ``stop`` was set.
    """
    stop, report, processes = stop or StopRequest(), report or (lambda _: None), processes or Processes()
    settings = settings or suite.detector_settings()
    specs, data = agreed(lambda: _checked(suite, out, data_dir))
    again = agreed(lambda: restarted(restart, [spec.title for spec in specs]))
    identity = {'command': 'leaderboard', 'of': 'detectors'}
    with RunDirectory(out, identity, again, processes.rank, (TABLE_FILE, ENVIRONMENT_FILE)) as journal:
        results = {spec.title: DetectorResult(spec.title, '') for spec in specs}
        chosen = [spec for spec in specs if suite.is_evaluated(spec.title)]
        ready = [spec for spec in chosen if _has_weights(spec)]
        if data is not None and ready:
            found = evaluate_detectors(
                ready, data, settings, resamples=suite.resamples, seed=suite.seed, baseline=suite.baseline,
                journal=journal, progress=report, stop=stop,
            )  # fmt: skip
            results |= {result.model: result for result in found}
        gather(None)
        if not processes.is_main:
            return None
        environment = describe_environment(command_line) | {'data': data.fingerprints() if data is not None else None}
        write_text(out / ENVIRONMENT_FILE, json.dumps(environment, indent=2, default=str) + '\n')
        complete = [_with_complexity(spec, result) for spec, result in zip(specs, results.values(), strict=True)]
        _write(out, complete, [])
        speeds = _speeds(suite, specs, settings, journal, report, stop)
        rows = _write(out, complete, speeds)
    notes = [] if data is not None else ['no average precision: name the folder of COCO with --data-dir']
    if data is not None and len(ready) < len(chosen):
        names = ', '.join(spec.title for spec in chosen if spec not in ready)
        notes = [f'average precision is empty: the weights need conversion (eca-zoo convert): {names}']
    errors = [result.error for result in results.values() if result.error is not None]
    errors += [f'{speed.model}: {speed.error}' for speed in speeds if speed.error is not None]
    return CocoLeaderboard(rows, [out / TABLE_FILE, out / ENVIRONMENT_FILE], notes, errors)


def _checked(suite: CocoSuite, out: Path, data_dir: Path | None) -> tuple[list[DetectorSpec], CocoSet | None]:
    if out.exists() and not out.is_dir():
        raise InputError(f'{out}: is a file; name a folder with --run-dir')
    specs, root = suite.specs(), data_dir or suite.data_dir
    if suite.baseline is not None and suite.baseline not in [spec.title for spec in specs]:
        raise InputError(f'baseline: {suite.baseline} is none of the detectors of the suite')
    if root is None and suite.annotations is None:
        return specs, None
    return specs, open_coco(root, suite.split, suite.annotations, suite.images)


def _has_weights(spec: DetectorSpec) -> bool:
    manifest = usable_manifest()
    return manifest.models[expand_checkpoint_names([spec.name], manifest)[0]].checkpoint is not None


def _with_complexity(spec: DetectorSpec, result: DetectorResult) -> DetectorResult:
    """``result`` with counts, and with empty figures of the tasks that its detector has, if it has none."""
    name = expand_checkpoint_names([spec.name], usable_manifest())[0]
    complexity = result.complexity or detector_complexity(name, **spec.options)
    tasks = result.tasks or {task: TaskResult({}, {}) for task in (TASKS if _has_masks(spec) else TASKS[:1])}
    return dataclasses.replace(result, complexity=complexity, tasks=tasks)


def _has_masks(spec: DetectorSpec) -> bool:
    name = spec.name.partition('.')[0]
    return any(record.name == name and record.system == 'maskrcnn' for record in list_detector_architectures())


def _speeds(
    suite: CocoSuite,
    specs: Sequence[DetectorSpec],
    settings: DetectorSettings,
    journal: RunDirectory,
    report: Report,
    stop: StopRequest,
) -> list[DetectorSpeed]:
    """What was timed now and before; with a baseline all are timed again, since a ratio is of one round."""
    timing = suite.speed_settings()
    if timing is None:
        return []
    checked = settings.checked()
    journal.require(_THROUGHPUT, {'settings': dataclasses.asdict(checked), 'timing': dataclasses.asdict(timing)})
    known = {
        title: DetectorSpeed(**row)
        for title, row in journal.finished_rows(_THROUGHPUT).items()
        if title in {spec.title for spec in specs}
    }
    if len(known) < len(specs):

        def progress(done: int, total: int, text: str) -> None:
            if stop.signal_name is not None:
                raise InterruptedRunError(
                    f'stopped by {stop.signal_name}; what was done is in {journal.path}; the same command continues',
                    signal_name=stop.signal_name,
                )
            report(Progress(f'throughput: {text}', done, total, 'round'))

        todo = specs if suite.baseline is not None else [spec for spec in specs if spec.title not in known]
        for speed in time_detectors(todo, settings, timing, suite.baseline, progress):
            known[speed.model] = speed
            if speed.error is None:
                journal.record_row(speed.model, {**dataclasses.asdict(speed), 'complexity': None}, _THROUGHPUT)
    return [known[spec.title] for spec in specs]


def _write(out: Path, results: Sequence[DetectorResult], speeds: Sequence[DetectorSpeed]) -> list[dict[str, Any]]:
    rows = rows_of(results, speeds)
    write_text(out / TABLE_FILE, to_csv(rows))
    return rows
