"""Loading a checkpoint so that only bytes with the manifest's hash become tensors."""

import errno
import hashlib
import logging
import mmap
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import torch

from eca_zoo.files import hash_file, permissions
from eca_zoo.weights.errors import CheckpointError, HashMismatchError, convert_needed
from eca_zoo.weights.manifest import Entry
from eca_zoo.weights.sources.copies import copies_on_disk
from eca_zoo.weights.tensor_file import (
    ALIGNMENT,
    LENGTH_BYTES,
    first_not_finite,
    header_length,
    parse_header,
    tensors_from_buffer,
)

_logger = logging.getLogger(__name__)

_CHUNK = 1 << 23
_SHOWN = 3


def load_verified(name: str, entry: Entry) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint, from a buffer whose bytes have the manifest's size and SHA-256.

    A checkpoint that is not on this machine is fetched first. The tensors are views of one private buffer, so a file
    that changes after it was hashed cannot change them; each has a storage of its own size.

    Args:
        name: ``architecture.tag``, for messages and as the argument of the commands they recommend.
        entry: its manifest entry.

    Raises:
        ConvertNeededError: the entry has no checkpoint.
        FetchError: the checkpoint is not here and no source delivers it.
        HashMismatchError: the file's bytes are not those of the manifest.
        CheckpointError: the bytes are right, and are no usable safetensors file, or hold NaN or infinities.
    """
    if entry.checkpoint is None:
        raise convert_needed(name, entry)
    changed: HashMismatchError | None = None
    for path in copies_on_disk(name, entry.checkpoint):
        try:
            tensors = load_file(path, entry.checkpoint.size, entry.checkpoint.sha256, name, remedy_of(name, entry))
        except HashMismatchError as error:
            changed = changed or error
        else:
            if changed is not None:
                _logger.warning('%s; loaded %s instead', changed, path)
            return tensors
    if changed is not None:
        raise changed
    from eca_zoo.weights.sources.fetch import fetch

    path = fetch(name, entry)
    return load_file(path, entry.checkpoint.size, entry.checkpoint.sha256, name, remedy_of(name, entry))


def remedy_of(name: str, entry: Entry) -> str:
    """How to get a right file in the place of a wrong one."""
    assert entry.checkpoint is not None
    if any(source.url or source.hub for source in entry.checkpoint.sources):
        return f'to replace the file run: eca-zoo fetch {name}'
    if any(source.package for source in entry.checkpoint.sources):
        return 'to replace the file reinstall eca-zoo'
    file = entry.authors_file.file if entry.authors_file is not None else 'FILE'
    return f'to replace the file run: eca-zoo convert {file}'


def load_file(path: Path, size: int, sha256: str, name: str, remedy: str) -> dict[str, torch.Tensor]:
    """The tensors of the safetensors file ``path`` if its bytes have this size and SHA-256.

    Args:
        path: the file.
        size: expected bytes.
        sha256: expected hash, hexadecimal.
        name: of the checkpoint, for messages.
        remedy: how to get a right file, for messages.

    Raises:
        HashMismatchError: size or hash differ.
        CheckpointError: the file cannot be read, is malformed, or holds NaN or infinities.
    """
    try:
        with path.open('rb') as file:
            found_size = file.seek(0, 2)
            if found_size != size:
                raise _mismatch(path, *hash_file(path), size, sha256, name, remedy)
            file.seek(0)
            buffer, start, found = _read_hashed(file, size)
            if file.read(1):
                raise _mismatch(path, *hash_file(path), size, sha256, name, remedy)
    except OSError as error:
        raise unreadable(path, name, error.strerror) from None
    if found != sha256:
        raise _mismatch(path, found, size, size, sha256, name, remedy)
    try:
        return _build_tensors(buffer, start, size)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}; {name} needs another file') from None


def unreadable(path: Path, name: str, reason: str | None) -> CheckpointError:
    """The error for a file that is there and cannot be read."""
    said = f'{path}: cannot read the checkpoint of {name}: {reason}'
    if reason != os.strerror(errno.EACCES):
        return CheckpointError(said)
    return CheckpointError(f'{said} ({permissions(path)}); ask its owner for chmod a+r, or set ECA_ZOO_HOME to another')


def _mismatch(
    path: Path, found: str, found_size: int, size: int, sha256: str, name: str, remedy: str
) -> HashMismatchError:
    return HashMismatchError(
        f'{path}: these are not the weights of {name}: SHA-256 {found} ({found_size} bytes), expected {sha256} '
        f'({size} bytes); nothing was loaded; {remedy}'
    )


def _read_hashed(file: BinaryIO, size: int) -> tuple[Any, int, str]:
    """Read ``size`` bytes into a new buffer while hashing them; returns it, the offset of the bytes, their SHA-256.

    The bytes are placed so that the data section of a safetensors file starts on a 64-byte boundary.
    """
    first = file.read(LENGTH_BYTES)
    start = -(LENGTH_BYTES + int.from_bytes(first, 'little')) % ALIGNMENT
    buffer = _allocate(start + size)
    view = memoryview(buffer)[start : start + size]
    view[: len(first)] = first
    digest, position = hashlib.sha256(), len(first)
    with ThreadPoolExecutor(1) as pool:  # hashing and reading both release the interpreter's lock
        pool.submit(digest.update, view[:position])
        while position < size:
            count = file.readinto(view[position : position + _CHUNK])  # type: ignore[attr-defined]
            if not count:
                break
            pool.submit(digest.update, view[position : position + count])
            position += count
    return buffer, start, digest.hexdigest()


def _allocate(size: int) -> Any:
    """A private writable buffer of ``size`` bytes."""
    if not hasattr(mmap, 'MAP_PRIVATE'):
        return bytearray(size)
    # Private: a forked worker must not share writes to the weights. Huge pages: fewer faults, a third of the time.
    buffer = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, 'MADV_HUGEPAGE'):
        try:
            buffer.madvise(mmap.MADV_HUGEPAGE)
        except OSError:  # a kernel without transparent huge pages
            pass
    return buffer


def _build_tensors(buffer: Any, start: int, size: int) -> dict[str, torch.Tensor]:
    view = memoryview(buffer)[start : start + size]
    length = header_length(view[:LENGTH_BYTES], size)
    data = LENGTH_BYTES + length
    records = parse_header(bytes(view[LENGTH_BYTES:data]), size - data)
    key = first_not_finite(buffer, records, start + data)
    if key is not None:
        raise CheckpointError(f'tensor {key!r} holds NaN or infinite values')
    return tensors_from_buffer(buffer, records, start + data)


def check_tensors(state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], name: str) -> None:
    """Compare keys, shapes and dtypes of ``state`` with those that a network expects, before the network changes.

    Args:
        state: the checkpoint's tensors.
        expected: the network's ``state_dict()``; it may be on the meta device.
        name: the checkpoint's name, for the message.

    Raises:
        CheckpointError: names the first few differences.
    """
    problems = differences(state, expected)
    if problems:
        raise CheckpointError(f'the checkpoint of {name} does not fit the network: {shortened(problems)}')


def differences(state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> list[str]:
    """What keeps ``state`` from being ``expected``, a line for each key, shape or dtype, in the order of both."""
    problems = []
    for key, wanted in expected.items():
        found = state.get(key)
        if found is None:
            problems.append(f'missing {key}')
        elif found.shape != wanted.shape:
            problems.append(f'{key} has shape {list(found.shape)} instead of {list(wanted.shape)}')
        elif found.dtype != wanted.dtype:
            problems.append(f'{key} has dtype {found.dtype} instead of {wanted.dtype}')
    return problems + [f'unexpected {key}' for key in state if key not in expected]


def shortened(problems: Sequence[str]) -> str:
    """The first three of ``problems``, and how many there are besides, in one line."""
    more = f'; and {len(problems) - _SHOWN} more' if len(problems) > _SHOWN else ''
    return '; '.join(problems[:_SHOWN]) + more
