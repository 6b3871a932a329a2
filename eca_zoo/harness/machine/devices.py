"""Devices and numeric precisions: chosen sensibly, checked before anything runs, and restored afterwards."""

import contextlib
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
    """All devices that work can be spread over: every visible GPU of the kind of ``device``, else itself alone."""
    if device.type not in ('cuda', 'xpu'):
        return [device]
    return [torch.device(device.type, index) for index in range(_device_counts()[device.type])]


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
    """Refuse a precision that ``device`` does not have.

    Raises:
        InputError: it does not have it.
    """
    if precision == 'tf32' and device.type != 'cuda':
        raise InputError(f'precision tf32 exists on CUDA alone, not on {device.type}; use fp32 or bf16')


def parameter_dtype(precision: str) -> torch.dtype:
    """Type of parameters and input."""
    return _PARAMETER_DTYPES.get(precision, torch.float32)


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """The autocast context of ``precision`` on ``device``; empty where it has none."""
    dtype = _AUTOCAST_DTYPES.get(precision)
    return torch.autocast(device.type, dtype=dtype) if dtype else contextlib.nullcontext()


@contextlib.contextmanager
def numeric_flags(precision: str, threads: int | None = None) -> Iterator[None]:
    """Set torch's global flags (TF32 for ``precision``, cuDNN's search, CPU threads) and restore them afterwards."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark, torch.get_num_threads())
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = precision == 'tf32'
        cudnn.benchmark = True
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        # Of its three values, matmul.allow_tf32 tells two apart.
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32, cudnn.benchmark = before[1:3]
        if threads is not None:
            torch.set_num_threads(before[3])
