"""Memory of a device: what is free, what a network takes, keeping it, and telling a lack of it from other errors."""

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

_SIGNS = ('out of memory', "can't allocate memory", 'failed to allocate', 'bad_alloc')
# Share of the free memory that weights may take; the rest is for activations and batches.
_SHARE_OF_WEIGHTS = 0.5
# Of glibc's malloc.h and malloc.c, for 64 bits.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_LARGEST_MMAP_THRESHOLD = 32 * 2**20


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that a device has no memory left."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(sign in text for sign in _SIGNS)


def release_memory() -> None:
    """Give memory that nothing refers to back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[None]:
    """Have the C library keep the memory of freed tensors on the CPU for the next ones, instead of the system.

    By default glibc returns each tensor of more than 32 MiB to the system, and maps zeroed pages anew for the next
    one (what it costs: docs/performance/whole_table.md). Afterwards what is free goes back to the system, and glibc
    has the largest thresholds that its own adjustment reaches. Nothing is done for other devices or C libraries, or
    where the environment tunes the allocator.

    Args:
        device: that networks will run on.
    """
    libc = _glibc() if device.type == 'cpu' and not any(map(_tunes_malloc, os.environ.items())) else None
    if libc is None:
        yield
        return
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_MAX, 65536)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_MMAP_THRESHOLD)
        libc.malloc_trim(0)


def _tunes_malloc(variable: tuple[str, str]) -> bool:
    name, value = variable
    return name.startswith('MALLOC_') or (name == 'GLIBC_TUNABLES' and 'glibc.malloc' in value)


def _glibc() -> Any:
    """The C library of this process if it is glibc, else None."""
    try:
        libc = ctypes.CDLL(None)
        _ = libc.gnu_get_libc_version, libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
    return libc


def room_for_weights(device: torch.device) -> int | None:
    """Bytes that the weights of several networks may take on ``device``; None where that is unknown."""
    if device.type == 'cuda':
        return int(torch.cuda.mem_get_info(device)[0] * _SHARE_OF_WEIGHTS)
    try:
        with open('/proc/meminfo', encoding='ascii') as file:
            fields = dict(line.split(':', 1) for line in file)
        return int(int(fields['MemAvailable'].split()[0]) * 1024 * _SHARE_OF_WEIGHTS / processes_here())
    except (OSError, KeyError, ValueError):
        return None


def processes_here() -> int:
    """Processes of this run that share this machine."""
    return max(1, int(os.environ.get('LOCAL_WORLD_SIZE', 1)))


def weight_bytes(module: nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])
