"""The form for inference: the outputs of the network, in a copy that tools can take further."""

import copy
import io
import pickle

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize, prune
from torchvision.models.feature_extraction import create_feature_extractor

import eca_zoo
from eca_zoo.errors import InputError
from eca_zoo.models.fast_blocks import FAST_BLOCKS, EarlyGate, FilterGate
from tests.models.plain import images, ours_and_plain, relative_error

ZOO = ['eca_resnet18', 'eca_resnet34', 'eca_resnet50', 'eca_resnet101', 'eca_resnet152', 'eca_mobilenetv2']
KINDS = ['test_eca_resnet', 'eca_mobilenetv2']
OTHERS = ['resnet50', 'mobilenetv2_100', 'efficientnet_b0', 'regnety_002', 'test_efficientnet', 'seresnet18']
SIZE = (3, 64, 64)


def randomised(network):
    """``network`` in evaluation mode, with norms and gates that do something."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.0, generator=generator)
            nn.init.normal_(module.bias, 0, 0.2, generator=generator)
        if isinstance(module, eca_zoo.EcaLayer):
            nn.init.normal_(module.conv.weight, 0, 2, generator=generator)
    return network.eval()


def count(network, kinds):
    return sum(isinstance(module, kinds) for module in network.modules())


@pytest.fixture(scope='module', params=KINDS)
def pair(request):
    """A network, and its form for inference."""
    network = ours_and_plain(request.param)[0]
    return network, eca_zoo.optimize_for_inference(network, SIZE)


@pytest.mark.parametrize('name', [*ZOO, *OTHERS])
def test_the_form_has_the_outputs_of_the_network_and_no_norms(name):
    network = randomised(timm.create_model(name, num_classes=10))
    form = eca_zoo.optimize_for_inference(network, SIZE)
    assert count(form, _BatchNorm) == 0
    assert count(form, FAST_BLOCKS) == count(network, eca_zoo.EcaLayer)
    with torch.no_grad():
        for batch in (1, 5):
            assert relative_error(form(images(batch, 64)), network(images(batch, 64))) <= 1e-5


def test_the_form_has_the_outputs_of_the_plain_network():
    for name in KINDS:
        ours, plain = ours_and_plain(name)
        form = eca_zoo.optimize_for_inference(ours)
        with torch.no_grad():
            assert relative_error(form(images(8)), plain(images(8))) <= 1e-5


def test_the_network_and_the_random_state_are_left_as_they_were():
    network = randomised(timm.create_model('test_eca_resnet'))
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    modules = [id(module) for module in network.modules()]
    state = torch.random.get_rng_state()
    with torch.autocast('cpu', torch.bfloat16), torch.device('meta'):
        form = eca_zoo.optimize_for_inference(network)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [id(module) for module in network.modules()] == modules
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(parameter.requires_grad for parameter in form.parameters())
    assert not any(module.training for module in form.modules())


@pytest.mark.parametrize(('widest', 'early'), [({}, 3), ({'widest_early_gate': 64}, 1)])
def test_a_bottleneck_has_its_gate_early_up_to_256_channels_or_those_that_are_asked_for(widest, early):
    form = eca_zoo.optimize_for_inference(timm.create_model('eca_resnet50').eval(), SIZE, **widest)
    gates = [stage[0].gate for stage in (form.layer1, form.layer2, form.layer3, form.layer4)]
    assert [type(gate) for gate in gates] == [EarlyGate] * early + [FilterGate] * (4 - early)


def test_the_form_can_be_copied_pickled_and_saved(pair):
    form = pair[1]
    file = io.BytesIO()
    torch.save(form, file)
    file.seek(0)
    with torch.no_grad():
        expected = form(images(2, 64))
        for other in (copy.deepcopy(form), pickle.loads(pickle.dumps(form)), torch.load(file, weights_only=False)):
            assert torch.equal(other(images(2, 64)), expected)


def test_the_form_can_be_scripted_traced_compiled_and_exported(pair):
    network, form = pair
    batch = {0: torch.export.Dim('batch')}
    traced_with_gradients = torch.jit.trace(form, images(2, 64))
    with torch.no_grad():
        exported = torch.export.export(form, (images(2, 64),), dynamic_shapes=(batch,)).module()
        others = [
            torch.jit.script(form), torch.jit.trace(form, images(2, 64)), traced_with_gradients, exported,
            fx.symbolic_trace(form), torch.compile(form, backend='aot_eager', fullgraph=True),
        ]  # fmt: skip
        for number in (2, 5):
            expected = network(images(number, 64))
            for other in others:
                assert relative_error(other(images(number, 64)), expected) <= 1e-5


def test_the_form_is_written_as_onnx_with_any_batch(tmp_path):
    pytest.importorskip('onnxscript')
    runtime = pytest.importorskip('onnxruntime')
    network = randomised(timm.create_model('test_eca_resnet', num_classes=10))
    form = eca_zoo.optimize_for_inference(network, SIZE)
    shapes = ({0: torch.export.Dim('batch')},)
    torch.onnx.export(form, (images(2, 64),), tmp_path / 'form.onnx', dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = runtime.InferenceSession(tmp_path / 'form.onnx', providers=['CPUExecutionProvider'])
    for number in (1, 5):
        (logits,) = session.run(None, {session.get_inputs()[0].name: images(number, 64).numpy()})
        with torch.no_grad():
            assert relative_error(torch.from_numpy(logits), network(images(number, 64))) <= 1e-5


@pytest.mark.slow
def test_inductor_computes_the_outputs_of_the_network():
    network = randomised(timm.create_model('test_eca_resnet'))
    form = torch.compile(eca_zoo.optimize_for_inference(network), dynamic=False)
    with torch.inference_mode():
        assert relative_error(form(images(8)), network(images(8))) <= 1e-5


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_before_or_after(pair, dtype):
    network, form = pair
    half = copy.deepcopy(network).to(dtype)
    with torch.no_grad():
        expected = network(images(2, 64))
        error = relative_error(half(images(2, 64, dtype)).float(), expected)
        for other in (copy.deepcopy(form).to(dtype), eca_zoo.optimize_for_inference(half, SIZE)):
            assert {parameter.dtype for parameter in other.parameters()} == {dtype}
            assert relative_error(other(images(2, 64, dtype)).float(), expected) < 3 * error
        with torch.autocast('cpu', dtype):
            assert relative_error(form(images(2, 64)).float(), expected) < 3 * error


def test_double_precision_stays():
    network = randomised(timm.create_model('test_eca_resnet').double())
    form = eca_zoo.optimize_for_inference(network, SIZE)
    with torch.no_grad():
        x = images(2, 64, torch.float64)
        assert relative_error(form(x), network(x)) <= 1e-13


def test_the_memory_format_is_kept(pair):
    network, form = copy.deepcopy(pair[0]), pair[1]
    last = torch.channels_last
    form_of_last = eca_zoo.optimize_for_inference(network.to(memory_format=last), SIZE)
    for made, kept in ((form, torch.contiguous_format), (form_of_last, last)):
        weights = [module.weight for module in made.modules() if isinstance(module, nn.Conv2d)]
        assert all(weight.is_contiguous(memory_format=kept) for weight in weights)
    seen = []
    block = next(module for module in form_of_last.modules() if isinstance(module, FAST_BLOCKS))
    block.register_forward_hook(lambda module, args, output: seen.append(output.is_contiguous(memory_format=last)))
    with torch.no_grad():
        form_of_last(images(2, 64).to(memory_format=last))
    assert seen == [True]


@pytest.mark.parametrize('name', KINDS)
@pytest.mark.parametrize('arguments', [{}, {'out_indices': (1, 3)}, {'feature_cls': 'getter'}], ids=str)
def test_feature_extractors_have_a_form_too(name, arguments):
    network = randomised(timm.create_model(name, features_only=True, **arguments))
    form = eca_zoo.optimize_for_inference(network, SIZE)
    assert count(form, _BatchNorm) == 0
    assert count(form, FAST_BLOCKS) == count(network, eca_zoo.EcaLayer)
    with torch.no_grad():
        for ours, theirs in zip(form(images(2, 64)), network(images(2, 64)), strict=True):
            assert relative_error(ours, theirs) <= 1e-5


def test_blocks_that_a_graph_looks_into_stay_and_their_norms_are_folded():
    network = randomised(timm.create_model('test_eca_resnet'))
    extractor = create_feature_extractor(network, ['layer3.0.conv3', 'layer4'])
    form = eca_zoo.optimize_for_inference(extractor, SIZE)
    assert (count(form, FAST_BLOCKS), count(form, _BatchNorm)) == (0, 1)  # what conv3 puts out is read beside its norm
    with torch.no_grad():
        for key, expected in extractor(images(2, 64)).items():
            assert relative_error(form(images(2, 64))[key], expected) <= 1e-5


@pytest.mark.parametrize('attention', ['se', 'eca', nn.Identity])
def test_blocks_with_another_layer_in_the_place_of_a_gate_stay(attention):
    network = randomised(timm.create_model('test_eca_resnet', block_args={'attn_layer': attention}))
    form = eca_zoo.optimize_for_inference(network, SIZE)
    assert (count(form, FAST_BLOCKS), count(form, _BatchNorm)) == (0, 0)
    with torch.no_grad():
        assert relative_error(form(images(2, 64)), network(images(2, 64))) <= 1e-5


class Twice(nn.Module):
    """A convolution and norm that run twice, before one pair that runs once and one whose input is read elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.last, self.last_norm = nn.Conv2d(3, 3, 1), BatchNormAct2d(3)
        self.read, self.read_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.last_norm(self.last(self.norm(self.conv(self.norm(self.conv(x))))))
        x = self.read(x)
        return x + self.read_norm(x)


