"""Tables of classes: what was counted of each, and which were taken for which."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from eca_zoo.files import encode_text
from eca_zoo.harness.accuracy.counts import IMAGES, PREDICTED, TOP1, TOP5, percent
from eca_zoo.harness.accuracy.results import AccuracyResult
from eca_zoo.harness.table.results_file import ResultsFile

PER_CLASS = ('model', 'class', 'name', 'images', 'top1', 'top5', 'guesses', 'precision')
CONFUSION = ('model', 'class', 'name', 'guess', 'guess_name', 'images')


def per_class_table(results: Sequence[AccuracyResult]) -> pd.DataFrame:
    """A row for each model and class that occurs or was guessed.

    ``images`` of the class; ``top1`` (its recall) and ``top5`` in percent of them; ``guesses``: how often it was the
    first guess; ``precision``: right ones in percent of these.
    """
    rows: list[tuple[Any, ...]] = []
    for result in results:
        for index, counts in enumerate(result.per_class):
            images, guesses = counts[IMAGES], counts[PREDICTED]
            if images or guesses:
                rows.append((
                    result.model, index, _name(result, index), images, _percent(counts[TOP1], images),
                    _percent(counts[TOP5], images), guesses, _percent(counts[TOP1], guesses),
                ))  # fmt: skip
    types = {'class': 'Int64', 'images': 'Int64', 'guesses': 'Int64'}
    return _frame(rows, PER_CLASS, types | dict.fromkeys(('top1', 'top5', 'precision'), 'Float64'))


def confusion_table(results: Sequence[AccuracyResult]) -> pd.DataFrame:
    """A row for each model, class and first guess that occurs, with the number of images."""
    rows = [
        (result.model, target, _name(result, target), guess, _name(result, guess), count)
        for result in results
        for target, guess, count in result.confusion
    ]
    return _frame(rows, CONFUSION, dict.fromkeys(('class', 'guess', 'images'), 'Int64'))


def class_files(per_class: Path | None, confusion: Path | None) -> list[Callable[[Sequence[AccuracyResult]], None]]:
    """What writes the tables of results to these files, whose places and formats are checked now.

    Raises:
        InputError: a file cannot be used.
    """
    given = (
        (per_class, '--per-class', per_class_table, ('top1', 'top5', 'precision')),
        (confusion, '--confusion', confusion_table, ()),
    )
    return [
        functools.partial(_write, ResultsFile(path, setting=flag), table, percentages)
        for path, flag, table, percentages in given
        if path is not None
    ]


def _write(
    file: ResultsFile,
    table: Callable[[Sequence[AccuracyResult]], pd.DataFrame],
    percentages: Sequence[str],
    results: Sequence[AccuracyResult],
) -> None:
    frame = table(results)
    cells = frame.astype(object).where(frame.notna(), '')
    for name in percentages:
        cells[name] = ['' if pd.isna(value) else f'{value:.4f}' for value in frame[name]]
    file.write(frame, cells, frame.to_json(orient='records', indent=2, force_ascii=False) + '\n')


def _frame(rows: list[tuple[Any, ...]], columns: Sequence[str], types: dict[str, Any]) -> pd.DataFrame:
    texts = [[encode_text(cell).decode() if isinstance(cell, str) else cell for cell in row] for row in rows]
    frame = pd.DataFrame.from_records(texts, columns=list(columns))
    return frame.astype({**dict.fromkeys(columns, 'string'), **types})


def _name(result: AccuracyResult, index: int) -> str:
    return result.class_names[index] if index < len(result.class_names) else ''


def _percent(count: int, total: int) -> float | None:
    return round(percent(count, total), 4) if total else None
