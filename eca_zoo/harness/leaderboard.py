"""A leaderboard: accuracy, complexity and throughput of a suite, in a run directory that a killed run continues in."""

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from eca_zoo.errors import InputError, settings_named
from eca_zoo.harness.accuracy.evaluation import Evaluation, evaluate_all, flags_of
from eca_zoo.harness.accuracy.label_sets.counting import TABLE, table_of
from eca_zoo.harness.accuracy.results import AccuracyResult, Progress
from eca_zoo.harness.data.datasets import open_label_sets
from eca_zoo.harness.leaderboard_rows import (
    accuracy_rows,
    reasons_by_network,
    why_empty,
    why_no_ratio,
    without_rows,
)
from eca_zoo.harness.machine.devices import parse_precision
from eca_zoo.harness.machine.environment import describe_environment
from eca_zoo.harness.machine.flags import flags_in_force
from eca_zoo.harness.machine.memory import allocator_variables, release_memory
from eca_zoo.harness.machine.processes import Processes, agreed, gather
from eca_zoo.harness.networks.baselines import with_baseline
from eca_zoo.harness.networks.model_spec import network_arguments
from eca_zoo.harness.networks.user_checkpoint import with_head_classes
from eca_zoo.harness.resume.journal import RunDirectory
from eca_zoo.harness.resume.restart import restarted
from eca_zoo.harness.resume.signals import InterruptedRunError, StopRequest
from eca_zoo.harness.speed.results import ThroughputResult
from eca_zoo.harness.speed.settings import ThroughputSettings
from eca_zoo.harness.suite_data import Folders, with_folders
from eca_zoo.harness.suite_file import KEYS, THROUGHPUT_KEYS
from eca_zoo.harness.suites import Suite, ValidationData, check_files
from eca_zoo.harness.table.files import to_csv, write_text
from eca_zoo.harness.table.measurements import Measurements
from eca_zoo.harness.table.timm_files import to_timm_files
from eca_zoo.weights.manifest import Manifest, usable_manifest

_logger = logging.getLogger(__name__)

TABLE_FILE = 'leaderboard.csv'
ENVIRONMENT_FILE = 'environment.json'
REASONS_FILE = 'reasons.json'
_COMPLEXITY, _THROUGHPUT = 'complexity', 'throughput'

#: Called with the part of the run, the work that is done, all of it, and what is done now.
Report = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class Leaderboard:
    """A finished run.

    Attributes:
        table: all columns, see ``harness.table.frames.to_frame``.
        files: that were written.
        notes: why cells are empty, a line for each reason.
        errors: what failed, a line for each network.
    """

    table: pd.DataFrame
    files: list[Path]
    notes: list[str]
    errors: list[str]


def run_leaderboard(
    suite: Suite,
    out: Path,
    data_dir: Path | Folders | None = None,
    *,
    restart: bool | Sequence[str] = False,
    timm_format: bool = False,
    processes: Processes | None = None,
    command_line: Sequence[str] = (),
    report: Report | None = None,
    stop: StopRequest | None = None,
) -> Leaderboard | None:
    """Measure what the run directory ``out`` does not hold yet, and write the table after each step.

    Under ``torchrun`` all processes validate; then the main one counts and times (on all GPUs of its machine), and the
    others return None at once.

    Args:
        suite: what to run.
        out: run directory. Settings that move a digit are fixed in it; networks can be added.
        data_dir: folder of the suite's data set, in the place of its own, or one that holds those of several; or
            several by name, see ``suite_data.Folders``.
        restart: forget what ``out`` holds, or what it holds of some models: their names, or patterns.
        timm_format: write timm's files too.
        processes: this process among those of the run.
        command_line: for the environment file.
        report: called now and then, in the main process.
        stop: when it is set, what was measured is recorded and the run ends.

    Raises:
        InputError: the data, a setting or the run directory cannot be used.
        RunError: decoding failed as a whole.
        InterruptedRunError: ``stop`` was set.
    """
    folders = {'': data_dir} if isinstance(data_dir, Path) else data_dir or {}
    stop, report, processes = stop or StopRequest(), report or _no_report, processes or Processes()
    suite = dataclasses.replace(
        suite, models=tuple(with_head_classes(spec, suite.accuracy.use_ema) for spec in suite.models)
    )
    with settings_named(KEYS):
        data, measurements = agreed(lambda: _checked(suite, out, folders))
    again = agreed(lambda: restarted(restart, [spec.title for spec in measurements.specs]))
    own_files = (TABLE_FILE, ENVIRONMENT_FILE, REASONS_FILE)
    with RunDirectory(out, _run_identity(suite), again, processes.rank, own_files) as journal:
        run = _Run(suite, data, measurements, journal, timm_format=timm_format)
        if data:

            def show(progress: Progress) -> None:
                report('validation', progress.done, progress.total, ', '.join(progress.models))

            try:
                evaluate_all(
                    _evaluations(suite, data), suite.accuracy, journal=journal, progress=show, stop=stop,
                    measured=run.accuracies.extend, names=KEYS,
                )  # fmt: skip
            except Exception:
                if processes.is_main and run.accuracies:
                    run.write_known()
                raise
        # The main process times networks on all GPUs of its machine, which the others leave first.
        release_memory()
        gather(None)
        return run.measure(command_line, report, stop) if processes.is_main else None


