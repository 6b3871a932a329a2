"""A results file: its format by the end of its name, checked before anything is measured, and written whole."""

import importlib.util
import io
import os
from pathlib import Path

import pandas as pd

from eca_zoo.errors import InputError
from eca_zoo.files import encode_text, is_stream, write_atomically

FORMATS = ('csv', 'json', 'md', 'parquet')


class ResultsFile:
    """A file for a table, as CSV, JSON, Markdown or Parquet."""

    def __init__(self, path: Path, format: str | None = None, setting: str = '--results-file') -> None:
        """Choose the format and look whether the file can be written; nothing is written yet.

        Args:
            path: the file.
            format: one of ``FORMATS``, for a name that does not end in one of them (``/dev/stdout``).
            setting: what names the file, for messages.

        Raises:
            InputError: the name and ``format`` say nothing or contradict each other, the file cannot be written, or
                Parquet is asked for without pyarrow.
        """
        self.path, self._setting = path, setting
        check_place(path, setting)
        self.format = _format_of(path, format, setting)
        if self.format == 'parquet' and importlib.util.find_spec('pyarrow') is None:
            raise InputError('Parquet needs pyarrow: pip install pyarrow, or name a .csv file')

    @property
    def is_stream(self) -> bool:
        """Whether its reader gets all that is written, so that it is written once."""
        return is_stream(self.path)

    def write(self, frame: pd.DataFrame, cells: pd.DataFrame, json_text: str) -> None:
        """Write one of these forms of a table.

        Args:
            frame: its values.
            cells: the same as texts.
            json_text: the same as JSON.

        Raises:
            StorageError: it cannot be written; the file is as it was before.
        """
        write_atomically(self.path, self._content(frame, cells, json_text), self._setting)

    def _content(self, frame: pd.DataFrame, cells: pd.DataFrame, json_text: str) -> bytes:
        if self.format == 'parquet':
            buffer = io.BytesIO()
            frame.to_parquet(buffer, index=False)
            return buffer.getvalue()
        if self.format == 'json':
            return encode_text(json_text)
        text = cells.to_csv(index=False, lineterminator='\n') if self.format == 'csv' else to_markdown(cells)
        return encode_text(text)


def check_place(path: Path, setting: str) -> None:
    """Refuse a place that no file can be written to, as far as that can be known before.

    Raises:
        InputError: it is a folder, or lies in one that cannot be written or made.
    """
    if path.is_dir():
        raise InputError(f'{path}: is a folder; name a file with {setting}')
    if path.exists():
        return
    folder = next(parent for parent in Path(os.path.realpath(path)).parents if parent.exists())
    if not folder.is_dir():
        raise InputError(f'{path}: {folder} is a file where a folder is needed; choose another {setting}')
    if not os.access(folder, os.W_OK):
        raise InputError(f'{path}: the folder {folder} cannot be written; choose another {setting}')


def to_markdown(cells: pd.DataFrame) -> str:
    """Texts as a Markdown table, numbers to the right."""
    names = [str(name) for name in cells.columns]
    marks = ['---:' if _are_numbers(cells[name]) else '---' for name in cells.columns]
    rows = [[str(cell).replace('|', '\\|') for cell in row] for row in cells.to_numpy().tolist()]
    return ''.join(f'| {" | ".join(row)} |\n' for row in [names, marks, *rows])


def _are_numbers(cells: pd.Series) -> bool:
    given = cells[cells != '']
    return len(given) > 0 and bool(pd.to_numeric(given, errors='coerce').notna().all())


def _format_of(path: Path, format: str | None, setting: str) -> str:
    if format is not None and format not in FORMATS:
        raise InputError(f'results format {format!r} is unknown; use one of {", ".join(FORMATS)}')
    by_name = path.suffix.lower().removeprefix('.')
    if by_name in FORMATS:
        if format not in (None, by_name):
            raise InputError(f'{path}: its name says {by_name}, and the results format {format}; leave one of them out')
        return by_name
    if format is None and not is_stream(path):
        raise InputError(
            f'{path}: its name does not say a format; name {setting} .csv, .json, .md or .parquet, or give '
            f'--results-format'
        )
    return format or 'csv'
