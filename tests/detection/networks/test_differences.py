"""What the authors' framework does otherwise than torchvision's detectors, by hand, a test each."""

import numpy as np
import pytest
import torch
from torch import nn

from eca_zoo.detection import create_detector
from eca_zoo.detection.networks.anchors import Anchors
from eca_zoo.detection.networks.boxes import best_apart, clip, decode, encode, to_original, to_resized
from eca_zoo.detection.networks.masks import paste_codes, paste_dense
from eca_zoo.detection.networks.proposals import ProposalSettings, select_proposals
from eca_zoo.detection.networks.pyramid import TwoMoreConvolved
from eca_zoo.detection.networks.retinanet import select_from_anchors
from eca_zoo.detection.networks.roi_heads import DetectionSettings, RoiPool, select_detections
from eca_zoo.detection.networks.transform import DetectionTransform, Geometry, resize_bytes
from eca_zoo.detection.run_lengths import decode as decode_mask
from tests.detection.reference_checkpoints import DATA

ANCHORS = Anchors((4, 8), ((32.0,), (64.0,)), (0.5, 1.0))
SQUARE = Anchors((8,), ((8.0,),), (1.0,))


def test_anchors_are_centred_on_their_pixels_and_rounded():
    # Centre 1.5; 32 / sqrt(0.5) = 45.25 wide and 22.63 high: 1.5 - 22.13 = -20.63, 1.5 - 10.81 = -9.31, ...
    assert ANCHORS.cell(0).tolist() == [[-21, -9, 25, 13], [-14, -14, 18, 18]]


def test_anchors_are_one_stride_apart_whatever_the_size_of_the_image():
    published = create_meta('fasterrcnn_eca_resnet50_fpn').rpn.anchors
    assert published.strides == (4, 8, 16, 32, 64)
    # At a height of 800 the coarsest map has 13 rows, and 800 // 13 = 61.
    rows = published.grid(4, (13, 1), torch.device('cpu'))[:: published.per_place, 1]
    assert rows.diff().tolist() == [64.0] * 12
    grid = ANCHORS.grid(1, (2, 3), torch.device('cpu'))
    assert torch.equal(grid[9], ANCHORS.cell(1)[1].float() + torch.tensor([8.0, 8, 8, 8]))
    assert torch.equal(ANCHORS.at(1, torch.tensor([9]), 3)[0], grid[9])


def test_changes_of_sizes_are_bounded_on_both_sides():
    box = torch.tensor([[0.0, 0, 125, 250]])
    small, large = decode(torch.tensor([[0.0, 0, -9, -9], [0.0, 0, 9, 9]]), box.repeat(2, 1), (1, 1, 1, 1))
    assert (small[2:] - small[:2]).tolist() == pytest.approx([2, 4])
    assert (large[2:] - large[:2]).tolist() == pytest.approx([125 * 62.5, 250 * 62.5])


def test_boxes_are_coded_by_centre_and_logarithm_of_the_size():
    boxes, targets = torch.tensor([[10.0, 20, 30, 60]]), torch.tensor([[14.0, 20, 34, 40]])
    deltas = encode(targets, boxes, (10, 10, 5, 5))
    assert deltas[0].tolist() == pytest.approx([10 * 4 / 20, -10 * 10 / 40, 0, -5 * 0.693147], rel=1e-5)
    assert torch.allclose(decode(deltas, boxes, (10, 10, 5, 5)), targets)


def test_a_clipped_box_keeps_a_pixel_and_small_proposals_stay():
    outside = torch.tensor([[-5.0, -5, -2, -3], [25, 12, 30, 15], [2, 3, 4, 5]])
    assert clip(outside, (10, 20)).tolist() == [[0, 0, 1, 1], [19, 9, 20, 10], [2, 3, 4, 5]]
    # The anchor at (0, 0) becomes 0.128 pixels wide, at (40, 40) in an image of 64 pixels.
    deltas = torch.tensor([[5.0, 5, -9, -9]])
    proposals = select_proposals([torch.zeros(1)], [deltas], [1], (64, 64), SQUARE, ProposalSettings())
    assert (proposals[0, 2:] - proposals[0, :2]).tolist() == pytest.approx([0.128, 0.128], abs=1e-5)


