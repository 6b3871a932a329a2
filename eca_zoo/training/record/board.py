"""The rows of a log for TensorBoard, which is an extra."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eca_zoo.errors import InputError
from eca_zoo.files import storage_error

_NOT_CURVES = ('kind', 'epoch', 'step')


def check_installed() -> None:
    """Refuse to go on without TensorBoard.

    Raises:
        InputError: it is not installed.
    """
    if importlib.util.find_spec('tensorboard') is None:
        raise InputError('--tensorboard: tensorboard is not installed; pip install tensorboard')


class Board:
    """Curves ``steps/COLUMN`` and ``epoch/COLUMN`` over the steps, in the folder ``tensorboard`` of a run."""

    def __init__(self, folder: Path, rows: Sequence[dict[str, Any]]) -> None:
        """Begin with the ``rows`` of a run that goes on; what an earlier process wrote beyond them is hidden.

        Raises:
            StorageError: it cannot be written.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        try:
            self._writer = SummaryWriter(str(folder), purge_step=0)
        except OSError as error:
            raise storage_error(folder, error, '--run-dir') from None
        for row in rows:
            self.add(row)

    def add(self, row: dict[str, Any]) -> None:
        """Add a row of the log.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            for column, value in row.items():
                if column not in _NOT_CURVES and isinstance(value, int | float):
                    self._writer.add_scalar(f'{row["kind"]}/{column}', value, row['step'])
            self._writer.flush()
        except OSError as error:
            raise storage_error(self._folder, error, '--run-dir') from None

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
