"""The three systems on ECA-Net50 find what the authors' framework finds: same boxes, classes, order and mask pixels."""

import numpy as np
import pytest
import torch

from eca_zoo.detection import create_detector
from eca_zoo.detection.networks.transform import Geometry
from eca_zoo.weights.convert.key_maps import rename_keys, retinanet_key, two_stage_key
from tests.detection.reference_checkpoints import (
    DATA,
    ORIGINAL_SIZE,
    RESIZED_SIZE,
    SCALE,
    golden_input,
    reference_state_dict,
)

GOLDEN = np.load(DATA / 'golden_detections.npz')
NAMES = ['fasterrcnn_eca_resnet50_fpn', 'maskrcnn_eca_resnet50_fpn', 'retinanet_eca_resnet50_fpn']
GEOMETRY = Geometry(ORIGINAL_SIZE, RESIZED_SIZE, SCALE)


@pytest.fixture(scope='module', params=NAMES)
def stand_in(request):
    """A name and its detector with the values of the stand-in checkpoint."""
    detector = create_detector(request.param).eval()
    rename_key = retinanet_key if request.param.startswith('retinanet') else two_stage_key
    detector.load_state_dict(rename_keys(reference_state_dict(request.param), rename_key))
    return request.param, detector


@pytest.mark.parametrize(
    ('dtype', 'pixels', 'score'), [(torch.float32, 1e-3, 1e-5), (torch.float64, 1e-6, 1e-9)], ids=str
)
def test_every_detection_is_the_one_of_the_authors_framework(stand_in, dtype, pixels, score):
    name, detector = stand_in
    with torch.inference_mode():
        found = detector.to(dtype).detect_normalised(golden_input().to(dtype), GEOMETRY, masks='dense')
    labels = [sorted(detector.categories).index(category) for category in found['labels'].tolist()]
    assert labels == GOLDEN[f'{name}.labels'].tolist()
    # The framework's boxes end with their last pixel.
    boxes = found['boxes'].double().numpy() - [0, 0, 1, 1]
    assert np.abs(boxes - GOLDEN[f'{name}.boxes']).max() < pixels
    assert np.abs(found['scores'].double().numpy() - GOLDEN[f'{name}.scores']).max() < score
    assert ('masks' in found) == name.startswith('mask')
    if 'masks' in found:
        expected = np.unpackbits(GOLDEN[f'{name}.masks'], axis=1)[:, : np.prod(ORIGINAL_SIZE)]
        assert (found['masks'].numpy().reshape(len(expected), -1) != expected).sum() == 0
