"""Detectors as people call them: on any backbone, on images of any kind, in every form that a network may take."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import nn

import eca_zoo
from eca_zoo.detection import create_detector, list_detectors
from eca_zoo.detection.networks import registry
from eca_zoo.detection.networks.detectors import MaskRcnn, RetinaNet
from eca_zoo.detection.networks.registry import DetectorArchitecture, register_detector
from eca_zoo.detection.run_lengths import decode
from eca_zoo.errors import InputError
from eca_zoo.models.fast_blocks import EarlyGate, FilterGate
from eca_zoo.weights.convert.recognition import recognise
from tests.spawning import run_python

SYSTEMS = ['fasterrcnn', 'maskrcnn', 'retinanet']


def small(system='maskrcnn', **options):
    """A detector with random weights that finds something in every image."""
    torch.manual_seed(0)
    arguments = {'backbone': 'test_eca_resnet', 'num_classes': 3, 'channels': 16, 'hidden': 32, 'min_size': 96,
                 'max_size': 160, 'score_threshold': 0.005, 'detections_per_image': 8, **options}  # fmt: skip
    return create_detector(system, **arguments).eval()


def images(count=2):
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, 60 + 20 * i, 90 - 10 * i, generator=generator) for i in range(count)]


def same(one, other, tolerance=0.0):
    assert one.keys() == other.keys()
    assert one['labels'].tolist() == other['labels'].tolist()
    for key in ('boxes', 'scores'):
        assert torch.allclose(one[key].float(), other[key].float(), rtol=0, atol=tolerance)
    return one.get('masks') == other.get('masks')


@pytest.mark.parametrize('system', SYSTEMS)
@torch.inference_mode()
def test_a_result_does_not_depend_on_what_else_is_in_the_batch(system):
    detector = small(system)
    together = detector([*images(3), images()[0]])
    for image, found in zip(images(3), together, strict=False):
        assert same(detector([image])[0], found)
        assert 0 < len(found['boxes']) <= 8
        assert found['scores'].diff().max() <= 0
        assert set(found['labels'].tolist()) <= set(detector.categories)
        height, width = image.shape[1:]
        assert found['boxes'].min() >= 0
        # A last pixel lies in the image; it may do so by a part.
        assert found['boxes'][:, 2].max() < width + 1
        assert found['boxes'][:, 3].max() < height + 1
    assert same(together[3], together[0])
    assert detector([]) == []


@torch.inference_mode()
def test_masks_come_as_codes_or_as_tensors():
    detector = small()
    (codes,), (dense,) = detector(images(1)), detector(images(1), masks='dense')
    assert dense['masks'].dtype == torch.bool
    assert dense['masks'].shape == (len(codes['masks']), 60, 90)
    for code, mask in zip(codes['masks'], dense['masks'], strict=True):
        assert np.array_equal(decode(code), mask.numpy())
    with pytest.raises(InputError, match="masks 'boxes' is unknown; use one of codes, dense"):
        detector(images(1), masks='boxes')


@pytest.mark.parametrize('system', SYSTEMS)
@torch.inference_mode()
def test_an_image_in_which_nothing_is_found_has_empty_results(system):
    detector = small(system, score_threshold=1.0)
    for masks in ('codes', 'dense'):
        (found,) = detector(images(1), masks=masks)
        assert (found['boxes'].shape, found['labels'].shape, found['scores'].shape) == ((0, 4), (0,), (0,))
        if detector.has_masks:
            assert len(found['masks']) == 0


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        (torch.rand(1, 3, 8, 8), r'a detector takes a list of images \(3, height, width\), not Tensor'),
        ([torch.rand(1, 8, 8)], r'an image is a tensor \(3, height, width\) in \[0, 1\], not shape \(1, 8, 8\)'),
        ([torch.rand(3, 8, 8) * 255], r'an image has values in \[0, 1\], not from .*; the detector normalises it'),
        ([torch.full((3, 8, 8), float('nan'))], r'not from nan to nan'),
        ([torch.ones(3, 8, 8, dtype=torch.long)], 'uint8 or floating-point'),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(given, said):
    with pytest.raises(InputError, match=said):
        small('retinanet')(given)


@torch.inference_mode()
def test_files_and_pillow_images_are_read_as_they_are_stored(tmp_path):
    pixels = (images(1)[0] * 255).to(torch.uint8)
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    path = tmp_path / 'image.png'
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    image.save(path, exif=exif)
    detector = small()
    detector.train()
    expected = detector.eval()([pixels])[0]
    detector.train()
    for given in (path, str(path), image, [path, image], [pixels]):
        found = detector.predict(given)
        assert all(same(one, expected) for one in found)
        assert detector.training
    grey = Image.fromarray(pixels[0].numpy())
    deep = Image.fromarray(pixels[0].numpy().astype(np.uint16) * 256)
    three = pixels[:1].expand(3, -1, -1).contiguous()
    assert same(detector.predict(grey)[0], detector.predict(three)[0])
    assert same(detector.predict(deep)[0], detector.predict(three)[0])
    assert len(detector.predict(image.convert('CMYK'))) == 1
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r'image\.png: the image cannot be read'):
        detector.predict(path)
    path.write_text('no image')
    with pytest.raises(InputError, match=r'image\.png: no image that Pillow can read'):
        detector.predict([path])
    with pytest.raises(InputError, match=r'missing\.png: the image cannot be read: No such file'):
        detector.predict(tmp_path / 'missing.png')


@pytest.mark.parametrize('backbone', ['resnet18', 'convnext_atto', 'mobilenetv3_small_050', 'vgg11'])
def test_any_network_of_timm_with_the_strides_is_a_backbone(backbone):
    for system, strides in (('fasterrcnn', (4, 8, 16, 32, 64)), ('retinanet', (8, 16, 32, 64, 128))):
        with torch.device('meta'):
            detector = create_detector(system, backbone=backbone, num_classes=2)
            maps = detector.backbone.eval()(torch.empty(1, 3, 256, 256))
        assert detector.backbone.strides == strides
        assert [tuple(level.shape) for level in maps] == [(1, 256, 256 // stride, 256 // stride) for stride in strides]
        trained = {name for name, parameter in detector.backbone.body.named_parameters() if parameter.requires_grad}
        assert 0 < len(trained) < len(list(detector.backbone.body.parameters()))


class Pyramid(nn.Module):
    """A user's own extractor, with the channels last."""

    output_fmt = 'NHWC'

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(nn.Conv2d(i, o, 4, 4 if i == 3 else 2, 0 if i == 3 else 1) for i, o in
                                    ((3, 8), (8, 12), (12, 16), (16, 24)))  # fmt: skip
        info = [{'num_chs': c, 'reduction': r, 'module': f'stages.{i}'} for i, (c, r) in
                enumerate(((8, 4), (12, 8), (16, 16), (24, 32)))]  # fmt: skip
        self.feature_info = timm.models.FeatureInfo(info, (0, 1, 2, 3))

    def forward(self, x):
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x.permute(0, 2, 3, 1))
        return features


