"""Folding of batch norms: the same logits from fewer modules, in a copy."""

import pytest
import timm
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from eca_zoo.errors import InputError
from eca_zoo.harness.networks.fuse import fuse_batch_norms


def build(name):
    generator = torch.Generator().manual_seed(0)
    model = timm.create_model(name)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                tensor.normal_(0.5, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return model


def count_norms(model):
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


@pytest.mark.parametrize('name', ['test_eca_resnet', 'eca_mobilenetv2', 'eca_resnet50', 'test_efficientnet'])
def test_every_norm_after_a_convolution_is_folded_and_the_logits_stay(name):
    model = build(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    fused = fuse_batch_norms(model, (3, 64, 64))
    assert count_norms(fused) == 0
    assert count_norms(model) > 0
    assert model.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.eval()(images)
        assert (fused(images) - expected).norm() / expected.norm() < 1e-5


def test_a_norm_whose_input_is_read_elsewhere_stays():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.first_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.second, self.second_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x):
            x = self.first(x)
            return x + self.second_norm(self.second(self.first_norm(x)))

    fused = fuse_batch_norms(Skip(), (3, 8, 8))
    assert isinstance(fused.first_norm, nn.BatchNorm2d)
    assert isinstance(fused.second_norm, nn.Identity)


def test_a_module_that_runs_twice_stays():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.last, self.last_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x):
            x = self.norm(self.conv(self.norm(self.conv(x))))
            return self.last_norm(self.last(x))

    fused = fuse_batch_norms(Shared(), (3, 8, 8))
    assert count_norms(fused) == 1


def test_a_network_without_such_a_pair_is_refused():
    with pytest.raises(InputError, match='there is no convolution followed by a batch norm to fold'):
        fuse_batch_norms(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()), (3, 8, 8))
