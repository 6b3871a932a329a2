"""One step's losses, against values worked out by hand."""

import math

import pytest
import torch

from eca_zoo.detection import create_detector
from eca_zoo.detection.losses.matching import (
    BACKGROUND,
    NEITHER,
    PROPOSALS,
    RETINANET,
    SECOND_STAGE,
    Thresholds,
    match,
    sample,
)
from eca_zoo.detection.losses.retinanet import retinanet_losses
from eca_zoo.detection.losses.targets import Target, mask_targets, prepare_targets
from eca_zoo.detection.losses.two_stage import (
    SampledProposals,
    box_losses,
    mask_loss,
    proposal_losses,
    sample_proposals,
)
from eca_zoo.detection.networks.transform import Geometry
from eca_zoo.errors import InputError

LN2 = math.log(2)
SQUARE = [0.0, 0, 10, 10]
NOTHING = torch.zeros(0, 4)


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def target(*rows, labels=None, masks=None):
    return Target(boxes(*rows), torch.tensor(labels or [0] * len(rows), dtype=torch.long), masks)


@pytest.mark.parametrize(
    ('candidates', 'objects', 'thresholds', 'expected'),
    [
        # Overlaps of 1, 0.6, 0.4 and 0.2.
        ([SQUARE, [0, 0, 10, 6], [0, 0, 10, 4], [0, 0, 10, 2]], [SQUARE], PROPOSALS, [0, NEITHER, NEITHER, BACKGROUND]),
        ([SQUARE, [0, 0, 10, 6], [0, 0, 10, 4], [0, 0, 10, 2]], [SQUARE], SECOND_STAGE, [0, 0, BACKGROUND, BACKGROUND]),
        # Low quality: two that tie for the best with 0.4 both get it, from the least overlap on.
        ([[0, 0, 10, 4], [0, 6, 10, 10], [0, 0, 10, 2]], [SQUARE], PROPOSALS, [0, 0, BACKGROUND]),
        ([[0, 0, 10, 2], [0, 8, 10, 10]], [SQUARE], PROPOSALS, [BACKGROUND, BACKGROUND]),
        ([[0, 0, 10, 2], [0, 8, 10, 10]], [SQUARE], RETINANET, [0, 0]),
        # The best of the second object goes to it, though it overlaps with the first by 0.8 and with it by 0.64.
        ([[0, 0, 10, 8], SQUARE], [SQUARE, [0, 0, 8, 8]], SECOND_STAGE, [1, 0]),
        # Of two objects for which it is the best, the last one.
        ([SQUARE], [SQUARE, SQUARE], SECOND_STAGE, [1]),
        # An object that overlaps with nothing, and none.
        ([[20, 20, 30, 30]], [SQUARE], RETINANET, [BACKGROUND]),
        ([SQUARE], [], PROPOSALS, [BACKGROUND]),
        ([], [SQUARE], PROPOSALS, []),
    ],
)
def test_matches_are_those_of_the_authors_framework(candidates, objects, thresholds, expected):
    assert match(boxes(*candidates), boxes(*objects), thresholds).tolist() == expected


def test_a_threshold_belongs_to_what_is_above_it():
    half = boxes([0, 0, 10, 5], SQUARE)
    assert match(half, boxes(SQUARE), Thresholds(0.5, 0.5, 0.9)).tolist() == [0, 0]
    assert match(half, boxes(SQUARE), Thresholds(0.7, 0.5, 0.9)).tolist() == [NEITHER, 0]


def test_samples_are_filled_with_negatives_and_drawn_by_the_seed():
    matches = torch.tensor([0, 1, 2, BACKGROUND, BACKGROUND, NEITHER, BACKGROUND])
    positive, negative = sample(matches, 4, 0.25)
    assert (len(positive), len(negative)) == (1, 3)
    assert set(positive.tolist()) <= {0, 1, 2}
    assert negative.tolist() == [3, 4, 6]
    positive, negative = sample(matches, 100, 0.5)
    assert (positive.tolist(), negative.tolist()) == ([0, 1, 2], [3, 4, 6])
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(sample(torch.full((1000,), BACKGROUND), 10, 0.5)[1].tolist())
    assert drawn[0] == drawn[1] != sorted(drawn[0])


