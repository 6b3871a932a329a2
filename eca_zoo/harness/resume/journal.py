"""A run directory: finished rows and partial counts, written so that a kill at any moment loses a few seconds of work.

``journal-00000.jsonl`` is the main process's, the others write one each, so that no two processes append to a file.
A line is a JSON object and the CRC-32 of its text. The last line, if a kill cut it short, counts as never written; any
other that fails the check was damaged later, which is warned of. Lines are only ever added: reading is adding up.
"""

import json
import logging
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from eca_zoo.errors import EcaZooError, InputError
from eca_zoo.files import replacing, storage_error
from eca_zoo.harness.machine.processes import agreed
from eca_zoo.harness.resume.lock import RunLock

_logger = logging.getLogger(__name__)

_VERSION = 1
_PREDICTIONS = 'predictions'
_JOURNAL = re.compile(r'journal-\d{5,}\.jsonl')
_PREDICTION = re.compile(r'\d{5,}-[0-9a-f]{32}\.pt')
_SHOWN = 3


class RunDirectory:
    """The folder of one run, which the same command continues; use it in a ``with`` statement.

    One process of the run holds the folder's lock, writes rows and reads; the others (``rank`` above 0) append their
    partial counts alone.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        restart: bool | Sequence[str] = False,
        rank: int = 0,
        files: Sequence[str] = (),
    ) -> None:
        """Name a run directory; nothing is written before it is entered.

        Args:
            path: the folder; it is made if it is not there.
            identity: JSON values that fix what the run's numbers are: the same folder takes no other.
            restart: forget what the folder holds, or what it holds of the models with these titles.
            rank: number of this process.
            files: names of files that every such run writes there; they go when a run is begun anew.
        """
        self.path = path
        self._identity = _plain(identity)
        self._restart = restart
        self._rank = rank
        self._fixed_files = files
        self._lock = RunLock(path / '.lock')
        self._file: TextIO | None = None
        self._records: list[dict[str, Any]] = []

    def __enter__(self) -> 'RunDirectory':
        """Open the folder; under ``torchrun`` all processes do so together.

        Raises:
            InputError: another run uses it, or it belongs to a run with another identity.
            StorageError: it cannot be written.
        """
        try:
            # Nobody opens a journal that the main process is about to remove.
            agreed(self._enter)
            agreed(self._open)
        except EcaZooError:
            self.close()
            raise
        return self

    def _enter(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self._rank == 0:
                self._lock.acquire()
                if self._restart is True:
                    self._clear()
                self._records = self._read_all()
                if self._restart and self._restart is not True:
                    self._forget(self._restart)
        except OSError as error:
            raise storage_error(self.path, error, '--run-dir') from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the journal and let others use the folder."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._lock.release()

    def require(self, part: str, identity: Mapping[str, Any]) -> None:
        """Record the identity of a part of the run (such as one of its models), or check it against the recorded one.

        Raises:
            InputError: the folder holds results of another; the text names the differences.
        """
        wanted = _plain(identity)
        for record in self._records:
            if record['kind'] == 'identity' and record['part'] == part:
                differences = differences_between(record['identity'], wanted)
                if differences:
                    more = f'; and {len(differences) - _SHOWN} more' if len(differences) > _SHOWN else ''
                    title = part.partition('/')[2]
                    alone = f', --restart {title} to measure that model alone' if title else ''
                    raise InputError(
                        f'{self.path}: it holds a run with {"; ".join(differences[:_SHOWN])}{more}; use another '
                        f'folder{alone}, or --restart to begin anew'
                    )
                return
        self._append({'kind': 'identity', 'part': part, 'version': _VERSION, 'identity': wanted})

    def identity(self, part: str) -> dict[str, Any] | None:
        """What ``require`` recorded for ``part``; None if it was never asked."""
        found = (r['identity'] for r in self._records if r['kind'] == 'identity' and r['part'] == part)
        return next(found, None)

    def finished_rows(self, table: str = 'rows') -> dict[str, dict[str, Any]]:
        """The rows that were recorded for ``table``, by key; the last one counts."""
        return {
            record['key']: record['row']
            for record in self._records
            if record['kind'] == 'row' and record['table'] == table
        }

    def record_row(self, key: str, row: Mapping[str, Any], table: str = 'rows') -> None:
        """Record a finished row; it is on disk when this returns.

        Args:
            key: what the row is about, such as a model's name.
            row: JSON values.
            table: kind of row, such as ``accuracy`` or ``throughput``.

        Raises:
            StorageError: it cannot be written.
        """
        self._append({'kind': 'row', 'table': table, 'key': key, 'row': _plain(row)})

    def partials(self, part: str) -> list[dict[str, Any]]:
        """What ``record_partial`` recorded for ``part``, by all processes of all earlier runs."""
        return [record['partial'] for record in self._records if record['kind'] == 'partial' and record['part'] == part]

    def record_partial(self, part: str, partial: Mapping[str, Any]) -> None:
        """Record counts of a part that is not finished; they are on disk when this returns.

        Args:
            part: what the counts are about.
            partial: JSON values: what was counted since the last record.

        Raises:
            StorageError: it cannot be written.
        """
        self._append({'kind': 'partial', 'part': part, 'partial': _plain(partial)})

    def written_files(self) -> list[str]:
        """Names of the files that ``record_file`` was told of."""
        return list(dict.fromkeys(record['name'] for record in self._records if record['kind'] == 'file'))

    def record_file(self, name: str) -> None:
        """Note that the run writes a file of this name into its folder, and so may remove it.

        Raises:
            StorageError: it cannot be written.
        """
        if name not in self.written_files():
            self._append({'kind': 'file', 'name': name})

    def remove_file(self, name: str) -> None:
        """Remove a file that the run has written."""
        assert name in self.written_files()
        (self.path / name).unlink(missing_ok=True)

    @property
    def predictions(self) -> Path:
        """Folder for predictions of images that were counted; it is made."""
        folder = self.path / _PREDICTIONS
        folder.mkdir(exist_ok=True)
        return folder

    def _clear(self) -> None:
        """Remove what runs have written; a folder that somebody else uses too keeps the rest.

        The main process's journal goes last: it knows which run the others belong to.
        """
        self._records = [record for file in self._journals() for record in _read(file)[0]]
        for name in [*self.written_files(), *(self._fixed_files if self._records else ())]:
            (self.path / Path(name).name).unlink(missing_ok=True)
        folder = self.path / _PREDICTIONS
        predictions = folder.glob('*.pt') if folder.is_dir() else ()
        parts = [path for path in predictions if _PREDICTION.fullmatch(path.name)]
        for file in [*parts, *reversed(self._journals())]:
            file.unlink()
        try:
            folder.rmdir()
        except OSError:
            pass

    def _forget(self, titles: Sequence[str]) -> None:
        """Remove the records of some models; as above, the main process's journal goes last."""
        lost = [record for record in self._records if _model_of(record) in titles]
        self._records = [record for record in self._records if _model_of(record) not in titles]
        for path in reversed(self._journals()):
            records, _ = _read(path)
            kept = [record for record in records if _model_of(record) not in titles]
            if len(kept) < len(records):
                with replacing(path, '--run-dir') as temporary:
                    temporary.write_text(''.join(map(_line, kept)), encoding='utf-8')
        names = [record['partial'].get('predictions') for record in lost if record['kind'] == 'partial']
        for name in names:
            if name is not None and _PREDICTION.fullmatch(name):
                (self.path / _PREDICTIONS / name).unlink(missing_ok=True)

    def _journals(self) -> list[Path]:
        return sorted(path for path in self.path.glob('journal-*.jsonl') if _JOURNAL.fullmatch(path.name))

    def _read_all(self) -> list[dict[str, Any]]:
        """The records of all processes; a warning says which cannot be read, and that they are measured again."""
        records: list[dict[str, Any]] = []
        for file in self._journals():
            read, damaged = _read(file)
            records += read
            for number, text in damaged:
                if not _is_a_figure(text):
                    _logger.warning(
                        '%s: line %d is damaged, and may have said what this run is; all is measured again',
                        file,
                        number,
                    )
                    self._clear()
                    return []
                _logger.warning('%s: line %d is damaged; what it held is measured again', file, number)
        return records

    def _open(self) -> None:
        try:
            self._open_file()
        except OSError as error:
            raise storage_error(self.path, error, '--run-dir') from None
        if self._rank == 0:
            self.require('run', self._identity)

    def _open_file(self) -> None:
        path = self.path / f'journal-{self._rank:05d}.jsonl'
        is_new = not path.exists()
        if not is_new:
            _mend_end(path)
        self._file = path.open('a', encoding='utf-8')
        if is_new and os.name == 'posix':
            folder = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _append(self, record: dict[str, Any]) -> None:
        assert self._file is not None, 'the run directory is not open'
        try:
            self._file.write(_line(record))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise storage_error(self.path, error, '--run-dir') from None
        self._records.append(record)


