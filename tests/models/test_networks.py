"""The networks against the authors' code, and all that a timm user does with a model."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

import eca_zoo
from eca_zoo.models.resnet import RESNET
from eca_zoo.resources import packaged_path
from tests.reference_checkpoints import golden_input, reference_state_dict

GOLDEN = np.load(Path(__file__).parents[1] / 'data' / 'golden_logits.npz')
ZOO = [record.name for record in eca_zoo.models.list_zoo()]
RESNETS = [record.name for record in eca_zoo.models.list_architectures() if record.family is RESNET]
ALL = [record.name for record in eca_zoo.models.list_architectures()]
# One of each kind for what the depth does not change: both blocks of the ResNets, and the inverted residual.
KINDS = ['test_eca_resnet', 'eca_mobilenetv2']


def image(batch: int = 2, channels: int = 3, side: int = 64) -> torch.Tensor:
    return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(0))


def with_original_weights(name: str) -> nn.Module:
    """The network with the seeded stand-ins for the authors' tensors, which follow in the same order."""
    network = timm.create_model(name).eval()
    original = reference_state_dict(name).values()
    network.load_state_dict(dict(zip(network.state_dict(), original, strict=True)))
    return network


def randomised(network: nn.Module) -> nn.Module:
    """``network`` in evaluation mode with batch norms that do something."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.0, generator=generator)
    return network.eval()


@pytest.mark.parametrize('name', ZOO)
def test_logits_equal_those_of_the_authors_code(name):
    with torch.inference_mode():
        logits = with_original_weights(name)(golden_input()).double().numpy()
    assert np.linalg.norm(logits - GOLDEN[name]) / np.linalg.norm(GOLDEN[name]) <= 1e-5


def test_parameter_counts_equal_the_measured_ones_exactly():
    rows = list(csv.DictReader(packaged_path('reference/complexity_measured.csv').open()))
    assert [row['model'] for row in rows] == ZOO
    for row in rows:
        network = timm.create_model(row['model'], device='meta')
        gates = [module for module in network.modules() if isinstance(module, eca_zoo.EcaLayer)]
        assert sum(p.numel() for p in network.parameters()) == int(row['params'])
        assert sum(p.numel() for gate in gates for p in gate.parameters()) == int(row['eca_params'])


def test_test_network_has_both_blocks_and_fewer_than_600_000_parameters():
    network = timm.create_model('test_eca_resnet', num_classes=1000)
    assert sum(p.numel() for p in network.parameters()) < 600_000
    assert isinstance(network.layer1[0], BasicBlock)
    assert isinstance(network.layer3[0], Bottleneck)
    assert all(
        isinstance(block.se, eca_zoo.EcaLayer) for stage in range(1, 5) for block in getattr(network, f'layer{stage}')
    )


@pytest.mark.parametrize('name', RESNETS)
def test_kernel_sizes_of_the_stages_can_be_chosen(name):
    def sizes(kernel_sizes):
        network = timm.create_model(name, kernel_sizes=kernel_sizes, device='meta')
        return [getattr(network, f'layer{stage}')[0].se.conv.kernel_size[0] for stage in range(1, 5)]

    assert sizes((3, 3, 7, 7)) == [3, 3, 7, 7]
    assert sizes([9, 1, 1, 3]) == [9, 1, 1, 3]
    widths = [info['num_chs'] for info in timm.create_model(name, device='meta').feature_info[1:]]
    assert sizes('adaptive') == [eca_zoo.models.adaptive_kernel_size(width) for width in widths]


def test_adaptive_kernel_sizes_of_resnet50_are_5_5_5_7():
    network = timm.create_model('eca_resnet50', kernel_sizes='adaptive', device='meta')
    assert [getattr(network, f'layer{stage}')[0].se.conv.kernel_size[0] for stage in range(1, 5)] == [5, 5, 5, 7]


@pytest.mark.parametrize('wrong', [(3, 3, 7), (3, 5, 5, 7, 7), (), 'paper', 5])
def test_kernel_sizes_that_are_not_one_a_stage_are_refused(wrong):
    with pytest.raises(
        ValueError, match=r"kernel_sizes must be 4 odd, positive integers, one for each stage, or 'adapt"
    ):
        timm.create_model('eca_resnet18', kernel_sizes=wrong)


@pytest.mark.parametrize('wrong', [(3, 5, 4, 7), (3, 5, -5, 7), (3, 5, 0, 7), (3, None, 5, 7)])
def test_an_even_negative_or_missing_kernel_size_is_refused(wrong):
    with pytest.raises(ValueError, match=r'an ECA kernel size is an odd, positive integer \(1, 3, 5, 7, \.\.\.\), not'):
        timm.create_model('eca_resnet18', kernel_sizes=wrong)


def test_mobilenet_takes_a_size_for_narrow_and_one_for_wide_blocks():
    network = timm.create_model('eca_mobilenetv2', kernel_sizes=(3, 5), device='meta')
    assert [
        stage[0].get_submodule('bn3' if i else 'bn2').act.conv.kernel_size[0] for i, stage in enumerate(network.blocks)
    ] == [3, 3, 3, 3, 5, 5, 5]
    with pytest.raises(ValueError, match='kernel_sizes must be 2 odd, positive integers, for blocks of fewer than 96'):
        timm.create_model('eca_mobilenetv2', kernel_sizes=(1, 3, 3, 3))


@pytest.mark.parametrize('name', KINDS)
@pytest.mark.parametrize('channels', range(1, 14))
def test_input_channels_from_1_to_13(name, channels):
    assert timm.create_model(name, in_chans=channels, num_classes=4).eval()(image(1, channels)).shape == (1, 4)


@pytest.mark.parametrize('name', KINDS)
def test_class_counts_pooling_and_head(name):
    network = timm.create_model(name, num_classes=0).eval()
    features = network.forward_features(image())
    assert network(image()).shape == (2, network.num_features)
    assert network.forward_head(features, pre_logits=True).shape == (2, network.num_features)
    network.reset_classifier(7, 'max')
    assert network(image()).shape == (2, 7)
    assert network.get_classifier().out_features == 7
    assert timm.create_model(name, num_classes=0, global_pool='').eval()(image()).ndim == 4


@pytest.mark.parametrize('name', ALL)
def test_features_only_gives_the_chosen_strides(name):
    network = timm.create_model(name, features_only=True, out_indices=(1, 3)).eval()
    maps = network(image(1))
    assert network.feature_info.reduction() == [4, 16]
    assert [m.shape[1:] for m in maps] == [
        (c, 64 // r, 64 // r) for c, r in zip(network.feature_info.channels(), (4, 16), strict=True)
    ]


@pytest.mark.parametrize('name', KINDS)
def test_intermediates_equal_the_features_of_the_feature_extractor(name):
    network = randomised(timm.create_model(name))
    last, intermediates = network.forward_intermediates(image())
    extractor = timm.create_model(name, features_only=True, feature_cls='getter').eval()
    extractor.model.load_state_dict(network.state_dict(), strict=False)
    for ours, theirs in zip(intermediates, extractor(image()), strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(last, network.forward_features(image()))


@pytest.mark.parametrize(('stride', 'side'), [(32, 2), (16, 4), (8, 8)])
def test_output_stride_of_the_resnets(stride, side):
    network = timm.create_model('eca_resnet18', output_stride=stride).eval()
    assert network.forward_features(image(1)).shape[-2:] == (side, side)


@pytest.mark.parametrize('name', KINDS)
def test_dropout_and_stochastic_depth_are_active_in_training_only(name):
    torch.manual_seed(0)
    network = randomised(timm.create_model(name, drop_rate=0.5, drop_path_rate=0.5))
    torch.testing.assert_close(network(image()), network(image()))
    for module in network.modules():
        if not isinstance(module, nn.BatchNorm2d):
            module.training = True
    assert not torch.equal(network(image()), network(image()))


@pytest.mark.parametrize('name', KINDS)
def test_gradient_checkpointing_changes_no_gradient(name):
    network = timm.create_model(name).train()
    network(image()).square().sum().backward()
    expected = [p.grad.clone() for p in network.parameters()]
    assert all(gradient is not None for gradient in expected)
    network.zero_grad()
    network.set_grad_checkpointing()
    network(image()).square().sum().backward()
    for gradient, p in zip(expected, network.parameters(), strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('name', ALL)
def test_every_parameter_has_a_layer_group(name):
    network = timm.create_model(name, device='meta')
    groups = timm.models.group_parameters(network, network.group_matcher())
    assert sorted(key for keys in groups.values() for key in keys) == sorted(
        key for key, _ in network.named_parameters()
    )


def test_data_config_is_the_authors_evaluation_transform():
    for name in ZOO:
        config = timm.data.resolve_model_data_config(timm.create_model(name, device='meta'))
        assert config == {
            'input_size': (3, 224, 224),
            'interpolation': 'bilinear',
            'mean': (0.485, 0.456, 0.406),
            'std': (0.229, 0.224, 0.225),
            'crop_pct': 0.875,
            'crop_mode': 'center',
        }


@pytest.mark.parametrize('name', KINDS)
def test_state_dict_survives_a_round_trip_through_a_file(name):
    network = randomised(timm.create_model(name))
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other = timm.create_model(name).eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(other(image()), network(image()), rtol=0, atol=0)


@pytest.mark.parametrize('name', KINDS)
def test_scripted_exported_compiled_and_traced_networks_give_the_same_logits(name):
    network = randomised(timm.create_model(name))
    with torch.no_grad():
        expected = network(image())
        script = torch.jit.script(network)
        exported = torch.export.export(
            network, (image(),), dynamic_shapes=({0: torch.export.Dim('batch', min=2)},)
        ).module()
        compiled = torch.compile(network, backend='aot_eager', fullgraph=True)
        extractor = create_feature_extractor(network, ['global_pool'])
        torch.testing.assert_close(script(image()), expected)
        torch.testing.assert_close(exported(image()), expected)
        assert exported(image(5)).shape[0] == 5
        torch.testing.assert_close(compiled(image()), expected)
        assert extractor(image())['global_pool'].shape == (2, network.num_features)


@pytest.mark.parametrize('name', KINDS)
def test_channels_last_autocast_and_bfloat16(name):
    network = randomised(timm.create_model(name))
    with torch.no_grad():
        expected = network(image())
        with torch.autocast('cpu', torch.bfloat16):
            assert torch.nn.functional.cosine_similarity(network(image()).float(), expected).min() > 0.99
        last = network.to(memory_format=torch.channels_last)(image().to(memory_format=torch.channels_last))
        torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-4)
        half = network.to(torch.bfloat16)(image().to(torch.bfloat16))
    assert half.dtype is torch.bfloat16
    assert torch.nn.functional.cosine_similarity(half.float(), expected).min() > 0.99


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no CUDA device')
@pytest.mark.parametrize('name', ZOO)
def test_logits_on_a_gpu_equal_those_of_the_authors_code(name):
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        logits = with_original_weights(name).cuda()(golden_input().cuda()).double().cpu().numpy()
    assert np.linalg.norm(logits - GOLDEN[name]) / np.linalg.norm(GOLDEN[name]) <= 1e-5