@torch.inference_mode()
def test_a_users_own_module_is_a_backbone():
    for system in SYSTEMS:
        assert len(small(system, backbone=Pyramid())(images(1))) == 1
    detector = small(backbone=Pyramid(), trainable_stages=2)
    trained = {name for name, parameter in detector.backbone.body.named_parameters() if parameter.requires_grad}
    assert trained == {f'stages.{i}.{kind}' for i in (2, 3) for kind in ('weight', 'bias')}
    with pytest.raises(InputError, match=r'the backbone Sequential has no feature_info with channels\(\) and reduct'):
        small(backbone=nn.Sequential())


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ({'name': 'maskrcnn', 'backbone': 'vit_tiny_patch16_224'},
         'vit_tiny_patch16_224 has features at strides 16; a pyramid needs 4, 8, 16, 32, of which it lacks 4, 8, 32'),
        ({'name': 'maskrcnn', 'backbone': 'resnet5'}, "backbone 'resnet5' is no network that timm gives features of"),
        ({'name': 'maskrcnn'}, 'maskrcnn needs a backbone'),
        ({'name': 'maskrcnn', 'backbone': 'resnet18', 'pretrained': True}, 'maskrcnn has no checkpoint'),
        ({'name': 'maskrcnn_eca_resnet50'}, 'no detector is called .*; the nearest are maskrcnn_eca_resnet50_fpn'),
        ({'name': 'maskrcnn_eca_resnet50_fpn', 'backbone': 'resnet50'}, "for another backbone use 'maskrcnn'"),
        ({'name': 'maskrcnn_eca_resnet50_fpn.nothing'}, 'no checkpoint is called'),
        ({'name': 'maskrcnn', 'backbone': 'resnet18', 'score_treshold': 1}, "no option 'score_treshold'; the nearest"),
        ({'name': 'maskrcnn', 'backbone': 'resnet18', 'score_threshold': 5}, 'score_threshold is from 0 to 1, not 5'),
        ({'name': 'maskrcnn', 'backbone': 'resnet18', 'min_size': 0}, 'min_size is at least 1'),
        ({'name': 'maskrcnn', 'backbone': 'resnet18', 'num_classes': 0}, 'num_classes is at least 1, not 0'),
        ({'name': 'maskrcnn', 'backbone': 'resnet18', 'trainable_stages': 6}, 'trainable_stages is from 0 to 5, not 6'),
        ({'name': 'maskrcnn', 'backbone': 'resnet18', 'anchor_sizes': ((8,),)}, 'anchor_sizes has 4 or 5 tuples'),
        ({'name': 'retinanet', 'backbone': 'resnet18', 'anchor_sizes': ((8,),) * 4}, 'anchor_sizes has 5 tuples'),
        ({'name': 'maskrcnn', 'backbone': 'resnet18', 'categories': {1: 'a'}, 'num_classes': 2}, 'categories names 1'),
        ({'name': 'retinanet', 'backbone': 'resnet18', 'categories': {'a': 1}}, 'from category ids, which are integer'),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_said_in_one_line(arguments, said):
    with torch.device('meta'), pytest.raises(InputError, match=said) as caught:
        create_detector(**arguments)
    assert '\n' not in str(caught.value)


