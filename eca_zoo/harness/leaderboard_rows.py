"""What the rows of a leaderboard hold beside throughput and complexity, and why they hold nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from eca_zoo.harness.accuracy.label_sets.right_images import paired
from eca_zoo.harness.accuracy.results import AccuracyResult
from eca_zoo.harness.networks.baselines import Baseline, baseline_of
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.suites import Suite, ValidationData
from eca_zoo.harness.table.columns import ALL_COLUMNS
from eca_zoo.harness.table.rows import accuracy_cells, entry_of, paired_cells, reported_cells
from eca_zoo.weights.manifest import Manifest

Cells = dict[str, Any]


def accuracy_rows(
    specs: Sequence[ModelSpec],
    results: Sequence[AccuracyResult],
    datasets: Sequence[str],
    baseline: Baseline,
    manifest: Manifest,
) -> dict[str, list[Cells]]:
    """For each network the cells of its accuracies, a row for each data set; one row where there is none.

    Args:
        specs: networks.
        results: what was counted.
        datasets: their names, in the order of the rows.
        baseline: what the networks are compared with.
        manifest: where reported figures are.
    """
    known = {(result.model, result.dataset): result for result in results}
    rows: dict[str, list[Cells]] = {}
    for spec in specs:
        own = [known[spec.title, dataset] for dataset in datasets if (spec.title, dataset) in known]
        other = baseline_of(spec, baseline)
        cells = [_cells(result, known.get((other.title, result.dataset)) if other else None) for result in own] or [{}]
        if len(datasets) > 1:
            cells = [one | {'dataset': result.dataset} for one, result in zip(cells, own, strict=False)] or cells
        rows[spec.title] = _with_reported(cells, spec, manifest)
    return rows


def _cells(result: AccuracyResult, baseline: AccuracyResult | None) -> Cells:
    counts = None
    if baseline is not None and result.error is None and baseline.error is None and baseline.model != result.model:
        counts = paired(result, baseline)
    return accuracy_cells(result) | ({} if counts is None or baseline is None else paired_cells(counts, baseline.model))


def _with_reported(rows: list[Cells], spec: ModelSpec, manifest: Manifest) -> list[Cells]:
    """The rows with what the authors report, of several data sets that which they report it for."""
    # The authors' figures are those of their checkpoint.
    name = spec.name if spec.checkpoint is None and spec.pretrained else ''
    entry = entry_of(name, manifest)
    matching = [row for row in rows if entry is not None and row.get('dataset') == entry.dataset]
    return [
        row | reported_cells(name, manifest, row.get('dataset'), row.get('top1'))
        if not matching or row in matching
        else row
        for row in rows
    ]


def why_empty(
    table: pd.DataFrame, suite: Suite, data: Sequence[ValidationData], specs: Sequence[ModelSpec], manifest: Manifest
) -> dict[str, list[str]]:
    """Why networks have no accuracy: the titles of networks by reason.

    Args:
        table: the finished table.
        suite: what was run.
        data: its data sets that have a folder.
        specs: networks of the table.
        manifest: where checkpoints are.
    """
    empty = set(table.loc[table['top1'].isna() & table['error'].isna(), 'model'])
    reasons: dict[str, list[str]] = {}
    for spec in specs:
        if spec.title in empty:
            reasons.setdefault(_why_empty(spec, suite, data, manifest), []).append(spec.title)
    return reasons


def without_rows(suite: Suite, data: Sequence[ValidationData]) -> list[str]:
    """Data sets that have no row, if others have; a line for all of them."""
    missing = [one.spec.results_name for one in suite.data if one.key not in {given.key for given in data}]
    if not missing or not data:
        return []
    return [f'no row on {", ".join(missing)}: no folder was given; add --data-dir NAME=DIR']


def _why_empty(spec: ModelSpec, suite: Suite, data: Sequence[ValidationData], manifest: Manifest) -> str:
    if not suite.data:
        return f'the suite {suite.name} names no data'
    entry = entry_of(spec.name, manifest) if spec.checkpoint is None else None
    if entry is not None and entry.checkpoint is None:
        return "the weights need conversion: eca-zoo convert FILE makes them from the authors' file"
    names = ', '.join(one.spec.name for one in data or suite.data)
    if not data:
        flag = '--data-dir DIR' if len(suite.data) == 1 else '--data-dir NAME=DIR, or one that holds them all'
        return f'no folder of {names} was given; add {flag}'
    return f'not validated on {names} in the suite {suite.name}'


def why_no_ratio(table: pd.DataFrame, specs: Sequence[ModelSpec], baseline: Baseline) -> dict[str, list[str]]:
    """Why networks that were timed are compared with none: the titles of networks by reason."""
    if baseline is None:
        return {}
    timed = table[table['infer_samples_per_sec'].notna() & table['relative_throughput'].isna()]
    empty = [spec for spec in specs if spec.title in set(timed['model'])]
    alone = [spec.title for spec in empty if baseline_of(spec, baseline) is None]
    others = [spec.title for spec in empty if spec.title not in alone]
    reasons = {
        'there is no plain counterpart': alone,
        'the baseline failed, or has another image size': others,
    }
    return {reason: titles for reason, titles in reasons.items() if titles}


def reasons_by_network(
    accuracy: Mapping[str, Sequence[str]], ratio: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, str]]:
    """Why cells are empty, by network and column, as the page of the table reads it.

    Args:
        accuracy: of ``why_empty``.
        ratio: of ``why_no_ratio``.
    """
    measured = [column.name for column in ALL_COLUMNS if 'accuracy' in column.values]
    found: dict[str, dict[str, str]] = {}
    for columns, titles_by_reason in ((measured, accuracy), (['relative_throughput'], ratio)):
        for reason, titles in titles_by_reason.items():
            for title in titles:
                found.setdefault(title, {}).update(dict.fromkeys(columns, reason))
    return found


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
