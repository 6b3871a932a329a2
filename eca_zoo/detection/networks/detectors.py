"""The detectors: images in, boxes, labels, scores and masks out; in training, losses.

Each image goes through the network by itself in evaluation, so that a result depends on nothing else in its batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eca_zoo.detection.losses.retinanet import retinanet_losses
from eca_zoo.detection.losses.targets import Target, prepare_targets
from eca_zoo.detection.losses.two_stage import (
    SampledProposals,
    box_losses,
    mask_loss,
    proposal_losses,
    sample_proposals,
)
from eca_zoo.detection.networks.anchors import Anchors
from eca_zoo.detection.networks.boxes import to_resized
from eca_zoo.detection.networks.files import read_image
from eca_zoo.detection.networks.masks import paste_codes, paste_dense
from eca_zoo.detection.networks.proposals import (
    ProposalNetwork,
    ProposalSettings,
    select_proposals,
)
from eca_zoo.detection.networks.pyramid import PyramidBackbone
from eca_zoo.detection.networks.retinanet import RetinaNetHead, select_from_anchors
from eca_zoo.detection.networks.roi_heads import Detections, DetectionSettings, RoiHeads, select_detections
from eca_zoo.detection.networks.transform import DetectionTransform, Geometry, ResizedImage
from eca_zoo.errors import InputError

MASK_FORMATS = ('codes', 'dense')


class Detector(nn.Module, ABC):
    """What all detectors share.

    Attributes:
        backbone: maps of a feature pyramid.
        transform: what is done to an image first.
        settings: which boxes become detections.
        categories: category ids, such as COCO's from 1 to 90 with gaps, and their names.
        has_masks: whether detections have masks.
        traceable_part: the module that ``eca_zoo.optimize_for_inference`` replaces; norms are in it alone.
    """

    has_masks = False
    traceable_part = 'backbone.body'

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
        images: Sequence[torch.Tensor | ResizedImage],
        targets: Sequence[Mapping[str, torch.Tensor] | Target] | None = None,
        masks: str = 'codes',
    ) -> Any:
        """Detections of images, or the losses of a batch in training mode.

        Args:
            images: each (3, H, W), of any size: uint8, or floating point in [0, 1], which is rounded to bytes; or what
                ``transform.resize`` made of it.
            targets: in training for each image ``boxes`` (N, 4) in its pixels, ``labels`` (N,) category ids, for masks
                ``masks`` (N, H, W), and if need be ``iscrowd`` (N,): objects that are left out; or what
                ``losses.targets.resized_target`` made of it.
            masks: ``codes`` for COCO's run-length codes, ``dense`` for a bool tensor (N, H, W).

        Returns:
            In evaluation a dict for each image with ``boxes`` (N, 4) as x1, y1, x2, y2 in pixels of the image, whose
            last pixel (x2 - 1, y2 - 1) lies in it, ``labels`` (N,) category ids, ``scores`` (N,), the best first, and
            for detectors with masks ``masks``. In training a dict of losses.

        Raises:
            InputError: images or targets are not of this kind.
        """
        _check_images(images)
        if self.training:
            return self._training_losses(images, targets)
        return [self.detect(self._resized(image), masks) for image in images]

    def _resized(self, image: torch.Tensor | ResizedImage, device: torch.device | None = None) -> ResizedImage:
        """``image`` resized on ``device``, by default where it lies, if it is not yet."""
        return image if isinstance(image, ResizedImage) else self.transform.resize(image.to(device or image.device))

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
        maps = self._mask_maps(features, found, geometry)
        if maps is not None:
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

    @abstractmethod
    def _detections(self, features: list[torch.Tensor], geometry: Geometry) -> Detections:
        """What is found on the maps of one image."""

    def _mask_maps(self, features: list[torch.Tensor], found: Detections, geometry: Geometry) -> torch.Tensor | None:
        """A small map for the mask of each detection; None of a detector without masks."""
        return None

    def _training_losses(self, images: Sequence[torch.Tensor | ResizedImage], targets: Any) -> dict[str, torch.Tensor]:
        """Losses of a batch, whose images are padded to the largest."""
        if not images:
            raise InputError('a batch in training has at least one image')
        parameter = next(self.parameters())
        device = parameter.device
        resized = [self._resized(image, device) for image in images]
        geometries = [image.geometry for image in resized]
        prepared = prepare_targets(targets, geometries, list(self.categories), self.has_masks, device)
        pixels = [image.pixels.to(device, non_blocking=True) for image in resized]
        batch = self.transform.batch([self.transform.normalise(image, parameter.dtype) for image in pixels])
        return self._losses(self.backbone(batch), prepared, [geometry.size for geometry in geometries])

    @abstractmethod
    def _losses(
        self, features: list[torch.Tensor], targets: list[Target], sizes: list[tuple[int, int]]
    ) -> dict[str, torch.Tensor]:
        """Losses of a padded batch by name."""


def _check_images(images: Any) -> None:
    known = torch.Tensor | ResizedImage
    if not isinstance(images, list | tuple) or not all(isinstance(image, known) for image in images):
        raise InputError(f'a detector takes a list of images (3, height, width), not {type(images).__name__}')


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
        columns = [level.shape[3] for level in features]
        proposals = select_proposals(
            [level[0] for level in logits], [level[0] for level in deltas], columns, geometry.size, self.rpn.anchors,
            self.proposals,
        )  # fmt: skip
        class_logits, box_deltas = self.roi_heads(features, [proposals])
        return select_detections(class_logits, box_deltas, proposals, geometry, self.settings)

    def _losses(
        self, features: list[torch.Tensor], targets: list[Target], sizes: list[tuple[int, int]]
    ) -> dict[str, torch.Tensor]:
        logits, deltas = self.rpn(features)
        anchors = _all_anchors(self.rpn.anchors, features)
        losses = proposal_losses(torch.cat(logits, 1), torch.cat(deltas, 1), anchors, targets, sizes)
        sampled = self._sampled(logits, deltas, [level.shape[3] for level in features], targets, sizes)
        class_logits, box_deltas = self.roi_heads(features, [one.boxes for one in sampled])
        losses.update(box_losses(class_logits, box_deltas, sampled, targets))
        if self.has_masks:
            boxes = [one.boxes[: len(one.matches)] for one in sampled]
            labels = torch.cat([target.labels[one.matches] for one, target in zip(sampled, targets, strict=True)])
            losses.update(mask_loss(self.roi_heads.mask_logits(features, boxes, labels), sampled, targets))
        return losses

    def _sampled(
        self,
        logits: list[torch.Tensor],
        deltas: list[torch.Tensor],
        columns: list[int],
        targets: list[Target],
        sizes: list[tuple[int, int]],
    ) -> list[SampledProposals]:
        """Proposals that the second stage learns from, through which no gradient goes back."""
        # mmdetection v1 takes twice as many in training.
        twice = replace(self.proposals, per_level=2 * self.proposals.per_level, count=2 * self.proposals.count)
        with torch.no_grad():
            return [
                sample_proposals(
                    select_proposals(
                        [level[i] for level in logits], [level[i] for level in deltas], columns, size,
                        self.rpn.anchors, twice,
                    ),
                    target,
                )
                for i, (target, size) in enumerate(zip(targets, sizes, strict=True))
            ]  # fmt: skip


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
        logits, deltas = self._predicted(features)
        counts = [level.shape[2] * level.shape[3] * self.anchors.per_place for level in features]
        columns = [level.shape[3] for level in features]
        return select_from_anchors(
            logits[0].split(counts), deltas[0].split(counts), columns, geometry, self.anchors, self.settings
        )

    def _losses(
        self, features: list[torch.Tensor], targets: list[Target], sizes: list[tuple[int, int]]
    ) -> dict[str, torch.Tensor]:
        logits, deltas = self._predicted(features)
        padded = [self.transform.padded(size) for size in sizes]
        valid = [_is_on_image(self.anchors, features, size) for size in padded]
        return retinanet_losses(logits, deltas, _all_anchors(self.anchors, features), targets, valid)

    def _predicted(self, features: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (N, A, classes) and deltas (N, A, 4) of the anchors of all levels, in float32 at least."""
        predicted = self.head(features)
        logits, deltas = predicted['cls_logits'], predicted['bbox_regression']
        dtype = torch.promote_types(logits.dtype, torch.float32)
        return logits.to(dtype), deltas.to(dtype)


def _all_anchors(anchors: Anchors, features: list[torch.Tensor]) -> torch.Tensor:
    """The anchors (A, 4) of all levels."""
    return torch.cat([anchors.grid(i, level.shape[2:], level.device) for i, level in enumerate(features)])


def _is_on_image(anchors: Anchors, features: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    """Whether each anchor (A,) belongs to a place of the image of ``size``, and not to the padding of a batch."""
    valid = []
    for stride, level in zip(anchors.strides, features, strict=True):
        place = torch.zeros(level.shape[2:], dtype=torch.bool, device=level.device)
        place[: -(-size[0] // stride), : -(-size[1] // stride)] = True
        valid.append(place.flatten().repeat_interleave(anchors.per_place))
    return torch.cat(valid)