def test_categories_sizes_and_anchors_are_arguments():
    detector = small(
        categories={7: 'cat', 3: 'dog'}, num_classes=None, anchor_sizes=((12.0,), (20.0,), (32.0,), (48.0,)),
        min_size=64, max_size=80,
    )  # fmt: skip
    assert detector.categories == {7: 'cat', 3: 'dog'}
    assert detector.backbone.strides == (4, 8, 16, 32)
    assert detector.transform.geometry(100, 200).size == (40, 80)
    with torch.inference_mode():
        assert set(detector(images(1))[0]['labels'].tolist()) <= {3, 7}


@pytest.mark.parametrize(('stages', 'trained'), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)])
def test_the_last_stages_of_the_backbone_are_trained(stages, trained):
    with torch.device('meta'):
        body = create_detector('retinanet', backbone='resnet18', trainable_stages=stages).backbone.body
    parts = [body.conv1, body.layer1, body.layer2, body.layer3, body.layer4]
    assert [all(p.requires_grad for p in part.parameters()) for part in parts] == [False] * (5 - trained) + [
        True
    ] * trained
    assert body.bn1.weight.requires_grad == (stages == 5)


@pytest.mark.parametrize('fixed', [True, False])
def test_norms_may_learn_their_statistics(fixed):
    detector = small('retinanet', fixed_statistics=fixed).train()
    assert detector.backbone.body.layer1[0].bn1.training != fixed
    assert detector.head.training


@torch.inference_mode()
def test_copies_pickles_and_state_dicts_find_the_same():
    detector = small()
    (expected,) = detector(images(1))
    other = small()
    nn.init.zeros_(other.roi_heads.box_predictor.cls_score.weight)
    other.load_state_dict(detector.state_dict())
    for one in (copy.deepcopy(detector), pickle.loads(pickle.dumps(detector)), other):
        assert same(one(images(1))[0], expected)


