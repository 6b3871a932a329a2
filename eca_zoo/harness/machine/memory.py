"""Memory of a device: what is free, what a network takes, and keeping it."""

import ctypes
import gc
import os
from typing import Any

import torch
from torch import nn

# Share of the free memory that weights may take; the rest is for activations and batches.
_SHARE_OF_WEIGHTS = 0.5
# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4

#: What has glibc keep freed memory from the start of a process on, in its environment.
KEEPING_VARIABLES = {'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': '-1'}


def release_memory() -> None:
    """Give memory that nothing refers to back to the device; outside ``except``, whose error may refer to it."""
    gc.collect()
    for kind in ('cuda', 'xpu', 'mps'):
        backend = getattr(torch, kind)
        if backend.is_available() and (kind == 'mps' or backend.is_initialized()):
            backend.empty_cache()


def keep_freed_memory() -> None:
    """Have the C library keep the memory of freed tensors for the next ones, until this process ends.

    By default glibc returns large freed blocks to the system, and the pages of the next ones are zeroed and mapped anew
    (what it costs: docs/notes/whole_table.md). It has no way back to its default, so this is for processes that
    do nothing else. ``KEEPING_VARIABLES`` in the environment of a process do the same.
    Nothing is done where the C library is another one, or the environment chooses an allocator.
    """
    libc = _glibc()
    if libc is not None and not allocator_variables():
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)


def can_keep_freed_memory() -> bool:
    """Whether ``keep_freed_memory`` does anything on this system."""
    return _glibc() is not None


def allocator_variables() -> dict[str, str]:
    """The variables in the environment that choose or tune the allocator of the C library."""
    return {name: value for name, value in sorted(os.environ.items()) if _tunes_malloc((name, value))}


def _tunes_malloc(variable: tuple[str, str]) -> bool:
    name, value = variable
    return (
        name.startswith('MALLOC_')
        or (name == 'GLIBC_TUNABLES' and 'glibc.malloc' in value)
        or (name == 'LD_PRELOAD' and 'malloc' in value)
    )


def _glibc() -> Any:
    """The C library of this process if it is glibc, else None."""
    try:
        libc = ctypes.CDLL(None)
        _ = libc.gnu_get_libc_version, libc.mallopt
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
