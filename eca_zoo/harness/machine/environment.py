"""What a run ran on: versions, processor, driver, threads and flags, for the file beside a table."""

import importlib.metadata
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from eca_zoo.harness.machine.flags import described_flags

_PACKAGES = (
    'eca-zoo', 'torch', 'torchvision', 'timm', 'numpy', 'pillow', 'pillow-simd', 'safetensors', 'huggingface_hub',
    'onnx', 'onnxruntime', 'openvino', 'triton',
)  # fmt: skip
_VARIABLES = (
    'OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'KMP_AFFINITY', 'CUDA_VISIBLE_DEVICES', 'PYTORCH_CUDA_ALLOC_CONF',
    'GLIBC_TUNABLES', 'LD_PRELOAD',
)  # fmt: skip
# Of glibc's allocator.
_PREFIX = 'MALLOC_'


def describe_environment(command_line: Sequence[str]) -> dict[str, Any]:
    """Everything about this process and machine that can move a figure, ready for JSON.

    Args:
        command_line: the command as it was given.
    """
    return {
        'command_line': list(command_line),
        'versions': {'python': platform.python_version(), **_versions()},
        'platform': platform.platform(),
        'processor': processor_name(),
        'cpus': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        'memory_mb': _memory_mb(),
        'threads': {'intra_op': torch.get_num_threads(), 'inter_op': torch.get_num_interop_threads()},
        'variables': {
            name: value for name, value in sorted(os.environ.items()) if name in _VARIABLES or name.startswith(_PREFIX)
        },
        'flags': described_flags(),
        'gpus': _gpus(),
        'cuda': torch.version.cuda,
        'cudnn': torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        'driver': _driver_version(),
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


def _memory_mb() -> int | None:
    try:
        return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2**20
    except (AttributeError, ValueError, OSError):
        return None


def _gpus() -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        return []
    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [
        {'name': p.name, 'memory_mb': p.total_memory // 2**20, 'capability': f'{p.major}.{p.minor}'} for p in properties
    ]


def _driver_version() -> str | None:
    """Version of NVIDIA's driver, where there is one."""
    try:
        text = Path('/proc/driver/nvidia/version').read_text(encoding='utf-8')
    except OSError:
        return None
    match = re.search(r'\s(\d+\.\d+(?:\.\d+)?)\s', text)
    return match.group(1) if match else None
