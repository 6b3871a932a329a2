"""The second stage: features in proposals, classes and boxes of what is there, and masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import roi_align

from eca_zoo.detection.networks.boxes import best_apart, clip, decode, to_original
from eca_zoo.detection.networks.transform import Geometry

#: One over the standard deviations of the deltas, 0.1, 0.1, 0.2, 0.2.
WEIGHTS = (10.0, 10.0, 5.0, 5.0)
_BOX_SIDE, _MASK_SIDE, _SAMPLES = 7, 14, 2


@dataclass(frozen=True)
class DetectionSettings:
    """Which boxes become detections: of the original image, by class.

    Attributes:
        score_threshold: a detection's score is above it.
        nms_threshold: overlap within a class above which the worse one goes.
        count: detections of an image.
    """

    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    count: int = 100


class Detections(dict[str, torch.Tensor]):
    """``boxes`` (N, 4) in pixels of the original image, ``labels`` (N,) from 0 and ``scores`` (N,), the best first."""


class RoiPool(nn.Module):
    """Features in boxes, each read from the level of the pyramid that fits its size."""

    def __init__(self, side: int, strides: Sequence[int], finest_scale: float) -> None:
        """Pool ``side`` x ``side`` places.

        Args:
            side: of what is pooled.
            strides: of the levels that are pooled from.
            finest_scale: boxes smaller than twice this many pixels (root of the area) are read from the first level,
                those up to four times from the second, and so on.
        """
        super().__init__()
        self.side, self.strides, self.finest_scale = side, tuple(strides), finest_scale

    def forward(self, features: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor]) -> torch.Tensor:
        """Features (K, C, side, side) of all boxes, for maps (N, C, H, W) of each level and boxes (K_n, 4) an image.

        The framework's boxes begin and end at their corners times the scale, without torchvision's least size; its
        samples lie half a place further than those of torchvision's aligned operator, whose boxes are shifted here.
        """
        image = torch.cat([box.new_full((len(box), 1), float(i)) for i, box in enumerate(boxes)])
        all_boxes = torch.cat(list(boxes))
        levels = self.levels(all_boxes)
        result = features[0].new_zeros(len(all_boxes), features[0].shape[1], self.side, self.side)
        for level, feature in enumerate(features[: len(self.strides)]):
            index = torch.where(levels == level)[0]
            result[index] = self.pooled(feature, level, image[index], all_boxes[index]).to(result.dtype)
        return result

    def pooled(self, feature: torch.Tensor, level: int, image: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Features (K, C, side, side) of boxes (K, 4) of images (K, 1) from the maps (N, C, H, W) of one level."""
        stride, dtype = self.strides[level], torch.promote_types(feature.dtype, torch.float32)
        rois = torch.cat([image, boxes + 0.5 * stride], dim=1)
        return roi_align(
            feature.to(dtype), rois.to(dtype), self.side,
            spatial_scale=1 / stride, sampling_ratio=_SAMPLES, aligned=True,
        )  # fmt: skip

    def levels(self, boxes: torch.Tensor) -> torch.Tensor:
        """Number (K,) of the level for each box: floor(log2(sqrt(area) / finest scale + 1e-6))."""
        sides = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
        return (sides / self.finest_scale + 1e-6).log2().floor().clamp(0, len(self.strides) - 1).long()


class RoiHeads(nn.Module):
    """The heads of the second stage; ``mask_head`` and ``mask_predictor`` are None in Faster R-CNN."""

    def __init__(
        self,
        channels: int,
        num_classes: int,
        strides: Sequence[int],
        has_masks: bool,
        hidden: int = 1024,
        finest_scale: float = 56,
    ) -> None:
        """Make heads for maps of ``channels`` channels.

        Args:
            channels: of the pyramid.
            num_classes: without background, which is class 0 of the predictors.
            strides: of the levels that are pooled from.
            has_masks: whether masks are predicted.
            hidden: width of the box head.
            finest_scale: see ``RoiPool``.
        """
        super().__init__()
        self.box_roi_pool = RoiPool(_BOX_SIDE, strides, finest_scale)
        self.box_head = TwoMLPHead(channels * _BOX_SIDE**2, hidden)
        self.box_predictor = FastRCNNPredictor(hidden, num_classes + 1)
        self.mask_roi_pool = RoiPool(_MASK_SIDE, strides, finest_scale) if has_masks else None
        self.mask_head = MaskRCNNHeads(channels, [channels] * 4, 1) if has_masks else None
        self.mask_predictor = MaskRCNNPredictor(channels, channels, num_classes + 1) if has_masks else None
        self._init()

    def _init(self) -> None:
        """The framework's first values, where torchvision's layers have others."""
        for linear in (self.box_head.fc6, self.box_head.fc7):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        nn.init.normal_(self.box_predictor.cls_score.weight, std=0.01)
        nn.init.normal_(self.box_predictor.bbox_pred.weight, std=0.001)
        for linear in (self.box_predictor.cls_score, self.box_predictor.bbox_pred):
            nn.init.zeros_(linear.bias)

    def forward(
        self, features: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Class logits (K, 1 + classes) and deltas (K, 1 + classes, 4) of proposals (K_n, 4) an image."""
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(features, boxes)))
        dtype = torch.promote_types(logits.dtype, torch.float32)
        return logits.to(dtype), deltas.reshape(len(deltas), -1, 4).to(dtype)

    def mask_logits(
        self, features: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor], labels: torch.Tensor
    ) -> torch.Tensor:
        """Logits (K, M, M) of the mask of class ``labels`` (K,), from 0, in each box."""
        assert self.mask_roi_pool is not None and self.mask_head is not None and self.mask_predictor is not None
        logits = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, boxes)))
        chosen = logits[torch.arange(len(labels), device=labels.device), labels + 1]
        return chosen.to(torch.promote_types(chosen.dtype, torch.float32))


def select_detections(
    logits: torch.Tensor,
    deltas: torch.Tensor,
    proposals: torch.Tensor,
    geometry: Geometry,
    settings: DetectionSettings,
) -> Detections:
    """Detections of one image from what ``RoiHeads`` predicts for its proposals.

    Args:
        logits: (K, 1 + classes).
        deltas: (K, 1 + classes, 4).
        proposals: (K, 4) in pixels of the resized image.
        geometry: of the image.
        settings: which become detections.
    """
    scores = logits.softmax(dim=1)[:, 1:]
    labels, index = torch.where(scores.T.gt(settings.score_threshold))
    boxes = clip(decode(deltas[index, labels + 1], proposals[index], WEIGHTS), geometry.size)
    return best_detections(boxes, scores[index, labels], labels, geometry, settings)


def best_detections(
    boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, geometry: Geometry, settings: DetectionSettings
) -> Detections:
    """Boxes (K, 4) of the resized image, taken back to the original one before they suppress each other."""
    boxes = to_original(boxes, geometry.scale)
    kept = best_apart(boxes, scores, labels, settings.nms_threshold, settings.count)
    return Detections(boxes=boxes[kept], labels=labels[kept], scores=scores[kept])