def _checked(suite: Suite, out: Path, folders: Folders) -> tuple[list[ValidationData], Measurements]:
    """Data and measurements of a suite; wrong input is found here, before the run directory is touched."""
    if out.exists() and not out.is_dir():
        raise InputError(f'{out}: is a file; name a folder with --run-dir')
    data = with_folders(suite, folders)
    own = {one.key: one.spec.root for one in suite.data}
    check_files(suite, left_out=[f'{one.key}.data_dir' for one in data if one.spec.root != own[one.key]])
    open_label_sets([one.spec for one in data if '/' not in one.spec.dataset])
    if data:
        suite.accuracy.checked()
    return data, _measurements(suite)


def _evaluations(suite: Suite, data: Sequence[ValidationData]) -> list[Evaluation]:
    return [
        Evaluation([spec for spec in suite.models if spec.title in one.models], one.spec, _table_of(suite, one))
        for one in data
    ]


def _table_of(suite: Suite, data: ValidationData) -> str:
    """Part of the journal for a data set."""
    return TABLE if len(suite.data) == 1 else table_of(data.spec.results_name)


def _measurements(suite: Suite) -> Measurements:
    specs = list(suite.models)
    specs, baseline = with_baseline(specs, suite.baseline) if suite.baseline is not None else (specs, None)
    if not suite.throughput:
        img_size = suite.img_size or suite.accuracy.img_size
        return Measurements(specs, [ThroughputSettings(img_size=img_size)], 'profile', baseline)
    for index, one in enumerate(suite.throughput):
        try:
            with settings_named({name: f'throughput[{index}].{name}' for name in THROUGHPUT_KEYS}):
                one.checked()
        except InputError as error:
            raise InputError(f'throughput[{index}]: {error}') from None
    return Measurements(specs, list(suite.throughput), suite.bench, baseline)


def _run_identity(suite: Suite) -> dict[str, Any]:
    """Settings that move a figure; networks can be added to a run, and data and weights are fixed by ``evaluate``."""
    # Without the key, which earlier versions had not, a run had one process.
    default = dataclasses.asdict(ThroughputSettings(rounds_per_process=0))
    throughput = {
        str(index): {key: value for key, value in dataclasses.asdict(one).items() if value != default[key]}
        for index, one in enumerate(suite.throughput)
    }
    return {
        'command': 'leaderboard',
        'bench': suite.bench,
        # Differences of accuracies follow from what is recorded of each network.
        'baseline': suite.baseline if suite.throughput else None,
        'img_size': suite.img_size,
        'throughput': throughput,
    }


