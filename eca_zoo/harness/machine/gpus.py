"""What NVIDIA's driver says of the GPUs: clocks, limits and temperature, and who else uses them."""

import csv
import logging
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from eca_zoo.harness.machine.devices import hardware_id, hardware_name

_logger = logging.getLogger(__name__)

# nvidia-smi --help-query-gpu has their meaning.
_FIELDS = (
    'uuid', 'driver_version', 'clocks.sm', 'clocks.max.sm', 'clocks.mem', 'clocks.max.mem', 'power.draw', 'power.limit',
    'temperature.gpu', 'clocks_throttle_reasons.active', 'utilization.gpu', 'memory.used', 'mig.mode.current',
    'ecc.mode.current', 'persistence_mode', 'compute_mode',
)  # fmt: skip
_BUSY_PERCENT = 5
_SECONDS = 20


def describe_gpus() -> list[dict[str, Any]]:
    """The visible GPUs: what torch says of each and, where nvidia-smi is there, what the driver does."""
    if not torch.cuda.is_available():
        return []
    states = {row['uuid']: row for row in _query('--query-gpu', _FIELDS)}
    described = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        uuid = str(properties.uuid)
        state = states.get(uuid if uuid.startswith('GPU-') else f'GPU-{uuid}', {})
        described.append(
            {
                'name': properties.name,
                'memory_mb': properties.total_memory // 2**20,
                'capability': f'{properties.major}.{properties.minor}',
                'multiprocessors': properties.multi_processor_count,
                'id': hardware_id(torch.device('cuda', index)),
                'state': {name: value for name, value in state.items() if value not in ('[N/A]', '')},
            }
        )
    return described


def hardware_kind(device: torch.device) -> dict[str, Any] | None:
    """What figures of a GPU depend on, however many there are: its kind, driver and cuDNN; None for the CPU."""
    name = hardware_name(device)
    if name is None or device.type != 'cuda':
        return None if name is None else {'name': name}
    return {'name': name, 'driver': driver_version(), 'cudnn': torch.backends.cudnn.version()}


def driver_version() -> str | None:
    """Version of NVIDIA's driver, where there is one."""
    try:
        text = Path('/proc/driver/nvidia/version').read_text(encoding='utf-8')
    except OSError:
        return None
    match = re.search(r'\s(\d+\.\d+(?:\.\d+)?)\s', text)
    return match.group(1) if match else None


def busy_gpus(gpus: Sequence[dict[str, Any]]) -> list[str]:
    """Why figures of the described GPUs may be those of a busy machine; a line for each GPU that is."""
    others: dict[str, int] = {}
    for row in _query('--query-compute-apps', ('gpu_uuid', 'pid')) if gpus else ():
        others[row['gpu_uuid']] = others.get(row['gpu_uuid'], 0) + (row['pid'] != str(os.getpid()))
    lines = []
    for index, gpu in enumerate(gpus):
        state = gpu['state']
        used, processes = state.get('utilization.gpu', '0'), others.get(state.get('uuid', ''), 0)
        if processes or (used.isdigit() and int(used) > _BUSY_PERCENT):
            lines.append(
                f'GPU {index} ({gpu["name"]}) is busy: {processes} other processes, {used} % utilization; its speed is '
                'not that of the GPU alone'
            )
    return lines


def _query(what: str, fields: Sequence[str]) -> list[dict[str, str]]:
    """Rows of nvidia-smi, by field; none where it is not there or does not answer."""
    command = ['nvidia-smi', f'{what}={",".join(fields)}', '--format=csv,noheader,nounits']
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        _logger.debug('nvidia-smi does not answer: %s', error)
        return []
    rows = csv.reader(done.stdout.splitlines(), skipinitialspace=True)
    return [dict(zip(fields, row, strict=True)) for row in rows if len(row) == len(fields)]
