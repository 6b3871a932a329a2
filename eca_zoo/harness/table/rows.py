"""Rows of the results table, put together from what was measured."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eca_zoo.harness.accuracy.results import AccuracyResult
from eca_zoo.harness.networks.complexity import Complexity
from eca_zoo.harness.speed.results import ThroughputResult
from eca_zoo.harness.speed.settings import ThroughputSettings
from eca_zoo.harness.table.columns import FVCORE
from eca_zoo.weights.manifest import Entry, Manifest


@dataclass
class Measured:
    """Throughputs under one setting by network: of inference, and of training steps."""

    infer: dict[str, ThroughputResult] = field(default_factory=dict)
    train: dict[str, ThroughputResult] = field(default_factory=dict)


def accuracy_cells(result: AccuracyResult) -> dict[str, Any]:
    """The cells that hold an accuracy, or why there is none."""
    if result.error is not None:
        return {'error': result.error}
    names = ('weights_sha256', 'dataset', 'num_images', 'top1', 'top1_err', 'top5', 'top5_err', 'top1_ci95')
    return {name: getattr(result, name) for name in (*names, 'img_size', 'crop_pct', 'interpolation')}


def complexity_cells(counts: Complexity) -> dict[str, Any]:
    """The cells that hold the complexity."""
    return {
        'infer_img_size': counts.input_size[-1],
        'param_count': counts.params / 1e6,
        'params': counts.params,
        'infer_gmacs': counts.macs / 1e9,
        FVCORE: counts.macs_fvcore / 1e9,
        'infer_macts': counts.activations / 1e6,
        'params_paper': counts.params_paper,
        'gflops_paper': counts.gflops_paper,
    }


def settings_cells(settings: ThroughputSettings) -> dict[str, Any]:
    """The cells that say how a throughput was measured."""
    foreign = settings.backend != 'torch'
    return {
        'device': settings.device,
        'precision': settings.precision,
        'memory_format': 'channels_last' if settings.channels_last else 'contiguous',
        'compile': None if foreign else settings.compile or 'none',
        'backend': settings.backend,
        'fused': 'yes' if settings.fuse else 'no',
    }


def throughput_cells(result: ThroughputResult) -> dict[str, Any]:
    """The cells that hold a throughput, of inference or of training steps."""
    cells = settings_cells(result.settings)
    if result.error is not None:
        return {**cells, 'error': result.error}
    mode = 'train' if result.settings.train else 'infer'
    cells |= {
        f'{mode}_samples_per_sec': result.samples_per_sec,
        f'{mode}_step_time': result.step_time_ms,
        f'{mode}_batch_size': result.batch_size,
        f'{mode}_img_size': result.img_size,
    }
    if result.settings.train:
        return {**cells, 'train_relative_throughput': result.relative}
    return {
        **cells,
        'infer_step_time_p95': result.step_time_p95_ms,
        'infer_spread': result.spread_percent,
        'relative_throughput': result.relative,
        'peak_memory_mb': result.peak_memory_mb,
    }


def reported_cells(
    name: str, manifest: Manifest, dataset: str | None = None, top1: float | None = None
) -> dict[str, Any]:
    """The cells that hold what the authors report for ``name``; a name without tag stands for its only entry.

    Args:
        name: of the network.
        manifest: where the figures are.
        dataset: that ``top1`` was measured on; a difference is given for the reported one alone.
        top1: measured, in percent.
    """
    entry = entry_of(name, manifest)
    if entry is None or entry.reported is None:
        return {}
    comparable = top1 is not None and dataset == entry.dataset
    return {
        'reported_top1': entry.reported.top1,
        'reported_top5': entry.reported.top5,
        'delta_top1': top1 - entry.reported.top1 if comparable and top1 is not None else None,
    }


def entry_of(name: str, manifest: Manifest) -> Entry | None:
    """The manifest's entry of a network; a name without tag stands for its only one. None if there is none."""
    if '.' in name:
        return manifest.models.get(name)
    tags = manifest.tags(name)
    return manifest.models[tags[0]] if len(tags) == 1 else None


def complexity_size(settings: ThroughputSettings, shared_cells: Mapping[str, Any]) -> int | None:
    """Image size for the complexity of a row: that of its throughput, else of its accuracy, else the network's own."""
    return shared_cells.get('img_size') if settings.img_size is None else settings.img_size


def throughput_rows(
    names: Sequence[str],
    measured: Iterable[tuple[ThroughputSettings, Measured]],
    complexity_of: Callable[[str, int | None], Mapping[str, Any]],
    shared_cells: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """One row a network and setting, in the order of ``names``; one a network if nothing was timed.

    Args:
        names: of the networks.
        measured: each setting with its throughputs.
        complexity_of: cells of the complexity of a network at an image size, or at its own.
        shared_cells: cells that all rows of a network share: accuracy, reported figures.
    """
    measured = list(measured) or [(ThroughputSettings(), Measured())]
    rows = []
    for name in names:
        for settings, results in measured:
            timed = [result for result in (results.infer.get(name), results.train.get(name)) if result is not None]
            own = shared_cells.get(name, {})
            parts = [complexity_of(name, complexity_size(settings, own)), own, *map(throughput_cells, timed)]
            errors = dict.fromkeys(part['error'] for part in parts if part.get('error'))
            row: dict[str, Any] = {'model': name}
            for part in parts:
                row |= part
            rows.append({**row, 'error': '; '.join(errors) or None})
    return rows
