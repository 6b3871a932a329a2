"""What an error says about a device: that it has no memory left, or that this process has lost it."""

import torch

from eca_zoo.errors import RunError

_NO_MEMORY = ('out of memory', "can't allocate memory", 'failed to allocate', 'bad_alloc')
# What cuDNN, cuBLAS and their like say where a workspace or a handle does not fit; each has other causes too.
_MAYBE_NO_MEMORY = (
    'unable to find an engine', 'no valid engine', 'cudnn_status_alloc_failed', 'cudnn_status_internal_error',
    'cudnn_status_not_supported', 'cudnn_status_execution_failed', 'cublas_status_alloc_failed',
    'cublas_status_not_initialized', 'cublas_status_internal_error', 'cusolver_status_alloc_failed',
    'miopenstatusallocfailed', 'rocblas_status_memory_error', 'could not create a primitive',
)  # fmt: skip
# Errors of CUDA after which the process gets no other answer (driver_types.h: "the process must be terminated"), by
# number and, for errors that lost it on their way through other libraries, by text.
_LOST_CODES = frozenset((214, 220, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719))
_LOST = (
    'device-side assert', 'illegal memory access', 'illegal instruction', 'misaligned address', 'hardware stack error',
    'unspecified launch failure', 'launch timed out', 'uncorrectable ecc', 'uncorrectable nvlink',
    'invalid program counter', 'operation not supported on global/shared address space', 'context is destroyed',
    'device_lost', 'device lost',
)  # fmt: skip


class DeviceLostError(RunError):
    """An error after which this process can do nothing more on its device; another one can."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that a device has no memory left."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or _says(error, _NO_MEMORY)


def may_be_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` may come from a lack of memory: certain if a smaller batch works."""
    return not is_device_lost(error) and (is_out_of_memory(error) or _says(error, _MAYBE_NO_MEMORY))


def is_device_lost(error: BaseException) -> bool:
    """Whether this process can do nothing more on its device after ``error``."""
    if isinstance(error, DeviceLostError) or getattr(error, 'error_code', None) in _LOST_CODES:
        return True
    return isinstance(error, RuntimeError) and _says(error, _LOST)


def device_answers(device: torch.device) -> bool:
    """Whether this process can still use ``device``: once it has lost one, every call says so."""
    if device.type != 'cuda' or not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        return not is_device_lost(error)
    return True


def without_frames(error: Exception) -> Exception:
    """``error``, and those that led to it, without what keeps the local variables of its functions alive."""
    seen: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is not None and one not in seen:
            seen.append(one.with_traceback(None))
            pending += [one.__cause__, one.__context__]
    return error


def _says(error: BaseException, signs: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return any(sign in text for sign in signs)
