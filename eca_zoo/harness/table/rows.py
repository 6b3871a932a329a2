"""Rows of the results table, put together from what was measured."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from eca_zoo.harness.accuracy.label_sets.paired import PairedCounts
from eca_zoo.harness.accuracy.results import AccuracyResult
from eca_zoo.harness.speed.results import ThroughputResult
from eca_zoo.harness.speed.settings import ThroughputSettings
from eca_zoo.harness.table.columns import cells_of
from eca_zoo.harness.table.frames import to_frame
from eca_zoo.weights.manifest import Entry, Manifest

_SHARED_FUSED = 'fused of the accuracy'
_KEYS = ['model', 'part', 'setting']


@dataclass
class Measured:
    """Throughputs under one setting by network: of inference, and of training steps."""

    infer: dict[str, ThroughputResult] = field(default_factory=dict)
    train: dict[str, ThroughputResult] = field(default_factory=dict)


def accuracy_cells(result: AccuracyResult) -> dict[str, Any]:
    """The cells that hold an accuracy, or why there is none."""
    return {'error': result.error} if result.error is not None else cells_of('accuracy', result)


def paired_cells(counts: PairedCounts, baseline: str) -> dict[str, Any]:
    """The cells that hold the difference to the network ``baseline`` on the same images."""
    low, high = counts.interval95() or (None, None)
    return {
        'delta_vs_baseline': counts.difference,
        'delta_ci95_low': low,
        'delta_ci95_high': high,
        'p_vs_baseline': counts.p_value(),
        'baseline': baseline,
    }


def throughput_cells(result: ThroughputResult) -> dict[str, Any]:
    """The cells that hold a throughput, of inference or of training steps, and how it was measured."""
    cells = cells_of('setting', result.settings)
    if result.error is not None:
        return {**cells, 'error': result.error}
    return cells | cells_of('train' if result.settings.train else 'infer', result)


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
    reported = entry.reported.top1
    comparable = top1 is not None and reported is not None and dataset == entry.dataset
    return {
        'reported_top1': reported,
        'reported_top5': entry.reported.top5,
        'delta_top1': top1 - reported if comparable and top1 is not None and reported is not None else None,
    }


def entry_of(name: str, manifest: Manifest) -> Entry | None:
    """The manifest's entry of a network; a name without tag stands for its only one. None if there is none."""
    if '.' in name:
        return manifest.models.get(name)
    tags = manifest.tags(name)
    return manifest.models[tags[0]] if len(tags) == 1 else None


#: By network the cells of its rows on each data set: accuracy, reported figures.
Accuracies = Mapping[str, Sequence[Mapping[str, Any]]]

#: What a complexity is counted for: a network, the image size (None: its own), and whether its branches are folded.
ComplexityKey = tuple[str, int | None, bool]


def complexity_key(name: str, settings: ThroughputSettings, accuracy: Mapping[str, Any]) -> ComplexityKey:
    """The complexity of a row: at the image size of its throughput, else of its accuracy, else of the network."""
    img_size = accuracy.get('img_size') if settings.img_size is None else settings.img_size
    return name, img_size, settings.reparameterize


def join_measurements(
    names: Sequence[str],
    measured: Iterable[tuple[ThroughputSettings, Measured]],
    complexity_of: Callable[[ComplexityKey], Mapping[str, Any]],
    accuracies: Accuracies,
) -> pd.DataFrame:
    """The table: one row a network, data set and setting, in the order of ``names``.

    A network that was validated on nothing has a row for each setting, and one if nothing was timed.

    Args:
        names: of the networks.
        measured: each setting with its throughputs.
        complexity_of: cells of a complexity.
        accuracies: cells of the networks on each data set.
    """
    settings = list(measured) or [(ThroughputSettings(), Measured())]
    table = pd.DataFrame(
        [
            (name, part, number)
            for name in names
            for part in range(len(accuracies.get(name) or [{}]))
            for number in range(len(settings))
        ],
        columns=_KEYS,
    )
    complexities, inferences, trainings, shared = [], [], [], []
    for name, (number, (given, results)) in itertools.product(names, enumerate(settings)):
        key = {'model': name, 'setting': number}
        for part, cells in enumerate(accuracies.get(name) or [{}]):
            counted = complexity_of(complexity_key(name, given, cells))
            complexities.append(key | {'part': part} | dict(counted))
        inferences += [key | throughput_cells(results.infer[name])] if name in results.infer else []
        trainings += [key | throughput_cells(results.train[name])] if name in results.train else []
    for name, parts in accuracies.items():
        for part, cells in enumerate(parts):
            named = {_SHARED_FUSED if key == 'fused' else key: cell for key, cell in cells.items()}
            shared.append({'model': name, 'part': part, **named})
    errors = []
    timed = ['model', 'setting']
    for rows, on in ((complexities, _KEYS), (shared, ['model', 'part']), (inferences, timed), (trainings, timed)):
        table, error = _joined(table, rows, on)
        errors.append(error)
    reasons = ['; '.join(dict.fromkeys(filter(None, of_row))) or None for of_row in zip(*errors, strict=True)]
    table = table.drop(columns=['part', 'setting']).assign(error=reasons)
    if _SHARED_FUSED in table:
        of_accuracy = table.pop(_SHARED_FUSED)
        of_throughput = table.get('fused', pd.Series(None, table.index, dtype=object))
        table['fused'] = list(map(_which_is_fused, of_accuracy, of_throughput))
    return to_frame(table)


def _which_is_fused(accuracy: Any, throughput: Any) -> str | None:
    """The cell ``fused`` of a row whose parts have these; what was not measured has none."""
    if pd.isna(throughput) or pd.isna(accuracy):
        return next((cell for cell in (accuracy, throughput) if not pd.isna(cell)), None)
    if accuracy == throughput:
        return accuracy
    return 'accuracy' if accuracy == 'yes' else 'throughput'


def _joined(table: pd.DataFrame, rows: list[dict[str, Any]], on: list[str]) -> tuple[pd.DataFrame, list[str | None]]:
    """``table`` with the cells of ``rows``, which win over present ones, and the error of each row of the result."""
    part = pd.DataFrame.from_records(rows, columns=None if rows else on).astype(object)
    part = part.astype(table.dtypes[on].to_dict()).assign(**({} if 'error' in part else {'error': None}))
    merged = table.merge(part, on=on, how='left', suffixes=('', ' of the part'))
    errors = merged.pop('error')
    for name in table.columns.intersection(part.columns).difference(on):
        merged[name] = merged.pop(f'{name} of the part').combine_first(merged[name])
    return merged, [error if isinstance(error, str) else None for error in errors]
