"""What the page shows without a script: facts, a figure, and the first rows of the table."""

import html
import math
from collections.abc import Sequence
from typing import Any

from eca_zoo.harness.table.columns import BY_NAME
from eca_zoo.reporting.contents import Contents, is_number
from eca_zoo.reporting.payload import ACCURACIES, COSTS

MOST_ROWS = 200
#: Stands for an empty cell.
DASH = '\N{EN DASH}'
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 720, 320, 52, 40, 26, 150


def facts_as_html(contents: Contents) -> str:
    """Suite, data, machine, versions and command of the run, as far as they are known."""
    environment, versions = contents.environment, contents.environment.get('versions', {})
    gpus = environment.get('gpus') or []
    facts: dict[str, Any] = {
        'suite': environment.get('suite'),
        'data': _fingerprint(environment.get('data')),
        'processor': _processor(environment),
        'GPUs': ', '.join(str(gpu.get('name')) for gpu in gpus),
        'versions': ', '.join(f'{name} {versions[name]}' for name in _VERSIONS if name in versions),
        'system': environment.get('platform'),
    }
    lines = [f'<dt>{name}<dd>{html.escape(str(value))}' for name, value in facts.items() if value]
    text = f'<dl class="facts">{"".join(lines)}</dl>' if lines else ''
    if environment.get('command_line'):
        from eca_zoo.reporting.page import command_of

        text += (
            f'<pre id="command" tabindex="0">{html.escape(command_of(contents))}</pre>'
            '<p class="controls"><button type="button" id="copy">copy the command</button></p>'
        )
    return text


_VERSIONS = ('eca-zoo', 'python', 'torch', 'torchvision', 'timm', 'pillow')


def _processor(environment: Any) -> str:
    if 'processor' not in environment:
        return ''
    threads = environment.get('threads', {}).get('intra_op')
    return f'{environment["processor"]}, {environment.get("cpus")} cores' + (f', {threads} threads' if threads else '')


def _fingerprint(data: Any) -> str:
    if not data:
        return ''
    if isinstance(data, dict) and all(isinstance(value, dict) for value in data.values()):
        return '; '.join(f'{name}: {_fingerprint(value)}' for name, value in data.items())
    if isinstance(data, dict):
        return ', '.join(f'{name} {_short(value)}' for name, value in data.items() if value)
    return str(data)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 20 else f'{text[:16]}…'


def table_as_html(contents: Contents) -> str:
    """The first rows, with the columns that hold anything."""
    held = [name for name in contents.header if BY_NAME[name].heading and not contents.is_empty(name)]
    if not contents.rows:
        return '<p>The table has no rows.</p>'
    head = ''.join(
        f'<th scope="col"{_class(name)} title="{html.escape(BY_NAME[name].meaning)}">'
        f'{html.escape(BY_NAME[name].heading)}'
        for name in held
    )
    lines = [f'<table><thead><tr>{head}<tbody>']
    columns = [contents.column(name) for name in held]
    for cells in list(zip(*columns, strict=True))[:MOST_ROWS]:
        texts = [f'<td{_class(name)}>{html.escape(cell) or DASH}' for name, cell in zip(held, cells, strict=True)]
        lines.append(f'<tr>{"".join(texts)}')
    lines.append('</table>')
    if contents.rows > MOST_ROWS:
        lines.append(f'<p>{MOST_ROWS} of {contents.rows} rows; all are in {html.escape(contents.source.name)}.</p>')
    return '\n'.join(lines)


def _class(name: str) -> str:
    return ' class="number"' if is_number(BY_NAME[name]) else ''


def figure_as_svg(contents: Contents) -> str:
    """Accuracy against the first cost, measured solid and reported hollow, as SVG without any script."""
    cost = next((name for name in COSTS if not contents.is_empty(name)), None)
    if cost is None:
        return '<p>No cost was measured, so there is no point to draw.</p>'
    points = _points(contents, cost)
    if not points:
        return '<p>No row has both an accuracy and a cost, so there is no point to draw.</p>'
    across, up = _scaled([point[1] for point in points], True), _scaled([point[2] for point in points], False)
    marks = []
    for (model, _, _, is_measured), x, y in zip(points, across, up, strict=True):
        left = _LEFT + x * (_WIDTH - _LEFT - _RIGHT)
        top = _HEIGHT - _BOTTOM - y * (_HEIGHT - _BOTTOM - _TOP)
        fill = 'currentColor' if is_measured else 'none'
        marks.append(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="4" fill="{fill}" stroke="currentColor"/>')
        if len(points) <= 24:
            marks.append(f'<text x="{left + 8:.1f}" y="{top + 4:.1f}">{html.escape(model)}</text>')
    return _framed(contents, cost, points, marks)


Point = tuple[str, float, float, bool]


def _points(contents: Contents, cost: str) -> list[Point]:
    """Model, cost, top-1 and whether it was measured; of one data set, the first that has any."""
    costs, top1, told = contents.numbers(cost), contents.numbers('top1'), contents.numbers('reported_top1')
    models, data_sets = contents.column('model'), contents.column('dataset')
    measured: dict[str, list[Point]] = {}
    for model, data_set, x, y, reported in zip(models, data_sets, costs, top1, told, strict=True):
        if x is not None and x > 0 and y is not None:
            measured.setdefault(data_set, []).append((model, x, y, True))
        if x is not None and x > 0 and reported is not None:
            measured.setdefault(contents.reported_on.get(model, ''), []).append((model, x, reported, False))
    return max(measured.values(), key=len, default=[])


def _scaled(values: Sequence[float], is_log: bool) -> list[float]:
    turned = [math.log(value) if is_log else value for value in values]
    low, high = min(turned), max(turned)
    return [0.5 if high == low else 0.04 + 0.92 * (value - low) / (high - low) for value in turned]


def _framed(contents: Contents, cost: str, points: Sequence[Point], marks: Sequence[str]) -> str:
    column, accuracy = BY_NAME[cost], BY_NAME[ACCURACIES[0]]
    floor, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    costs, accuracies = [point[1] for point in points], [point[2] for point in points]
    texts = [
        f'<text x="{_LEFT}" y="{floor + 16}">{min(costs):g}</text>',
        f'<text x="{right}" y="{floor + 16}" text-anchor="end">{max(costs):g}</text>',
        f'<text x="{(_LEFT + right) / 2:.0f}" y="{floor + 32}" text-anchor="middle">'
        f'{html.escape(column.heading or column.name)} ({html.escape(column.unit)}), logarithmic</text>',
        f'<text x="{_LEFT - 6}" y="{floor}" text-anchor="end">{min(accuracies):g}</text>',
        f'<text x="{_LEFT - 6}" y="{_TOP + 8}" text-anchor="end">{max(accuracies):g}</text>',
        f'<text x="{_LEFT}" y="16">{accuracy.heading} ({accuracy.unit}); solid measured, hollow reported</text>',
    ]
    frame = f'<path d="M{_LEFT} {_TOP}V{floor}H{right}" fill="none" stroke="currentColor" opacity="0.4"/>'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" font-size="11" '
        f'aria-label="top-1 against {html.escape(column.heading or column.name)}" fill="currentColor">'
        f'{frame}{"".join(texts)}{"".join(marks)}</svg>'
    )