def test_proposals_are_the_best_of_each_level_and_then_the_best_of_all():
    anchors = Anchors((8, 16), ((8.0,), (16.0,)), (1.0,))
    logits = [torch.tensor([5.0, 1, 4, 3]), torch.tensor([0.0, 2.0])]
    deltas = [torch.zeros(4, 4), torch.zeros(2, 4)]
    # Two a level: 8-pixel boxes at columns 0 and 2, then those of the other level, which overlap with none of its own.
    both = select_proposals(logits, deltas, [4, 2], (32, 32), anchors, ProposalSettings(2, 3))
    assert both.tolist() == [[0, 0, 8, 8], [16, 0, 24, 8], [16, 0, 32, 16]]
    # The same box in two levels suppresses nothing.
    twice = Anchors((8, 16), ((8.0,), (8.0,)), (1.0,))
    shift = torch.tensor([[-0.5, -0.5, 0, 0]])
    same = select_proposals([torch.ones(1), torch.zeros(1)], [torch.zeros(1, 4), shift], [1, 1], (32, 32), twice,
                            ProposalSettings())  # fmt: skip
    assert same.tolist() == [[0, 0, 8, 8], [0, 0, 8, 8]]


def test_features_are_pooled_between_the_corners_without_a_least_size():
    pool = RoiPool(7, (4,), 56)
    columns = torch.arange(16.0).expand(1, 1, 16, 16)
    # 28 pixels at stride 4 are 7 places: bin i begins at place 2 + i and its samples' mean lies half a place further.
    wide = pool([columns], [torch.tensor([[8.0, 8, 36, 36]])])
    assert wide[0, 0, 0].tolist() == pytest.approx([2.5 + i for i in range(7)])
    # 2 pixels are half a place, which torchvision's first RoIAlign would make a whole one.
    narrow = pool([columns], [torch.tensor([[8.0, 8, 10, 10]])])
    assert narrow[0, 0, 0].tolist() == pytest.approx([2 + (i + 0.5) / 14 for i in range(7)], rel=1e-6)


def test_boxes_are_pooled_from_the_level_of_their_size():
    sides = torch.tensor([8.0, 111.9, 112, 223, 224, 447, 448, 2000])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], dim=1)
    assert RoiPool(7, (4, 8, 16, 32), 56).levels(boxes).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_boxes_go_back_to_the_image_by_one_factor_before_they_suppress_each_other():
    box = torch.tensor([[10.0, 20, 31, 41]])
    assert to_original(box, 2.0).tolist() == [[5, 10, 16, 21]]
    assert torch.equal(to_resized(to_original(box, 2.0), 2.0), box)
    # Boxes of 10 and 11 pixels in one place overlap by 100 / 121 = 0.83; in the image before they are 1.9 and 2 pixels
    # wide and overlap by 0.90.
    found = select_detections(
        torch.tensor([[0.0, 3], [0, 2]]), torch.zeros(2, 2, 4), torch.tensor([[0.0, 0, 10, 10], [0, 0, 11, 11]]),
        Geometry((100, 100), (1000, 1000), 10.0), DetectionSettings(nms_threshold=0.85),
    )  # fmt: skip
    assert found['boxes'].tolist() == [[0, 0, pytest.approx(1.9), pytest.approx(1.9)]]


def test_detections_have_a_score_above_the_threshold_and_are_suppressed_within_their_class():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60], [0, 0, 10, 8]])
    scores, labels = torch.tensor([0.5, 0.9, 0.9, 0.3]), torch.tensor([0, 0, 1, 1])
    assert best_apart(boxes, scores, labels, 0.5, 100).tolist() == [1, 2, 3]
    assert best_apart(boxes, scores, labels, 0.5, 2).tolist() == [1, 2]
    assert best_apart(boxes[:0], scores[:0], labels[:0], 0.5, 2).tolist() == []