@torch.inference_mode()
def test_the_form_for_inference_finds_the_same():
    detector = small()
    form = eca_zoo.optimize_for_inference(detector)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in form.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in detector.modules())
    assert isinstance(form, MaskRcnn)
    same(form(images(1))[0], detector(images(1))[0], 1e-3)
    late = eca_zoo.optimize_for_inference(detector, widest_early_gate=0)
    kinds = [{type(module) for module in one.modules()} & {EarlyGate, FilterGate} for one in (form, late)]
    assert kinds == [{EarlyGate, FilterGate}, {FilterGate}]
    with pytest.raises(InputError, match='is in the form for inference already'):
        eca_zoo.optimize_for_inference(form)
    with pytest.raises(InputError, match='is in training mode'):
        eca_zoo.optimize_for_inference(small().train())


@torch.inference_mode()
def test_other_memory_formats_and_a_compiled_backbone_find_the_same():
    detector = small('fasterrcnn')
    (expected,) = detector(images(1))
    same(copy.deepcopy(detector).to(memory_format=torch.channels_last)(images(1))[0], expected, 1e-3)
    compiled = copy.deepcopy(detector)
    compiled.backbone.compile(backend='eager', fullgraph=True)
    same(compiled(images(1))[0], expected, 1e-3)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('system', SYSTEMS)
@torch.inference_mode()
def test_half_precision_decides_in_float32(system, dtype):
    detector = small(system)
    half = copy.deepcopy(detector).to(dtype)
    with torch.autocast('cpu', dtype):
        found = [*detector(images(1))]
    for one in (*found, *half(images(1))):
        assert one['boxes'].dtype == one['scores'].dtype == torch.float32
        assert len(one['boxes']) > 0


def test_a_registered_detector_is_made_recognised_and_counted():
    record = DetectorArchitecture(
        'tiny_maskrcnn', 'A tiny one', 'maskrcnn', 'test_eca_resnet', (3, 3, 5, 5),
        {'channels': 8, 'hidden': 16, 'min_size': 64},
    )  # fmt: skip
    register_detector(record)
    try:
        detector = torchvision.models.get_model('tiny_maskrcnn', num_classes=4, hidden=24)
        assert detector.roi_heads.box_head.fc7.out_features == 24
        assert detector.transform.shorter == 64
        found = recognise(create_detector('tiny_maskrcnn', num_classes=4).state_dict())
        assert (found.architecture, found.num_classes, found.kernel_sizes) == ('tiny_maskrcnn', 4, (3, 3, 5, 5))
        for wrong in (record, dataclasses.replace(record, name='Tiny'), dataclasses.replace(record, name='retinanet')):
            with pytest.raises(InputError, match='a detector is named with a-z, 0-9 and _ alone'):
                register_detector(wrong)
        with pytest.raises(InputError, match="system 'ssd' is unknown"):
            register_detector(dataclasses.replace(record, name='tiny_ssd', system='ssd'))
    finally:
        del registry._DETECTORS['tiny_maskrcnn']
        del torchvision.models._api.BUILTIN_MODELS['tiny_maskrcnn']


def test_torchvision_knows_the_detectors():
    assert set(list_detectors()) <= set(torchvision.models.list_models())
    with torch.device('meta'):
        detector = torchvision.models.get_model('retinanet_eca_resnet50_fpn', num_classes=4)
    assert isinstance(detector, RetinaNet)
    assert len(detector.categories) == 4
    with pytest.raises(InputError, match='needs conversion'):
        torchvision.models.get_model('retinanet_eca_resnet101_fpn', weights='DEFAULT')
    with pytest.raises(InputError, match='no checkpoint is called'):
        torchvision.models.get_model('retinanet_eca_resnet101_fpn', weights='mine')


def test_importing_the_package_imports_no_detector():
    code = 'import eca_zoo, sys; print([name for name in sys.modules if name.startswith("eca_zoo.detection.")])'
    output = run_python('-c', code, check=True).stdout
    assert output.strip() == "['eca_zoo.detection.torchvision_models']"
