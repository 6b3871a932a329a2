"""The detectors: images in, boxes, labels, scores and masks out; in training, losses.

Each image goes through the network by itself in evaluation, so that a result depends on nothing else in its batch.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eca_zoo.detection.networks.anchors import Anchors
from eca_zoo.detection.networks.boxes import to_resized
from eca_zoo.detection.networks.files import read_image
from eca_zoo.detection.networks.masks import paste_codes, paste_dense
from eca_zoo.detection.networks.proposals import (
    ProposalNetwork,
    ProposalSettings,
    flat_levels,
    select_proposals,
)
from eca_zoo.detection.networks.pyramid import PyramidBackbone
from eca_zoo.detection.networks.retinanet import RetinaNetHead, select_from_anchors
from eca_zoo.detection.networks.roi_heads import Detections, DetectionSettings, RoiHeads, select_detections
from eca_zoo.detection.networks.transform import DetectionTransform, Geometry, ResizedImage
from eca_zoo.errors import InputError

MASK_FORMATS = ('codes', 'dense')


class Detector(nn.Module):
    """What all detectors share.

    Attributes:
        backbone: maps of a feature pyramid.
        transform: what is done to an image first.
        settings: which boxes become detections.
        categories: category ids, such as COCO's from 1 to 90 with gaps, and their names.
        has_masks: whether detections have masks.
    """

    has_masks = False

    def __init__(
        self,
        backbone: PyramidBackbone,
        categories: Mapping[int, str],
        transform: DetectionTransform,
        settings: DetectionSettings,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.categories = dict(categories)
        self.transform = transform
        self.settings = settings

    def forward(
        self,
        images: Sequence[torch.Tensor],
        targets: Sequence[Mapping[str, torch.Tensor]] | None = None,
        masks: str = 'codes',
    ) -> Any:
        """Detections of images, or the losses of a batch in training mode.

        Args:
            images: each (3, H, W), of any size: uint8, or floating point in [0, 1], which is rounded to bytes.
            targets: in training for each image ``boxes`` (N, 4) in its pixels, ``labels`` (N,) category ids, for masks
                ``masks`` (N, H, W), and if need be ``iscrowd`` (N,): objects that are left out.
            masks: ``codes`` for COCO's run-length codes, ``dense`` for a bool tensor (N, H, W).

        Returns:
            In evaluation a dict for each image with ``boxes`` (N, 4) as x1, y1, x2, y2 in pixels of the image,
            ``labels`` (N,) category ids, ``scores`` (N,), the best first, and for detectors with masks ``masks``. In
            training a dict of losses.

        Raises:
            InputError: images or targets are not of this kind.
        """
        images = _checked_images(images)
        if self.training:
            return self._losses(images, targets)
        return [self.detect(self.transform.resize(image), masks) for image in images]

    def detect(self, image: ResizedImage, masks: str = 'codes') -> dict[str, Any]:
        """Detections of an image that ``transform.resize`` has made, on whatever device it lies."""
        parameter = next(self.parameters())
        pixels = image.pixels.to(parameter.device)
        batch = self.transform.batch([self.transform.normalise(pixels, parameter.dtype)])
        return self.detect_normalised(batch, image.geometry, masks)

    def detect_normalised(self, image: torch.Tensor, geometry: Geometry, masks: str = 'codes') -> dict[str, Any]:
        """Detections of one image (1, 3, H, W), normalised and padded."""
        if masks not in MASK_FORMATS:
            raise InputError(f'masks {masks!r} is unknown; use one of {", ".join(MASK_FORMATS)}')
        features = self.backbone(image)
        found = self._detections(features, geometry)
        result: dict[str, Any] = {**found, 'labels': self._category_ids(found['labels'])}
        if self.has_masks:
            maps = self._mask_maps(features, found, geometry)
            paste: Any = paste_codes if masks == 'codes' else paste_dense
            result['masks'] = paste(maps, found['boxes'], geometry.original_size)
        return result

    def predict(self, images: Any, masks: str = 'codes') -> list[dict[str, Any]]:
        """Detections of image files or Pillow images, without gradients; ``forward`` says what they are.

        Images are taken as they are stored: a rotation that a camera noted is not applied.

        Args:
            images: a path, a Pillow image or a tensor, or several of them.
            masks: as of ``forward``.

        Raises:
            InputError: a file is no image.
        """
        several = [images] if isinstance(images, str | Path | torch.Tensor) or hasattr(images, 'convert') else images
        was_training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                return [result for image in several for result in self([read_image(image)], masks=masks)]
        finally:
            self.train(was_training)

    def _category_ids(self, labels: torch.Tensor) -> torch.Tensor:
        return torch.tensor(list(self.categories), device=labels.device)[labels]

    def _detections(self, features: list[torch.Tensor], geometry: Geometry) -> Detections:
        raise NotImplementedError

    def _mask_maps(self, features: list[torch.Tensor], found: Detections, geometry: Geometry) -> torch.Tensor:
        raise NotImplementedError

    def _losses(self, images: Sequence[torch.Tensor], targets: Any) -> dict[str, torch.Tensor]:
        raise NotImplementedError


def _checked_images(images: Any) -> Sequence[torch.Tensor]:
    if not isinstance(images, list | tuple) or not all(isinstance(image, torch.Tensor) for image in images):
        raise InputError(f'a detector takes a list of images (3, height, width), not {type(images).__name__}')
    return images


class FasterRcnn(Detector):
    """Faster R-CNN (Ren et al., 2015) on a feature pyramid."""

    def __init__(
        self,
        backbone: PyramidBackbone,
        rpn: ProposalNetwork,
        roi_heads: RoiHeads,
        categories: Mapping[int, str],
        transform: DetectionTransform,
        settings: DetectionSettings,
        proposals: ProposalSettings,
    ) -> None:
        super().__init__(backbone, categories, transform, settings)
        self.rpn = rpn
        self.roi_heads = roi_heads
        self.proposals = proposals

    def _detections(self, features: list[torch.Tensor], geometry: Geometry) -> Detections:
        logits, deltas = self.rpn(features)
        proposals = select_proposals(
            *_of_image(logits, deltas, 1, 0), [level.shape[3] for level in features], geometry.size, self.rpn.anchors,
            self.proposals,
        )  # fmt: skip
        class_logits, box_deltas = self.roi_heads(features, [proposals])
        return select_detections(class_logits, box_deltas, proposals, geometry, self.settings)


class MaskRcnn(FasterRcnn):
    """Mask R-CNN (He et al., 2017): Faster R-CNN with a mask in each box."""

    has_masks = True

    def _mask_maps(self, features: list[torch.Tensor], found: Detections, geometry: Geometry) -> torch.Tensor:
        if not len(found['boxes']):
            return found['scores'].new_zeros(0, 1, 1)
        boxes = to_resized(found['boxes'], geometry.scale)
        return self.roi_heads.mask_logits(features, [boxes], found['labels']).sigmoid()


class RetinaNet(Detector):
    """RetinaNet (Lin et al., 2017)."""

    def __init__(
        self,
        backbone: PyramidBackbone,
        head: RetinaNetHead,
        anchors: Anchors,
        categories: Mapping[int, str],
        transform: DetectionTransform,
        settings: DetectionSettings,
    ) -> None:
        super().__init__(backbone, categories, transform, settings)
        self.head = head
        self.anchors = anchors

    def _detections(self, features: list[torch.Tensor], geometry: Geometry) -> Detections:
        predicted = self.head(features)
        counts = [level.shape[2] * level.shape[3] * self.anchors.per_place for level in features]
        logits, deltas = (
            predicted[key][0].to(torch.promote_types(predicted[key].dtype, torch.float32)).split(counts)
            for key in ('cls_logits', 'bbox_regression')
        )
        columns = [level.shape[3] for level in features]
        return select_from_anchors(logits, deltas, columns, geometry, self.anchors, self.settings)


def _of_image(
    logits: Iterable[torch.Tensor], deltas: Iterable[torch.Tensor], values: int, image: int
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What the proposal network predicts for one image of a batch, flat, level by level."""
    return (
        [level[image].squeeze(-1) for level in flat_levels(list(logits), values)],
        [level[image] for level in flat_levels(list(deltas), 4)],
    )
