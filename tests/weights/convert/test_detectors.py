"""The authors' detection checkpoints: recognised in every layout, converted, and loaded with the same detections."""

import re

import numpy as np
import pytest
import torch

from eca_zoo.cli import main
from eca_zoo.detection import create_detector, list_detectors
from eca_zoo.detection.networks.transform import Geometry
from eca_zoo.errors import InputError
from eca_zoo.weights.convert.conversion import _choose_name, convert
from eca_zoo.weights.convert.hub_folder import hub_config, model_card
from eca_zoo.weights.convert.recognition import recognise
from eca_zoo.weights.errors import CheckpointError
from eca_zoo.weights.manifest import Checkpoint, Source, load_manifest, packaged_manifest
from tests.detection.reference_checkpoints import (
    DATA,
    ORIGINAL_SIZE,
    RESIZED_SIZE,
    SCALE,
    golden_input,
    layouts,
    reference_state_dict,
)
from tests.reference_checkpoints import layouts as network_layouts

RETINANET = 'retinanet_eca_resnet50_fpn'


def on_meta(name):
    """The state dict of a stand-in without its values."""
    return {key: torch.empty(shape, device='meta') for key, shape in layouts()[name]['tensors']}


@pytest.mark.parametrize('name', [name for name in list_detectors() if name in layouts()])
def test_system_kernel_sizes_and_classes_follow_from_the_tensors(name):
    found = recognise(on_meta(name))
    assert (found.architecture, found.num_classes) == (name, 80)
    assert list(found.kernel_sizes) == layouts()[name]['kernels']
    assert _choose_name(found, '') in packaged_manifest().models
    assert recognise(found.state).architecture == name  # its own keys are recognised as well


@pytest.mark.parametrize(
    'rename',
    [
        lambda key: key.replace('.eca.', '.se.'),
        lambda key: key.replace('.eca.', '.attention.'),
        lambda key: re.sub(r'((?:cls|reg)_convs\.\d)\.conv\.', r'\1.', key),
    ],
)
def test_every_layout_of_the_authors_framework_is_recognised(rename):
    state = {rename(key): tensor for key, tensor in on_meta(RETINANET).items()}
    assert recognise(state).architecture == RETINANET


@pytest.mark.parametrize(
    ('sizes', 'name'), [((5, 5, 5, 7), 'k5_coco'), ((5, 5, 5, 5), 'k5_coco'), ((3, 3, 5, 7), 'k3357')]
)
def test_the_sizes_that_the_authors_name_leaves_open_are_read_from_the_file(sizes, name):
    state = on_meta('fasterrcnn_eca_resnet50_fpn')
    for key in state:
        if '.eca.' in key:
            state[key] = torch.empty(1, 1, sizes[int(key[len('backbone.layer')]) - 1], device='meta')
    found = recognise(state)
    assert found.kernel_sizes == sizes
    assert _choose_name(found, '') == f'fasterrcnn_eca_resnet50_fpn.{name}'
    if name == 'k3357':
        with pytest.raises(CheckpointError, match=r'kernel sizes \[3, 3, 5, 7\] and 80 classes, so it is not'):
            _choose_name(found, 'k5_coco')


def test_another_class_count_is_read_from_the_file():
    for name, rows in (('maskrcnn_eca_resnet50_fpn', {'fc_cls': 4, 'fc_reg': 16, 'conv_logits': 4}),
                       (RETINANET, {'retina_cls': 27})):  # fmt: skip
        state = on_meta(name)
        for key, tensor in state.items():
            for part, count in rows.items():
                if f'.{part}.' in key:
                    state[key] = torch.empty(count, *tensor.shape[1:], device='meta')
        found = recognise(state)
        assert (found.architecture, found.num_classes) == (name, 3)
        assert _choose_name(found, '') == f'{name}.k3377_c3'


