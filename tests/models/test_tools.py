"""What timm's users do with a model from outside: hooks, gradients inside, other layers, offloading, pruning, vmap."""

from functools import partial

import pytest
import timm
import torch
from timm.layers import EcaModule, SEModule
from timm.models._efficientnet_builder import decode_arch_def
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.utils import prune

import eca_zoo
from tests.models.plain import KINDS, images, last_layers, ours_and_plain, relative_error, slots

each_kind = pytest.mark.parametrize('name', KINDS)


def change_values(module: nn.Module, way: str) -> None:
    """Let ``module`` take in or put out something else, as tools do."""
    if way == 'forward hook':
        module.register_forward_hook(lambda module, args, output: output * 1.5 + 0.5)
    elif way == 'pre-hook':
        module.register_forward_pre_hook(lambda module, args: (args[0] * 1.5 + 0.5,))
    else:
        forward = module.forward
        module.forward = lambda x: forward(x) * 1.5 + 0.5


@each_kind
@pytest.mark.parametrize('layer', ['conv3', 'bn3', 'se'])
@pytest.mark.parametrize('way', ['forward hook', 'pre-hook', 'replaced forward'])
def test_a_hook_or_forward_that_changes_a_value_is_obeyed(name, way, layer):
    outputs = []
    with torch.no_grad():
        for network in ours_and_plain(name):
            before = network(images(2))
            change_values(last_layers(network)[layer], way)
            outputs.append(network(images(2)))
            assert relative_error(outputs[-1], before) > 1e-3
    assert torch.equal(*outputs)


@each_kind
@pytest.mark.parametrize('layer', ['conv3', 'bn3'])
@pytest.mark.parametrize('way', ['forward hook', 'pre-hook', 'replaced forward'])
def test_a_compiled_network_obeys_it_too(name, way, layer):
    ours, plain = ours_and_plain(name)
    for network in (ours, plain):
        change_values(last_layers(network)[layer], way)
    with torch.no_grad():
        compiled = torch.compile(ours, backend='eager', fullgraph=True)
        assert relative_error(compiled(images(2)), plain(images(2))) <= 1e-5


@each_kind
@pytest.mark.parametrize('layer', ['conv3', 'bn3'])
def test_gradients_inside_a_block_hold_the_part_that_flows_through_the_gate(name, layer):
    found = []
    for network in ours_and_plain(name, torch.float64):
        kept, hooked = [], []

        def keep(module, args, output, kept=kept):
            output.retain_grad()
            kept.append(output)

        module = last_layers(network)[layer]
        module.register_forward_hook(keep)
        network(images(2, dtype=torch.float64)).square().sum().backward()
        module.register_full_backward_hook(lambda module, inward, outward, hooked=hooked: hooked.append(outward[0]))
        network(images(2, dtype=torch.float64)).square().sum().backward()
        torch.testing.assert_close(hooked[0], kept[0].grad, rtol=1e-12, atol=0)
        found.append(kept[0].grad)
    assert torch.equal(*found)


@each_kind
def test_what_a_hook_keeps_is_as_in_the_plain_network_after_the_pass(name):
    found = []
    for network in ours_and_plain(name):
        kept, copies = {}, {}
        for key, module in last_layers(network).items():

            def keep(module, args, output, key=key, kept=kept, copies=copies):
                kept[key], copies[key] = output, output.clone()

            module.register_forward_hook(keep)
        with torch.no_grad():
            network(images(2))
        assert all(torch.equal(kept[key], copies[key]) for key in ('conv3', 'bn3'))
        found.append(kept)
    # bn2 and se too, where timm's block writes its activation and its sum over them.
    assert all(torch.equal(found[0][key], kept) for key, kept in found[1].items())


@each_kind
def test_hooks_of_the_gate_see_one_tensor_in_and_one_out(name):
    network, _ = ours_and_plain(name)
    seen: dict = {}
    holder, slot = slots(network)[2]
    gate = getattr(holder, slot)
    gate.register_forward_pre_hook(lambda module, args, kwargs: seen.update(args=args, kwargs=kwargs), with_kwargs=True)
    gate.register_forward_hook(lambda module, args, output: seen.update(output=output.clone()))
    with torch.no_grad():
        network(images(1))
        assert len(seen['args']) == 1
        assert seen['kwargs'] == {}
        before = seen['args'][0].clone()
        assert torch.equal(gate(before), seen['output'])


OTHERS = {
    'identity': lambda gate, channels: nn.Identity(),
    'none': lambda gate, channels: None,
    'squeeze-and-excitation': lambda gate, channels: SEModule(channels),
    "timm's ECA": lambda gate, channels: EcaModule(channels),
    'in a sequential': lambda gate, channels: nn.Sequential(gate),
}


