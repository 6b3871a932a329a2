"""Accuracy of many models: each image is read once for all models that share a transform, and all its labels."""

import contextlib
import dataclasses
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data._utils import signal_handling

from eca_zoo.errors import InputError, RunError, one_line, settings_named
from eca_zoo.harness.accuracy.label_sets.counting import TABLE
from eca_zoo.harness.accuracy.passes import RECORD_EVERY
from eca_zoo.harness.accuracy.predictions import Part, PredictionStore
from eca_zoo.harness.accuracy.results import AccuracyResult, Progress
from eca_zoo.harness.accuracy.run import AccuracyRun
from eca_zoo.harness.accuracy.run_log import log_start
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.datasets import OpenData, open_label_sets
from eca_zoo.harness.data.gpu_decoding.device_decoder import check_decoder
from eca_zoo.harness.data.images import digest
from eca_zoo.harness.machine.device_errors import is_device_lost
from eca_zoo.harness.machine.devices import as_current, parse_precision
from eca_zoo.harness.machine.flags import compiled_alone, flags_in_force, numeric_flags
from eca_zoo.harness.machine.fresh_process import in_fresh_process
from eca_zoo.harness.machine.processes import Processes, agreed, check_own_devices, current, gather, local_device
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.resume.journal import RunDirectory
from eca_zoo.harness.resume.signals import StopRequest

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Models that are evaluated on one data set.

    Attributes:
        models: what to evaluate; titles must differ.
        data: on what.
        table: part of the run directory that holds it, see ``table_of``.
    """

    models: Sequence[ModelSpec]
    data: DataSpec
    table: str = TABLE


Measured = Callable[[list[AccuracyResult]], None]


def evaluate(
    models: Sequence[ModelSpec],
    data: DataSpec,
    settings: EvalSettings | None = None,
    *,
    journal: RunDirectory | None = None,
    progress: Callable[[Progress], None] | None = None,
    stop: StopRequest | None = None,
    predictions: Path | None = None,
    confusion: bool = False,
    record_every: float = RECORD_EVERY,
    measured: Measured | None = None,
    names: Mapping[str, str] | None = None,
) -> list[AccuracyResult]:
    """Evaluate ``models`` on ``data``; one result each, in their order.

    A model that fails is a result with an ``error`` and does not stop the others. Under ``torchrun`` (see
    ``harness.machine.processes.process_group``) each process counts its part of the images, and all return the same
    results. torch's global flags and random state are as before afterwards.

    Args:
        models: what to evaluate; titles must differ.
        data: on what.
        settings: how.
        journal: an open run directory: what it holds is not counted again, and what is counted is recorded in it.
        progress: called a few times a second by the main process.
        stop: when it is set, what was counted is recorded and the evaluation ends.
        predictions: Parquet file to write with the best guesses for each image.
        confusion: count which classes were taken for which.
        record_every: seconds between two records of partial counts.
        measured: called once, with the results of the models that are done, before anything else that can fail: before
            predictions are written, and before an error that ends the evaluation is raised.
        names: of settings in messages, see ``with_names``; by default the flags of ``validate``.

    Raises:
        InputError: the data set or a setting cannot be used, an image cannot be decoded, or the run directory belongs
            to another run.
        RunError: decoding failed as a whole, or the predictions cannot be written.
        InterruptedRunError: ``stop`` was set.
    """
    store = None
    with settings_named(names or {}):
        [run] = _runs([Evaluation(models, data)], settings, journal, progress, stop, record_every, names or {})
        if predictions is not None or confusion:
            store = PredictionStore(run.data, journal, predictions is not None)
            run.label_sets[0].store = store
        _evaluate(run, measured)
        if store is not None and predictions is not None:
            store.write(predictions, run.results)
    return run.results


def evaluate_all(
    evaluations: Sequence[Evaluation],
    settings: EvalSettings | None = None,
    *,
    journal: RunDirectory | None = None,
    progress: Callable[[Progress], None] | None = None,
    stop: StopRequest | None = None,
    record_every: float = RECORD_EVERY,
    measured: Measured | None = None,
    names: Mapping[str, str] | None = None,
) -> None:
    """Evaluate models on several data sets; each image is read once for all sets of labels that it has.

    Data sets that differ in nothing but their labels share a pass: ``real_labels``, ``valid_labels``, ``label``.

    Args:
        evaluations: models and data sets; their tables must differ.
        settings: how.
        journal: as of ``evaluate``.
        progress: likewise.
        stop: likewise.
        record_every: likewise.
        measured: called for each set of images with the results of the models that are done, also before an error that
            ends the evaluation is raised.
        names: likewise.

    Raises:
        InputError: as ``evaluate``.
        RunError: decoding failed as a whole.
        InterruptedRunError: ``stop`` was set.
    """
    with settings_named(names or {}):
        for run in _runs(evaluations, settings, journal, progress, stop, record_every, names or {}):
            _evaluate(run, measured)


def _runs(
    evaluations: Sequence[Evaluation],
    settings: EvalSettings | None,
    journal: RunDirectory | None,
    progress: Callable[[Progress], None] | None,
    stop: StopRequest | None,
    record_every: float,
    names: Mapping[str, str],
) -> list[AccuracyRun]:
    """A run for each set of images, with everything checked that can be wrong before a model is loaded."""
    processes, asked = current(), settings or EvalSettings()
    settings, opened = agreed(lambda: _prepare(evaluations, asked, processes))
    agreed(lambda: check_own_devices(torch.device(settings.device)))
    runs: dict[int, AccuracyRun] = {}
    for one, data in zip(evaluations, opened, strict=True):
        if id(data.images) not in runs:
            agreed(lambda images=data: _check_same_data(images))  # type: ignore[misc]
            log_start([spec.title for spec in one.models], data, settings)
            runs[id(data.images)] = AccuracyRun(
                data, settings, processes, journal, progress, stop or StopRequest(), record_every, names
            )
        runs[id(data.images)].add(one.models, data, one.table)
    return list(runs.values())


def _evaluate(run: AccuracyRun, measured: Measured | None) -> None:
    """Evaluate the models of a run and hand the results to ``measured``, those of an evaluation that fails too."""
    measured = measured or (lambda _: None)
    try:
        lost = _lost_device(run)
        if lost is not None:
            _evaluate_elsewhere(run, lost)
    except Exception:
        if run.results:
            measured(run.results)
        raise
    measured(run.results)


def flags_of(settings: EvalSettings) -> dict[str, Any]:
    """torch's flags during an evaluation with these settings, ready for JSON."""
    return flags_in_force(**_flags(settings))


