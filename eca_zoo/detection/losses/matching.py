"""Which anchors and proposals stand for which object, and which of them a loss looks at."""

from typing import NamedTuple

import torch
from torchvision.ops import box_iou

BACKGROUND, NEITHER = -1, -2


class Thresholds(NamedTuple):
    """Overlaps (intersection over union) that decide what a box stands for.

    Attributes:
        positive: from here on it stands for the object that it overlaps with most.
        negative: below it stands for background; between the two for neither.
        least: an object's best boxes stand for it even below ``positive``, if they overlap with it at least so much.
    """

    positive: float
    negative: float
    least: float


#: mmdetection v1's of the proposals, the second stage and RetinaNet.
PROPOSALS, SECOND_STAGE, RETINANET = Thresholds(0.7, 0.3, 0.3), Thresholds(0.5, 0.5, 0.5), Thresholds(0.5, 0.4, 0.0)


def match(candidates: torch.Tensor, objects: torch.Tensor, thresholds: Thresholds) -> torch.Tensor:
    """The number (N,) of the object that each candidate stands for, or ``BACKGROUND`` or ``NEITHER``.

    All candidates that tie for the best of an object get it, also those that overlap more with another object, of
    several such objects the last (mmdetection v1, ``MaxIoUAssigner``); torchvision gives them the object that they
    overlap with most, and knows no least overlap. An object that overlaps with nothing gets nothing.

    Args:
        candidates: (N, 4).
        objects: (G, 4); without any, all is background.
        thresholds: see there.
    """
    if not len(objects) or not len(candidates):
        return torch.full((len(candidates),), BACKGROUND, device=candidates.device)
    overlaps = box_iou(objects, candidates)
    most, matches = overlaps.max(dim=0)
    matches[most < thresholds.positive] = NEITHER
    matches[most < thresholds.negative] = BACKGROUND
    best = overlaps.amax(dim=1, keepdim=True)
    is_best = (overlaps == best) & (best >= thresholds.least) & (best > 0)
    last = len(objects) - 1 - is_best.flip(0).int().argmax(dim=0)
    return torch.where(is_best.any(dim=0), last, matches)


def sample(matches: torch.Tensor, count: int, fraction: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of positive and of negative candidates that a loss looks at, drawn with torch's random state.

    Args:
        matches: (N,) of ``match``.
        count: of both together, where there are enough.
        fraction: of ``count`` that may be positive; what is not, is filled with negatives.
    """
    positive, negative = torch.where(matches >= 0)[0], torch.where(matches == BACKGROUND)[0]
    positive = _draw(positive, int(count * fraction))
    return positive, _draw(negative, count - len(positive))


def _draw(index: torch.Tensor, count: int) -> torch.Tensor:
    if len(index) <= count:
        return index
    # On the CPU, so that a seed draws the same on every device.
    return index[torch.randperm(len(index))[:count].to(index.device)]
