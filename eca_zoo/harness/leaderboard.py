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
from eca_zoo.harness.accuracy.evaluation import evaluate, flags_of
from eca_zoo.harness.accuracy.results import AccuracyResult, Progress
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.datasets import open_data
from eca_zoo.harness.machine.devices import parse_precision
from eca_zoo.harness.machine.environment import describe_environment
from eca_zoo.harness.machine.flags import flags_in_force
from eca_zoo.harness.machine.memory import allocator_variables, release_memory
from eca_zoo.harness.machine.processes import Processes, agreed, gather
from eca_zoo.harness.networks.baselines import baseline_of, with_baseline
from eca_zoo.harness.networks.model_spec import ModelSpec, network_arguments
from eca_zoo.harness.networks.user_checkpoint import with_head_classes
from eca_zoo.harness.resume.journal import RunDirectory
from eca_zoo.harness.resume.restart import restarted
from eca_zoo.harness.resume.signals import InterruptedRunError, StopRequest
from eca_zoo.harness.speed.results import ThroughputResult
from eca_zoo.harness.speed.settings import ThroughputSettings
from eca_zoo.harness.suite_file import KEYS, THROUGHPUT_KEYS
from eca_zoo.harness.suites import Suite, check_files
from eca_zoo.harness.table.files import to_csv, write_text
from eca_zoo.harness.table.measurements import Measurements
from eca_zoo.harness.table.rows import accuracy_cells, entry_of, reported_cells
from eca_zoo.harness.table.timm_files import to_timm_files
from eca_zoo.weights.manifest import Manifest, usable_manifest

_logger = logging.getLogger(__name__)

