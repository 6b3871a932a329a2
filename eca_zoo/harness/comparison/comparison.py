"""The comparison of two runs, row by row."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from eca_zoo.errors import InputError
from eca_zoo.harness.accuracy.label_sets import right_images
from eca_zoo.harness.accuracy.label_sets.paired import PairedCounts
from eca_zoo.harness.comparison.runs import MACHINE, Run
from eca_zoo.harness.comparison.verdicts import (
    Verdict,
    accuracy_verdict,
    complexity_verdict,
    ratio_of,
    scatter_of,
    throughput_verdict,
)

KEY = (
    'model', 'dataset', 'img_size', 'infer_img_size', 'device', 'precision', 'memory_format', 'compile', 'backend',
    'fused',
)  # fmt: skip

#: Counts of two models on the same images, or None: called with the titles and the data set.
Paired = Callable[[str, str], PairedCounts | None]


@dataclass(frozen=True)
class RowChange:
    """A row of both runs, and what is known of its differences; a missing verdict means that a figure is missing."""

    label: str
    accuracy: Verdict | None = None
    throughput: Verdict | None = None
    complexity: Verdict | None = None
    error: str | None = None

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdicts that there are, by name."""
        found = {'accuracy': self.accuracy, 'throughput': self.throughput, 'complexity': self.complexity}
        return {name: verdict for name, verdict in found.items() if verdict is not None}


@dataclass(frozen=True)
class Comparison:
    """Two runs beside each other.

    Attributes:
        old: name of the old run.
        new: name of the new run.
        context: what differs around the figures: name, old, new.
        rows: of both runs.
        added: labels of rows that only the new run has.
        gone: labels of rows that only the old run has.
        regressions: what got worse by more than the tolerance, or newly failed; a line each.
    """

    old: str
    new: str
    context: tuple[tuple[str, str, str], ...]
    rows: tuple[RowChange, ...]
    added: tuple[str, ...]
    gone: tuple[str, ...]
    regressions: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        rows = [
            {
                'row': row.label,
                **({'error': row.error} if row.error else {}),
                **{name: vars(verdict) for name, verdict in row.verdicts.items()},
            }
            for row in self.rows
        ]
        context = [{'what': what, 'old': old, 'new': new} for what, old, new in self.context]
        return {**vars(self), 'context': context, 'rows': rows}


def compare(
    old: Run,
    new: Run,
    tolerance: float = 0.1,
    speed_tolerance: float = 5.0,
    paired: Paired | None = None,
) -> Comparison:
    """Compare two runs.

    Args:
        old: the earlier run, or the published figures.
        new: the later run.
        tolerance: percentage points that an accuracy may get worse by.
        speed_tolerance: percent that a throughput may get worse by.
        paired: counts of a model in both runs on the same images; by default those of their run directories.

    Raises:
        InputError: no row of one is in the other.
    """
    pairs_of = paired or functools.partial(_paired, old, new)
    pairs, added, gone = _matched(old.table, new.table)
    if not pairs:
        raise InputError(f'{old.name} and {new.name} have no row in common; name two runs of the same networks')
    same_machine = None if old.machine is None or new.machine is None else old.machine == new.machine
    same_data = old.environment.get('data') is not None and old.environment.get('data') == new.environment.get('data')
    scatter = scatter_of([ratio for a, b in pairs if (ratio := ratio_of(a, b)) is not None])
    rows = []
    for a, b in pairs:
        counts = pairs_of(str(b['model']), str(b['dataset'])) if same_data else None
        failed: str | None = str(b['error']) if pd.isna(a['error']) and not pd.isna(b['error']) else None
        rows.append(
            RowChange(
                _label(b, new.table),
                accuracy_verdict(a, b, same_data, counts),
                throughput_verdict(a, b, same_machine, scatter),
                complexity_verdict(a, b),
                failed,
            )
        )
    return Comparison(
        old.name, new.name, _context(old, new, pairs), tuple(rows), tuple(_label(row, new.table) for row in added),
        tuple(_label(row, old.table) for row in gone), tuple(_regressions(rows, tolerance, speed_tolerance)),
    )  # fmt: skip