def _flags(settings: EvalSettings) -> dict[str, Any]:
    search = settings.cudnn_benchmark
    return {'precision': parse_precision(settings.precision), 'search': search, 'deterministic': not search}


def _lost_device(run: AccuracyRun) -> str | None:
    """Evaluate the models of a run; returns why this process can do nothing more on its device, if it cannot.

    Raises:
        RunError: the same, in one of several processes, which cannot be replaced.
    """
    try:
        with (
            as_current(torch.device(run.settings.device)),
            numeric_flags(**_flags(run.settings)),
            compiled_alone(bool(run.settings.compile)),
            handler_of_children_kept(),
        ):
            run.evaluate()
    except RuntimeError as error:
        if not is_device_lost(error):
            raise
        reason = one_line(error)
    else:
        return None
    if run.processes.world_size > 1:
        raise RunError(
            f'process {run.processes.rank} lost {run.settings.device}: {reason}; finished models are kept with '
            '--run-dir, and one process alone finds out which of the others it was'
        )
    return reason


def _evaluate_elsewhere(run: AccuracyRun, reason: str) -> None:
    """Evaluate each model in a process of its own, after this one has lost its device to one of them."""
    _logger.warning('%s is lost to this process: %s; each model is evaluated alone', run.settings.device, reason)
    names = dict(run.names)
    for spec in run.waiting():
        run.meanwhile([spec.title])
        wanted = [labels for labels in run.label_sets if labels.waits_for(spec)]
        keeps = [labels.store is not None for labels in wanted]
        try:
            outcomes = in_fresh_process(
                _evaluated, spec, [labels.data.spec for labels in wanted], run.settings, names, keeps,
                ask=lambda title=spec.title: run.meanwhile([title]),  # type: ignore[misc]
            )  # fmt: skip
        except RunError as error:
            run.fail(spec, None, RunError(f'{spec.title}: {error}'))
        else:
            for labels, (result, parts) in zip(wanted, outcomes, strict=True):
                labels.take(result, parts)


def _evaluated(
    spec: ModelSpec, data: list[DataSpec], settings: EvalSettings, names: Mapping[str, str], keeps: list[bool]
) -> list[tuple[AccuracyResult, list[Part]]]:
    """The results of a model on each set of labels, and its guesses, in a process that does nothing else."""
    opened = open_label_sets(data)
    run = AccuracyRun(opened[0], settings, Processes(), None, None, StopRequest(), RECORD_EVERY, names)
    for one, keep in zip(opened, keeps, strict=True):
        run.add([spec], one, store=PredictionStore(one, None) if keep else None)
    lost = _lost_device(run)
    if lost is not None:
        raise RunError(lost)
    return [
        (labels.results[spec.title], labels.store.parts(spec.title) if labels.store is not None else [])
        for labels in run.label_sets
    ]


def _prepare(
    evaluations: Sequence[Evaluation], settings: EvalSettings, processes: Processes
) -> tuple[EvalSettings, list[OpenData]]:
    """Check everything that can be wrong before a model is loaded."""
    settings = dataclasses.replace(settings, device=local_device(settings.device, processes)).checked()
    for one in evaluations:
        titles = [spec.title for spec in one.models]
        repeated = next((title for title in titles if titles.count(title) > 1), None)
        if repeated is not None:
            raise InputError(f'the model {repeated} is named twice; name it once')
    opened = open_label_sets([one.data for one in evaluations])
    for data in opened:
        if data.images.is_stream and processes.world_size > 1:
            raise InputError(
                f'{data.spec.dataset}: a streamed data set cannot be split between processes exactly; start one '
                'process, or download the data set and name its folder or shards'
            )
        if data.images.is_stream and settings.preprocess == 'gpu':
            raise InputError(f'{data.spec.dataset}: a stream decodes its images itself; leave out --preprocess gpu')
    if settings.preprocess == 'gpu':
        check_decoder(torch.device(settings.device))
    return settings, opened


@contextlib.contextmanager
def handler_of_children_kept() -> Iterator[None]:
    """Give SIGCHLD its handler back: torch's loaders with workers set one, the first time and for good."""
    if not hasattr(signal, 'SIGCHLD') or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if before is not None and signal.getsignal(signal.SIGCHLD) != before:
            signal.signal(signal.SIGCHLD, before)
            # The next loader, the user's own perhaps, sets it again.
            signal_handling._SIGCHLD_handler_set = False


def _check_same_data(opened: OpenData) -> None:
    """Refuse processes on machines that see other files."""
    if current().world_size == 1:
        return
    seen = gather(digest(opened.images.names()))
    different = next((rank for rank, names in enumerate(seen) if names != seen[0]), None)
    if different is not None:
        raise InputError(
            f'{opened.spec.root or opened.spec.dataset}: process {different} sees other files there than process 0; '
            'all machines need the same'
        )