TABLE_FILE = 'leaderboard.csv'
ENVIRONMENT_FILE = 'environment.json'
_ACCURACY, _COMPLEXITY, _THROUGHPUT = 'accuracy', 'complexity', 'throughput'

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
    data_dir: Path | None = None,
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
        data_dir: folder of the suite's data set, in the place of its own.
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
    stop, report, processes = stop or StopRequest(), report or _no_report, processes or Processes()
    suite = dataclasses.replace(
        suite, models=tuple(with_head_classes(spec, suite.accuracy.use_ema) for spec in suite.models)
    )
    with settings_named(KEYS):
        data, measurements = agreed(lambda: _checked(suite, out, data_dir))
    again = agreed(lambda: restarted(restart, [spec.title for spec in measurements.specs]))
    own_files = (TABLE_FILE, ENVIRONMENT_FILE)
    with RunDirectory(out, _run_identity(suite), again, processes.rank, own_files) as journal:
        run = _Run(suite, data, measurements, journal, timm_format=timm_format)
        if data is not None:

            def show(progress: Progress) -> None:
                report('validation', progress.done, progress.total, ', '.join(progress.models))

            validated = [spec for spec in suite.models if spec.title in suite.validated]
            try:
                evaluate(
                    validated, data, suite.accuracy, journal=journal, progress=show, stop=stop,
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


def _checked(suite: Suite, out: Path, data_dir: Path | None) -> tuple[DataSpec | None, Measurements]:
    """Data and measurements of a suite; wrong input is found here, before the run directory is touched."""
    if out.exists() and not out.is_dir():
        raise InputError(f'{out}: is a file; name a folder with --run-dir')
    check_files(suite, left_out=['data.data_dir'] if data_dir is not None else [])
    data = _opened(suite, data_dir)
    if data is not None:
        suite.accuracy.checked()
    return data, _measurements(suite)


def _measurements(suite: Suite) -> Measurements:
    specs = list(suite.models)
    specs, baseline = with_baseline(specs, suite.baseline) if suite.baseline is not None else (specs, None)
    if not suite.throughput:
        img_size = suite.img_size or suite.accuracy.img_size
        return Measurements(specs, [ThroughputSettings(img_size=img_size)], 'profile', baseline)
    for index, one in enumerate(suite.throughput):
        with settings_named({name: f'throughput[{index}].{name}' for name in THROUGHPUT_KEYS}):
            one.checked()
    return Measurements(specs, list(suite.throughput), suite.bench, baseline)


def _run_identity(suite: Suite) -> dict[str, Any]:
    """Settings that move a figure; networks can be added to a run, and data and weights are fixed by ``evaluate``."""
    default = ThroughputSettings()
    throughput = {
        str(index): {key: value for key, value in dataclasses.asdict(one).items() if value != getattr(default, key)}
        for index, one in enumerate(suite.throughput)
    }
    return {
        'command': 'leaderboard',
        'bench': suite.bench,
        'baseline': suite.baseline,
        'img_size': suite.img_size,
        'throughput': throughput,
    }


@dataclass
class _Run:
    """What the main process knows of a run."""

    suite: Suite
    data: DataSpec | None
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
        data = journal.identity(_ACCURACY)
        environment |= {'suite': self.suite.name, 'data': data['data'] if data is not None else None}
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

    def _flags_in_force(self) -> dict[str, dict[str, Any]]:
        """torch's flags during the validation and under each throughput setting."""
        flags = {}
        if self.data is not None:
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
        known = {result.model for result in self.accuracies}
        for row in self.journal.finished_rows(_ACCURACY).values():
            earlier = AccuracyResult.from_json(row)
            if earlier.model not in known:
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
        shared = self._shared_cells()
        total = len(self.measurements.specs)
        for done, key in enumerate(self.measurements.count_complexities(shared)):
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

    def _shared_cells(self) -> dict[str, dict[str, Any]]:
        """The cells that all rows of a network share."""
        cells: dict[str, dict[str, Any]] = {}
        results = {result.model: result for result in self.accuracies}
        for spec in self.measurements.specs:
            result = results.get(spec.title)
            measured = accuracy_cells(result) if result is not None else {}
            # The authors' figures are those of their checkpoint.
            name = spec.name if spec.checkpoint is None and spec.pretrained else ''
            reported = reported_cells(name, self.manifest, measured.get('dataset'), measured.get('top1'))
            cells[spec.title] = {**measured, **reported}
        return cells

    def _write(self, count: bool = True) -> list[Path]:
        """Write the table as far as it is known; returns its files.

        timm's files are kept up to date once they were asked for, and removed where nothing is left for them.

        Args:
            count: count the complexities that the table lacks.
        """
        journal = self.journal
        table = self.measurements.table(self._shared_cells(), count)
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
        table = self.measurements.table(self._shared_cells())
        failed = table.dropna(subset='error')[['model', 'error']].itertuples(index=False)
        errors = [f'{model}: {error.removeprefix(model + ": ")}' for model, error in failed]
        return Leaderboard(table, files, self._notes(table), list(dict.fromkeys(errors)))

    def _notes(self, table: pd.DataFrame) -> list[str]:
        """Why networks have no accuracy, a line for each reason."""
        empty = set(table.loc[table['top1'].isna() & table['error'].isna(), 'model'])
        reasons: dict[str, list[str]] = {}
        for spec in self.measurements.specs:
            if spec.title in empty:
                reasons.setdefault(self._why_empty(spec), []).append(spec.title)
        notes = [f'accuracy is empty: {reason} ({", ".join(titles)})' for reason, titles in reasons.items()]
        return notes + self._notes_of_ratios(table)

    def _notes_of_ratios(self, table: pd.DataFrame) -> list[str]:
        """Why networks that were timed are compared with none, a line for each reason."""
        baseline = self.measurements.baseline
        if baseline is None:
            return []
        timed = table[table['infer_samples_per_sec'].notna() & table['relative_throughput'].isna()]
        empty = [spec for spec in self.measurements.specs if spec.title in set(timed['model'])]
        alone = [spec.title for spec in empty if baseline_of(spec, baseline) is None]
        others = [spec.title for spec in empty if spec.title not in alone]
        reasons = {
            'there is no plain counterpart': alone,
            'the baseline failed, or has another image size': others,
        }
        return [f'relative_throughput is empty: {why} ({", ".join(t)})' for why, t in reasons.items() if t]

    def _why_empty(self, spec: ModelSpec) -> str:
        if self.suite.data is None:
            return f'the suite {self.suite.name} names no data'
        entry = entry_of(spec.name, self.manifest) if spec.checkpoint is None else None
        if entry is not None and entry.checkpoint is None:
            return "the weights need conversion: eca-zoo convert FILE makes them from the authors' file"
        if self.data is None:
            return f'no folder of {self.suite.data.name} was given; add --data-dir DIR'
        return f'not validated on {self.suite.data.name} in the suite {self.suite.name}'


def check_reported(table: pd.DataFrame, tolerance: float) -> list[str]:
    """Rows whose top-1 is off by more than ``tolerance`` percentage points, or cannot be compared; a line for each.

    A row is compared if its figure is reported and was measured on the reported data.
    """
    compared = table.dropna(subset='delta_top1').drop_duplicates('model')
    if compared.empty:
        return ['no row has both a reported top-1 and one that was measured on the reported data']
    # What is printed as equal to the tolerance passes.
    off = compared[compared['delta_top1'].abs().round(6) > tolerance]
    figures = off[['model', 'top1', 'delta_top1', 'reported_top1']].itertuples(index=False)
    return [
        f'{model}: top-1 is {top1:.3f} %, {abs(delta):.3f} percentage points {"above" if delta > 0 else "below"} the '
        f'reported {reported:.2f} % (tolerance {tolerance:g})'
        for model, top1, delta, reported in figures
    ]


def _opened(suite: Suite, data_dir: Path | None) -> DataSpec | None:
    """The data set to validate on, which can be opened; None if the suite names none, or no folder is known.

    Raises:
        InputError: a folder for a suite without data, or a data set that cannot be used.
    """
    if suite.data is None:
        if data_dir is not None:
            raise InputError(f'the suite {suite.name} names no data; leave out --data-dir, or add data to the suite')
        return None
    data = suite.data if data_dir is None else dataclasses.replace(suite.data, root=data_dir)
    if data.root is None and '/' not in data.dataset:
        return None
    if '/' not in data.dataset:
        open_data(data)
    return data


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