def test_a_checkpoint_of_another_kind_is_refused_in_one_line():
    detector = on_meta(RETINANET)
    network = {key: torch.empty(shape, device='meta') for key, shape, _ in network_layouts()['eca_resnet50']['tensors']}
    for state, holds, asked in ((detector, RETINANET, 'eca_resnet50'), (network, 'eca_resnet50', RETINANET)):
        with pytest.raises(CheckpointError, match=f'^it holds {holds}, not {asked}; name that, or leave --model out$'):
            recognise(state, asked)
    del detector['bbox_head.retina_cls.weight']
    with pytest.raises(CheckpointError, match=rf'the nearest is {RETINANET}: missing head.classification_head.cls_log'):
        recognise(detector)


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
    """A home with a converted RetinaNet, in the layout of an early version and of DataParallel."""
    folder = tmp_path_factory.mktemp('detector')
    state = {
        'module.' + re.sub(r'((?:cls|reg)_convs\.\d)\.conv\.', r'\1.', key): tensor
        for key, tensor in reference_state_dict(RETINANET).items()
    }
    path = folder / 'RetinaNet_ecanet50_k3377_bs8_lr0.01.pth'
    torch.save({'meta': {'epoch': 12}, 'state_dict': state, 'optimizer': {}}, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('ECA_ZOO_HOME', str(folder / 'home'))
        result = convert(path)
        path.unlink()
        yield result


def test_a_converted_checkpoint_finds_what_the_authors_framework_finds(converted, capsys):
    assert converted.name == f'{RETINANET}.k3377_coco'
    detector = create_detector(RETINANET, pretrained=True).eval()
    with torch.inference_mode():
        found = detector.detect_normalised(golden_input().float(), Geometry(ORIGINAL_SIZE, RESIZED_SIZE, SCALE))
    golden = np.load(DATA / 'golden_detections.npz')
    assert np.abs(found['boxes'].numpy() - [0, 0, 1, 1] - golden[f'{RETINANET}.boxes']).max() < 1e-3
    assert detector.backbone.body.layer2[0].conv1.weight.requires_grad
    assert not detector.backbone.body.layer1[0].conv1.weight.requires_grad
    assert main(['verify', RETINANET]) == 0
    assert '  ok  ' in capsys.readouterr().out


def test_other_classes_get_new_layers_and_the_rest_of_the_checkpoint(converted):
    trained = create_detector(RETINANET, pretrained=True).state_dict()
    detector = create_detector(RETINANET, pretrained=True, num_classes=3)
    assert detector.categories == {1: '1', 2: '2', 3: '3'}
    differing = {key for key, tensor in detector.state_dict().items() if not torch.equal(tensor, trained[key])}
    assert differing == {f'head.classification_head.cls_logits.{kind}' for kind in ('weight', 'bias')}


def test_a_checkpoint_has_the_kernel_sizes_that_it_was_trained_with(converted):
    with pytest.raises(InputError, match=r'was trained with kernel_sizes \(3, 3, 7, 7\), not \(3, 3, 5, 7\): leave'):
        create_detector(RETINANET, pretrained=True, kernel_sizes=(3, 3, 5, 7))


def test_a_detector_that_is_not_published_says_how_to_get_it():
    with pytest.raises(InputError, match=r'maskrcnn_eca_resnet101_fpn.k3357_coco needs conversion: .*drive.google.com'):
        create_detector('maskrcnn_eca_resnet101_fpn', pretrained=True)


def test_a_backbones_checkpoint_is_used_where_the_kernel_sizes_are_equal_alone():
    with pytest.raises(InputError, match=r'eca_resnet50.k3557_in1k has \(3, 5, 5, 7\), so it does not fit'):
        create_detector('maskrcnn_eca_resnet50_fpn', pretrained_backbone=True)
    with pytest.raises(InputError, match=r'^eca_resnet101.k3357_in1k needs conversion'):
        create_detector('maskrcnn_eca_resnet101_fpn', pretrained_backbone=True)
    detector = create_detector('retinanet', backbone='test_eca_resnet', pretrained_backbone=True, num_classes=2)
    trained = load_manifest().models['test_eca_resnet.digits']
    assert trained.checkpoint is not None
    assert detector.backbone.body.conv1[0].weight.std() != 0


def test_the_card_has_the_figures_of_both_tasks():
    name = 'maskrcnn_eca_resnet50_fpn.k3377_coco'
    entry = packaged_manifest().models[name]
    assert b'"kernel_sizes"' in hub_config(name, entry)
    fields = {field: getattr(entry, field) for field in entry.__struct_fields__}
    checkpoint = Checkpoint(1, '0' * 64, (Source(file='a'),))
    card = model_card(name, type(entry)(**{**fields, 'checkpoint': checkpoint}), 'org/name', {'Box AP': '38.9 %'})
    assert '- object-detection\n- instance-segmentation\n' in card
    assert '| Box AP | 39.0 % | 38.9 % |' in card
    assert '| Mask AP75 | 37.7 % |  |' in card
    assert f"create_detector('{name}', pretrained=True)" in card
