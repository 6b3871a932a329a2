"""What people call from Python: paths, strings, numbers and networks in, pandas frames out.

The command line calls the same functions. Every wrong argument is an ``eca_zoo.errors.InputError``, one line with the
remedy; what fails on the way is an ``eca_zoo.errors.RunError``. Nothing is printed; ``progress=True`` shows a bar on
stderr where that is a terminal.
"""

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import nn

from eca_zoo.arguments import model_specs, one_model, path_of, record, several, takes
from eca_zoo.errors import EcaZooError, InputError, Terminated
from eca_zoo.files import StorageError
from eca_zoo.harness.accuracy import evaluation
from eca_zoo.harness.accuracy.results import AccuracyResult, Progress
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.comparison.comparison import Comparison
from eca_zoo.harness.comparison.comparison import compare as compare_runs
from eca_zoo.harness.comparison.runs import published_run, read_run
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.leaderboard import run_leaderboard
from eca_zoo.harness.machine.processes import agreed, current
from eca_zoo.harness.networks.complexity import complexity_of_spec
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.resume.journal import RunDirectory
from eca_zoo.harness.resume.signals import InterruptedRunError, StopRequest
from eca_zoo.harness.speed.settings import ThroughputSettings
from eca_zoo.harness.suites import read_suite
from eca_zoo.harness.table.columns import cells_of
from eca_zoo.harness.table.files import formatted, to_json
from eca_zoo.harness.table.frames import NAMES, read_table, select, to_frame
from eca_zoo.harness.table.measurements import MODES, Measurements
from eca_zoo.harness.table.results_file import ResultsFile, check_place
from eca_zoo.harness.table.timm_files import write_timm_files
from eca_zoo.progress import ProgressBars
from eca_zoo.reporting.report import write_report
from eca_zoo.weights.manifest import load_manifest

if TYPE_CHECKING:
    Models = str | Path | nn.Module | Iterable[str | nn.Module] | Mapping[str, str | nn.Module]

_logger = logging.getLogger(__name__)

# Settings in messages are called as the keywords are.
_KEYWORDS = {
    field.name: field.name for kind in (EvalSettings, DataSpec, ModelSpec) for field in dataclasses.fields(kind)
}

__all__ = ['benchmark', 'compare', 'complexity', 'evaluate', 'leaderboard', 'read_table', 'report', 'write_timm_files']


@takes(EvalSettings, DataSpec, without=('root', 'label'))
def evaluate(
    models: 'Models',
    data: str | Path | None = None,
    *,
    checkpoint: str | Path | None = None,
    pretrained: bool = True,
    num_classes: int | None = None,
    in_chans: int | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    run_dir: str | Path | None = None,
    restart: bool = False,
    predictions: str | Path | None = None,
    progress: bool = False,
    **options: Any,
) -> pd.DataFrame:
    """Top-1 and top-5 of models on a labelled data set; each image is read once for all models of one transform.

    Args:
        models: a timm name, a pattern, ``zoo``, ``hf-hub:ORG/NAME``, ``local-dir:DIR``, a text file of names; a network
            that is built already (it is copied and not changed); a list of these; or a mapping from labels to these.
        data: folder with one folder a class, or a tar of it; None with ``dataset='hfds/...'`` and the like.
        checkpoint: file with the weights of the one model, or a folder of them (a row each).
        pretrained: load the weights that a name stands for; random ones otherwise.
        num_classes: of the models, if it is not what their names stand for.
        in_chans: channels of the input, if they are not what their names stand for.
        model_kwargs: further arguments of the models' entry points.
        run_dir: folder in which a killed call continues when it is made again.
        restart: forget what ``run_dir`` holds.
        predictions: Parquet file to write with the best five classes of each image.
        progress: show a progress bar on a terminal.
        **options: fields of ``EvalSettings`` (``batch_size``, ``workers``, ``img_size``, ``crop_pct``, ``device``,
            ``precision``, ...) and of ``DataSpec`` (``dataset``, ``split``, ``class_map``, ``ground_truth``,
            ``class_level``, ``real_labels``, ``valid_labels``, ...).

    Returns:
        A row for each model, in the given order, with the accuracy columns of the results table (percentages as
        ``Float64``, ``num_images`` and ``img_size`` as ``Int64``). A model that failed has its ``error`` and no
        figures. ``attrs['skipped']`` lists images that could not be decoded.

    Raises:
        InputError: an argument is wrong, or the data cannot be read.
        RunError: decoding failed as a whole, or the predictions cannot be written. ``error.measured`` is the table of
            the models that were done by then, or None.
    """
    tables: list[pd.DataFrame] = []
    try:
        evaluation_results(
            model_specs(models, checkpoint, pretrained, num_classes, in_chans, model_kwargs),
            record(DataSpec, options, root=path_of(data)),
            record(EvalSettings, options),
            run_dir=path_of(run_dir),
            restart=restart,
            predictions=path_of(predictions),
            progress=progress,
            measured=lambda results: tables.append(_accuracy_table(results)),
            names=_KEYWORDS,
        )
    except EcaZooError as error:
        error.measured = next(iter(tables), None)
        raise
    return tables[0]


