"""Devices and numeric precisions: chosen sensibly, and checked before anything runs."""

import contextlib
import os
import socket
from collections.abc import Iterator

import torch

from eca_zoo.errors import InputError

PRECISIONS = ('fp32', 'tf32', 'fp16', 'bf16', 'amp', 'amp_bf16')
_ALIASES = {
    'float32': 'fp32',
    'float16': 'fp16',
    'half': 'fp16',
    'bfloat16': 'bf16',
    'amp_float16': 'amp',
    'amp_fp16': 'amp',
    'amp_bfloat16': 'amp_bf16',
}
# Compute capability of NVIDIA's GPUs since which TensorFloat-32 and bfloat16 are there (CUDA C++ Programming Guide,
# table "Feature Support per Compute Capability").
_AMPERE = (8, 0)
_PARAMETER_DTYPES = {'fp16': torch.float16, 'bf16': torch.bfloat16}
_AUTOCAST_DTYPES = {'amp': torch.float16, 'amp_bf16': torch.bfloat16}


def resolve_device(name: str = 'auto') -> torch.device:
    """The device ``name`` with its index; ``auto`` is CUDA where there is any, else MPS or XPU, else the CPU.

    Raises:
        InputError: this machine has no such device; the text says what it has.
    """
    counts = _device_counts()
    if name == 'auto':
        name = next(kind for kind in ('cuda', 'mps', 'xpu', 'cpu') if counts[kind])
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f'device {name!r}: there is no such kind; use one of auto, {", ".join(counts)}') from None
    if device.type not in counts:
        raise InputError(f'device {name!r}: cannot be measured here; use one of auto, {", ".join(counts)}')
    if (device.index or 0) >= counts[device.type]:
        there = ', '.join(f'{count} {kind}' for kind, count in counts.items() if count)
        raise InputError(f'device {name!r} is not there: this machine has {there}; choose another --device')
    if device.type in ('cuda', 'xpu') and device.index is None:
        device = torch.device(device.type, 0)
    return device


def visible_devices(device: torch.device) -> list[torch.device]:
    """All devices that work can be spread over: every visible GPU of the name of ``device``, else itself alone."""
    if device.type not in ('cuda', 'xpu'):
        return [device]
    every = [torch.device(device.type, index) for index in range(_device_counts()[device.type])]
    return [other for other in every if hardware_name(other) == hardware_name(device)]


@contextlib.contextmanager
def as_current(device: torch.device) -> Iterator[None]:
    """Have ``device`` be torch's current one, so that nothing takes memory of another GPU by default.

    Loaders with page-locked batches, compilers and empty caches use the current one, whatever tensors are on.
    """
    if device.type not in ('cuda', 'xpu'):
        yield
        return
    with getattr(torch, device.type).device(device):
        yield


def hardware_name(device: torch.device) -> str | None:
    """The name of a GPU, such as ``NVIDIA H100 80GB HBM3``; None for the CPU."""
    if device.type in ('cuda', 'xpu'):
        return getattr(torch, device.type).get_device_name(device)
    return 'Apple GPU' if device.type == 'mps' else None


def hardware_id(device: torch.device) -> str | None:
    """What tells a GPU, or a slice of one (MIG), from all others, under whatever index it is seen; None for the CPU."""
    if device.type == 'cuda':
        visible = os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',')
        # Slices of one GPU may have its UUID.
        if visible[0].startswith('MIG') and (device.index or 0) < len(visible):
            return visible[device.index or 0]
    if device.type in ('cuda', 'xpu'):
        return str(getattr(torch, device.type).get_device_properties(device).uuid)
    return f'{socket.gethostname()}:{device.type}' if device.type == 'mps' else None


def _device_counts() -> dict[str, int]:
    return {
        'cuda': torch.cuda.device_count() if torch.cuda.is_available() else 0,
        'mps': int(torch.backends.mps.is_available()),
        'xpu': torch.xpu.device_count() if torch.xpu.is_available() else 0,
        'cpu': 1,
    }


def parse_precision(text: str) -> str:
    """The name of a precision among ``PRECISIONS``; timm's names (``float16``, ``amp_bfloat16``) are understood too.

    ``tf32`` is fp32 with TensorFloat-32 in convolutions and matrix products; ``fp16`` and ``bf16`` convert parameters
    and input; ``amp`` and ``amp_bf16`` keep fp32 parameters under autocast to float16 or bfloat16.

    Raises:
        InputError: it is none of them.
    """
    precision = _ALIASES.get(text, text)
    if precision not in PRECISIONS:
        raise InputError(f'precision {text!r} is unknown; use one of {", ".join(PRECISIONS)}')
    return precision


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that ``device`` does not have, or that it emulates.

    Raises:
        InputError: it does not have it.
    """
    if precision == 'tf32' and device.type != 'cuda':
        raise InputError(f'precision tf32 exists on CUDA alone, not on {device.type}; use fp32 or bf16')
    needs = {'tf32': 'TensorFloat-32', 'bf16': 'bfloat16', 'amp_bf16': 'bfloat16'}.get(precision)
    if device.type != 'cuda' or needs is None:
        return
    name = torch.cuda.get_device_name(device)
    if torch.version.hip is not None:
        if precision == 'tf32' and not getattr(torch.cuda, 'is_tf32_supported', bool)():
            raise InputError(f'precision tf32: {name} has none; use fp32, fp16, bf16 or amp')
    elif (capability := torch.cuda.get_device_capability(device)) < _AMPERE:
        raise InputError(
            f'precision {precision}: {name} (compute capability {capability[0]}.{capability[1]}) has no {needs}, which '
            'begins with 8.0, and would compute in another precision; use fp32, fp16 or amp'
        )


def parameter_dtype(precision: str) -> torch.dtype:
    """Type of parameters and input."""
    return _PARAMETER_DTYPES.get(precision, torch.float32)


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """The autocast context of ``precision`` on ``device``; empty where it has none."""
    dtype = _AUTOCAST_DTYPES.get(precision)
    return torch.autocast(device.type, dtype=dtype) if dtype else contextlib.nullcontext()
