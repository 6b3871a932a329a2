"""Accuracy of many models on one data set: each image is read once for all models that share a transform."""

import contextlib
import dataclasses
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data._utils import signal_handling

from eca_zoo.errors import InputError, RunError, one_line, settings_named
from eca_zoo.harness.accuracy.passes import RECORD_EVERY
from eca_zoo.harness.accuracy.predictions import Part, PredictionStore
from eca_zoo.harness.accuracy.results import AccuracyResult, Progress
from eca_zoo.harness.accuracy.run import AccuracyRun
from eca_zoo.harness.accuracy.run_log import log_start
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.datasets import OpenData, open_data
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
    measured: Callable[[list[AccuracyResult]], None] | None = None,
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
    processes, names = current(), names or {}
    titles = [spec.title for spec in models]
    with contextlib.ExitStack() as during:
        during.enter_context(settings_named(names))
        settings, opened = agreed(lambda: _prepare(titles, data, settings or EvalSettings(), processes))
        agreed(lambda: check_own_devices(torch.device(settings.device)))
        agreed(lambda: _check_same_data(opened))
        run = AccuracyRun(opened, settings, processes, journal, progress, stop or StopRequest(), record_every, names)
        run.say(opened.remarks())
        if predictions is not None or confusion:
            run.store = PredictionStore(opened, journal, predictions is not None)
        log_start(titles, opened, settings)
        _evaluate(run, models, measured)
        if run.store is not None and predictions is not None:
            run.store.write(predictions, [run.results[title] for title in titles])
    return [run.results[title] for title in titles]


def _evaluate(
    run: AccuracyRun, models: Sequence[ModelSpec], measured: Callable[[list[AccuracyResult]], None] | None
) -> None:
    """Evaluate ``models`` and hand the results to ``measured``, those of an evaluation that fails too."""
    measured = measured or (lambda _: None)
    titles = [spec.title for spec in models]
    try:
        lost = _lost_device(run, models)
        if lost is not None:
            _evaluate_elsewhere(run, [spec for spec in models if spec.title not in run.results], lost)
    except Exception:
        if run.results:
            measured([run.results[title] for title in titles if title in run.results])
        raise
    measured([run.results[title] for title in titles])


def flags_of(settings: EvalSettings) -> dict[str, Any]:
    """torch's flags during an evaluation with these settings, ready for JSON."""
    return flags_in_force(**_flags(settings))


def _flags(settings: EvalSettings) -> dict[str, Any]:
    search = settings.cudnn_benchmark
    return {'precision': parse_precision(settings.precision), 'search': search, 'deterministic': not search}


def _lost_device(run: AccuracyRun, models: Sequence[ModelSpec]) -> str | None:
    """Evaluate ``models``; returns why this process can do nothing more on its device, if it cannot.

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
            run.evaluate(models)
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


def _evaluate_elsewhere(run: AccuracyRun, models: Sequence[ModelSpec], reason: str) -> None:
    """Evaluate each of ``models`` in a process of its own, after this one has lost its device to one of them."""
    _logger.warning('%s is lost to this process: %s; each model is evaluated alone', run.settings.device, reason)
    names = dict(run.names)
    for spec in models:
        run.meanwhile([spec.title])
        try:
            result, parts = in_fresh_process(
                _evaluated, spec, run.data.spec, run.settings, names, run.store is not None,
                ask=lambda title=spec.title: run.meanwhile([title]),  # type: ignore[misc]
            )  # fmt: skip
        except RunError as error:
            run.fail(spec, None, RunError(f'{spec.title}: {error}'))
        else:
            run.take(result, parts)


def _evaluated(
    spec: ModelSpec, data: DataSpec, settings: EvalSettings, names: Mapping[str, str], keep_predictions: bool
) -> tuple[AccuracyResult, list[Part]]:
    """The result of a model, and its guesses, in a process that does nothing else."""
    opened = open_data(data)
    run = AccuracyRun(opened, settings, Processes(), None, None, StopRequest(), RECORD_EVERY, names)
    if keep_predictions:
        run.store = PredictionStore(opened, None)
    lost = _lost_device(run, [spec])
    if lost is not None:
        raise RunError(lost)
    return run.results[spec.title], run.store.parts(spec.title) if run.store is not None else []


def _prepare(
    titles: list[str], data: DataSpec, settings: EvalSettings, processes: Processes
) -> tuple[EvalSettings, OpenData]:
    """Check everything that can be wrong before a model is loaded."""
    settings = dataclasses.replace(settings, device=local_device(settings.device, processes)).checked()
    repeated = next((title for title in titles if titles.count(title) > 1), None)
    if repeated is not None:
        raise InputError(f'the model {repeated} is named twice; name it once')
    opened = open_data(data)
    if opened.images.is_stream and processes.world_size > 1:
        raise InputError(
            f'{data.dataset}: a streamed data set cannot be split between processes exactly; start one process, or '
            'download the data set and name its folder or shards'
        )
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
