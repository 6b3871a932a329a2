"""``pretrained=True``: verified weights through timm's factory, with every option of the factory."""

import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.layers import BlurPool2d
from timm.models import get_pretrained_cfg
from torch import nn

from eca_zoo.errors import InputError
from eca_zoo.resources import packaged_path
from eca_zoo.weights.errors import ConvertNeededError

DIGITS = 'test_eca_resnet.digits'


@pytest.fixture(scope='module')
def checkpoint() -> dict[str, torch.Tensor]:
    """The packaged tensors, read by timm."""
    return timm.models.load_state_dict(str(packaged_path('checkpoints/test_eca_resnet.digits.safetensors')))


def by_timm(checkpoint: dict[str, torch.Tensor], **kwargs) -> nn.Module:
    """The network as timm's own, unverified loading makes it."""
    overlay = {'state_dict': dict(checkpoint), 'file': None}
    return timm.create_model(DIGITS, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs)


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'num_classes': 4},
        {'num_classes': 0},
        {'in_chans': 1},
        {'in_chans': 4, 'num_classes': 3},
        {'global_pool': ''},
        {'num_classes': 0, 'global_pool': ''},
        {'features_only': True},
        {'features_only': True, 'out_indices': (1, 3), 'feature_cls': 'getter'},
        {'features_only': True, 'in_chans': 2},
        {'output_stride': 8},
        {'drop_rate': 0.1, 'drop_path_rate': 0.1},
        {'dtype': torch.bfloat16},
        {'aa_layer': BlurPool2d},
        {'kernel_sizes': (3, 3, 5, 5)},
    ],
    ids=str,
)
def test_every_option_gives_what_timms_own_loading_gives(checkpoint, options):
    ours = timm.create_model(DIGITS, pretrained=True, **options)
    theirs = by_timm(checkpoint, **options)
    assert type(ours) is type(theirs)
    new = ('fc.weight', 'fc.bias') if options.get('num_classes', 10) not in (0, 10) else ()
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    for key, tensor in ours.state_dict().items():
        assert (tensor.dtype, tensor.shape, tensor.device) == (
            expected[key].dtype,
            expected[key].shape,
            expected[key].device,
        )
        assert key in new or torch.equal(tensor, expected[key]), key
    for (key, p), (_, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert p.requires_grad == q.requires_grad, key
    assert not any(tensor.is_meta for tensor in [*ours.parameters(), *ours.buffers()])
    ours_cfg, theirs_cfg = dict(ours.pretrained_cfg), dict(theirs.pretrained_cfg)
    assert ours_cfg.pop('file')
    theirs_cfg.pop('state_dict')
    assert ours_cfg == theirs_cfg


def test_a_new_classifier_is_initialised_as_in_a_new_network():
    torch.manual_seed(0)
    weight = timm.create_model(DIGITS, pretrained=True, num_classes=500).fc.weight.detach()
    bound = weight.shape[1] ** -0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_the_meta_device_and_a_default_dtype_are_respected():
    assert timm.create_model(DIGITS, pretrained=True, device='meta').fc.weight.is_meta
    torch.set_default_dtype(torch.float64)
    try:
        assert timm.create_model(DIGITS, pretrained=True).fc.weight.dtype is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_loaded_weights_can_be_trained_and_do_not_change_the_file(checkpoint):
    model = timm.create_model(DIGITS, pretrained=True)
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    again = timm.create_model(DIGITS, pretrained=True).state_dict()
    assert all(torch.equal(again[key], tensor) for key, tensor in checkpoint.items())


def test_other_kernel_sizes_than_the_trained_ones_are_refused():
    with pytest.raises(
        InputError, match=r'test_eca_resnet\.digits was trained with kernel_sizes \(3, 3, 5, 5\), not \(3, 3'
    ):
        timm.create_model(DIGITS, pretrained=True, kernel_sizes=(3, 3, 7, 7))


def test_weights_that_need_conversion_raise_one_error_that_says_how_to_get_them():
    with pytest.raises(ConvertNeededError) as error:
        timm.create_model('eca_resnet50', pretrained=True)
    assert str(error.value) == (
        'eca_resnet50.k3557_in1k needs conversion: no hash of its weights is known; '
        "download the authors' file eca_resnet50_k3557.pth.tar "
        'from https://drive.google.com/file/d/1670rce333c_lyMWFzBlNZoVUvtxbCF_U '
        'and run: eca-zoo convert eca_resnet50_k3557.pth.tar'
    )


def test_names_that_need_conversion_are_registered_and_absent_from_list_pretrained():
    pretrained = timm.list_pretrained('*eca_*')
    assert DIGITS in pretrained
    for name in ('eca_resnet18.k3577_in1k', 'eca_resnet50.k3557_in1k', 'eca_mobilenetv2.k13_in1k'):
        assert name not in pretrained
        assert get_pretrained_cfg(name).num_classes == 1000
    assert timm.is_model_pretrained('test_eca_resnet')


def test_a_users_own_file_goes_through_timms_loading(tmp_path):
    folder = tmp_path / 'mine'
    network = timm.create_model(DIGITS, num_classes=3)
    timm.models.save_for_hf(network, folder, safe_serialization=True)
    loaded = timm.create_model(f'local-dir:{folder}', pretrained=True)
    assert all(
        torch.equal(loaded.state_dict()[key], tensor) for key, tensor in load_file(folder / 'model.safetensors').items()
    )
    overlay = {'file': str(folder / 'model.safetensors'), 'num_classes': 3}
    again = timm.create_model(DIGITS, pretrained=True, pretrained_cfg_overlay=overlay)
    torch.testing.assert_close(again.fc.weight, network.fc.weight)


def test_importing_the_package_opens_no_file_of_data_but_manifests_and_no_connection():
    code = """
import sys, timm
events = []
def record(event, args):
    if event in ('open', 'socket.connect', 'socket.getaddrinfo'):
        events.append((event, str(args[0])))
sys.addaudithook(record)
import eca_zoo
code = ('.py', '.pyc', '.so')
data = [path for event, path in events if event == 'open' and not path.endswith(code) and '__pycache__' not in path]
assert not [event for event, _ in events if event.startswith('socket')], events
assert data and all('manifest' in path for path in data), data
"""
    subprocess.run([sys.executable, '-c', code], check=True)
