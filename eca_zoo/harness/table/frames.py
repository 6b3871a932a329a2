"""The table as a pandas frame with typed columns: integers stay integers, and what was not measured is NA."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from eca_zoo.errors import InputError, one_line
from eca_zoo.files import read_text
from eca_zoo.harness.table.columns import ALL_COLUMNS, BY_NAME, COLUMNS, Column, Part
from eca_zoo.harness.table.dataset_names import dataset_of

#: Names of the columns that are written, in their order.
NAMES = [column.name for column in COLUMNS]


def to_frame(rows: Iterable[Mapping[str, Any]] | pd.DataFrame) -> pd.DataFrame:
    """Rows as a frame with all columns of the table, in its order and types; what is None or absent is NA.

    Raises:
        KeyError: a row has a value that no column is for.
    """
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame.from_records(list(rows))
    for name in frame.columns.difference(list(BY_NAME)):
        raise KeyError(f'no column {name!r}')
    return frame.reindex(columns=[column.name for column in ALL_COLUMNS]).astype(
        {column.name: _dtype(column) for column in ALL_COLUMNS}
    )


def _dtype(column: Column) -> str:
    if column.is_integer:
        return 'Int64'
    return 'Float64' if column.spec else 'string'


def select(frame: pd.DataFrame, parts: Iterable[Part], more: Iterable[str] = ()) -> pd.DataFrame:
    """The columns of ``frame`` that these measurements fill, and ``model``, ``error`` and ``more``."""
    kept = {'model', 'error', *more}
    kept |= {column.name for column in COLUMNS if not column.values.keys().isdisjoint(parts)}
    return frame[[name for name in NAMES if name in kept]]


def read_table(path: Path | str) -> pd.DataFrame:
    """A table that was written as CSV (``leaderboard.csv``, a results file of timm's) with the types of its columns.

    Columns that this package does not define keep the type that pandas infers. Numbers have the digits that were
    written; commas between their thousands, as timm writes them, are understood. ``dataset`` is filled from the name of
    a file such as ``results-imagenet-real.csv``, which has no such column.

    Raises:
        InputError: the file cannot be read, is no CSV, or has no column ``model``.
    """
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f'{path}: cannot read the table: {one_line(error)}; name a CSV file such as leaderboard.csv'
        ) from None
    try:
        header = pd.read_csv(io.StringIO(text), nrows=0).columns
        dtypes: Any = {name: 'string' for name in header if name in BY_NAME}
        frame = pd.read_csv(io.StringIO(text), dtype=dtypes, keep_default_na=False, na_values=[''])
        for name in dtypes:
            if _dtype(BY_NAME[name]) != 'string':
                numbers = pd.to_numeric(frame[name].str.replace(',', ''))
                frame[name] = numbers.astype(_dtype(BY_NAME[name]))
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise InputError(f'{path}: not a table: {one_line(error)}; name a CSV file') from None
    if 'model' not in frame:
        raise InputError(f'{path}: not a table of models: it has no column model; name a file such as leaderboard.csv')
    dataset = dataset_of(Path(path).name)
    if dataset is not None and 'dataset' not in frame:
        frame.insert(1, 'dataset', pd.Series(dataset, frame.index, dtype='string'))
    return frame
