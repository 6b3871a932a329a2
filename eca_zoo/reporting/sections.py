"""Parts of the page that need no script: reported beside measured figures."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from eca_zoo.reporting.contents import Contents

#: Percentage points around a reported accuracy that count as the same, where the run does not say.
TOLERANCE = 0.1
_WIDTH, _LINE, _NAMES, _FIGURES, _TOP = 720, 22, 220, 130, 30


@dataclass(frozen=True)
class _Pair:
    model: str
    measured: float
    reported: float
    digits: tuple[str, str]


def section(name: str, title: str, *parts: str) -> str:
    """A section of the page with its heading."""
    return (
        f'<section aria-labelledby="{name}-title">\n<h2 id="{name}-title">{html.escape(title)}</h2>\n'
        f'{"".join(parts)}\n</section>'
    )


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], wraps: bool = False) -> str:
    """A table of texts, which may wrap."""
    kind = 'scroll texts' if wraps else 'scroll'
    head = ''.join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
    body = ''.join(f'<tr>{"".join(f"<td>{html.escape(cell)}</td>" for cell in row)}</tr>\n' for row in rows)
    label = html.escape(f'{header[0]}, {len(rows)} rows')
    head = f'<thead><tr>{head}</tr></thead>'
    return (
        f'<div class="{kind}" tabindex="0" role="region" aria-label="{label}"><table>{head}\n'
        f'<tbody>{body}</tbody></table></div>\n'
    )


def reported_and_measured(contents: Contents) -> str:
    """A line a network from its reported to its measured top-1, and the band that counts as equal; empty without."""
    pairs = _pairs(contents)
    if not pairs:
        return ''
    tolerance = float(contents.environment.get('top1_tolerance', TOLERANCE))
    off = [pair for pair in pairs if abs(pair.measured - pair.reported) > tolerance + 1e-9]
    note = (
        f'<p class="note">Hollow: reported; solid: measured on the same data set. The band is the tolerance of '
        f'{tolerance:g} percentage points; {len(off)} of {len(pairs)} are outside it.</p>'
    )
    return section('reported', 'Reported and measured', f'<figure>{_dumbbells(pairs, tolerance)}</figure>', note)


def _pairs(contents: Contents) -> list[_Pair]:
    """Networks whose reported data set was measured, each once."""
    found: dict[str, _Pair] = {}
    columns = [contents.column(name) for name in ('model', 'dataset', 'top1', 'reported_top1')]
    for model, data_set, top1, reported in zip(*columns, strict=True):
        if top1 and reported and contents.reported_on.get(model) == data_set:
            found.setdefault(model, _Pair(model, float(top1), float(reported), (top1, reported)))
    return list(found.values())


def _dumbbells(pairs: list[_Pair], tolerance: float) -> str:
    figures = [figure for pair in pairs for figure in (pair.measured, pair.reported)]
    low, high = min(figures) - 2 * tolerance, max(figures) + 2 * tolerance
    span = (high - low) or 1.0

    def at(value: float) -> float:
        return _NAMES + (value - low) / span * (_WIDTH - _NAMES - _FIGURES)

    parts = [f'<text x="{_NAMES}" y="14">top-1 (%), {low:.2f} to {high:.2f}</text>']
    for number, pair in enumerate(pairs):
        y = _TOP + number * _LINE
        left, right = at(pair.reported - tolerance), at(pair.reported + tolerance)
        parts += [
            f'<rect x="{left:.1f}" y="{y - 8}" width="{right - left:.1f}" height="16" opacity="0.15"/>',
            f'<path d="M{at(pair.reported):.1f} {y}H{at(pair.measured):.1f}" stroke="currentColor"/>',
            f'<circle cx="{at(pair.reported):.1f}" cy="{y}" r="4.5" fill="none" stroke="currentColor"/>',
            f'<circle cx="{at(pair.measured):.1f}" cy="{y}" r="4"/>',
            f'<text x="{_NAMES - 10}" y="{y + 4}" text-anchor="end">{html.escape(pair.model)}</text>',
            f'<text x="{_WIDTH - _FIGURES + 10}" y="{y + 4}">{pair.digits[1]} / {pair.digits[0]}</text>',
        ]
    height = _TOP + len(pairs) * _LINE
    label = f'reported and measured top-1 of {len(pairs)} networks'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img" aria-label="{label}" '
        f'fill="currentColor" font-size="12">{"".join(parts)}</svg>'
    )
