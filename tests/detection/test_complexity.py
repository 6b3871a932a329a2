"""Parameters and FLOPs of the six systems, to the last digit of the authors' framework's count."""

import pytest
import torch

from eca_zoo.detection import create_detector, list_detectors
from eca_zoo.detection.complexity import detector_complexity
from eca_zoo.weights.manifest import packaged_manifest

# Trained parameters, and multiply-adds at 1280x800 as mmdetection v1 counts them.
COUNTS = {
    'fasterrcnn_eca_resnet50_fpn': (41_531_877, 207_181_949_620),
    'fasterrcnn_eca_resnet101_fpn': (60_524_088, 283_324_635_316),
    'maskrcnn_eca_resnet50_fpn': (44_175_424, 275_688_594_164),
    'maskrcnn_eca_resnet101_fpn': (63_167_625, 351_831_260_916),
    'retinanet_eca_resnet50_fpn': (37_743_423, 239_429_234_984),
    'retinanet_eca_resnet101_fpn': (56_735_624, 315_571_901_736),
}


@pytest.mark.parametrize('name', COUNTS)
def test_params_and_flops_are_the_published_ones(name):
    counts = detector_complexity(name)
    assert (counts.trained_params, counts.flops) == COUNTS[name]
    (tag,) = packaged_manifest().tags(name)
    reported = packaged_manifest().models[tag].reported
    assert round(counts.trained_params / 1e6, 2) == reported.params_m
    assert round(counts.flops / 1e9, 2) == reported.gflops


def test_every_detector_is_counted():
    assert [name for name in list_detectors() if not name.startswith('test_')] == list(COUNTS)


@pytest.mark.parametrize(('system', 'giga'), [('fasterrcnn', 207.07), ('maskrcnn', 275.58), ('retinanet', 239.32)])
def test_the_plain_backbone_counts_as_published(system, giga):
    assert round(detector_complexity(system, backbone='resnet50').flops / 1e9, 2) == giga


def test_true_multiply_adds_count_a_transposed_convolution_by_its_input():
    """Mask R-CNN has four convolutions, one transposed and one of 1x1 more than Faster R-CNN, for 100 RoIs of 14x14."""
    kwargs = {'backbone': 'resnet18'}
    masks = detector_complexity('maskrcnn', **kwargs).macs - detector_complexity('fasterrcnn', **kwargs).macs
    convolutions = 4 * 100 * 14 * 14 * 9 * 256 * 256
    transposed = 100 * 14 * 14 * 4 * 256 * 256
    logits = 100 * 28 * 28 * 256 * 81
    assert masks == convolutions + transposed + logits


def test_a_detector_is_left_as_it_was():
    detector = create_detector('retinanet', backbone='test_eca_resnet', channels=16, num_classes=2)
    before = {key: tensor.clone() for key, tensor in detector.state_dict().items()}
    counts = detector_complexity(detector, (64, 64))
    assert counts.params == sum(parameter.numel() for parameter in detector.parameters())
    assert all(torch.equal(tensor, before[key]) for key, tensor in detector.state_dict().items())
    assert detector.training
    assert not any(module._forward_hooks for module in detector.modules())