def _accuracy_table(results: Sequence[AccuracyResult]) -> pd.DataFrame:
    frame = to_frame([{'model': result.model, **_cells(result)} for result in results])
    frame = select(frame, ['accuracy'], ['params', 'param_count'])
    frame.attrs['skipped'] = sorted({f'{image.name}: {image.reason}' for r in results for image in r.skipped})
    return frame


def _cells(result: AccuracyResult) -> dict[str, Any]:
    if result.error is not None:
        return {'error': result.error}
    return {**cells_of('accuracy', result), 'params': result.params, 'param_count': result.param_count}


def evaluation_results(
    models: Sequence[ModelSpec],
    data: DataSpec,
    settings: EvalSettings,
    *,
    run_dir: Path | None = None,
    restart: bool = False,
    predictions: Path | None = None,
    record_every: float = evaluation.RECORD_EVERY,
    progress: bool = False,
    stop: StopRequest | None = None,
    measured: Callable[[list[AccuracyResult]], None] | None = None,
    names: Mapping[str, str] | None = None,
) -> list[AccuracyResult]:
    """What ``evaluate`` counted, with the counts of each class; the other arguments are those of ``evaluate``.

    Args:
        record_every: seconds between two records of partial counts in ``run_dir``.
        stop: when it is set, what was counted is recorded and the evaluation ends.
        measured: called once, with the results of the models that are done, before anything else that can fail.
        names: of settings in messages, by default the flags of the command.
    """
    if restart and run_dir is None:
        raise InputError('--restart is about a --run-dir; name one')
    if predictions is not None:
        check_place(predictions, '--save-predictions')
        if predictions.suffix.lower() in ('.csv', '.json', '.md'):
            raise InputError(f'{predictions}: predictions are Parquet; name a file .parquet with --save-predictions')
    processes = current()
    directory: Any = contextlib.nullcontext()
    if run_dir is not None:
        directory = RunDirectory(run_dir, {'command': 'validate'}, restart, processes.rank)
    with directory as journal, ProgressBars(progress and processes.is_main) as bars:

        def show(state: Progress) -> None:
            name = state.models[0] if len(state.models) == 1 else f'{len(state.models)} models'
            bars.show(name, state.done, state.total, unit='img')

        def finish(results: list[AccuracyResult]) -> None:
            bars.close()
            if measured is not None:
                measured(results)

        return evaluation.evaluate(
            models, data, settings, journal=journal, progress=show, stop=stop, predictions=predictions,
            record_every=record_every, measured=finish, names=names,
        )  # fmt: skip


