"""What a run ran on: versions, processor, driver, threads and flags, for the file beside a table."""

import importlib.metadata
import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from eca_zoo.harness.machine.flags import described_flags
from eca_zoo.harness.machine.gpus import busy_gpus, describe_gpus, driver_version

_PACKAGES = (
    'eca-zoo', 'torch', 'torchvision', 'timm', 'numpy', 'pillow', 'pillow-simd', 'safetensors', 'huggingface_hub',
    'onnx', 'onnxruntime', 'openvino', 'triton',
)  # fmt: skip
_VARIABLES = (
    'OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'KMP_AFFINITY', 'CUDA_VISIBLE_DEVICES', 'CUDA_DEVICE_ORDER',
    'CUDA_LAUNCH_BLOCKING', 'CUDA_MODULE_LOADING', 'CUDA_DEVICE_MAX_CONNECTIONS', 'CUBLAS_WORKSPACE_CONFIG',
    'NVIDIA_TF32_OVERRIDE', 'TORCH_ALLOW_TF32_CUBLAS_OVERRIDE', 'TORCH_CUDNN_V8_API_DISABLED', 'PYTORCH_ALLOC_CONF',
    'PYTORCH_CUDA_ALLOC_CONF', 'PYTORCH_HIP_ALLOC_CONF', 'PYTORCH_NO_CUDA_MEMORY_CACHING', 'GLIBC_TUNABLES',
    'LD_PRELOAD',
)  # fmt: skip
# Of glibc's allocator, of communication, and of libraries and compilers that choose kernels.
_PREFIXES = (
    'MALLOC_',
    'NCCL_',
    'TORCHINDUCTOR_',
    'TORCHDYNAMO_',
    'CUDNN_',
    'CUBLAS_',
    'CUBLASLT_',
    'MIOPEN_',
    'TRITON_',
)


def describe_environment(
    command_line: Sequence[str], flags_in_force: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Everything about this process and machine that can move a figure, ready for JSON.

    Args:
        command_line: the command as it was given.
        flags_in_force: torch's flags during each measurement, see ``flags.flags_in_force``.
    """
    gpus = describe_gpus()
    return {
        'command_line': list(command_line),
        'versions': {'python': platform.python_version(), **_versions()},
        'platform': platform.platform(),
        'processor': processor_name(),
        'cpus': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        'memory_mb': _memory_mb(),
        'threads': {'intra_op': torch.get_num_threads(), 'inter_op': torch.get_num_interop_threads()},
        'variables': {
            name: value
            for name, value in sorted(os.environ.items())
            if name in _VARIABLES or name.startswith(_PREFIXES)
        },
        'flags': described_flags(),
        'flags_in_force': dict(flags_in_force or {}),
        'gpus': gpus,
        'busy': busy_gpus(gpus),
        'cuda': torch.version.cuda,
        'cudnn': torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        'nccl': _nccl_version(),
        'driver': driver_version(),
    }


def processor_name() -> str:
    """The processor's name as the system gives it."""
    try:
        text = Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace')
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r'^model name\s*:\s*(.+)$', text, re.MULTILINE)
    return match.group(1).strip() if match else platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    # The distribution's version lacks the build (+cpu, +cu128).
    found['torch'] = str(torch.__version__)
    return found


def _nccl_version() -> str | None:
    if not torch.cuda.is_available() or not torch.distributed.is_nccl_available():
        return None
    return '.'.join(map(str, torch.cuda.nccl.version()))


def _memory_mb() -> int | None:
    try:
        return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2**20
    except (AttributeError, ValueError, OSError):
        return None
