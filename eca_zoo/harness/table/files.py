"""The table as a CSV file, and files that are complete or as they were before."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from eca_zoo.errors import InputError
from eca_zoo.harness.table.columns import BY_NAME, FVCORE, Row, format_cell
from eca_zoo.weights.files import move_into_place, storage_error, temporary_beside


def to_csv(rows: Iterable[Row], columns: Sequence[str] = tuple(BY_NAME)) -> str:
    """The table as CSV text; a value that is None or absent is an empty cell.

    Raises:
        KeyError: a row has a value that no column is for.
    """
    rows = list(rows)
    for row in rows:
        for name in row.keys() - BY_NAME.keys() - {FVCORE}:
            raise KeyError(f'no column {name!r}')
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(columns)
    writer.writerows([format_cell(name, row.get(name)) for name in columns] for row in rows)
    return text.getvalue()


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``: afterwards the file is complete, or as it was before.

    Raises:
        StorageError: it cannot be written; nothing is left behind.
        InputError: ``path`` is a folder.
    """
    if path.is_dir():
        raise InputError(f'{path}: is a folder; name a file')
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open('x', encoding='utf-8', newline='') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        move_into_place(temporary, path)
    except OSError as error:
        raise storage_error(path, error, '--out') from None
    finally:
        temporary.unlink(missing_ok=True)
