"""The table as the page's script reads it: small, and with the digits of the file."""

import json
from collections.abc import Sequence
from typing import Any

from eca_zoo.harness.table.columns import BY_NAME, Column
from eca_zoo.reporting.contents import Contents, is_number

#: Columns that a model costs, in the order of the choice; those of rates are better where they are higher.
COSTS = (
    'infer_samples_per_sec', 'infer_step_time', 'infer_step_time_p95', 'infer_gmacs', 'params', 'param_count',
    'infer_macts', 'peak_memory_mb', 'train_samples_per_sec', 'train_step_time',
)  # fmt: skip
RATES = ('infer_samples_per_sec', 'train_samples_per_sec')
ACCURACIES = ('top1', 'top5')
FACETS = (
    'dataset', 'img_size', 'preprocess', 'device', 'precision', 'memory_format', 'compile', 'backend', 'fused',
    'infer_img_size',
)  # fmt: skip
SETTINGS = ('device', 'precision', 'memory_format', 'compile', 'backend', 'fused')
GROUPS = {
    'model': 'network', 'accuracy': 'accuracy', 'complexity': 'complexity', 'reported': 'reported',
    'infer': 'inference', 'setting': 'setting', 'train': 'training', 'outcome': 'outcome',
}  # fmt: skip
_SHOWN_AT_FIRST = ('model', 'accuracy', 'complexity', 'reported', 'infer', 'train')
_MOST_VALUES = 64


def group_of(column: Column) -> str:
    """The group that a column stands in."""
    if column.name == 'model':
        return 'model'
    if column.is_setting and not column.name.startswith(('infer', 'train')):
        return 'setting'
    if column.values:
        return next(iter(column.values))
    return 'reported' if column.name.startswith('delta') else 'outcome'


def encode_cells(cells: Sequence[str]) -> dict[str, Any]:
    """Cells in few characters: one for all, indices of a few values, or all of them with line ends between."""
    values = sorted(set(cells))
    if len(values) == 1:
        return {'constant': values[0]}
    if len(values) <= _MOST_VALUES and len(values) * 4 <= len(cells):
        place = {value: str(index) for index, value in enumerate(values)}
        return {'values': values, 'cells': ' '.join(place[cell] for cell in cells)}
    if any('\n' in cell for cell in cells):
        return {'list': list(cells)}
    return {'cells': '\n'.join(cells)}


def payload_of(contents: Contents) -> dict[str, Any]:
    """Everything that the page's script needs."""
    held = [name for name in contents.header if contents.rows and not contents.is_empty(name)]
    costs = [name for name in COSTS if name in held]
    accuracies = [name for name in ACCURACIES if name in held or f'reported_{name}' in held]
    columns = [_column(contents, BY_NAME[name]) for name in dict.fromkeys([*contents.header, *accuracies])]
    facets = [name for name in FACETS if name in held and len(set(contents.column(name))) > 1]
    return {
        'rows': contents.rows,
        'file': contents.source.name,
        'lineEnd': contents.line_end,
        'header': list(contents.header),
        'columns': columns,
        'groups': GROUPS,
        'costs': costs,
        'accuracies': accuracies,
        'higherIsBetter': list(RATES),
        'facets': facets,
        'settingColumns': [name for name in SETTINGS if name in facets],
        'reasons': contents.reasons,
        'reportedOn': contents.reported_on,
        'defaults': {
            'x': costs[0] if costs else '',
            'y': accuracies[0] if accuracies else '',
            'groups': list(_SHOWN_AT_FIRST),
        },
    }


def _column(contents: Contents, column: Column) -> dict[str, Any]:
    return {
        'name': column.name,
        'group': group_of(column),
        'heading': column.heading,
        'unit': column.unit,
        'meaning': column.meaning,
        'isNumber': is_number(column),
        'isShown': True,
        'encoded': encode_cells(contents.column(column.name)) if contents.rows else {'list': []},
    }


def as_script_data(payload: dict[str, Any]) -> str:
    """JSON that ends no script element and begins no comment, whatever the texts in it are."""
    text = json.dumps(payload, separators=(',', ':'), ensure_ascii=False)
    for character in '<>&\u2028\u2029':
        text = text.replace(character, f'\\u{ord(character):04x}')
    return text
