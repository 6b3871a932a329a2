"""Text of any editor, hashes, files that a crash cannot break, and locks that die with the process that holds them."""

import codecs
import errno
import hashlib
import logging
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from eca_zoo.errors import RunError

_logger = logging.getLogger(__name__)

_PATIENCE = 2.0  # seconds of waiting for a lock before the log says so
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_CHUNK = 1 << 22  # bytes that are hashed at a time
# The longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, 'utf-32'), (codecs.BOM_UTF32_BE, 'utf-32'), (codecs.BOM_UTF16_LE, 'utf-16'),
    (codecs.BOM_UTF16_BE, 'utf-16'),
)  # fmt: skip
_STALE = 3600.0  # seconds after which a temporary file belongs to nobody
_TEMPORARY = re.compile(r'\..+\.\d+\.[0-9a-f]{8}\.tmp')
_MOST_LINKS = 40  # that are followed, as in Linux


class StorageError(RunError):
    """A file or folder that cannot be written; the text names the path."""


def storage_error(path: Path, error: OSError, variable: str = 'ECA_ZOO_HOME') -> StorageError:
    """The error for an ``OSError`` that writing ``path`` raised; ``variable`` is the setting that moves the folder."""
    # A rename that fails names both files, and the second is the one that the user knows.
    place = error.filename2 or error.filename or path
    elsewhere = f'set {variable} to a folder that can be written'
    if variable.startswith('--'):
        elsewhere = f'choose another {variable}'
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        there = (
            f'choose a {variable} on another disk' if variable.startswith('--') else f'set {variable} to another disk'
        )
        return StorageError(f'{place}: no space left to write it; free some, or {there}')
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return StorageError(f'{place}: a file stands where a folder is needed; move it away, or {elsewhere}')
    if error.errno == errno.EISDIR:
        return StorageError(f'{place}: a folder stands where a file is needed; move it away, or {elsewhere}')
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(f'{place}: not writable ({error.strerror}: {permissions(Path(place))}); {elsewhere}')
    return StorageError(f'{place}: cannot be written ({error.strerror or error}); {elsewhere}')


def permissions(path: Path) -> str:
    """Mode, owner and group of a file as ``ls -l`` shows them, or those of the nearest folder around it."""
    try:
        status = path.stat()
    except OSError:
        return f'{path.parent} is {permissions(path.parent)}' if path != path.parent else 'nobody'
    return f'{stat.filemode(status.st_mode)} {_name(path.owner, status.st_uid)} {_name(path.group, status.st_gid)}'


def _name(look_up: Callable[[], str], number: int) -> str:
    try:
        return look_up()
    except (KeyError, NotImplementedError):
        return str(number)


def read_text(path: Path | str) -> str:
    """The text of a file, see ``decode_text``.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is no text.
    """
    return decode_text(Path(path).read_bytes())


def decode_text(content: bytes) -> str:
    """Text as editors and shells of any system save it, with ``\\n`` as the end of every line.

    It is UTF-8, or what a byte-order mark says; the mark itself is no part of the text, nor are those that are left at
    the beginning of a line where files were joined.

    Raises:
        UnicodeDecodeError: it is no text.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), 'utf-8')
    text = content.decode(encoding).replace('\r\n', '\n').replace('\r', '\n')
    return re.sub('^\ufeff+', '', text, flags=re.MULTILINE)


def encode_text(text: str) -> bytes:
    """``text`` as UTF-8; names of files that are none have their bytes as ``\\udce9``, as a terminal shows them."""
    return text.encode('utf-8', 'backslashreplace')


def hash_file(path: Path) -> tuple[str, int]:
    """SHA-256 of a file's bytes as hexadecimal digits, and their number."""
    digest, size = hashlib.sha256(), 0
    with path.open('rb') as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


@contextmanager
def replacing(path: Path, setting: str = 'ECA_ZOO_HOME') -> Iterator[Path]:
    """A path to write to; when the body is done, what it wrote is what ``path`` holds.

    The folder of ``path`` is made. A regular file gets its content by a rename: afterwards it is complete, or as it was
    before, with its permissions. A symbolic link stays, and what it leads to is written. What is no regular file (a
    pipe, a device, ``/dev/stdout``) takes the bytes as it is; so does a file in whose place none can be put, such as
    one that a container mounts.

    Args:
        path: the file.
        setting: what moves it elsewhere, for messages.

    Raises:
        StorageError: it cannot be written; nothing is left behind.
    """
    with ExitStack() as stack:
        try:
            target = _end_of_links(path)
            if is_stream(path) or _only_content_may_change(target):
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix='eca-zoo-'))
                temporary = Path(folder) / path.name
                yield temporary
                _write_over(path, temporary)
                return
            temporary = temporary_beside(target)
            stack.callback(_remove, temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open('rb+') as file:
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, temporary)
            try:
                move_into_place(temporary, target)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                _write_over(path, temporary)
        except OSError as error:
            raise storage_error(path, error, setting) from None