def test_the_proposal_loss_leaves_out_anchors_that_cross_the_border():
    anchors = boxes(SQUARE, [20, 20, 30, 30], [-1, 0, 9, 10], [23, 0, 33, 10], [22, 22, 32, 32])
    logits, deltas = torch.zeros(2, 5), torch.zeros(2, 5, 4)
    logits[:, 2:4] = 50  # of those that are left out
    deltas[0, 0] = torch.tensor([0.5, 0, 0.1, 0])
    targets = [target(SQUARE), target()]
    losses = proposal_losses(logits, deltas, anchors, targets, [(32, 32), (32, 32)])
    # One positive and two negative anchors, then none, which counts as one, and three: 1 + 2 + 1 + 3.
    assert losses['loss_objectness'].item() == pytest.approx(6 * LN2 / 7)
    # |0.5| - 1/18, and 0.1^2 * 9 / 2.
    assert losses['loss_rpn_box_reg'].item() == pytest.approx((0.5 - 1 / 18 + 0.045) / 7)


def test_objects_are_proposals_too_and_the_positive_ones_come_first():
    proposals = boxes([40, 40, 50, 50], [0, 0, 10, 9])
    sampled = sample_proposals(proposals, target(SQUARE, [20, 20, 30, 30]))
    assert sampled.matches.tolist() == [0, 1, 0]
    assert sampled.boxes.tolist() == [SQUARE, [20, 20, 30, 30], [0, 0, 10, 9], [40, 40, 50, 50]]
    empty = sample_proposals(proposals, target())
    assert (len(empty.matches), len(empty.boxes)) == (0, 2)


def test_the_box_loss_is_quadratic_up_to_one_and_a_mean_over_all_samples():
    sampled = [
        SampledProposals(boxes(SQUARE, [5, 5, 9, 9]), torch.tensor([0])),
        SampledProposals(NOTHING, torch.zeros(0).long()),
    ]
    targets = [target(SQUARE, labels=[1]), target()]
    logits, deltas = torch.zeros(2, 3), torch.full((2, 3, 4), 9.0)
    deltas[0, 2] = torch.tensor([0.5, 0, 0, 2])  # of class 1, after background and class 0
    losses = box_losses(logits, deltas, sampled, targets)
    assert losses['loss_classifier'].item() == pytest.approx(math.log(3))
    assert losses['loss_box_reg'].item() == pytest.approx((0.125 + 1.5) / 2)
    logits[0, 2] = logits[1, 0] = 50
    assert box_losses(logits, deltas, sampled, targets)['loss_classifier'].item() == pytest.approx(0, abs=1e-6)


def test_masks_are_compared_under_the_whole_pixels_of_the_box():
    mask = torch.zeros(1, 40, 60, dtype=torch.uint8)
    mask[:, :, 20:34] = 1
    # From pixel 20 to 47 = int(48.9 - 1): its left half is inside.
    aims = mask_targets(mask, torch.tensor([0]), boxes([20.9, 5.9, 48.9, 33.9]))
    assert aims[0].sum(1).tolist() == [14.0] * 28
    assert aims[0, 0, :14].tolist() == [1.0] * 14
    # Enlarged fourfold, an edge in bytes falls between two values.
    small = mask_targets(mask, torch.tensor([0]), boxes([17, 0, 24, 7]))
    assert small[0, 0].tolist() == [0.0] * 12 + [1.0] * 16
    sampled = [SampledProposals(boxes([20, 5, 48, 33], [0, 0, 4, 4]), torch.tensor([0]))]
    loss = mask_loss(torch.zeros(1, 28, 28), sampled, [target([20, 0, 34, 40], masks=mask)])
    assert loss['loss_mask'].item() == pytest.approx(LN2)


def test_retinanets_loss_is_focal_over_what_is_not_between_the_thresholds():
    anchors = boxes(SQUARE, [0, 0, 10, 4.5], [20, 20, 30, 30], [40, 40, 50, 50])
    logits, deltas = torch.zeros(2, 4, 2), torch.full((2, 4, 4), 7.0)
    deltas[0, 0] = torch.tensor([0.05, 0, 0, -1])
    valid = torch.tensor([True, True, True, False])
    losses = retinanet_losses(logits, deltas, anchors, [target(SQUARE, labels=[1]), target()], [valid, valid])
    # At a probability of one half: 0.25 / 4 ln 2 for a class that is there, 0.75 / 4 ln 2 for one that is not. In the
    # first image one anchor has a class and one is background, in the second three are; the latter counts as one.
    assert losses['classification'].item() == pytest.approx((0.0625 + 3 * 0.1875 + 6 * 0.1875) * LN2 / 2)
    assert losses['bbox_regression'].item() == pytest.approx((0.05**2 / 0.22 + 1 - 0.055) / 2)


