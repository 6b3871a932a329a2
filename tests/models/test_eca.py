"""The ECA layer by itself."""

import re

import pytest
import torch
from torch import nn

import eca_zoo
from eca_zoo.errors import InputError
from eca_zoo.models import adaptive_kernel_size


@pytest.mark.parametrize(
    ('channels', 'kernel_size'),
    [(1, 1), (16, 3), (24, 3), (64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7), (4096, 7)],
)
def test_kernel_size_without_an_argument_is_the_papers_formula(channels, kernel_size):
    # t = int(|(log2 C + 1) / 2|), made odd: the paper's listing.
    assert adaptive_kernel_size(channels) == kernel_size
    assert eca_zoo.EcaLayer(channels).conv.weight.shape == (1, 1, kernel_size)


@pytest.mark.parametrize('kernel_size', [0, 2, -3, 3.0, '3', True])
def test_kernel_size_that_is_not_odd_and_positive_is_refused(kernel_size):
    with pytest.raises(ValueError, match=r'an ECA kernel size is an odd, positive integer \(1, 3, 5, 7, \.\.\.\), not'):
        eca_zoo.EcaLayer(64, kernel_size)


def test_output_is_the_input_scaled_by_the_sigmoid_of_the_filtered_means():
    torch.manual_seed(0)
    layer = eca_zoo.EcaLayer(6, 3)
    x = torch.randn(2, 6, 4, 5)
    taps, means = layer.conv.weight.flatten(), nn.functional.pad(x.mean((2, 3)), (1, 1))
    filtered = sum(taps[i] * means[:, i : i + 6] for i in range(3))
    torch.testing.assert_close(layer(x), x * torch.sigmoid(filtered)[:, :, None, None])


def test_layer_works_alone_in_a_sequential_and_learns():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), eca_zoo.EcaLayer(8), nn.ReLU())
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    assert net[1].conv.weight.grad.abs().sum() > 0


def test_any_height_width_and_batch_size_and_memory_format_give_the_same_values():
    layer = eca_zoo.EcaLayer(16)
    x = torch.randn(3, 16, 7, 9)
    expected = layer(x)
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), expected)
    torch.testing.assert_close(torch.cat([layer(image[None]) for image in x]), expected)


@pytest.mark.parametrize('kernel_size', [1, 3, 5, 7, 9])
def test_compiled_layer_gives_the_same_values_and_gradients(kernel_size):
    layer = eca_zoo.EcaLayer(12, kernel_size)
    x = torch.randn(2, 12, 4, 5)
    compiled = torch.compile(layer, backend='aot_eager')
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer(x))
    gradients = []
    for module in (compiled, layer):
        layer.zero_grad()
        module(x).square().sum().backward()
        gradients.append(layer.conv.weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_compiled_layer_keeps_the_type_under_autocast():
    layer = torch.compile(eca_zoo.EcaLayer(12, 3), backend='aot_eager')
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        assert layer(torch.randn(2, 12, 4, 5, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_layer_leaves_its_input_as_it_was():
    layer = eca_zoo.EcaLayer(12, 3)
    x = torch.randn(2, 12, 4, 5)
    before = x.clone()
    with torch.no_grad():
        layer(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize('shape', [(8, 4, 4), (2, 8, 16), (2, 8), (2, 8, 4, 4, 4)])
def test_what_is_no_batch_of_images_is_refused_with_the_shape_and_the_remedy(shape):
    with pytest.raises(InputError, match=re.escape(f'(N, C, H, W), not a tensor of shape {shape}; give one image a')):
        eca_zoo.EcaLayer(8)(torch.ones(shape))
