"""Compiled networks: a figure does not depend on what was compiled before."""

import dataclasses

import pytest
import timm
import torch

from eca_zoo.harness.machine.flags import compiled_alone
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.speed.rounds import measure_throughput
from eca_zoo.harness.speed.settings import ThroughputSettings

QUICK = ThroughputSettings(
    device='cpu', batch_size=2, rounds=1, round_seconds=0, warmup_steps=0, threads=1, compile='noted'
)
compiled: list[list[torch.Size]] = []


def noted(graph, inputs):
    """A backend that runs what it is given as it is, and notes the shapes of the images."""
    compiled.append([tensor.shape for tensor in inputs if isinstance(tensor, torch.Tensor) and tensor.ndim == 4])
    assert not any(isinstance(value, torch.SymInt) for value in inputs), 'compiled for any size'
    return graph.forward


torch._dynamo.register_backend(noted, 'noted')


def network(label: str, size: int = 32) -> ModelSpec:
    module = timm.create_model('test_resnet', pretrained_cfg_overlay={'input_size': (3, size, size)})
    return ModelSpec('test_resnet', module=module, label=label)


@pytest.mark.parametrize('train', [False, True])
def test_a_second_network_and_a_second_batch_size_are_compiled_for_their_shape_alone(train):
    compiled.clear()
    settings = dataclasses.replace(QUICK, train=train)
    for batch_size in (2, 3, 5):
        results = measure_throughput(
            [network('a'), network('b', 48)], dataclasses.replace(settings, batch_size=batch_size), network('base')
        )
        assert [result.error for result in results] == [None] * 3
    sizes = [(size[0], size[2]) for shapes in compiled for size in shapes if size[1] == 3 and size[2] > 7]
    # Networks that differ in their weights alone share what was compiled.
    assert sizes == [(count, size) for count in (2, 3, 5) for size in (32, 48)]


def test_more_networks_are_compiled_than_torch_allows_by_itself():
    compiled.clear()
    linear = torch.nn.Linear(2, 2)

    def run(x, step):
        return linear(x) + step

    # One function has a limit of eight by itself; all of them have one too, which takes a minute to reach.
    torchs_own = {'automatic_dynamic_shapes': False, 'accumulated_recompile_limit': 12}
    with torch._dynamo.config.patch(torchs_own), compiled_alone():
        own = torch.compile(run, backend='noted', dynamic=False)
        for step in range(20):
            own(torch.ones(1, 2), step)
    assert len(compiled) == 20
