"""A picture of a run: loss, top-1 with its interval or AP, learning rate, over the steps; SVG that needs no library."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from eca_zoo.files import write_atomically
from eca_zoo.training.record.log import EPOCH, STEPS

_WIDTH, _PANEL, _GAP, _LEFT, _RIGHT, _TOP = 720, 150, 46, 70, 16, 40
_BLUE, _ORANGE = '#1f5fa8', '#c8641e'
_TICKS = 3

Point = tuple[float, float]


def write_curves(path: Path, rows: Sequence[dict[str, Any]], title: str) -> None:
    """Write the curves of a log.

    Args:
        path: of the picture.
        rows: of the log.
        title: above it.

    Raises:
        StorageError: it cannot be written.
    """
    write_atomically(path, draw_curves(rows, title).encode(), '--run-dir')


def draw_curves(rows: Sequence[dict[str, Any]], title: str) -> str:
    """The curves of a log as SVG; a curve of which the log has nothing is left out."""
    last = max((row['step'] for row in rows), default=1)
    steps = [row for row in rows if row['kind'] == STEPS] or rows
    epochs = [row for row in rows if row['kind'] == EPOCH]
    panels = [
        _Panel('loss', [_points(steps, 'loss'), _points(epochs, 'val_loss')], ['training', 'validation']),
        _Panel('top-1, %', [_points(epochs, 'top1'), _points(epochs, 'ema_top1')], ['weights', 'averaged'],
               _band(epochs)),
        *(_Panel(f'{name} AP', [_points(epochs, f'{name}_ap'), _points(epochs, f'ema_{name}_ap')],
                 ['weights', 'averaged']) for name in ('box', 'mask')),
        _Panel('learning rate', [_points(steps, 'lr')], ['']),
    ]  # fmt: skip
    panels = [panel for panel in panels if any(panel.curves)]
    height = _TOP + len(panels) * (_PANEL + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="22" font-size="14">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        parts += panel.draw(_TOP + number * (_PANEL + _GAP), last)
    parts.append('</svg>\n')
    return '\n'.join(parts)


def _points(rows: Sequence[dict[str, Any]], column: str) -> list[Point]:
    return [(row['step'], row[column]) for row in rows if row.get(column) is not None]


def _band(rows: Sequence[dict[str, Any]]) -> list[Point]:
    """The outline of the interval of top-1: its upper side forwards, its lower side backwards."""
    known = [row for row in rows if row.get('top1') is not None and row.get('top1_ci95') is not None]
    upper = [(row['step'], row['top1'] + row['top1_ci95']) for row in known]
    return upper + [(row['step'], row['top1'] - row['top1_ci95']) for row in reversed(known)]


class _Panel:
    def __init__(self, name: str, curves: list[list[Point]], names: list[str], band: list[Point] | None = None) -> None:
        self.curves = curves
        self._name, self._names, self._band = name, names, band or []

    def draw(self, top: int, last: int) -> list[str]:
        values = [value for points in [*self.curves, self._band] for _, value in points]
        low, high = min(values), max(values)
        if high == low:
            low, high = low - 0.5, high + 0.5

        def place(point: Point) -> str:
            x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * point[0] / last
            return f'{x:.1f},{top + _PANEL * (1 - (point[1] - low) / (high - low)):.1f}'

        parts = [f'<text x="{_LEFT}" y="{top - 4}" fill="#444">{escape(self._name)}</text>']
        parts += _axes(top, low, high, last, place)
        if self._band:
            parts.append(f'<polygon points="{" ".join(map(place, self._band))}" fill="{_BLUE}" opacity="0.15"/>')
        for points, name, colour in zip(self.curves, self._names, (_BLUE, _ORANGE), strict=False):
            if points:
                line = ' '.join(map(place, points))
                parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
            if points and name:
                x = _WIDTH - _RIGHT - (160 if colour == _BLUE else 70)
                parts.append(f'<text x="{x}" y="{top - 4}" fill="{colour}">{escape(name)}</text>')
        return parts


def _axes(top: int, low: float, high: float, last: int, place: Callable[[Point], str]) -> list[str]:
    parts = []
    for tick in range(_TICKS):
        value = low + (high - low) * tick / (_TICKS - 1)
        y = float(place((0, value)).split(',')[1])
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#444">{value:.4g}</text>')
    for tick in range(_TICKS):
        step = last * tick / (_TICKS - 1)
        x = float(place((step, low)).split(',')[0])
        anchor = ('start', 'middle', 'end')[tick]
        parts.append(f'<text x="{x:.1f}" y="{top + _PANEL + 14}" text-anchor="{anchor}" fill="#444">{step:.0f}</text>')
    return parts
