"""Region proposals: the boxes in which a two-stage detector looks for objects."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import nms

from eca_zoo.detection.networks.anchors import Anchors
from eca_zoo.detection.networks.boxes import clip, decode

WEIGHTS = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class ProposalSettings:
    """How many proposals there are.

    Attributes:
        per_level: anchors of a level with the best scores that are looked at, and proposals of it that are left.
        count: proposals of an image.
        nms_threshold: overlap within a level above which the worse proposal goes.
    """

    per_level: int = 1000
    count: int = 1000
    nms_threshold: float = 0.7


class ProposalNetwork(nn.Module):
    """Scores and shifts the anchors of every level; ``select_proposals`` makes proposals of what it returns."""

    def __init__(self, channels: int, anchors: Anchors) -> None:
        super().__init__()
        self.anchors = anchors
        self.head = RPNHead(channels, anchors.per_place)

    def forward(self, features: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Logits (N, H * W * A) and deltas (N, H * W * A, 4) of each level, in float32 at least.

        Args:
            features: (N, C, H, W) of each level.
        """
        logits, deltas = self.head(features)
        return [_flat(level, 1).squeeze(-1) for level in logits], [_flat(level, 4) for level in deltas]


def _flat(level: torch.Tensor, values: int) -> torch.Tensor:
    """Predictions (N, A * values, H, W) as (N, H * W * A, values)."""
    flat = level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, values)
    return flat.to(torch.promote_types(level.dtype, torch.float32))


def select_proposals(
    logits: Sequence[torch.Tensor],
    deltas: Sequence[torch.Tensor],
    columns: Sequence[int],
    size: tuple[int, int],
    anchors: Anchors,
    settings: ProposalSettings,
) -> torch.Tensor:
    """Proposals (K, 4) of one image: the best of each level apart from each other, then the best of all.

    As in mmdetection v1 no proposal is left out for being small; torchvision leaves such out.

    Args:
        logits: (H * W * A,) of each level.
        deltas: (H * W * A, 4) of each level.
        columns: W of each level.
        size: height and width of the image, without its padding.
        anchors: of the levels.
        settings: how many.
    """
    boxes, scores = [], []
    for level, (level_logits, level_deltas) in enumerate(zip(logits, deltas, strict=True)):
        best = level_logits.topk(min(settings.per_level, len(level_logits)))
        boxes_at = anchors.at(level, best.indices, columns[level]).to(level_deltas.dtype)
        proposals = clip(decode(level_deltas[best.indices], boxes_at, WEIGHTS), size)
        kept = nms(proposals, best.values, settings.nms_threshold)
        boxes.append(proposals[kept])
        scores.append(best.values[kept])
    order = torch.cat(scores).argsort(descending=True, stable=True)
    return torch.cat(boxes)[order[: settings.count]]
