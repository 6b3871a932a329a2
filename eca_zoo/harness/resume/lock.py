"""A lock on a folder for one run: refused to a second process, and gone with the process that holds it."""

import logging
import os
import socket
from pathlib import Path
from typing import IO

from eca_zoo.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_logger = logging.getLogger(__name__)


class RunLock:
    """The lock file of a folder.

    A record lock belongs to the process and not to its children, so that it ends with a killed run even while the
    processes that decoded images for it still live.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock, and write into the file who holds it.

        Raises:
            InputError: another process has it.
            OSError: the file cannot be made.
        """
        file = self._path.open('a+', encoding='utf-8')
        try:
            _lock(file)
        except BlockingIOError:
            file.seek(0)
            holder = file.read()
            file.close()
            raise InputError(
                f'{self._path.parent}: another run uses this folder{f" ({holder})" if holder else ""}; wait for it, or '
                'use another folder'
            ) from None
        except OSError as error:
            _logger.warning('%s: no lock (%s); start only one run in this folder', self._path, error)
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}')
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give the lock back; without one, nothing happens."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _lock(file: IO[str]) -> None:
    if fcntl is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except PermissionError as error:  # what some systems say for a lock that is taken
            raise BlockingIOError(str(error)) from None
        return
    import msvcrt

    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError as error:
        raise BlockingIOError(str(error)) from None
