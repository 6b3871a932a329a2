"""Several devices, and networks that end their process or lose its device: the others are measured all the same."""

import dataclasses
import os
import signal

import pytest
import torch

from eca_zoo.harness.machine.device_errors import device_answers, is_device_lost
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.resume.signals import InterruptedRunError
from eca_zoo.harness.speed.rounds import throughput_groups
from eca_zoo.harness.speed.settings import ThroughputSettings

QUICK = ThroughputSettings(
    device='cpu', batch_size=2, img_size=32, rounds=2, round_seconds=0, warmup_steps=0, threads=1
)


class Network(torch.nn.Module):
    """A network that does something to its process at its second step."""

    pretrained_cfg = {'input_size': (3, 32, 32)}  # noqa: RUF012

    def __init__(self, what: str = '') -> None:
        super().__init__()
        self.what, self.steps = what, 0
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        if self.steps == 2 and self.what == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        if self.steps == 2 and self.what == 'lose':
            raise torch.AcceleratorError('CUDA error: device-side assert triggered')
        return x.mean((2, 3)) * self.weight


def spec(label: str, what: str = '') -> ModelSpec:
    return ModelSpec('network', module=Network(what), label=label)


def measured(specs, devices, baseline=None, progress=None):
    groups = throughput_groups(specs, QUICK, baseline, devices, progress)
    return {result.model: result for group in groups for result in group}


TWO = ['cpu', 'cpu:0']
KILLED = 'its process ended: SIGKILL'
LOST = 'CUDA error: device-side assert triggered'


@pytest.mark.parametrize(
    ('devices', 'what', 'error'), [(TWO, 'kill', KILLED), (TWO, 'lose', LOST), (['cpu'], 'lose', LOST)]
)
def test_a_network_that_ends_its_process_or_loses_its_device_is_the_only_one_that_fails(devices, what, error):
    specs = [spec('a'), spec('bad', what), *map(spec, 'bcde')]
    progress = []
    results = measured(specs, devices, spec('base'), lambda *state: progress.append(state))
    assert {title: result.error for title, result in results.items() if result.error} == {'bad': error}
    assert sorted(results) == ['a', 'b', 'bad', 'base', 'c', 'd', 'e']
    assert all(result.relative > 0 for result in results.values() if not result.error)
    if len(devices) > 1:
        assert progress[-1][0] == progress[-1][1]


def test_a_baseline_that_ends_its_process_fails_alone_and_the_rest_has_no_ratio():
    results = measured([spec('a'), spec('b')], TWO, spec('base', 'kill'))
    assert results['base'].error == KILLED
    assert all(results[title].error is None and results[title].relative is None for title in 'ab')


def test_a_stop_is_heard_while_a_network_is_at_work_and_ends_the_processes():
    processes = []

    def stop(done: int, total: int, text: str) -> None:
        processes.extend(child.pid for child in torch.multiprocessing.active_children())
        if text.startswith('warmed up'):
            raise InterruptedRunError('stopped by SIGTERM')

    with pytest.raises(InterruptedRunError):
        list(throughput_groups([spec('a'), spec('b')], dataclasses.replace(QUICK, rounds=10**6), None, TWO, stop))
    assert processes
    assert not {child.pid for child in torch.multiprocessing.active_children()} & set(processes)


def test_a_stop_is_believed_before_a_process_that_died_is_blamed():
    seen = []

    def stop(done: int, total: int, text: str) -> None:
        seen.append(text)
        # Not before the process is known to have died: then there is nothing else to hear of.
        if not any(child.is_alive() for child in torch.multiprocessing.active_children()):
            raise InterruptedRunError('stopped by SIGTERM')

    groups = throughput_groups([spec('a', 'kill')], QUICK, None, TWO, stop)
    with pytest.raises(InterruptedRunError):
        next(groups)


@pytest.mark.parametrize(
    ('error', 'is_lost'),
    [
        (RuntimeError('CUDA error: an illegal memory access was encountered'), True),
        (RuntimeError('CUDA error: device-side assert triggered'), True),
        (RuntimeError('CUDA error: unspecified launch failure'), True),
        (torch.OutOfMemoryError('CUDA out of memory'), False),
        (RuntimeError('CUDA error: invalid device function'), False),
        (ValueError('device-side assert'), False),
    ],
)
def test_errors_after_which_a_process_has_no_device_are_known(error, is_lost, monkeypatch):
    assert is_device_lost(error) == is_lost

    def synchronize(device):
        raise error

    monkeypatch.setattr(torch.cuda, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.cuda, 'synchronize', synchronize)
    assert device_answers(torch.device('cpu'))
    if isinstance(error, RuntimeError):
        assert device_answers(torch.device('cuda:0')) != is_lost
