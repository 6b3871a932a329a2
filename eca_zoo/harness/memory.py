"""Memory of a device: what is free, what a network takes, and telling a lack of it from other errors."""

import gc
import os

import torch
from torch import nn

_SIGNS = ('out of memory', "can't allocate memory", 'failed to allocate', 'bad_alloc')
# Share of the free memory that weights may take; the rest is for activations and batches.
_SHARE_OF_WEIGHTS = 0.5


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that a device has no memory left."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(sign in text for sign in _SIGNS)


def release_memory() -> None:
    """Give memory that nothing refers to back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
