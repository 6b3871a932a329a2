"""The blocks' shorter ways over memory against timm's own blocks, which apply the ECA layer as the paper draws it."""

import pytest
import timm
import torch
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn

from eca_zoo.models import resnet
from eca_zoo.models.resnet import EcaBasicBlock, EcaBottleneck
from tests.reference_checkpoints import reference_state_dict

DEPTHS = {'eca_resnet18': BasicBlock, 'eca_resnet34': BasicBlock}
RESNETS = ['eca_resnet18', 'eca_resnet34', 'eca_resnet50', 'eca_resnet101', 'eca_resnet152']


def with_plain_blocks(name: str) -> nn.Module:
    """The network with timm's blocks in the place of ours."""
    layers = {'eca_resnet18': (2, 2, 2, 2), 'eca_resnet34': (3, 4, 6, 3), 'eca_resnet50': (3, 4, 6, 3)}
    layers |= {'eca_resnet101': (3, 4, 23, 3), 'eca_resnet152': (3, 8, 36, 3)}
    return timm.create_model(name, block=DEPTHS.get(name, Bottleneck), layers=layers[name])


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    """Ours and the plain one, with equal weights."""
    ours, plain = timm.create_model(name).eval(), with_plain_blocks(name).eval()
    state = dict(zip(ours.state_dict(), reference_state_dict(name).values(), strict=True))
    ours.load_state_dict(state)
    plain.load_state_dict(state)
    return ours, plain


def image(batch: int = 2, side: int = 64) -> torch.Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.parametrize('name', RESNETS)
@pytest.mark.parametrize('pooled_before', [True, False])
def test_logits_equal_those_of_the_plain_blocks(name, pooled_before, monkeypatch):
    monkeypatch.setattr(resnet, '_is_cheaper_to_pool', lambda _: pooled_before)
    ours, plain = pair(name)
    assert {type(module) for module in ours.modules()} & {EcaBasicBlock, EcaBottleneck}
    assert not {type(module) for module in plain.modules()} & {EcaBasicBlock, EcaBottleneck}
    with torch.inference_mode():
        expected = plain(image())
        assert relative_error(ours(image()), expected) <= 1e-5
    assert relative_error(ours(image()).detach(), expected) <= 1e-5


def gradients(network: nn.Module) -> dict[str, torch.Tensor]:
    """Of a training step in float64."""
    network.train()(image(4, 32).double()).square().mean().backward()
    return {key: parameter.grad for key, parameter in network.named_parameters()}


# In float64, which shows what the block does: in float32 a few rounding errors that move a ReLU across zero make the
# gradients of deep networks differ by 1e-3 and more, whichever way a block is computed.
@pytest.mark.parametrize('name', RESNETS)
def test_gradients_of_a_training_step_equal_those_of_the_plain_blocks(name):
    torch.manual_seed(0)
    ours, plain = timm.create_model(name), with_plain_blocks(name)
    for module in ours.modules():
        if isinstance(module, EcaBasicBlock | EcaBottleneck):
            last_norm = module.bn3 if isinstance(module, EcaBottleneck) else module.bn2
            nn.init.constant_(last_norm.weight, 0.2)  # zero in a new network, so that the gates would not matter
    plain.load_state_dict(ours.state_dict())
    actual, expected = gradients(ours.double()), gradients(plain.double())
    for key, gradient in actual.items():
        assert relative_error(gradient, expected[key]) <= 1e-10, key


@pytest.mark.parametrize('name', ['eca_resnet18', 'eca_resnet50'])
@pytest.mark.parametrize('training', [True, False])
def test_gradients_of_one_block_equal_those_of_the_plain_block_in_float32(name, training):
    ours, plain = (network.layer1[1].train(training) for network in pair(name))
    for block in (ours, plain):
        x = torch.randn(4, block.conv1.in_channels, 14, 14, generator=torch.Generator().manual_seed(0))
        block(x).square().mean().backward()
    for (key, p), q in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert relative_error(p.grad, q.grad) <= 1e-4, key


def bottlenecks() -> tuple[nn.Module, nn.Module]:
    """One of our bottleneck blocks and timm's, with equal weights, in evaluation mode."""
    ours, plain = pair('eca_resnet50')
    return ours.layer1[1], plain.layer1[1]


def assert_equal_blocks(ours: nn.Module, plain: nn.Module) -> None:
    """On an input that is large enough to be pooled before the convolution."""
    x = torch.randn(2, 256, 18, 17, generator=torch.Generator().manual_seed(0))
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            torch.testing.assert_close(ours(x), plain(x), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), plain.state_dict().values(), strict=True))


