"""The losses of Faster and Mask R-CNN."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from eca_zoo.detection.losses.matching import PROPOSALS, SECOND_STAGE, match, sample
from eca_zoo.detection.losses.targets import Target, mask_targets
from eca_zoo.detection.networks.boxes import encode
from eca_zoo.detection.networks.proposals import WEIGHTS as PROPOSAL_WEIGHTS
from eca_zoo.detection.networks.roi_heads import WEIGHTS

_SAMPLED_ANCHORS, _SAMPLED_PROPOSALS = (256, 0.5), (512, 0.25)
_PROPOSAL_BETA, _BOX_BETA = 1 / 9, 1.0


class SampledProposals(NamedTuple):
    """Proposals of one image that the second stage learns from, the positive ones first.

    Attributes:
        boxes: (K, 4).
        matches: (P,) number of the object that each positive one stands for.
    """

    boxes: torch.Tensor
    matches: torch.Tensor


def proposal_losses(
    logits: torch.Tensor,
    deltas: torch.Tensor,
    anchors: torch.Tensor,
    targets: Sequence[Target],
    sizes: Sequence[tuple[int, int]],
) -> dict[str, torch.Tensor]:
    """Losses of the proposal network; anchors that cross the border of their image are left out.

    Args:
        logits: (N, A), A anchors of all levels.
        deltas: (N, A, 4).
        anchors: (A, 4).
        targets: of each image.
        sizes: (height, width) of each image without padding.
    """
    scores, boxes, count = [], [], 0
    for image, (target, (height, width)) in enumerate(zip(targets, sizes, strict=True)):
        inside = torch.where((anchors[:, :2] >= 0).all(1) & (anchors[:, 2] <= width) & (anchors[:, 3] <= height))[0]
        matches = match(anchors[inside], target.boxes.to(anchors.dtype), PROPOSALS)
        positive, negative = sample(matches, *_SAMPLED_ANCHORS)
        chosen = inside[torch.cat([positive, negative])]
        is_object = (torch.arange(len(chosen), device=chosen.device) < len(positive)).to(logits.dtype)
        scores.append(F.binary_cross_entropy_with_logits(logits[image, chosen], is_object, reduction='sum'))
        aims = encode(
            target.boxes[matches[positive]].to(deltas.dtype), anchors[inside[positive]].to(deltas.dtype),
            PROPOSAL_WEIGHTS,
        )  # fmt: skip
        predicted = deltas[image, inside[positive]]
        boxes.append(F.smooth_l1_loss(predicted, aims, beta=_PROPOSAL_BETA, reduction='sum'))
        # An image without any counts as one, as in mmdetection v1's AnchorHead.
        count += max(len(positive), 1) + max(len(negative), 1)
    return {'loss_objectness': sum_of(scores) / count, 'loss_rpn_box_reg': sum_of(boxes) / count}


def sum_of(losses: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of scalars."""
    return torch.stack(list(losses)).sum()


def sample_proposals(proposals: torch.Tensor, target: Target) -> SampledProposals:
    """Proposals (K, 4) of one image that the second stage learns from, to which the objects' own boxes are added."""
    objects = target.boxes.to(proposals.dtype)
    own = torch.arange(len(objects), device=objects.device)
    matches = torch.cat([own, match(proposals, objects, SECOND_STAGE)])
    positive, negative = sample(matches, *_SAMPLED_PROPOSALS)
    boxes = torch.cat([objects, proposals])[torch.cat([positive, negative])]
    return SampledProposals(boxes, matches[positive])


def box_losses(
    logits: torch.Tensor, deltas: torch.Tensor, sampled: Sequence[SampledProposals], targets: Sequence[Target]
) -> dict[str, torch.Tensor]:
    """Losses of the second stage's classes and boxes.

    Args:
        logits: (K, 1 + classes) of the sampled proposals of all images.
        deltas: (K, 1 + classes, 4).
        sampled: of each image.
        targets: of each image.
    """
    labels, aims = [], []
    for one, target in zip(sampled, targets, strict=True):
        label = torch.zeros(len(one.boxes), dtype=torch.long, device=logits.device)
        label[: len(one.matches)] = target.labels[one.matches] + 1
        labels.append(label)
        objects = target.boxes[one.matches].to(one.boxes.dtype)
        aims.append(encode(objects, one.boxes[: len(one.matches)], WEIGHTS))
    classes = torch.cat(labels)
    positive = torch.where(classes > 0)[0]
    predicted, count = deltas[positive, classes[positive]], max(len(classes), 1)
    box = F.smooth_l1_loss(predicted, torch.cat(aims).to(predicted.dtype), beta=_BOX_BETA, reduction='sum')
    return {
        'loss_classifier': F.cross_entropy(logits, classes, reduction='sum') / count,
        'loss_box_reg': box / count,
    }


def mask_loss(
    logits: torch.Tensor, sampled: Sequence[SampledProposals], targets: Sequence[Target]
) -> dict[str, torch.Tensor]:
    """Loss of the masks (P, 28, 28), of their own class, in the positive proposals of all images."""
    aims = []
    for one, target in zip(sampled, targets, strict=True):
        assert target.masks is not None
        aims.append(mask_targets(target.masks, one.matches, one.boxes[: len(one.matches)]))
    total = F.binary_cross_entropy_with_logits(logits, torch.cat(aims).to(logits.dtype), reduction='sum')
    return {'loss_mask': total / max(logits.numel(), 1)}