def test_retinanet_looks_at_the_best_thousand_anchors_with_all_their_classes():
    count = 1100
    logits = torch.zeros(count, 2)
    logits[:, 1] = -9
    logits[0] = torch.tensor([1.0, -2.7])  # 0.73 and 0.063
    logits[7, 0] = -1  # 0.27, the worst of all anchors
    anchors = Anchors((8,), ((8.0,),), (1.0,))
    geometry = Geometry((8, 8 * count), (8, 8 * count), 1.0)
    found = select_from_anchors(
        [logits], [torch.zeros(count, 4)], [count], geometry, anchors, DetectionSettings(count=2000)
    )  # fmt: skip
    assert len(found['boxes']) == 1000 + 1
    assert found['labels'].tolist().count(1) == 1
    assert found['boxes'][found['labels'] == 1].tolist() == [[0, 0, 8, 8]]
    assert found['scores'].min() > 0.06


def test_retinanets_further_levels_read_the_body_and_have_no_relu_between_them():
    block = TwoMoreConvolved(4, 4)
    for conv in (block.p6, block.p7):
        nn.init.dirac_(conv.weight)
    body, pyramid = -torch.ones(1, 4, 8, 8), torch.full((1, 4, 8, 8), 5.0)
    results, names = block([pyramid], [body], ['2'])
    assert names == ['2', 'p6', 'p7']
    assert results[1].unique().tolist() == [-1]
    assert results[2].unique().tolist() == [-1]


def test_masks_fill_the_whole_pixels_of_their_box():
    ones = torch.ones(1, 28, 28)
    box = torch.tensor([[1.7, 2.2, 5.9, 4.1]])  # from pixel 1 to pixel 4 = int(5.9 - 1), from 2 to 3
    expected = torch.zeros(8, 10, dtype=torch.bool)
    expected[2:4, 1:5] = True
    dense = paste_dense(ones, box, (8, 10))
    assert torch.equal(dense[0], expected)
    (code,) = paste_codes(ones, box, (8, 10))
    assert np.array_equal(decode_mask(code), expected.numpy())
    # A map whose left half is 0.6: four columns of a box of eight, none beyond its border.
    half = torch.zeros(1, 28, 28)
    half[..., :14] = 0.6
    dense = paste_dense(half, torch.tensor([[2.0, 0, 10, 8]]), (8, 12))
    assert dense[0, 0].int().tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]


def test_sizes_are_rounded_to_the_nearest():
    geometry = DetectionTransform(256, 1000).geometry(300, 452)
    assert geometry == Geometry((300, 452), (256, 386), 256 / 300)  # 385.7, which torchvision makes 385
    assert DetectionTransform().geometry(480, 640).size == (800, 1067)
    assert DetectionTransform().geometry(427, 640) == Geometry((427, 640), (800, 1199), 800 / 427)
    assert DetectionTransform().geometry(200, 1000).size == (267, 1333)  # the longer side decides


def test_bytes_are_resized_as_opencv_does_it():
    golden = np.load(DATA / 'golden_resize.npz')
    image = torch.from_numpy(golden['image']).permute(2, 0, 1)
    for key in set(golden) - {'image'}:
        height, width = map(int, key.split('x'))
        resized = resize_bytes(image, (height, width)).permute(1, 2, 0).numpy().astype(int)
        difference = np.abs(resized - golden[key])
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 0.0025
    assert resize_bytes(image, (75, 113)) is image


def test_an_image_is_normalised_and_then_padded_with_zeros():
    transform = DetectionTransform(40, 100)
    resized = transform.resize(torch.full((3, 40, 50), 128 / 255))
    normalised = transform.normalise(resized.pixels, torch.float64)
    batch = transform.batch([normalised])
    assert batch.shape == (1, 3, 64, 64)
    assert batch[0, :, 0, 0].tolist() == pytest.approx(
        [(128 - 123.675) / 58.395, (128 - 116.28) / 57.12, (128 - 103.53) / 57.375]
    )
    assert batch[0, :, 40:].abs().max() == batch[0, :, :, 50:].abs().max() == 0


def test_labels_are_the_sorted_ids_of_coco():
    categories = create_meta('retinanet_eca_resnet50_fpn').categories
    assert list(categories) == sorted(categories)
    assert (len(categories), min(categories), max(categories)) == (80, 1, 90)
    assert [categories[i] for i in (1, 11, 13, 90)] == ['person', 'fire hydrant', 'stop sign', 'toothbrush']
    assert not {12, 26, 29, 30, 45, 66, 68, 69, 71, 83} & set(categories)


def create_meta(name):
    with torch.device('meta'):
        return create_detector(name)
