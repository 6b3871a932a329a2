"""What is timed on a GPU, by a stand-in for torch's count of its memory."""

from types import SimpleNamespace

import pytest
import torch

from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.speed import timer
from eca_zoo.harness.speed.settings import ThroughputSettings

MIB = 2**20


class Memory:
    """Counts as torch.cuda does; the first step tries much, as cuDNN does while it chooses."""

    def __init__(self) -> None:
        # Of the networks before it.
        self.allocated = self.peak = 30 * MIB
        self.reserved = self.peak_reserved = 40 * MIB
        self.steps = 0

    def build(self, spec, settings):
        self.allocated += 5 * MIB
        self.reserved += 8 * MIB
        return SimpleNamespace(
            input_size=(3, 32, 32), device=torch.device('cuda:0'), step=None, prepare=lambda size: None
        )

    def step(self, step, count, device):
        self.steps += count
        tried = 500 * MIB if self.steps == 1 else 10 * MIB
        self.peak = max(self.peak, self.allocated + tried)
        self.peak_reserved = max(self.peak_reserved, self.reserved + 2 * tried)
        return [1.0] * count

    def reset(self, device):
        self.peak, self.peak_reserved = self.allocated, self.reserved


@pytest.fixture
def memory(monkeypatch):
    memory = Memory()
    monkeypatch.setattr(timer, 'Runner', memory.build)
    monkeypatch.setattr(timer, 'time_steps', memory.step)
    monkeypatch.setattr(torch.cuda, 'memory_allocated', lambda device: memory.allocated)
    monkeypatch.setattr(torch.cuda, 'memory_reserved', lambda device: memory.reserved)
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated', lambda device: memory.peak)
    monkeypatch.setattr(torch.cuda, 'max_memory_reserved', lambda device: memory.peak_reserved)
    monkeypatch.setattr(torch.cuda, 'reset_peak_memory_stats', memory.reset)
    return memory


def test_the_peak_of_memory_is_that_of_a_step_after_the_warm_up_without_other_networks(memory):
    timed = timer.Timer(ModelSpec('network'), ThroughputSettings(device='cuda:0', batch_size=1))
    timed.warm_up()
    assert (timed.peak_memory_mb, timed.peak_reserved_mb) == (15, 28)
