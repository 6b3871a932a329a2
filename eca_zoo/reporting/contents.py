"""What a page shows: a run directory's table as it was written, and the files beside it."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eca_zoo.errors import InputError, one_line
from eca_zoo.files import read_text
from eca_zoo.harness.table.columns import BY_NAME, Column
from eca_zoo.harness.table.rows import entry_of
from eca_zoo.weights.manifest import Manifest, load_manifest

TABLE_FILE, ENVIRONMENT_FILE, REASONS_FILE = 'leaderboard.csv', 'environment.json', 'reasons.json'


@dataclass(frozen=True)
class Contents:
    """A table and what is known of it.

    Attributes:
        source: the file of the table.
        header: all columns, in their order.
        cells: of each column a text a row, with the digits of the file.
        line_end: of the file's lines.
        environment: what the run ran on; empty where nobody wrote it down.
        reasons: by model and column, why a cell is empty.
        reported_on: by model, the data set of its reported figures.
    """

    source: Path
    header: tuple[str, ...]
    cells: Mapping[str, tuple[str, ...]]
    line_end: str = '\n'
    environment: Mapping[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    reported_on: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.cells['model'])

    def column(self, name: str) -> tuple[str, ...]:
        """The cells of a column; empty ones where the table has no such column."""
        return self.cells.get(name) or ('',) * self.rows

    def numbers(self, name: str) -> list[float | None]:
        """The numbers of a column; None where it is empty."""
        return [number_of(cell) for cell in self.column(name)]

    def is_empty(self, name: str) -> bool:
        """Whether a column holds nothing."""
        return not any(self.column(name))

    @property
    def title(self) -> str:
        """Heading of the page."""
        suite = self.environment.get('suite')
        return f'Leaderboard: {suite}' if suite else f'Leaderboard: {self.source.stem}'


def read_contents(path: Path) -> Contents:
    """Read the table of a run directory, or a table that is a file, and what lies beside it.

    Raises:
        InputError: there is no table, it is cut off or has columns that nobody defined, or a file beside it is broken.
    """
    source = path / TABLE_FILE if path.is_dir() else path
    if not source.is_file():
        raise InputError(f'{path}: holds no {TABLE_FILE}; name the --run-dir of eca-zoo leaderboard, or a CSV table')
    header, cells, line_end = _read_csv(source)
    beside = source.parent if source.name == TABLE_FILE else None
    environment = _read_json(beside / ENVIRONMENT_FILE) if beside else {}
    reasons = _read_json(beside / REASONS_FILE) if beside else {}
    reported = [model for model, top1 in zip(cells['model'], cells.get('reported_top1', ()), strict=False) if top1]
    return Contents(source, header, cells, line_end, environment, reasons, _reported_on(reported, load_manifest()))


def _read_csv(path: Path) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]], str]:
    try:
        with path.open(encoding='utf-8-sig', newline='') as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'{path}: cannot read the table: {one_line(error)}; name a CSV table') from None
    lines = [line for line in csv.reader(io.StringIO(text, newline='')) if line]
    if not lines or 'model' not in lines[0]:
        raise InputError(f'{path}: not a table of models: it has no column model; name a file such as {TABLE_FILE}')
    header, rows = tuple(lines[0]), lines[1:]
    _check_header(path, header)
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise InputError(
                f'{path}: row {number} has {len(row)} of {len(header)} cells, so the table is cut off; '
                'let the command that wrote it run again'
            )
    cells = {name: tuple(row[place] for row in rows) for place, name in enumerate(header)}
    for name in header:
        _check_numbers(path, BY_NAME[name], cells[name])
    return header, cells, '\r\n' if '\r\n' in text else '\n'


def _check_header(path: Path, header: tuple[str, ...]) -> None:
    unknown = [name for name in header if name not in BY_NAME]
    if unknown:
        raise InputError(
            f'{path}: the columns {", ".join(unknown)} are unknown; name a table of eca-zoo or a results file of timm'
        )
    if len(set(header)) < len(header):
        raise InputError(f'{path}: a column is there twice; name a table as eca-zoo wrote it')


def _check_numbers(path: Path, column: Column, cells: Iterable[str]) -> None:
    if not is_number(column):
        return
    for number, cell in enumerate(cells, 2):
        try:
            number_of(cell)
        except ValueError:
            raise InputError(
                f'{path}: row {number}: {column.name} is no number: {cell[:40]!r}; name a table as eca-zoo wrote it'
            ) from None


def number_of(cell: str) -> float | None:
    """The number in a cell, None in an empty one; timm's published tables have commas between thousands."""
    return float(cell.replace(',', '')) if cell else None


def is_number(column: Column) -> bool:
    """Whether the cells of a column are numbers."""
    return bool(column.spec) or column.is_integer


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise InputError(f'{path}: not readable: {one_line(error)}; remove it, or let the run write it again') from None
    if not isinstance(content, dict):
        raise InputError(f'{path}: is no mapping; remove it, or let the run write it again')
    return content


def _reported_on(models: Iterable[str], manifest: Manifest) -> dict[str, str]:
    entries = {model: entry_of(model, manifest) for model in models}
    return {model: entry.dataset for model, entry in entries.items() if entry is not None}
