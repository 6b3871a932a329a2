"""The log of a run: one row an epoch and one every so many steps, as ``log.csv``."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from eca_zoo.files import storage_error, write_atomically

LOG_FILE = 'log.csv'
STEPS, EPOCH = 'steps', 'epoch'
#: Columns by which one checkpoint is better than another, those that go before others first.
DECIDING = ('ema_top1', 'top1', 'ema_box_ap', 'box_ap')
#: Columns that depend on the clock and the machine; all others are equal however often a run was interrupted.
TIMINGS = ('images_per_sec', 'data_time', 'memory_mb')
_AVERAGED = 'of the averaged weights'
#: What the columns of a classifier's validation mean, and those of a detector's.
CLASSIFIER_COLUMNS = {
    'val_loss': 'mean cross-entropy on the validation images',
    'top1': '% of the validation images',
    'top5': '% of the validation images',
    'top1_ci95': 'half width of the 95 % Wilson interval of `top1`',
    'num_images': 'validation images',
    'ema_val_loss': f'as `val_loss`, {_AVERAGED}',
    'ema_top1': f'as `top1`, {_AVERAGED}',
    'ema_top5': f'as `top5`, {_AVERAGED}',
}
DETECTOR_COLUMNS = {
    'box_ap': "COCO's average precision of the boxes on the validation images, from 0 to 1",
    'box_ap50': 'the same at an overlap of 0.5',
    'box_ap75': 'the same at an overlap of 0.75',
    'mask_ap': 'as `box_ap`, of the masks',
    'mask_ap50': 'as `box_ap50`, of the masks',
    'mask_ap75': 'as `box_ap75`, of the masks',
    'num_images': 'validation images',
    'ema_box_ap': f'as `box_ap`, {_AVERAGED}',
    'ema_mask_ap': f'as `mask_ap`, {_AVERAGED}',
}
_FIRST = {
    'kind': '`steps`: the steps since the row before; `epoch`: a whole epoch, with its validation',
    'epoch': 'number of the epoch, from 1',
    'step': 'steps that are done',
    'lr': 'learning rate of the last step, the largest of the groups',
    'loss': 'mean training loss over the images of the row',
    'images_per_sec': 'training images a second over all processes, without the validation',
    'data_time': 'share of that time in which the step waited for images',
    'memory_mb': 'most memory of the main process (on CUDA, of its tensors) so far, in 2^20 bytes',
}
_LAST = {'bad_images': 'training images that could not be decoded so far'}


def columns_with(validation: Iterable[str]) -> tuple[str, ...]:
    """The columns of a log whose validation has these."""
    return (*_FIRST, *validation, *_LAST)


class Log:
    """The rows of a run, in memory and in a file that follows.

    Attributes:
        rows: by column.
        listener: called with each row that is added.
    """

    def __init__(self, path: Path | None, columns: Sequence[str] = columns_with(CLASSIFIER_COLUMNS)) -> None:
        """Begin without rows.

        Args:
            path: the file; None for processes beside the main one.
            columns: of the file; others of a row come after them.
        """
        self.rows: list[dict[str, Any]] = []
        self.listener: Callable[[dict[str, Any]], None] | None = None
        self._path, self._columns = path, list(columns)

    def restore(self, rows: list[dict[str, Any]]) -> None:
        """Take the rows of a state, and give the file these and no others."""
        self.rows = rows
        self._write_all()

    def add(self, row: dict[str, Any]) -> None:
        """Add a row, in the file too.

        Raises:
            StorageError: it cannot be written.
        """
        self.rows.append(row)
        new = [column for column in row if column not in self._columns]
        if new or len(self.rows) == 1:
            self._columns += new
            self._write_all()
        elif self._path is not None:
            try:
                with self._path.open('a', encoding='utf-8', newline='') as file:
                    file.write(_lines([row], self._columns))
            except OSError as error:
                raise storage_error(self._path, error, '--run-dir') from None
        if self.listener is not None:
            self.listener(row)

    def epochs(self) -> list[dict[str, Any]]:
        """The rows of whole epochs."""
        return [row for row in self.rows if row['kind'] == EPOCH]

    def _write_all(self) -> None:
        if self._path is not None:
            text = _lines([{column: column for column in self._columns}], self._columns) + _lines(
                self.rows, self._columns
            )
            write_atomically(self._path, text.encode(), '--run-dir')


def _lines(rows: list[dict[str, Any]], columns: list[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval='', lineterminator='\n')
    writer.writerows([{key: '' if value is None else value for key, value in row.items()} for row in rows])
    return text.getvalue()


def columns_as_markdown() -> str:
    """The columns as a Markdown table: those of all, of classifiers and of detectors."""
    lines = ['| column | meaning |', '|---|---|']
    columns = {**_FIRST, **CLASSIFIER_COLUMNS, **DETECTOR_COLUMNS, **_LAST}
    return '\n'.join([*lines, *(f'| `{name}` | {meaning} |' for name, meaning in columns.items())])
