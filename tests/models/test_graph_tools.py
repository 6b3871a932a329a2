"""Tools that rewrite, record or compile a model: fx, quantisation, tracing, torch.compile."""

import pytest
import torch
from torch import fx, nn
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, fuse_fx, prepare_fx
from torch.fx.experimental.optimization import fuse
from torch.nn.utils import parametrize, prune

from tests.models.plain import KINDS, images, ours_and_plain, relative_error, slots

each_kind = pytest.mark.parametrize('name', KINDS)


@each_kind
@pytest.mark.parametrize('tool', [fuse, fuse_fx], ids=['fuse', 'fuse_fx'])
def test_folding_by_fx_keeps_the_logits(name, tool):
    ours, plain = ours_and_plain(name)
    with torch.no_grad():
        assert relative_error(tool(ours)(images(2)), plain(images(2))) <= 1e-5
        assert relative_error(tool(ours)(images(2)), tool(plain)(images(2))) <= 1e-6


def test_folding_by_fx_keeps_the_logits_of_eca_resnet50():
    ours, plain = ours_and_plain('eca_resnet50')
    with torch.no_grad():
        assert relative_error(fuse(ours)(images(2, 64)), plain(images(2, 64))) <= 1e-5


@each_kind
def test_quantisation_gives_the_logits_of_the_quantised_plain_network(name):
    outputs = []
    for network in ours_and_plain(name):
        prepared = prepare_fx(network, get_default_qconfig_mapping('x86'), (images(1),))
        with torch.no_grad():
            prepared(images(2))
            outputs.append(convert_fx(prepared)(images(2)))
            assert relative_error(outputs[-1], network(images(2))) < 0.2
    assert relative_error(*outputs) <= 1e-6


@each_kind
def test_a_symbolically_traced_network_can_be_trained(name):
    ours, plain = ours_and_plain(name, torch.float64)
    # fx records timm's norms with activation as they are in evaluation, so there the plain network is traced too.
    networks = fx.symbolic_trace(ours), fx.symbolic_trace(plain) if name == 'eca_mobilenetv2' else plain
    gradients = []
    for network in networks:
        network.train()(images(2, dtype=torch.float64)).square().sum().backward()
        gradients.append({key: parameter.grad for key, parameter in network.named_parameters()})
    for key, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][key], gradient, rtol=1e-9, atol=1e-9)
    for key, statistics in networks[1].named_buffers():
        assert torch.equal(networks[0].get_buffer(key), statistics)


@each_kind
def test_a_network_can_be_traced_while_gradients_are_recorded(name):
    ours, plain = ours_and_plain(name)
    traced = torch.jit.trace(ours, images(2))
    for count in (1, 9):
        with torch.no_grad():
            assert relative_error(traced(images(count)), plain(images(count))) <= 1e-5


class LowRank(nn.Module):
    """A layer with a trained correction beside it, as adapters have."""

    def __init__(self, base: nn.Conv1d) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = nn.Conv1d(1, 2, 3, padding=1, bias=False), nn.Conv1d(2, 1, 1, bias=False)
        for weight, start in ((self.down.weight, -1), (self.up.weight, 2)):
            weight.data = torch.linspace(start, 1, weight.numel()).reshape(weight.shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x))


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def add_bias(gate: nn.Module) -> None:
    gate.conv.bias = nn.Parameter(torch.tensor([1.5]))


def pad_in_a_circle(gate: nn.Module) -> None:
    gate.conv.padding_mode = 'circular'


def adapt(gate: nn.Module) -> None:
    gate.conv = LowRank(gate.conv)


def hook(gate: nn.Module) -> None:
    gate.conv.register_forward_hook(lambda module, args, output: 2 * output + 1)


def pre_hook(gate: nn.Module) -> None:
    gate.conv.register_forward_pre_hook(lambda module, args: (2 * args[0] + 1,))


def replace_forward(gate: nn.Module) -> None:
    forward = gate.conv.forward
    gate.conv.forward = lambda x: 2 * forward(x) + 1


def prune_taps(gate: nn.Module) -> None:
    prune.l1_unstructured(gate.conv, 'weight', 1)


def parametrise(gate: nn.Module) -> None:
    parametrize.register_parametrization(gate.conv, 'weight', Doubled())


def dilate(gate: nn.Module) -> None:
    conv = gate.conv
    conv.dilation, conv.padding = (2,), (2 * conv.padding[0],)


CHANGES = [add_bias, pad_in_a_circle, adapt, hook, pre_hook, replace_forward, prune_taps, parametrise, dilate]


@each_kind
@pytest.mark.parametrize('change', CHANGES, ids=lambda change: change.__name__)
def test_what_is_done_to_the_filter_of_a_gate_counts_without_gradients_too(name, change):
    ours, plain = ours_and_plain(name)
    with torch.no_grad():
        before = plain(images(2))
        for network in (ours, plain):
            for holder, slot in slots(network):
                change(getattr(holder, slot))
        expected = plain(images(2))
        assert relative_error(expected, before) > 1e-3
        for changed in (ours, torch.compile(ours, backend='eager', fullgraph=True)):
            assert relative_error(changed(images(2)), expected) <= 1e-5


@each_kind
@pytest.mark.parametrize('gradients', [False, True], ids=['inference', 'training'])
def test_a_compiled_network_computes_what_the_plain_one_does(name, gradients):
    ours, plain = ours_and_plain(name, torch.float64)
    compiled = torch.compile(ours, backend='aot_eager', fullgraph=True)
    with torch.set_grad_enabled(gradients):
        actual, expected = (network(images(2, dtype=torch.float64)) for network in (compiled, plain))
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    if gradients:
        for output in (actual, expected):
            output.square().sum().backward()
        for own, other in zip(ours.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(own.grad, other.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_inductor_computes_what_the_plain_network_does():
    # Of the test network its bottleneck: a kernel of each kind, since each takes inductor a second of a compiler.
    ours, plain = (network.layer3 for network in ours_and_plain('test_eca_resnet'))
    with torch.no_grad():
        features = torch.rand(8, 48, 16, 16, generator=torch.Generator().manual_seed(0))
        assert relative_error(torch.compile(ours, dynamic=False)(features), plain(features)) <= 1e-5