@dataclass
class _Run:
    """What the main process knows of a run."""

    suite: Suite
    data: Sequence[ValidationData]
    measurements: Measurements
    journal: RunDirectory
    accuracies: list[AccuracyResult] = field(default_factory=list)
    timm_format: bool = False
    manifest: Manifest = field(default_factory=usable_manifest)

    def write_known(self) -> None:
        """Write the table of what is known of a run that ends before everything is measured."""
        self._restore()
        self._write(count=False)

    def measure(self, command_line: Sequence[str], report: Report, stop: StopRequest) -> Leaderboard:
        """Count and time what the journal does not hold, and write the table."""
        journal = self.journal
        for spec in self.suite.models:
            arguments = {key: repr(value) for key, value in network_arguments(spec).items()}
            identity = {'name': spec.name, 'arguments': arguments, 'img_size': spec.img_size}
            journal.require(f'{_COMPLEXITY}/{spec.title}', identity)
        environment = describe_environment(command_line, self._flags_in_force())
        for line in environment['busy']:
            _logger.warning('%s', line)
        if self.suite.throughput:
            journal.require(_THROUGHPUT, _machine(environment))
        environment |= {
            'suite': self.suite.name, 'data': self._fingerprints(), 'top1_tolerance': self.suite.top1_tolerance,
        }  # fmt: skip
        write_text(journal.path / ENVIRONMENT_FILE, json.dumps(environment, indent=2, default=str) + '\n')
        self._restore()
        self._count(report, stop)
        self._write()

        def progress(done: int, total: int, text: str) -> None:
            report('throughput', done, total, text)
            self._end_if(stop)

        for results in self.measurements.run(progress):
            for result in results:
                if result.error is None:
                    journal.record_row(self._key(result), dataclasses.asdict(result), _THROUGHPUT)
            self._write()
        return self._result()

    def _fingerprints(self) -> dict[str, Any] | None:
        """What was validated on: the data set, or several by their names."""
        found = {one.spec.results_name: self.journal.identity(_table_of(self.suite, one)) for one in self.suite.data}
        data = {name: identity['data'] for name, identity in found.items() if identity is not None}
        return (data if len(self.suite.data) > 1 else next(iter(data.values()))) if data else None

    def _flags_in_force(self) -> dict[str, dict[str, Any]]:
        """torch's flags during the validation and under each throughput setting."""
        flags = {}
        if self.data:
            flags['accuracy'] = flags_of(self.suite.accuracy)
        for index, one in enumerate(self.suite.throughput):
            flags[f'throughput[{index}]'] = flags_in_force(parse_precision(one.precision), threads=one.threads)
        return flags

    def _restore(self) -> None:
        """Take what the journal holds."""
        for row in self.journal.finished_rows(_COMPLEXITY).values():
            counted = row['title'], row['img_size'], row.get('reparameterize', False)
            self.measurements.complexities[counted] = row['cells']
        for key, row in self.journal.finished_rows(_THROUGHPUT).items():
            result = ThroughputResult(**{**row, 'settings': ThroughputSettings(**row['settings'])})
            _, results = self.measurements.measured[int(key.partition('/')[0])]
            (results.train if result.settings.train else results.infer)[result.model] = result
        known = {(result.model, result.dataset) for result in self.accuracies}
        for one in self.suite.data:
            for row in self.journal.finished_rows(_table_of(self.suite, one)).values():
                earlier = AccuracyResult.from_json(row)
                if (earlier.model, earlier.dataset) not in known:
                    self.accuracies.append(earlier)

    def _key(self, result: ThroughputResult) -> str:
        """Names a throughput in the journal by its setting, mode and network."""
        for index, (_, results) in enumerate(self.measurements.measured):
            for mode, known in (('infer', results.infer), ('train', results.train)):
                if known.get(result.model) is result:
                    return f'{index}/{mode}/{result.model}'
        raise KeyError(result.model)

    def _count(self, report: Report, stop: StopRequest) -> None:
        """Count the complexity of the networks that the journal does not hold."""
        total = len(self.measurements.specs)
        for done, key in enumerate(self.measurements.count_complexities(self._accuracies())):
            title, img_size, reparameterize = key
            report('complexity', min(done, total), total, title)
            self._end_if(stop)
            cells = self.measurements.complexities[key]
            if 'error' not in cells:
                row = {'title': title, 'img_size': img_size, 'reparameterize': reparameterize, 'cells': cells}
                name = f'{title}@{img_size}{"/reparameterized" if reparameterize else ""}'
                self.journal.record_row(name, row, _COMPLEXITY)

    def _end_if(self, stop: StopRequest) -> None:
        if stop.signal_name is not None:
            raise InterruptedRunError(
                f'stopped by {stop.signal_name}; what was done is in {self.journal.path}; the same command continues',
                signal_name=stop.signal_name,
            )

    def _accuracies(self) -> dict[str, list[dict[str, Any]]]:
        """The cells of the accuracies of each network, a row for each data set."""
        datasets = [one.spec.results_name for one in self.suite.data]
        measurements = self.measurements
        return accuracy_rows(measurements.specs, self.accuracies, datasets, measurements.baseline, self.manifest)

    def _write(self, count: bool = True) -> list[Path]:
        """Write the table as far as it is known; returns its files.

        timm's files are kept up to date once they were asked for, and removed where nothing is left for them.

        Args:
            count: count the complexities that the table lacks.
        """
        journal = self.journal
        table = self.measurements.table(self._accuracies(), count)
        write_text(journal.path / TABLE_FILE, to_csv(table))
        texts = to_timm_files(table) if self.timm_format or journal.written_files() else {}
        for name, text in texts.items():
            journal.record_file(name)
            write_text(journal.path / name, text)
        for name in journal.written_files():
            if name not in texts:
                journal.remove_file(name)
        return [journal.path / name for name in [TABLE_FILE, *texts, ENVIRONMENT_FILE]]

    def _result(self) -> Leaderboard:
        """The finished table."""
        files = self._write()
        table = self.measurements.table(self._accuracies())
        failed = table.dropna(subset='error')[['model', 'error']].itertuples(index=False)
        errors = [f'{model}: {error.removeprefix(model + ": ")}' for model, error in failed]
        specs = self.measurements.specs
        empty = why_empty(table, self.suite, self.data, specs, self.manifest)
        alone = why_no_ratio(table, specs, self.measurements.baseline)
        path = self.journal.path / REASONS_FILE
        write_text(path, json.dumps(reasons_by_network(empty, alone), indent=2) + '\n')
        notes = [f'accuracy is empty: {why} ({", ".join(titles)})' for why, titles in empty.items()]
        notes += without_rows(self.suite, self.data)
        notes += [f'relative_throughput is empty: {why} ({", ".join(titles)})' for why, titles in alone.items()]
        return Leaderboard(table, [*files, path], notes, list(dict.fromkeys(errors)))


def _machine(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What throughputs of one table have in common."""
    return {
        'processor': environment['processor'],
        'cpus': environment['cpus'],
        'threads': environment['threads']['intra_op'],
        # Their kind, not their number.
        'gpus': sorted({gpu['name'] for gpu in environment['gpus']}),
        'driver': environment['driver'],
        'cudnn': environment['cudnn'],
        'torch': environment['versions']['torch'],
        'allocator': allocator_variables(),
    }


def _no_report(part: str, done: int, total: int, text: str) -> None:
    pass