@each_kind
@pytest.mark.parametrize('other', OTHERS)
def test_another_layer_may_take_the_place_of_a_gate(name, other):
    if name == 'eca_mobilenetv2' and other == 'none':
        pytest.skip('the slot of an activation holds a module')
    outputs = []
    with torch.no_grad():
        for network in ours_and_plain(name):
            before = network(images(2))
            for holder, slot in slots(network)[1:4]:
                torch.manual_seed(0)
                channels = holder.num_features if slot == 'act' else holder.bn2.num_features
                channels = holder.bn3.num_features if hasattr(holder, 'bn3') else channels
                setattr(holder, slot, OTHERS[other](getattr(holder, slot), channels))
            outputs.append(network.eval()(images(2)))
            assert other == 'in a sequential' or relative_error(outputs[-1], before) > 1e-3
    assert torch.equal(*outputs)


@each_kind
@pytest.mark.parametrize(
    ('attention', 'kind'), [(None, None), ('se', SEModule), ('eca', EcaModule), (SEModule, SEModule)]
)
def test_the_attention_layer_that_a_caller_names_is_built(name, attention, kind):
    if name == 'eca_mobilenetv2':
        # timm's factory drops arguments that are None.
        network = eca_zoo.models.eca_mobilenetv2(attn_layer=attention)
    else:
        network = timm.create_model(name, block_args={'attn_layer': attention})
    for holder, slot in slots(network):
        layer = getattr(holder, slot)
        assert type(layer) is kind or (kind is None and (layer is None or type(layer) is nn.Identity))
    assert network.eval()(images(1)).shape == (1, network.num_classes)


@each_kind
def test_block_args_may_name_other_blocks_and_gates(name):
    if name == 'eca_mobilenetv2':
        arguments, sizes = decode_arch_def([['ds_r1_k3_s1_c16'], ['ir_r2_k5_s2_e3_c96']]), [1, 3, 3]
    else:
        arguments, sizes = {'attn_layer': partial(eca_zoo.EcaLayer, kernel_size=9)}, [9, 9, 9, 9]
    network = timm.create_model(name, block_args=arguments)
    assert [getattr(holder, slot).conv.kernel_size[0] for holder, slot in slots(network)] == sizes
    assert network.eval()(images(1)).shape == (1, network.num_classes)


def offload(network: nn.Module) -> None:
    """Leave the tensors of every layer on the meta device except while its own ``forward`` runs."""
    for module in network.modules():
        for store in (module._parameters, module._buffers):
            real = {key: tensor for key, tensor in store.items() if tensor is not None}
            empty = {
                key: nn.Parameter(tensor.to('meta')) if store is module._parameters else tensor.to('meta')
                for key, tensor in real.items()
            }
            if not real:
                continue

            def forward(*args, store=store, real=real, empty=empty, own=module.forward):
                store.update(real)
                try:
                    return own(*args)
                finally:
                    store.update(empty)

            store.update(empty)
            module.forward = forward


@each_kind
def test_weights_may_be_elsewhere_until_a_layer_is_called(name):
    ours, plain = ours_and_plain(name)
    offload(ours)
    assert all(tensor.is_meta for tensor in ours.state_dict().values())
    with torch.no_grad():
        assert torch.equal(ours(images(2)), plain(images(2)))


@each_kind
def test_pruned_norms_and_gates_count_from_the_first_pass_on_and_follow_their_weights(name):
    outputs = []
    with torch.no_grad():
        for network in ours_and_plain(name):
            layers = last_layers(network)
            before = network(images(2))
            prune.l1_unstructured(layers['bn3'], 'weight', 0.5)
            prune.l1_unstructured(layers['se'].conv, 'weight', 1)
            first = network(images(2))
            layers['bn3'].weight_orig.mul_(2)
            layers['se'].conv.weight_orig.mul_(2)
            second = network(images(2))
            prune.remove(layers['bn3'], 'weight')
            assert torch.equal(network(images(2)), second)
            assert relative_error(first, before) > 1e-3
            assert relative_error(second, first) > 1e-3
            outputs.append(torch.stack([first, second]))
    assert torch.equal(*outputs)


@each_kind
def test_many_weights_of_the_gates_can_be_tried_at_once(name):
    outputs = []
    for network in ours_and_plain(name):
        gates = {key: weight.detach() for key, weight in network.named_parameters() if weight.ndim == 3}
        stacked = {key: torch.stack([weight, 2 * weight, -weight]) for key, weight in gates.items()}
        call = partial(functional_call, network)
        with torch.no_grad():
            outputs.append(vmap(call, (0, None))(stacked, images(2)))
            one = call({key: -weight for key, weight in gates.items()}, images(2))
        assert relative_error(outputs[-1][2], one) <= 1e-5
        assert relative_error(outputs[-1][1], outputs[-1][0]) > 1e-3
    assert relative_error(*outputs) <= 1e-5