def is_stream(path: Path) -> bool:
    """Whether what is written to ``path`` goes on to somebody: a pipe, a device, an open file of this process."""
    try:
        return _open_file(path) is not None or not (_is_regular(path) or path.is_dir())
    except OSError:
        return False


def _is_regular(path: Path) -> bool:
    return stat.S_ISREG(path.stat().st_mode)


def _open_file(path: Path) -> int | None:
    """Number of the open file of this process that ``path`` names (``/dev/stdout``, ``/dev/fd/3``); None if none."""
    folders = {os.path.realpath(folder) for folder in ('/dev/fd', '/proc/self/fd') if os.path.isdir(folder)}
    for _ in range(_MOST_LINKS):
        parent = os.path.realpath(path.parent)
        if parent in folders and path.name.isdigit():
            return int(path.name)
        if not path.is_symlink():
            return None
        path = Path(parent) / os.readlink(path)
    return None


def _end_of_links(path: Path) -> Path:
    """What ``path`` leads to; the file need not exist.

    Raises:
        OSError: the links lead to themselves.
    """
    target = Path(os.path.realpath(path))
    if target.is_symlink() and _open_file(path) is None:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return target


def _only_content_may_change(target: Path) -> bool:
    """Whether ``target`` is a file that may be written in a folder that may not."""
    return target.is_file() and os.access(target, os.W_OK) and not os.access(target.parent, os.W_OK)


def _write_over(path: Path, source: Path) -> None:
    """Write the bytes of ``source`` to what ``path`` leads to, which keeps its name and its place."""
    number = _open_file(path)
    if number is not None:
        # Behind what was printed, at the place in the file that this process and its shell share.
        if sys.stdout is not None:
            sys.stdout.flush()
        descriptor = os.dup(number)
    else:
        descriptor = os.open(path, os.O_WRONLY | (os.O_TRUNC if _is_regular(path) else 0))
    with source.open('rb') as given, open(descriptor, 'wb') as taker:
        shutil.copyfileobj(given, taker)


def write_atomically(path: Path, content: bytes | bytearray | memoryview, setting: str = 'ECA_ZOO_HOME') -> None:
    """Write ``content`` to ``path``, see ``replacing``.

    Raises:
        StorageError: it cannot be written; nothing is left behind.
    """
    with replacing(path, setting) as temporary:
        temporary.write_bytes(content)


def temporary_beside(path: Path) -> Path:
    """An unused name in the folder of ``path``; it starts with a dot and ends with ``.tmp``."""
    return path.with_name(f'.{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp')


def move_into_place(temporary: Path, path: Path) -> None:
    """Rename ``temporary``, whose bytes are on disk, to ``path``, and make the new name durable."""
    os.replace(temporary, path)
    if os.name == 'posix':
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that a killed process left in ``folder``; call it with the folder's lock held."""
    for leftover in folder.glob('.*.tmp'):
        if not _TEMPORARY.fullmatch(leftover.name):
            continue
        try:
            if time.time() - leftover.stat().st_mtime > _STALE:
                leftover.unlink()
        except OSError:
            pass


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass


@contextmanager
def lock(path: Path, purpose: str) -> Iterator[None]:
    """Hold the lock file ``path`` while the body runs; other processes and threads wait.

    The operating system frees the lock when its holder ends, however it ends. Where a file system has no locks, work
    goes on without: every file is written under a name of its own and verified, so a lock only saves work.

    Args:
        path: the lock file; it is made with its folder and stays.
        purpose: what is done under the lock, for the log of a process that waits.

    Raises:
        StorageError: the lock file cannot be made.
    """
    from filelock import FileLock, Timeout

    # The library would fall back to a lock that outlives a killed holder.
    file_lock = FileLock(path, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file_lock.acquire(timeout=_PATIENCE)
        except Timeout:
            _logger.info('waiting for another process: %s', purpose)
            file_lock.acquire()
    except (OSError, NotImplementedError) as error:
        if isinstance(error, PermissionError) and path.exists():
            raise StorageError(
                f'{path}: this lock of another user cannot be taken ({error.strerror}: {permissions(path)}); let your '
                'group write there (chmod g+rw, umask 002: see docs/weights.md), or set ECA_ZOO_HOME to another folder'
            ) from None
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise storage_error(path, error) from None
        _logger.warning('%s: this file system has no locks; %s goes on without', path, purpose)
    try:
        yield
    finally:
        file_lock.release()
