"""Throughput and complexity from Python."""

import dataclasses
import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import nn

from eca_zoo.arguments import model_specs, one_model, record, several, takes
from eca_zoo.errors import EcaZooError, InputError, Terminated
from eca_zoo.files import StorageError
from eca_zoo.harness.machine.gpus import busy_gpus, describe_gpus
from eca_zoo.harness.networks.baselines import Baseline, with_baseline
from eca_zoo.harness.networks.complexity import complexity_of_spec
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.resume.signals import InterruptedRunError
from eca_zoo.harness.speed.settings import ThroughputSettings
from eca_zoo.harness.table.columns import cells_of
from eca_zoo.harness.table.files import formatted, to_json
from eca_zoo.harness.table.frames import NAMES, select, to_frame
from eca_zoo.harness.table.measurements import MODES, Measurements
from eca_zoo.harness.table.results_file import ResultsFile
from eca_zoo.progress import ProgressBars

if TYPE_CHECKING:
    Models = str | Path | nn.Module | Iterable[str | nn.Module] | Mapping[str, str | nn.Module]

_logger = logging.getLogger(__name__)


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
        baseline: network that ratios refer to, which is timed in the same rounds; ``plain`` is each network's own
            counterpart without ECA layers.
        bench: ``inference``, ``train``, ``both``, or ``profile`` for complexity alone.
        precision: one or several of ``eca_zoo.harness.machine.devices.PRECISIONS``; a row for each.
        backend: one or several of torch, onnxruntime and openvino; a row for each.
        num_classes: of the networks.
        in_chans: channels of their input.
        model_kwargs: further arguments of their entry points.
        results_file: file that the table is written to whenever a group of networks is done.
        results_format: of that file (csv, json, md or parquet), where its name does not end in it.
        progress: show a progress bar on a terminal; elsewhere log a line a minute.
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
    specs, reference = _compared(specs, baseline, num_classes, in_chans)
    settings = [
        record(ThroughputSettings, options, precision=one_precision, backend=one_backend)
        for one_backend in several(backend)
        for one_precision in several(precision)
    ]
    measurements = Measurements(specs, settings, bench, reference)
    if any(one.device != 'cpu' for one in settings):
        for line in busy_gpus(describe_gpus()):
            _logger.warning('%s', line)
    if file is not None and not file.is_stream:
        _write(measurements.table(), file)
    try:
        with ProgressBars(progress) as bars:
            for _ in measurements.run(functools.partial(bars.show, 'throughput', unit='rounds')):
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


def _compared(
    specs: list[ModelSpec], baseline: str | nn.Module | None, num_classes: int | None, in_chans: int | None
) -> tuple[list[ModelSpec], Baseline]:
    """The networks with those that they are compared with, which take the same images and give as many classes."""
    if baseline is None or not isinstance(baseline, str):
        return specs, None if baseline is None else one_model(baseline)
    compared, reference = with_baseline(specs, baseline)
    if isinstance(reference, ModelSpec) and reference not in specs:
        reference = dataclasses.replace(reference, num_classes=num_classes, in_chans=in_chans)
        return specs, reference
    if isinstance(reference, Mapping):
        alone = [spec.title for spec in compared if spec.title not in reference]
        if alone:
            _logger.warning('no plain counterpart, and so no relative throughput: %s', ', '.join(alone))
    return compared, reference


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
