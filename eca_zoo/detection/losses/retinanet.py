"""The losses of RetinaNet."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from eca_zoo.detection.losses.matching import NEITHER, RETINANET, match
from eca_zoo.detection.losses.targets import Target
from eca_zoo.detection.losses.two_stage import sum_of
from eca_zoo.detection.networks.boxes import encode
from eca_zoo.detection.networks.retinanet import WEIGHTS

_ALPHA, _GAMMA, _BETA = 0.25, 2.0, 0.11


def retinanet_losses(
    logits: torch.Tensor,
    deltas: torch.Tensor,
    anchors: torch.Tensor,
    targets: Sequence[Target],
    is_valid: Sequence[torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Focal loss of the classes and smooth L1 of the boxes, over the positive anchors of all images.

    Args:
        logits: (N, A, classes), A anchors of all levels.
        deltas: (N, A, 4).
        anchors: (A, 4).
        targets: of each image.
        is_valid: (A,) of each image, whether an anchor lies on the image or its own padding, not on that of the batch.
    """
    scores, boxes, count = [], [], 0
    for image, (target, valid) in enumerate(zip(targets, is_valid, strict=True)):
        places = torch.where(valid)[0]
        matches = match(anchors[places], target.boxes.to(anchors.dtype), RETINANET)
        positive = torch.where(matches >= 0)[0]
        objects, chosen = matches[positive], places[positive]
        aim = torch.zeros_like(logits[image])
        aim[chosen, target.labels[objects]] = 1
        counted = places[matches != NEITHER]
        scores.append(sigmoid_focal_loss(logits[image, counted], aim[counted], _ALPHA, _GAMMA, reduction='sum'))
        encoded = encode(target.boxes[objects].to(deltas.dtype), anchors[chosen].to(deltas.dtype), WEIGHTS)
        boxes.append(F.smooth_l1_loss(deltas[image, chosen], encoded, beta=_BETA, reduction='sum'))
        # An image without any counts as one, as in mmdetection v1's AnchorHead.
        count += max(len(positive), 1)
    return {'classification': sum_of(scores) / count, 'bbox_regression': sum_of(boxes) / count}