def test_targets_are_taken_to_the_resized_image_without_crowds():
    raw = {
        'boxes': boxes([0, 0, 10, 20], [4, 4, 8, 8]), 'labels': torch.tensor([90, 1]), 'iscrowd': torch.tensor([0, 1]),
        'masks': torch.stack([torch.eye(20), torch.ones(20, 20)]),
    }  # fmt: skip
    (prepared,) = prepare_targets([raw], [Geometry((20, 20), (40, 40), 2.0)], [1, 5, 90], True, torch.device('cpu'))
    assert prepared.boxes.tolist() == [[0, 0, 19, 39]]  # from pixel 0 to 9 * 2 and 19 * 2
    assert prepared.labels.tolist() == [2]
    assert prepared.masks.shape == (1, 40, 40)
    assert prepared.masks[0, :4, :4].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'boxes': boxes([4, 4, 4, 8])}, r'targets\[0\]: box 0, \[4.0, 4.0, 4.0, 8.0\], has no area or lies outside'),
        ({'boxes': boxes([4, 4, 21, 8])}, 'has no area or lies outside the image of 20x20'),
        ({'boxes': torch.tensor([[float('nan')] * 4])}, 'has no area or lies outside'),
        ({'boxes': torch.ones(1, 4, dtype=torch.long)}, 'boxes are floating-point'),
        ({'labels': torch.tensor([2])}, r'knows no category 2; its categories are \[1, 5\]'),
        ({'labels': torch.tensor([1, 1])}, r'it has 1 boxes and labels of shape \(2,\)'),
        ({'masks': None}, "it has no tensor 'masks'"),
        ({'masks': torch.ones(1, 10, 10)}, r'masks have the shape \(1, 10, 10\) instead of \(1, 20, 20\)'),
    ],
)
def test_wrong_targets_are_named(changes, said):
    raw = {'boxes': boxes(SQUARE), 'labels': torch.tensor([1]), 'masks': torch.ones(1, 20, 20), **changes}
    with pytest.raises(InputError, match=said):
        prepare_targets([raw], [Geometry((20, 20), (40, 40), 2.0)], [1, 5], True, torch.device('cpu'))
    with pytest.raises(InputError, match='one for each of 1 images, not none'):
        prepare_targets(None, [Geometry((20, 20), (40, 40), 2.0)], [1, 5], True, torch.device('cpu'))


@pytest.mark.parametrize('system', ['fasterrcnn', 'maskrcnn', 'retinanet'])
def test_a_step_trains_what_is_not_frozen_and_keeps_the_statistics(system):
    detector = create_detector(system, backbone='test_eca_resnet', num_classes=3, channels=16, hidden=32, min_size=96)
    before = {key: value.clone() for key, value in detector.backbone.body.named_buffers()}
    images = [torch.rand(3, 60, 90), torch.rand(3, 90, 50)]
    targets = [
        {'boxes': boxes(SQUARE, [20, 20, 70, 50]), 'labels': torch.tensor([3, 1]), 'masks': torch.ones(2, 60, 90)},
        {'boxes': NOTHING, 'labels': torch.zeros(0).long(), 'masks': torch.zeros(0, 90, 50)},
    ]
    repeated = []
    for _ in range(2):
        torch.manual_seed(1)
        losses = detector(images, targets)
        repeated.append({key: loss.item() for key, loss in losses.items()})
    assert repeated[0] == repeated[1]
    assert all(math.isfinite(loss) and loss > 0 for loss in repeated[0].values())
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in detector.named_parameters():
        frozen = name.startswith(('backbone.body.conv1', 'backbone.body.bn1', 'backbone.body.layer1'))
        assert (parameter.grad is None) == frozen == (not parameter.requires_grad)
    assert all(torch.equal(value, before[key]) for key, value in detector.backbone.body.named_buffers())
    # A batch of images without a single box.
    empty = detector(images[1:], targets[1:])
    assert all(math.isfinite(loss.item()) for loss in empty.values())
