"""Boxes as corners (x1, y1, x2, y2) in pixels, whose width is x2 - x1.

The authors' framework (mmdetection v1) counts pixels: its boxes end at x2 - 1 and its widths have a "+ 1". In these
corners its formulas are the usual ones, but where a function here says so.
"""

import math

import torch
from torchvision.ops import nms

# Sizes are bounded to 1/62.5 and 62.5 times those of the box that they are relative to.
_LARGEST_CHANGE = math.log(1000 / 16)

Weights = tuple[float, float, float, float]


def decode(deltas: torch.Tensor, boxes: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Boxes (N, 4) from what a network predicts relative to ``boxes`` (N, 4).

    The framework bounds the change of sizes on both sides (mmdetection v1, ``delta2bbox``), torchvision above alone.

    Args:
        deltas: (N, 4): shift of the centre in widths and heights, and logarithm of the change of both.
        boxes: anchors or proposals.
        weights: by which ``deltas`` are multiplied: one over their standard deviations.
    """
    dx, dy, dw, dh = (delta / weight for delta, weight in zip(deltas.unbind(-1), weights, strict=True))
    x, y, width, height = _centres(boxes)
    width = width * dw.clamp(-_LARGEST_CHANGE, _LARGEST_CHANGE).exp()
    height = height * dh.clamp(-_LARGEST_CHANGE, _LARGEST_CHANGE).exp()
    x, y = x + dx * (boxes[:, 2] - boxes[:, 0]), y + dy * (boxes[:, 3] - boxes[:, 1])
    return torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=-1)


def encode(targets: torch.Tensor, boxes: torch.Tensor, weights: Weights) -> torch.Tensor:
    """What a network should predict for ``boxes`` (N, 4) to become ``targets`` (N, 4): the inverse of ``decode``."""
    x, y, width, height = _centres(boxes)
    target_x, target_y, target_width, target_height = _centres(targets)
    deltas = [
        (target_x - x) / width,
        (target_y - y) / height,
        (target_width / width).log(),
        (target_height / height).log(),
    ]
    return torch.stack([delta * weight for delta, weight in zip(deltas, weights, strict=True)], dim=-1)


def _centres(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1, y2 - y1
    return x1 + width / 2, y1 + height / 2, width, height


def clip(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Boxes (N, 4) of which at least one pixel lies in an image of ``size`` (height, width).

    The framework clips the first and the last pixel of a box (mmdetection v1, ``delta2bbox``), torchvision the corners.
    """
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(-1)
    corners = [x1.clamp(0, width - 1), y1.clamp(0, height - 1), x2.clamp(1, width), y2.clamp(1, height)]
    return torch.stack(corners, dim=-1)


def to_original(boxes: torch.Tensor, scale: float) -> torch.Tensor:
    """Boxes of a resized image in the image before, which was enlarged by ``scale``.

    The framework divides the first and the last pixel of a box by the one factor that was asked for, not by the ratios
    of the sizes that came of it.
    """
    return torch.cat([boxes[:, :2] / scale, (boxes[:, 2:] - 1) / scale + 1], dim=1)


def to_resized(boxes: torch.Tensor, scale: float) -> torch.Tensor:
    """The inverse of ``to_original``."""
    return torch.cat([boxes[:, :2] * scale, (boxes[:, 2:] - 1) * scale + 1], dim=1)


def best_apart(
    boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, overlap: float, count: int
) -> torch.Tensor:
    """Indices of the best ``count`` boxes after non-maximum suppression in each group, the best first.

    Args:
        boxes: (N, 4).
        scores: (N,); of equal ones the first stays first.
        groups: (N,) integers, such as classes; boxes of different groups do not suppress each other.
        overlap: intersection over union above which the worse box goes.
        count: boxes that are kept at most.
    """
    if boxes.is_cuda:
        # One call in place of one a group; in float64, where the shift that keeps groups apart costs no digits.
        shifts = groups * (boxes.amax().double() + 1) if boxes.numel() else groups
        kept = nms(boxes.double() + shifts[:, None], scores.double(), overlap).sort().values
    else:
        members = [torch.where(groups == group)[0] for group in groups.unique()]
        kept = torch.cat([index[nms(boxes[index], scores[index], overlap)] for index in members] or [groups.long()])
        kept = kept.sort().values
    order = scores[kept].argsort(descending=True, stable=True)
    return kept[order[:count]]
