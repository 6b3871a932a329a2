"""torch's global flags: set for a measurement, readable while it runs, and as they were afterwards."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

_MOST_VARIANTS = 2**16
# The settings of float32 arithmetic that torch has since 2.9, by the operators that they are about; the older ones
# (float32_matmul_precision, allow_tf32) cannot express every state of them and raise where they are read in such a one.
_OPERATORS = (
    ('cuda', 'matmul'), ('cudnn', 'conv'), ('cudnn', 'rnn'), ('mkldnn', 'matmul'), ('mkldnn', 'conv'),
    ('mkldnn', 'rnn'),
)  # fmt: skip


@contextlib.contextmanager
def numeric_flags(
    precision: str, threads: int | None = None, search: bool = True, deterministic: bool | None = None
) -> Iterator[None]:
    """Set torch's global flags and restore them afterwards, whatever state the user had left them in.

    Args:
        precision: ``tf32`` allows TensorFloat-32 on CUDA; with any other, float32 is exact on every device.
        threads: of the CPU; None leaves their number.
        search: let cuDNN choose its algorithms by a race.
        deterministic: let cuDNN take only algorithms that repeat their digits; None leaves that.
    """
    cudnn = torch.backends.cudnn
    arithmetic = _arithmetic()
    before = (cudnn.benchmark, cudnn.deterministic, torch.get_num_threads())
    try:
        _set_arithmetic(precision == 'tf32')
        cudnn.benchmark = search
        if deterministic is not None:
            cudnn.deterministic = deterministic
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        _restore_arithmetic(arithmetic)
        cudnn.benchmark, cudnn.deterministic = before[:2]
        if threads is not None:
            torch.set_num_threads(before[2])


@contextlib.contextmanager
def compiled_alone(active: bool = True) -> Iterator[None]:
    """Have torch's compiler begin anew, and compile every network that it is given.

    Networks of one class share a count of compiled variants, beyond which they would silently run uncompiled; another
    count, of all variants, caps it. What other code has compiled in this process is compiled again at its next call.

    Args:
        active: False does nothing.
    """
    if not active:
        yield
        return
    import torch._dynamo

    # Their names before torch 2.7 are understood too.
    limits: dict[str, Any] = {'cache_size_limit': _MOST_VARIANTS, 'accumulated_cache_size_limit': _MOST_VARIANTS}
    torch._dynamo.reset()
    try:
        with torch._dynamo.config.patch(limits):
            yield
    finally:
        torch._dynamo.reset()


def flags_in_force(precision: str, **options: Any) -> dict[str, Any]:
    """The flags that are in force inside ``numeric_flags`` with these arguments, ready for JSON."""
    with numeric_flags(precision, **options):
        return described_flags() | {'threads': torch.get_num_threads()}


def described_flags() -> dict[str, Any]:
    """The flags that are in force, ready for JSON; what this version of torch lacks is left out."""
    cudnn = torch.backends.cudnn
    flags = {
        'float32_matmul_precision': _read(torch, 'get_float32_matmul_precision'),
        'cuda.matmul.allow_tf32': _read(torch.backends.cuda.matmul, 'allow_tf32'),
        'cudnn.allow_tf32': _read(cudnn, 'allow_tf32'),
        **{f'{backend}.{operator}.fp32_precision': value for (backend, operator), value in _new_settings().items()},
        'cuda.matmul.allow_fp16_reduced_precision_reduction': _read(
            torch.backends.cuda.matmul, 'allow_fp16_reduced_precision_reduction'
        ),
        'cuda.matmul.allow_bf16_reduced_precision_reduction': _read(
            torch.backends.cuda.matmul, 'allow_bf16_reduced_precision_reduction'
        ),
        'cuda.matmul.allow_fp16_accumulation': _read(torch.backends.cuda.matmul, 'allow_fp16_accumulation'),
        'cudnn.enabled': cudnn.enabled,
        'cudnn.benchmark': cudnn.benchmark,
        'cudnn.deterministic': cudnn.deterministic,
        'deterministic_algorithms': torch.are_deterministic_algorithms_enabled(),
        'mkldnn': torch.backends.mkldnn.is_available(),
        'cpu_capability': torch.backends.cpu.get_cpu_capability(),
    }
    return {name: value for name, value in flags.items() if value is not None}


def _arithmetic() -> tuple[str | None, bool | None, dict[tuple[str, str], str]]:
    """The older settings, None where they cannot express the newer ones, and the newer ones."""
    return (
        _read(torch, 'get_float32_matmul_precision'),
        _read(torch.backends.cudnn, 'allow_tf32'),
        _new_settings(),
    )


def _set_arithmetic(tf32: bool) -> None:
    # By the older settings, which set the newer ones too: timm and torch's compiler read the older ones.
    torch.set_float32_matmul_precision('high' if tf32 else 'highest')
    torch.backends.cudnn.allow_tf32 = tf32
    for backend, operator in _new_settings() if not tf32 else ():
        # Else they could inherit another value.
        _owner(backend, operator).fp32_precision = 'ieee'


def _restore_arithmetic(before: tuple[str | None, bool | None, dict[tuple[str, str], str]]) -> None:
    matmul, cudnn, newer = before
    torch.set_float32_matmul_precision(matmul if matmul is not None else 'highest')
    if cudnn is not None:
        torch.backends.cudnn.allow_tf32 = cudnn
    for (backend, operator), value in newer.items():
        if _owner(backend, operator).fp32_precision != value:
            _owner(backend, operator).fp32_precision = value


def _new_settings() -> dict[tuple[str, str], str]:
    values = {key: _read(_owner(*key), 'fp32_precision') for key in _OPERATORS}
    return {key: value for key, value in values.items() if value is not None}


def _owner(backend: str, operator: str) -> Any:
    return getattr(getattr(torch.backends, backend), operator, None)


def _read(owner: Any, name: str) -> Any:
    """A setting; None where this version of torch lacks it, or cannot say it."""
    try:
        value = getattr(owner, name)
        return value() if callable(value) else value
    except (AttributeError, RuntimeError):
        return None