def test_norms_that_run_twice_or_whose_input_is_read_elsewhere_stay():
    network = randomised(Twice())
    form = eca_zoo.optimize_for_inference(network, (3, 8, 8))
    assert isinstance(form.norm, nn.BatchNorm2d)
    assert isinstance(form.read_norm, nn.BatchNorm2d)
    assert isinstance(form.last_norm, nn.ReLU)  # what timm's norm carries
    with torch.no_grad():
        assert relative_error(form(images(2, 8)), network(images(2, 8))) <= 1e-5


class Standardised(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight / self.weight.std(), self.bias)


def test_a_convolution_that_computes_something_else_is_not_folded():
    network = randomised(nn.Sequential(Standardised(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    form = eca_zoo.optimize_for_inference(network, (3, 8, 8))
    assert [type(module) for module in form] == [Standardised, nn.BatchNorm2d, nn.Conv2d, nn.Identity]


def doubled(x):
    return 2 * x


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


class Unequal(nn.Module):
    """Gives another output each time, so that no copy can equal it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)) + torch.rand(3, 1, 1)


def refusal(subject, input_size=None):
    with pytest.raises(InputError) as error:
        eca_zoo.optimize_for_inference(subject, input_size)
    assert '\n' not in str(error.value)
    return str(error.value)


HOOK = 'which the form for inference would not run; remove it first'
CHANGES = {
    'layer3.0.conv3 is in training mode; call eval() on the network first': lambda conv: conv.train(),
    f'layer3.0.conv3 has a forward hook, {HOOK}': lambda conv: conv.register_forward_hook(print),
    f'layer3.0.conv3 has a forward pre-hook, {HOOK}': lambda conv: conv.register_forward_pre_hook(print),
    f'layer3.0.conv3 has a backward hook, {HOOK}': lambda conv: conv.register_full_backward_hook(print),
    f'layer3.0.conv3 has a backward pre-hook, {HOOK}': lambda conv: conv.register_full_backward_pre_hook(print),
    'the forward of layer3.0.conv3 was replaced on the instance; restore it first': (
        lambda conv: setattr(conv, 'forward', doubled)
    ),
    'layer3.0.conv3 is pruned; make it permanent first, with torch.nn.utils.prune.remove': (
        lambda conv: prune.l1_unstructured(conv, 'weight', 1)
    ),
    'layer3.0.conv3 has a parametrised tensor; make it permanent first, with torch.nn.utils.parametrize.'
    'remove_parametrizations': lambda conv: parametrize.register_parametrization(conv, 'weight', Doubled()),
    'layer3.0.conv3 is compiled, which a copy loses; make the form first and compile that': lambda conv: conv.compile(),
    'the network has weights in float16, float32; convert it to one type first, such as with float()': (
        lambda conv: conv.half()
    ),
    'the network has weights on the meta device; load them first': lambda conv: conv.to('meta'),
}


@pytest.mark.parametrize('message', CHANGES)
def test_what_a_copy_would_lose_is_refused_with_its_place_and_the_remedy(message):
    network = timm.create_model('test_eca_resnet').eval()
    CHANGES[message](network.layer3[0].conv3)
    assert refusal(network) == message


def test_a_network_that_hooks_itself_is_refused():
    network = timm.create_model('test_eca_resnet', features_only=True, feature_cls='hook').eval()
    assert refusal(network) == f'body.act1 has a forward hook, {HOOK}'


SUBJECTS = {
    'a form for inference is made of a network (torch.nn.Module), not of str; build it with timm.create_model first': (
        lambda network: 'test_eca_resnet'
    ),
    'ResNet is in training mode; call eval() on the network first': lambda network: network.train(),
    'ResNet is in the form for inference already; use it as it is': eca_zoo.optimize_for_inference,
    '1 is in the form for inference already; use it as it is': (
        lambda network: nn.Sequential(nn.Identity(), eca_zoo.optimize_for_inference(network)).eval()
    ),
    'the network is scripted or compiled already; make the form of the network before that': torch.compile,
    'there is no convolution followed by a batch norm to fold; use the network as it is': (
        lambda network: timm.create_model('test_convnext').eval()
    ),
    'what images the network takes is not known; name it: input_size=(channels, height, width)': (
        lambda network: nn.Sequential(network).eval()
    ),
}


@pytest.mark.parametrize('message', SUBJECTS)
def test_what_has_no_such_form_is_refused_with_the_remedy(message):
    assert refusal(SUBJECTS[message](timm.create_model('test_eca_resnet').eval())) == message


def test_a_scripted_network_is_refused():
    network = torch.jit.script(timm.create_model('test_eca_resnet').eval())
    assert refusal(network).startswith('the network is scripted or compiled already')


def test_a_network_without_any_tensor_is_refused():
    assert refusal(nn.Sequential(nn.ReLU()).eval()).startswith('there is no convolution followed by a batch norm')


class Branching(nn.Module):
    """Takes a way that depends on the values of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)) if x.sum() > 0 else x


def test_a_network_that_fx_cannot_trace_is_refused():
    message = 'the network cannot be traced by torch.fx, so nothing is folded in it; use it as it is: '
    assert refusal(Branching().eval(), (3, 8, 8)).startswith(message)


def test_another_output_is_refused():
    message = refusal(Unequal().eval(), (3, 8, 8))
    assert message.startswith('the form for inference differs from the network by ')
    assert message.endswith(' (relative) on random images, more than 1e-05; use the network as it is')


def test_images_that_the_network_does_not_take_are_refused():
    network = timm.create_model('test_eca_resnet', in_chans=1).eval()
    eca_zoo.optimize_for_inference(network)  # on images with as many channels as it takes
    message = 'the network cannot be run on images of 3x64x64; name a size that it takes: input_size='
    assert refusal(network, SIZE).startswith(message)


def test_gradients_are_refused_and_not_wrong():
    form = eca_zoo.optimize_for_inference(timm.create_model('test_eca_resnet').eval())
    with pytest.raises(RuntimeError, match='out='):
        form(images(1, 64).requires_grad_())
