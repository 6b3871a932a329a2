"""The table for a terminal."""

from collections.abc import Sequence

from eca_zoo.harness.table.columns import BY_NAME, Row, format_cell

# Columns that a terminal has room for, and their short headings.
_ON_A_TERMINAL = {
    'model': 'model',
    'top1': 'top-1',
    'top1_ci95': '+/-',
    'top5': 'top-5',
    'reported_top1': 'reported',
    'delta_top1': 'delta',
    'params_paper': 'params/2^20',
    'gflops_paper': 'paper GFLOPs',
    'infer_gmacs': 'GMACs',
    'infer_samples_per_sec': 'images/s',
    'infer_spread': 'spread %',
    'infer_step_time_p95': 'p95 ms',
    'relative_throughput': 'relative',
    'peak_memory_mb': 'peak MiB',
    'train_samples_per_sec': 'train images/s',
    'train_relative_throughput': 'relative',
}
_SETTINGS = (
    'device',
    'precision',
    'memory_format',
    'compile',
    'backend',
    'fused',
    'infer_batch_size',
    'infer_img_size',
    'train_batch_size',
    'train_img_size',
)


def to_text(rows: Sequence[Row]) -> str:
    """The table for a terminal: columns that hold anything; settings that all rows share stand below it."""
    values = {name: [row[name] for row in rows if row.get(name) is not None] for name in BY_NAME}
    shared = {name: values[name][0] for name in _SETTINGS if len(set(values[name])) == 1}
    shown = {name: label for name, label in _ON_A_TERMINAL.items() if values[name]}
    shown |= {name: name for name in _SETTINGS if values[name] and name not in shared}
    lines = [list(shown.values())]
    lines += [[format_cell(name, row.get(name)) for name in shown] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ['-' * width for width in widths])
    text = [_aligned(line, widths) for line in lines]
    if shared:
        text.append(', '.join(f'{name} {value}' for name, value in shared.items()))
    return '\n'.join(text)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return '  '.join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()
