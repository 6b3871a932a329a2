"""The part of the page that shows detectors: average precision of boxes and masks with its interval, and reported."""

import csv
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eca_zoo.detection.leaderboard import TABLE_FILE
from eca_zoo.errors import InputError, one_line
from eca_zoo.files import read_text
from eca_zoo.reporting.sections import section, text_table

_SHOWN = ('model', 'task', 'dataset', 'num_images', 'ap', 'ap_ci95', 'ap50', 'ap75', 'reported_ap', 'params', 'gmacs')
_TASKS = {'bbox': 'boxes', 'segm': 'masks'}
_WIDTH, _LINE, _NAMES, _FIGURES, _TOP = 720, 22, 300, 130, 30


@dataclass(frozen=True)
class _Line:
    label: str
    ap: float | None
    half_width: float
    reported: float | None
    text: str


def detectors(runs: Sequence[Path]) -> str:
    """A line for each detector and task of each run, and the table.

    Args:
        runs: run directories of suites of detectors, or their tables.

    Raises:
        InputError: one has no table, or one that cannot be read.
    """
    parts = []
    for run in runs:
        rows = _rows_of(run)
        # One axis for each data set: figures of two cannot be compared.
        for data_set in dict.fromkeys(row.get('dataset') or '' for row in rows):
            of_it = [row for row in rows if (row.get('dataset') or '') == data_set]
            lines = [line for line in map(_line, of_it) if line is not None]
            if lines:
                parts.append(f'<figure>{_figure(data_set or "not measured", lines)}</figure>\n')
        shown = [name for name in _SHOWN if any(row.get(name) for row in rows)]
        parts.append(text_table(shown, [[row.get(name) or '-' for name in shown] for row in rows]))
    note = '<p class="note">Solid: measured, with its 95 % interval (bootstrap over images); hollow: reported.</p>'
    return section('detection', 'Detection', *parts, note)


def _rows_of(run: Path) -> list[dict[str, str]]:
    path = run / TABLE_FILE if run.is_dir() else run
    if not path.is_file():
        raise InputError(f'{run}: holds no {TABLE_FILE}; name the --run-dir of a suite of detectors')
    try:
        rows = list(csv.DictReader(read_text(path).splitlines(), strict=True))
        for row in rows:
            if row['task'] or row['model']:
                _line(row)
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise InputError(f'{path}: is no table of detectors ({one_line(error)}); name another run') from None
    return rows


def _line(row: Mapping[str, str]) -> _Line | None:
    """What is drawn of a row; None if it has no figure."""
    measured, reported = (float(row[name]) if row.get(name) else None for name in ('ap', 'reported_ap'))
    if measured is None and reported is None:
        return None
    label = f'{row["model"]} {_TASKS.get(row["task"], row["task"])}'
    text = ' / '.join(row.get(name) or '-' for name in ('reported_ap', 'ap'))
    return _Line(label, measured, float(row.get('ap_ci95') or 0), reported, text)


def _figure(title: str, lines: Sequence[_Line]) -> str:
    ends = [
        end for line in lines if line.ap is not None for end in (line.ap - line.half_width, line.ap + line.half_width)
    ]
    ends += [line.reported for line in lines if line.reported is not None]
    low, high = min(ends), max(ends)
    low, high = low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1)

    def at(value: float) -> float:
        return _NAMES + (value - low) / (high - low) * (_WIDTH - _NAMES - _FIGURES)

    parts = [f'<text x="{_NAMES}" y="14">{html.escape(title)}: AP (%), {low:.1f} to {high:.1f}</text>']
    for number, line in enumerate(lines):
        y = _TOP + number * _LINE
        if line.ap is not None:
            left, right = at(line.ap - line.half_width), at(line.ap + line.half_width)
            parts.append(f'<path d="M{left:.1f} {y}H{right:.1f}" stroke="currentColor" stroke-width="2"/>')
            parts.append(f'<circle cx="{at(line.ap):.1f}" cy="{y}" r="4"/>')
        if line.reported is not None:
            x = at(line.reported)
            parts.append(f'<circle cx="{x:.1f}" cy="{y}" r="4.5" fill="none" stroke="currentColor"/>')
        parts.append(f'<text x="{_NAMES - 10}" y="{y + 4}" text-anchor="end">{html.escape(line.label)}</text>')
        parts.append(f'<text x="{_WIDTH - _FIGURES + 10}" y="{y + 4}">{html.escape(line.text)}</text>')
    height = _TOP + len(lines) * _LINE
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img" fill="currentColor" '
        f'font-size="12" aria-label="average precision of {len(lines)} detectors and tasks">{"".join(parts)}</svg>'
    )