@takes(ThroughputSettings, without=('train',))
def benchmark(
    models: 'Models',
    *,
    baseline: str | nn.Module | None = None,
    bench: str = 'inference',
    precision: str | Sequence[str] = 'fp32',
    backend: str | Sequence[str] = 'torch',
    num_classes: int | None = None,
    in_chans: int | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    results_file: str | Path | None = None,
    results_format: str | None = None,
    progress: bool = False,
    **options: Any,
) -> pd.DataFrame:
    """Complexity and throughput of networks, timed in turn round by round; weights make no difference and are random.

    Args:
        models: as of ``evaluate``; a network that is built already is timed with its own weights, in a copy.
        baseline: network that ratios refer to; it is timed in the same rounds.
        bench: ``inference``, ``train``, ``both``, or ``profile`` for complexity alone.
        precision: one or several of ``eca_zoo.harness.machine.devices.PRECISIONS``; a row for each.
        backend: one or several of torch, onnxruntime and openvino; a row for each.
        num_classes: of the networks.
        in_chans: channels of their input.
        model_kwargs: further arguments of their entry points.
        results_file: file that the table is written to whenever a group of networks is done.
        results_format: of that file (csv, json, md or parquet), where its name does not end in it.
        progress: show a progress bar on a terminal.
        **options: fields of ``ThroughputSettings`` (``device``, ``batch_size``, ``img_size``, ``channels_last``,
            ``compile``, ``fuse``, ``rounds``, ``threads``, ...).

    Returns:
        A row for each network and setting, with the columns of the results table but the accuracies.

    Raises:
        InputError: an argument is wrong, or not possible on this machine.
        RunError: the results file cannot be written. ``error.measured`` is the table.
        InterruptedRunError: Ctrl-C was pressed. ``error.measured`` is the table as far as it is known.
    """
    if bench not in MODES:
        raise InputError(f'bench {bench!r} is unknown; use one of {", ".join(MODES)}')
    file = ResultsFile(Path(results_file), results_format) if results_file is not None else None
    specs = model_specs(models, None, True, num_classes, in_chans, model_kwargs)
    reference = None if baseline is None else one_model(baseline)
    if reference is not None:
        specs = [reference if spec.title == reference.title else spec for spec in specs]
    settings = [
        record(ThroughputSettings, options, precision=one_precision, backend=one_backend)
        for one_backend in several(backend)
        for one_precision in several(precision)
    ]
    measurements = Measurements(specs, settings, bench, reference)

    if file is not None and not file.is_stream:
        _write(measurements.table(), file)
    try:
        with ProgressBars(progress) as bars:
            for _ in measurements.run(functools.partial(bars.show, 'throughput')):
                if file is not None and not file.is_stream:
                    _write_again(measurements.table(), file)
    except KeyboardInterrupt as wish:
        name = 'SIGTERM' if isinstance(wish, Terminated) else 'SIGINT'
        error = InterruptedRunError(
            f'stopped by {name}; networks whose rounds were not done have no throughput', signal_name=name
        )
        error.measured = _finished(measurements, file)
        raise error from None
    return _finished(measurements, file)


def _finished(measurements: Measurements, file: ResultsFile | None) -> pd.DataFrame:
    """The table, which is in the file too.

    Raises:
        StorageError: it cannot be written; the error has the table.
    """
    table = measurements.table()
    shown = select(table, ['complexity', 'reported', 'setting', 'infer', 'train'])
    try:
        if file is not None:
            _write(table, file)
    except EcaZooError as error:
        error.measured = shown
        raise
    return shown


def _write(table: pd.DataFrame, file: ResultsFile) -> None:
    file.write(table[NAMES], formatted(table, NAMES), to_json(table))


def _write_again(table: pd.DataFrame, file: ResultsFile) -> None:
    """Write the table as far as it is known; it is tried again with the next rows."""
    try:
        _write(table, file)
    except StorageError as error:
        _logger.warning('%s', error)


