"""RetinaNet's predictions and the detections that are made of them."""

from collections.abc import Sequence

import torch
from torchvision.models.detection.retinanet import RetinaNetHead

from eca_zoo.detection.networks.anchors import Anchors
from eca_zoo.detection.networks.boxes import clip, decode
from eca_zoo.detection.networks.roi_heads import Detections, DetectionSettings, best_detections
from eca_zoo.detection.networks.transform import Geometry

WEIGHTS = (1.0, 1.0, 1.0, 1.0)
#: Anchors of a level that are looked at, those with the best score of any class.
PER_LEVEL = 1000

__all__ = ['PER_LEVEL', 'WEIGHTS', 'RetinaNetHead', 'select_from_anchors']


def select_from_anchors(
    logits: Sequence[torch.Tensor],
    deltas: Sequence[torch.Tensor],
    columns: Sequence[int],
    geometry: Geometry,
    anchors: Anchors,
    settings: DetectionSettings,
) -> Detections:
    """Detections of one image.

    As in mmdetection v1 the best 1,000 anchors of each level count, with all their classes; torchvision takes pairs of
    an anchor and a class.

    Args:
        logits: (H * W * A, classes) of each level.
        deltas: (H * W * A, 4) of each level.
        columns: W of each level.
        geometry: of the image.
        anchors: of the levels.
        settings: which become detections.
    """
    boxes, scores = [], []
    for level, (level_logits, level_deltas) in enumerate(zip(logits, deltas, strict=True)):
        best = level_logits.amax(dim=1).topk(min(PER_LEVEL, len(level_logits))).indices
        anchors_at = anchors.at(level, best, columns[level]).to(level_deltas.dtype)
        boxes.append(clip(decode(level_deltas[best], anchors_at, WEIGHTS), geometry.size))
        scores.append(level_logits[best].sigmoid())
    all_scores = torch.cat(scores)
    labels, index = torch.where(all_scores.T.gt(settings.score_threshold))
    return best_detections(torch.cat(boxes)[index], all_scores[index, labels], labels, geometry, settings)
