"""Figures for papers: accuracy against cost as SVG, PDF and PNG, the same bytes each time, and the plotted points."""

import re
from pathlib import Path
from typing import Any

from eca_zoo.errors import InputError
from eca_zoo.files import write_atomically
from eca_zoo.harness.accuracy.counts import wilson_bounds
from eca_zoo.harness.table.columns import BY_NAME
from eca_zoo.reporting.contents import Contents
from eca_zoo.reporting.payload import ACCURACIES, COSTS, RATES, SETTINGS

# Okabe and Ito's colours, which colour-blind people tell apart.
_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
_MARKERS = ('o', 's', '^', 'D', 'v')
_MOST_NAMES = 30
_STYLE: dict[Any, Any] = {
    'svg.hashsalt': 'eca-zoo', 'svg.fonttype': 'path', 'pdf.fonttype': 42, 'font.size': 8, 'axes.grid': True,
    'grid.linewidth': 0.4, 'grid.color': '#d9dde3', 'axes.axisbelow': True,
}  # fmt: skip
# What would change from one time to the next.
_METADATA = {'svg': {'Date': None}, 'pdf': {'CreationDate': None, 'ModDate': None}, 'png': {'Software': None}}


def write_figures(contents: Contents, folder: Path) -> list[Path]:
    """Write a figure for each data set and cost as SVG, PDF and PNG, with the points as CSV; returns the files.

    Raises:
        InputError: matplotlib is not installed, or there is nothing to plot.
        StorageError: a file cannot be written.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: F401
    except ImportError:
        raise InputError('--figures needs matplotlib; install the extra figures') from None
    written: list[Path] = []
    costs = [name for name in COSTS if not contents.is_empty(name)]
    for accuracy in ACCURACIES:
        for cost in costs:
            for data_set, points in sorted(points_of(contents, cost, accuracy).items()):
                name = re.sub(r'[^\w.-]+', '_', f'{accuracy}-{cost}-{data_set or "unnamed"}')
                with matplotlib.rc_context(_STYLE):
                    written += _write(points, data_set, cost, accuracy, folder / name)
    if not written:
        raise InputError(f'{contents.source}: no row has both an accuracy and a cost, so there is no figure to make')
    return written


def points_of(contents: Contents, cost: str, accuracy: str) -> dict[str, list[dict[str, Any]]]:
    """The plotted points by data set: model, setting, cost, accuracy with its bounds, and whether it was measured."""
    found: dict[str, list[dict[str, Any]]] = {}
    models, data_sets = contents.column('model'), contents.column('dataset')
    varied = [name for name in SETTINGS if len(set(contents.column(name))) > 1]
    settings = list(zip(*(contents.column(name) for name in varied), strict=True)) or [()] * contents.rows
    measured, told = contents.numbers(accuracy), contents.numbers(f'reported_{accuracy}')
    costs, images = contents.numbers(cost), contents.numbers('num_images')
    for row, model in enumerate(models):
        x, y = costs[row], measured[row]
        if x is None or x <= 0:
            continue
        point = {'model': model, 'setting': ' '.join(filter(None, settings[row])), cost: x}
        if y is not None:
            number = images[row]
            low, high = wilson_bounds(round(y * number / 100), int(number)) if number else (None, None)
            figures = {accuracy: y, 'low': low, 'high': high, 'kind': 'measured'}
            found.setdefault(data_sets[row], []).append({**point, **figures})
        told_on = contents.reported_on.get(model, '')
        if told[row] is not None and not (y is not None and told_on == data_sets[row]):
            figures = {accuracy: told[row], 'low': None, 'high': None, 'kind': 'reported'}
            found.setdefault(told_on, []).append({**point, **figures})
    return found


def _write(points: list[dict[str, Any]], data_set: str, cost: str, accuracy: str, stem: Path) -> list[Path]:
    """Write one figure in three formats, and its points."""
    import io

    import pandas as pd
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.6), layout='constrained')
    axes = figure.subplots()
    _draw(axes, points, cost, accuracy)
    axes.set_title(data_set or 'data set not named', fontsize=9)
    written = []
    for kind, metadata in _METADATA.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata, dpi=200)
        written.append(stem.with_name(f'{stem.name}.{kind}'))
        write_atomically(written[-1], buffer.getvalue(), '--figures')
    table = pd.DataFrame(points).to_csv(index=False, lineterminator='\n')
    written.append(stem.with_name(f'{stem.name}.csv'))
    write_atomically(written[-1], table.encode(), '--figures')
    return written


def _draw(axes: Any, points: list[dict[str, Any]], cost: str, accuracy: str) -> None:
    column = BY_NAME[cost]
    settings = sorted({point['setting'] for point in points})
    for number, setting in enumerate(settings):
        for kind in ('measured', 'reported'):
            some = [point for point in points if point['setting'] == setting and point['kind'] == kind]
            if not some:
                continue
            colour = _COLOURS[number % len(_COLOURS)]
            label = ' '.join(filter(None, [setting, kind if len(settings) == 1 or kind == 'reported' else '']))
            axes.plot(
                [point[cost] for point in some], [point[accuracy] for point in some], linestyle='none', markersize=5,
                marker=_MARKERS[number % len(_MARKERS)], color=colour, label=label,
                markerfacecolor=colour if kind == 'measured' else 'none',
            )  # fmt: skip
            _draw_bounds(axes, some, cost, accuracy, colour)
    if len(points) <= _MOST_NAMES:
        for point in points:
            axes.annotate(
                point['model'], (point[cost], point[accuracy]), xytext=(4, 3), textcoords='offset points', fontsize=6
            )
    axes.set_xscale('log')
    better = 'faster to the right' if cost in RATES else 'cheaper to the left'
    unit = f' ({column.unit})' if column.unit and column.unit != column.heading else ''
    axes.set_xlabel(f'{column.heading or column.name}{unit}, {better}')
    axes.set_ylabel(f'{BY_NAME[accuracy].heading} ({BY_NAME[accuracy].unit})')
    axes.legend(fontsize=6, frameon=False)


def _draw_bounds(axes: Any, points: list[dict[str, Any]], cost: str, accuracy: str, colour: str) -> None:
    bounded = [point for point in points if point['low'] is not None]
    if len(bounded) > _MOST_NAMES:
        return
    axes.errorbar(
        [point[cost] for point in bounded], [point[accuracy] for point in bounded],
        yerr=[[p[accuracy] - p['low'] for p in bounded], [p['high'] - p[accuracy] for p in bounded]],
        fmt='none', ecolor=colour, elinewidth=0.6, capsize=2,
    )  # fmt: skip