def test_block_is_right_when_a_norm_adapts_to_the_batch_in_evaluation():
    ours, plain = bottlenecks()
    for block in (ours, plain):
        block.bn3.train()
    assert_equal_blocks(ours, plain)
    for block in (ours, plain):
        block.bn3.eval()
        block.bn3.running_mean = block.bn3.running_var = None
    assert_equal_blocks(ours, plain)


def test_block_is_right_when_the_weight_is_computed_at_the_call():
    ours, plain = bottlenecks()
    for block in (ours, plain):
        nn.utils.parametrizations.weight_norm(block.conv3)
        block.conv3.parametrizations.weight.original0.data.mul_(2)
    assert_equal_blocks(ours, plain)


def test_block_is_right_when_the_convolution_is_wrapped():
    ours, plain = bottlenecks()
    for block in (ours, plain):
        block.conv3 = nn.Sequential(block.conv3, nn.ReLU())
    assert_equal_blocks(ours, plain)


def test_block_is_right_when_the_norm_is_folded_into_the_convolution():
    ours, plain = bottlenecks()
    for block in (ours, plain):
        block.conv3 = nn.utils.fusion.fuse_conv_bn_eval(block.conv3, block.bn3)
        block.bn3 = nn.Identity()
    assert_equal_blocks(ours, plain)


@pytest.mark.parametrize('gradients_are_recorded', [True, False])
def test_hooks_of_every_module_run_once_in_a_pass(gradients_are_recorded):
    ours, _ = bottlenecks()
    calls = dict.fromkeys((name for name, module in ours.named_modules() if name and not list(module.children())), 0)
    for name in calls:
        ours.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    with torch.set_grad_enabled(gradients_are_recorded):
        ours(torch.randn(1, 256, 24, 24))
    assert set(calls.values()) == {1}


def test_output_of_the_last_convolution_that_a_hook_keeps_is_not_overwritten():
    ours, plain = bottlenecks()
    kept: list[torch.Tensor] = []
    for block in (ours, plain):
        block.conv3.register_forward_hook(lambda *call: kept.append(call[-1]))
    x = torch.randn(1, 256, 14, 14)
    with torch.no_grad():
        ours(x), plain(x)
    torch.testing.assert_close(*kept)


def test_module_whose_forward_was_replaced_is_called():
    ours, _ = bottlenecks()
    ours.bn3.forward = torch.zeros_like
    x = torch.randn(1, 256, 14, 14)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), x.relu())


@pytest.mark.parametrize('name', ['eca_resnet18', 'eca_resnet50'])
def test_stochastic_depth_beside_frozen_norms_works_without_gradients(name):
    block = timm.create_model(name, drop_path_rate=0.999).layer4[-1].train()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    x = torch.randn(1, block.conv1.in_channels, 7, 7)
    torch.manual_seed(0)
    with torch.no_grad():
        torch.testing.assert_close(block(x), x.relu())


@pytest.mark.parametrize('name', ['eca_resnet18', 'eca_resnet50'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
def test_blocks_in_other_types_equal_the_plain_ones(name, dtype):
    ours, plain = (network.layer1[1].to(dtype) for network in pair(name))
    x = torch.randn(2, ours.conv1.in_channels, 18, 17, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.inference_mode():
        actual, expected = ours(x), plain(x)
    assert actual.dtype == dtype
    assert relative_error(actual, expected) <= (1e-2 if dtype == torch.bfloat16 else 1e-12)


def test_traced_block_keeps_its_norm_for_others_to_fold():
    ours, _ = bottlenecks()
    with torch.no_grad():
        graph = torch.jit.trace(ours, torch.randn(1, 256, 14, 14)).inlined_graph
    assert sum(node.kind() == 'aten::batch_norm' for node in graph.nodes()) == 3


@pytest.mark.parametrize(('compiled', 'pixels'), [(False, 512), (True, 128)])  # two times and half of 256 * 64 weights
def test_gate_is_computed_before_the_convolution_where_its_input_is_large_beside_its_weight(
    compiled, pixels, monkeypatch
):
    ours, _ = bottlenecks()
    pooled: list[bool] = []
    scale = ours.se.forward
    monkeypatch.setattr(ours.se, 'forward', lambda x, s, means: pooled.append(means is not None) or scale(x, s, means))
    block = torch.compile(ours, backend='eager', dynamic=False) if compiled else ours
    with torch.no_grad():
        for shape in ((1, 256, 1, pixels + 1), (1, 256, 1, pixels), (pixels + 1, 256, 1, 1), (pixels, 256, 1, 1)):
            block(torch.randn(shape))
    assert pooled == [True, False, True, False]


def test_pass_without_gradients_leaves_the_input_of_a_block_as_it_was():
    ours, _ = bottlenecks()
    x = torch.randn(2, 256, 24, 24)
    before = x.clone()
    with torch.no_grad():
        ours(x)
    assert torch.equal(x, before)
