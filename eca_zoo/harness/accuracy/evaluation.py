"""Accuracy of many models on one data set: each image is read once for all models that share a transform."""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch.utils.data._utils import signal_handling

from eca_zoo.errors import InputError, settings_named
from eca_zoo.harness.accuracy.passes import RECORD_EVERY
from eca_zoo.harness.accuracy.predictions import PredictionStore
from eca_zoo.harness.accuracy.results import AccuracyResult, Progress
from eca_zoo.harness.accuracy.run import AccuracyRun
from eca_zoo.harness.accuracy.run_log import log_start
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.datasets import OpenData, open_data
from eca_zoo.harness.data.images import digest
from eca_zoo.harness.machine.flags import numeric_flags
from eca_zoo.harness.machine.processes import Processes, agreed, check_own_devices, current, gather, local_device
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.resume.journal import RunDirectory
from eca_zoo.harness.resume.signals import StopRequest

_RECOMPILE_LIMIT = 1024


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
        # cuDNN chooses algorithms by rules, so that a run that is continued gives the same digits.
        flags = numeric_flags(run.settings.precision, search=False, deterministic=True)
        with flags, _room_to_compile(run.settings), _handler_of_children_kept():
            run.evaluate(models)
    except Exception:
        if run.results:
            measured([run.results[title] for title in titles if title in run.results])
        raise
    measured([run.results[title] for title in titles])


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


def _room_to_compile(settings: EvalSettings) -> contextlib.AbstractContextManager:
    """Networks of one class share a limit of compiled variants; beyond it, they would silently run uncompiled."""
    if not settings.compile:
        return contextlib.nullcontext()
    import torch._dynamo

    return torch._dynamo.config.patch(recompile_limit=_RECOMPILE_LIMIT)


@contextlib.contextmanager
def _handler_of_children_kept() -> Iterator[None]:
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
