"""What the driver says of GPUs, by a stand-in for nvidia-smi: their state, and who else uses them."""

import os
from types import SimpleNamespace

import pytest
import torch

from eca_zoo.harness.machine import gpus
from eca_zoo.harness.machine.environment import describe_environment

STATE = (
    'GPU-a, 580.1, 1980, 1980, 2619, 2619, 70.1, 700.0, 31, 0x0000000000000001, {busy}, 3, Disabled, Enabled, Enabled, '
    'Default'
)


@pytest.fixture
def one_gpu(monkeypatch, tmp_path):
    """A GPU as torch describes it, and nvidia-smi with what it prints of it."""
    properties = SimpleNamespace(
        name='H100', total_memory=80 * 2**30, major=9, minor=0, multi_processor_count=132, uuid='a'
    )
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: properties)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: properties.name)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')

    def prints(utilization: str, *processes: int) -> None:
        apps = ''.join(f'GPU-a, {pid}\\n' for pid in processes)
        script = f'case $1 in --query-gpu=*) echo "{STATE.format(busy=utilization)}";; *) printf "{apps}";; esac'
        (tmp_path / 'nvidia-smi').write_text(f'#!/bin/sh\n{script}\n')
        (tmp_path / 'nvidia-smi').chmod(0o755)

    return prints


def test_the_state_of_a_gpu_is_described_and_one_that_others_use_is_named(one_gpu):
    one_gpu('0', os.getpid())
    [gpu] = described = gpus.describe_gpus()
    assert (gpu['name'], gpu['capability'], gpu['memory_mb']) == ('H100', '9.0', 80 * 1024)
    assert gpu['state']['clocks.sm'] == '1980'
    assert gpu['state']['clocks_throttle_reasons.active'] == '0x0000000000000001'
    assert gpus.busy_gpus(described) == []
    one_gpu('97', os.getpid(), 1)
    assert gpus.busy_gpus(gpus.describe_gpus()) == [
        'GPU 0 (H100) is busy: 1 other processes, 97 % utilization; its speed is not that of the GPU alone'
    ]


def test_a_gpu_without_nvidia_smi_is_described_by_torch_alone(one_gpu, monkeypatch):
    monkeypatch.setenv('PATH', '')
    [gpu] = gpus.describe_gpus()
    assert (gpu['name'], gpu['state']) == ('H100', {})
    assert gpus.busy_gpus([gpu]) == []


def test_the_kind_of_a_gpu_is_part_of_what_a_figure_depends_on_and_its_number_is_not(one_gpu):
    kinds = [gpus.hardware_kind(torch.device('cuda', index)) for index in range(2)]
    assert kinds[0] == kinds[1]
    assert set(kinds[0]) == {'name', 'driver', 'cudnn'}
    assert gpus.hardware_kind(torch.device('cpu')) is None


def test_variables_that_move_the_figures_of_a_gpu_are_listed(monkeypatch):
    names = ('CUDA_LAUNCH_BLOCKING', 'NVIDIA_TF32_OVERRIDE', 'NCCL_DEBUG', 'TORCHINDUCTOR_DUMP', 'PYTORCH_ALLOC_CONF')
    for name in names:
        monkeypatch.setenv(name, '1')
    variables = describe_environment([])['variables']
    assert {name: variables.get(name) for name in names} == dict.fromkeys(names, '1')
