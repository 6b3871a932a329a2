"""The part of the page that shows trainings: their curves, from the logs of their folders."""

import csv
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eca_zoo.errors import InputError, one_line
from eca_zoo.files import read_text
from eca_zoo.reporting.sections import section
from eca_zoo.training.record.curves import draw_curves
from eca_zoo.training.record.log import LOG_FILE


def trainings(folders: Sequence[Path]) -> str:
    """The curves of each training: loss, top-1 with its interval, and learning rate over the steps.

    Raises:
        InputError: a folder has no log, or one that cannot be read.
    """
    figures = []
    for folder in folders:
        label = html.escape(f'curves of the training {folder.name}')
        curves = draw_curves(_log_of(folder), folder.name).replace('<svg ', f'<svg role="img" aria-label="{label}" ', 1)
        figures.append(f'<figure>{curves}</figure>\n')
    return section('trainings', 'Trainings', *figures)


def _log_of(folder: Path) -> list[dict[str, Any]]:
    path = folder / LOG_FILE
    if not path.is_file():
        raise InputError(f'{folder}: holds no {LOG_FILE}; name the --run-dir of eca-zoo train')
    try:
        rows = [
            {name: cell if name == 'kind' else float(cell) if cell else None for name, cell in row.items()}
            for row in csv.DictReader(read_text(path).splitlines(), strict=True)
        ]
        if not rows or any(row['step'] is None for row in rows):
            raise ValueError('it has no step')
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise InputError(f'{path}: is no log of a training ({one_line(error)}); name another folder') from None
    return rows