@takes()
def complexity(
    models: 'Models',
    *,
    img_size: int | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Parameters, multiply-adds and activations of networks, counted without any weight in memory.

    Args:
        models: as of ``evaluate``.
        img_size: height and width in pixels; each network's own evaluation size by default.
        num_classes: of the networks.
        in_chans: channels of their input.
        model_kwargs: further arguments of their entry points.

    Returns:
        A row for each network with the columns of its complexity.

    Raises:
        InputError: an argument is wrong.
        RunError: a network cannot be counted.
    """
    specs = model_specs(models, None, True, num_classes, in_chans, model_kwargs)
    rows = [{'model': spec.title, **cells_of('complexity', complexity_of_spec(spec, img_size))} for spec in specs]
    return select(to_frame(rows), ['complexity']).drop(columns='error')


@takes()
def leaderboard(
    suite: str | Path,
    out: str | Path,
    *,
    data_dir: str | Path | None = None,
    restart: bool = False,
    format: str = 'eca',
    progress: bool = False,
    command_line: Sequence[str] = (),
    stop: StopRequest | None = None,
) -> pd.DataFrame | None:
    """Accuracy, complexity and throughput of a suite, in a run directory that a killed run continues in.

    Args:
        suite: YAML file, or the name of one that comes with the package.
        out: run directory.
        data_dir: folder of the suite's data set.
        restart: forget what ``out`` holds.
        format: ``timm`` writes timm's files too.
        progress: show a progress bar on a terminal.
        command_line: for ``environment.json``.
        stop: when it is set, what was measured is recorded and the run ends.

    Returns:
        The table with all its columns; ``attrs`` has ``files`` (written), ``notes`` (why cells are empty), ``errors``
        (what failed, a line a network) and ``top1_tolerance`` of the suite. None in processes beside the main one.

    Raises:
        InputError: the suite, the data or the run directory cannot be used.
        RunError: decoding failed as a whole.
    """
    if format not in ('eca', 'timm'):
        raise InputError(f'format {format!r} is unknown; use eca or timm')
    processes = current()
    read = agreed(lambda: read_suite(str(suite)))
    with ProgressBars(progress and processes.is_main) as bars:
        board = run_leaderboard(
            read, Path(out), path_of(data_dir), restart=restart, timm_format=format == 'timm', processes=processes,
            command_line=command_line, report=bars.show, stop=stop,
        )  # fmt: skip
    if board is None:
        return None
    board.table.attrs.update(
        files=[str(path) for path in board.files], notes=board.notes, errors=board.errors,
        top1_tolerance=read.top1_tolerance,
    )  # fmt: skip
    return board.table


@takes()
def report(
    path: str | Path,
    out: str | Path | None = None,
    *,
    figures: str | Path | None = None,
    space: str | Path | None = None,
) -> list[Path]:
    """Write one HTML page of a table: it needs no server and no network, and the same input gives the same bytes.

    Args:
        path: the ``out`` of a leaderboard, or a table as CSV (timm's results files too).
        out: file of the page; by default ``report.html`` beside the table.
        figures: folder for figures as SVG, PDF and PNG with the plotted points as CSV; needs matplotlib.
        space: folder for a static Space of the Hugging Face Hub.

    Returns:
        The files that were written; the page is the first.

    Raises:
        InputError: there is no usable table, or something that is not ours is in the way of an output.
        RunError: an output cannot be written.
    """
    return write_report(Path(path), path_of(out), path_of(figures), path_of(space))


@takes()
def compare(
    old: str | Path | None, new: str | Path, *, tolerance: float = 0.1, speed_tolerance: float = 5.0
) -> Comparison:
    """Two runs beside each other: what differs around them, and which differences of their figures are real.

    Args:
        old: the earlier run: the ``out`` of a leaderboard, or a table as CSV (timm's results files too); None for the
            figures that the authors reported.
        new: the later run.
        tolerance: percentage points that an accuracy may get worse by.
        speed_tolerance: percent that a throughput may get worse by.

    Returns:
        The comparison: ``context``, ``rows`` with a verdict on each figure, ``added``, ``gone``, ``regressions``.

    Raises:
        InputError: there is no usable table, or the runs have nothing in common.
    """
    later = read_run(Path(new))
    earlier = published_run(later.table['model'], load_manifest()) if old is None else read_run(Path(old))
    return compare_runs(earlier, later, tolerance, speed_tolerance)
