"""The table as text for a CSV or JSON file, and files that are complete or as they were before."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from eca_zoo.errors import InputError
from eca_zoo.files import encode_text, write_atomically
from eca_zoo.harness.table.columns import format_cell
from eca_zoo.harness.table.frames import NAMES


def to_csv(frame: pd.DataFrame, columns: Sequence[str] = NAMES) -> str:
    """The table as CSV text with the digits of its columns; what is NA is an empty cell."""
    return formatted(frame, columns).to_csv(index=False, lineterminator='\n')


def formatted(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The cells of ``columns`` as they are written."""
    return pd.DataFrame({name: [format_cell(name, value) for value in values_of(frame, name)] for name in columns})


def values_of(frame: pd.DataFrame, name: str) -> list[Any]:
    """The values of a column as Python's, None where there is none."""
    return frame[name].astype(object).where(frame[name].notna(), None).tolist()


def to_json(frame: pd.DataFrame) -> str:
    """The table as JSON text: a list of rows with full digits; what is NA is null."""
    columns = {name: values_of(frame, name) for name in NAMES}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return json.dumps(rows, indent=2) + '\n'


def write_text(path: Path, text: str, setting: str = '--run-dir') -> None:
    """Write ``text`` to ``path``: afterwards the file is complete, or as it was before.

    Args:
        path: the file.
        text: its content.
        setting: what names it, for messages.

    Raises:
        StorageError: it cannot be written; nothing is left behind.
        InputError: ``path`` is a folder.
    """
    if path.is_dir():
        raise InputError(f'{path}: is a folder; name a file')
    write_atomically(path, encode_text(text), setting)
