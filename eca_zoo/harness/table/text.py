"""The table for a terminal."""

from collections.abc import Sequence

import pandas as pd

from eca_zoo.harness.table.columns import COLUMNS, Column
from eca_zoo.harness.table.files import formatted


def to_text(frame: pd.DataFrame) -> str:
    """The table for a terminal: columns that hold anything; settings that all rows share stand below it."""
    held = [column for column in COLUMNS if column.name in frame and frame[column.name].notna().any()]
    settings = sorted((c.name for c in held if c.is_setting), key=lambda name: name.startswith(('infer', 'train')))
    shared = {name: frame[name].dropna().iloc[0] for name in settings if frame[name].nunique() == 1}
    shown = {
        column.name: column.heading or column.name
        for column in held
        if column.heading or _tells_rows_apart(column, frame)
    }
    shown |= {name: name for name in settings if name not in shared}
    lines = [list(shown.values()), *formatted(frame, list(shown)).to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ['-' * width for width in widths])
    text = [_aligned(line, widths) for line in lines]
    if shared:
        text.append(', '.join(f'{name} {value}' for name, value in shared.items()))
    return '\n'.join(text)


def _tells_rows_apart(column: Column, frame: pd.DataFrame) -> bool:
    return column.name == 'dataset' and frame['dataset'].nunique() > 1


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return '  '.join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()