def _paired(old: Run, new: Run, model: str, dataset: str) -> PairedCounts | None:
    results = [run.accuracies.get((model, dataset)) for run in (new, old)]
    return None if results[0] is None or results[1] is None else right_images.paired(results[0], results[1])


Pairs = list[tuple[pd.Series, pd.Series]]


def _matched(old: pd.DataFrame, new: pd.DataFrame) -> tuple[Pairs, list[pd.Series], list[pd.Series]]:
    """Rows of the same network and settings; then those that are alone with their network and data set in both."""
    keys = [name for name in KEY if old[name].notna().any() and new[name].notna().any()]
    pairs: Pairs = []
    left, right = list(old.index), list(new.index)
    for names in (keys, [name for name in keys if name in ('model', 'dataset', 'img_size')], ['model']):
        pairs_now = _unique_pairs(old.loc[left], new.loc[right], names)
        pairs += [(old.loc[a], new.loc[b]) for a, b in pairs_now]
        left = [index for index in left if index not in {a for a, _ in pairs_now}]
        right = [index for index in right if index not in {b for _, b in pairs_now}]
    order = {label: place for place, label in enumerate(new.index)}
    pairs.sort(key=lambda pair: order[pair[1].name])
    return pairs, [new.loc[index] for index in right], [old.loc[index] for index in left]


def _unique_pairs(old: pd.DataFrame, new: pd.DataFrame, names: list[str]) -> list[tuple[Any, Any]]:
    def by_key(table: pd.DataFrame) -> dict[tuple[str, ...], list[Any]]:
        found: dict[tuple[str, ...], list[Any]] = {}
        for index, cells in zip(table.index, table[names].astype('string').fillna('').to_numpy(), strict=True):
            found.setdefault(tuple(cells), []).append(index)
        return found

    left, right = by_key(old), by_key(new)
    return [
        (left[key][0], indices[0])
        for key, indices in right.items()
        if len(indices) == 1 and len(left.get(key, ())) == 1
    ]


def _label(row: pd.Series, table: pd.DataFrame) -> str:
    """The network, and what tells its rows in the table apart."""
    rows = table[table['model'] == row['model']]
    varied = [name for name in KEY[1:] if rows[name].nunique() > 1 and not pd.isna(row[name])]
    return ' '.join([str(row['model']), *(str(row[name]) for name in varied)])


def _context(old: Run, new: Run, pairs: Pairs) -> tuple[tuple[str, str, str], ...]:
    found: list[tuple[str, Any, Any]] = []
    if old.environment and new.environment:
        for key in (*MACHINE, 'suite', 'data', 'variables', 'flags'):
            found += _differences(key, old.environment.get(key), new.environment.get(key))
        found += _differences('version', old.environment.get('versions'), new.environment.get('versions'))
    elif old.environment or new.environment:
        without = old.name if not old.environment else new.name
        found.append(('environment', *(('not known', 'known') if without == old.name else ('known', 'not known'))))
    for a, b in pairs:
        hashes = (a['weights_sha256'], b['weights_sha256'])
        if not any(pd.isna(one) for one in hashes) and hashes[0] != hashes[1]:
            found.append((f'weights of {b["model"]}', hashes[0][:12], hashes[1][:12]))
    return tuple(dict.fromkeys((what, str(a), str(b)) for what, a, b in found))


def _differences(name: str, old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    if old == new:
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = dict.fromkeys([*old, *new])
        return [found for key in keys for found in _differences(f'{name} {key}', old.get(key), new.get(key))]
    return [(name, 'none' if old is None else old, 'none' if new is None else new)]


def _regressions(rows: list[RowChange], tolerance: float, speed_tolerance: float) -> list[str]:
    found = []
    for row in rows:
        if row.error is not None:
            found.append(f'{row.label}: failed: {row.error}')
        accuracy, throughput = row.accuracy, row.throughput
        if accuracy is not None and accuracy.outcome == 'worse' and round(-(accuracy.change or 0), 6) > tolerance:
            found.append(f'{row.label}: {accuracy.text}')
        loss = 0.0 if throughput is None else 100 * (1 - (throughput.change or 0))
        if throughput is not None and throughput.outcome == 'worse' and loss > speed_tolerance:
            found.append(f'{row.label}: {throughput.text}')
    return found