def recorded_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows in the journals of a run directory, with ``table``, ``key`` and ``row``; what is damaged is left out.

    Nothing is locked or changed.

    Raises:
        OSError: a journal cannot be read.
    """
    files = sorted(path for path in folder.glob('journal-*.jsonl') if _JOURNAL.fullmatch(path.name))
    return [record for file in files for record in _read(file)[0] if record['kind'] == 'row']


def _checksum(text: bytes) -> str:
    return f'{zlib.crc32(text):08x}'


def _line(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, separators=(',', ':'))
    return f'{_checksum(text.encode())} {text}\n'


def _model_of(record: Mapping[str, Any]) -> str | None:
    """Title of the model that a record is about, which ends the name of its part, or stands in its row."""
    if record['kind'] == 'row':
        row = record['row']
        return row.get('model') or row.get('title') or record['key']
    return record.get('part', '').partition('/')[2] or None


def _text_of(line: bytes) -> bytes | None:
    """What a line records; None if its checksum is another."""
    checksum, _, text = line.partition(b' ')
    return text if checksum == _checksum(text).encode() else None


def _read(path: Path) -> tuple[list[dict[str, Any]], list[tuple[int, bytes]]]:
    """The records of a journal, and the numbers and texts of lines that were damaged after they had been written."""
    *lines, last = path.read_bytes().split(b'\n')
    records, damaged = [], []
    for number, line in enumerate([*lines, last], 1):
        text = _text_of(line)
        if text is not None:
            records.append(json.loads(text))
        elif number <= len(lines):
            damaged.append((number, line.partition(b' ')[2]))
        elif line:
            _logger.info('%s: line %d was cut short and does not count', path, number)
    return records, damaged


def _is_a_figure(text: bytes) -> bool:
    """Whether a damaged line is certain to have held a row or counts, which can be measured again, and nothing else."""
    try:
        return json.loads(text)['kind'] in ('row', 'partial')
    except (ValueError, KeyError, TypeError):
        return False


def _mend_end(path: Path) -> None:
    """End the last line of a journal if it is whole, and remove it if it was cut short."""
    with path.open('r+b') as file:
        content = file.read()
        last = content.rpartition(b'\n')[2]
        if last and _text_of(last) is not None:
            file.write(b'\n')
        elif last:
            file.truncate(len(content) - len(last))


def _plain(value: Any) -> Any:
    """``value`` as it comes back from JSON."""
    return json.loads(json.dumps(value, default=str))


def differences_between(recorded: Any, wanted: Any, key: str = '') -> list[str]:
    """What differs between two JSON values, each as ``key there, not here``."""
    if isinstance(recorded, dict) and isinstance(wanted, dict):
        keys = [*recorded, *(name for name in wanted if name not in recorded)]
        return [
            difference
            for name in keys
            for difference in differences_between(recorded.get(name), wanted.get(name), f'{key}.{name}'.lstrip('.'))
        ]
    return [] if recorded == wanted else [f'{key} {json.dumps(recorded)}, not {json.dumps(wanted)}']
