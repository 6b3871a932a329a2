"""From an image with marked objects to what a detector is trained on: resized bytes, and boxes and masks on them."""

import random
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from eca_zoo.detection.coco_annotations import CocoAnnotations, mask_code
from eca_zoo.detection.coco_images import CocoSet
from eca_zoo.detection.evaluation.matching import toolbox_masks
from eca_zoo.detection.losses.targets import Target, resized_target
from eca_zoo.detection.networks.transform import DetectionTransform, ResizedImage
from eca_zoo.errors import InputError
from eca_zoo.harness.data.images import BadImage
from eca_zoo.training.data.order import seed_sample
from eca_zoo.training.data.substitutes import with_substitutes


class DetectionBatch(NamedTuple):
    """Images of a part of a step.

    Attributes:
        images: resized.
        targets: of each image.
        bad: images that could not be decoded; others of the part stand in their places.
    """

    images: list[ResizedImage]
    targets: list[Target]
    bad: list[BadImage]


class TrainingObjects:
    """The images of a set that are trained on, and the objects in each: crowds and boxes under a pixel are left out.

    As in mmdetection v1, an image without an object is not trained on.

    Attributes:
        positions: (N,) int64, of the images in the set.
    """

    def __init__(self, annotations: CocoAnnotations) -> None:
        self._annotations = annotations
        is_used = ~annotations.is_crowd & (annotations.areas > 0) & (annotations.boxes[:, 2:] >= 1).all(axis=1)
        used = np.flatnonzero(is_used)
        ids = np.array([image.id for image in annotations.images], dtype=np.int64)
        image = np.searchsorted(ids, annotations.image_ids[used])
        order = np.argsort(image, kind='stable')
        self._objects, self._bounds = used[order], np.searchsorted(image[order], np.arange(len(ids) + 1))
        self.positions: npt.NDArray[np.int64] = np.flatnonzero(np.diff(self._bounds))

    def __len__(self) -> int:
        """Number of images that are trained on."""
        return len(self.positions)

    def of(self, index: int) -> npt.NDArray[np.int64]:
        """Numbers of the annotations of the image with this number among those that are trained on."""
        position = self.positions[index]
        return self._objects[self._bounds[position] : self._bounds[position + 1]]

    def is_lying(self) -> torch.Tensor:
        """(N,) int64: 1 for images that are wider than high."""
        images = self._annotations.images
        return torch.tensor([int(images[position].width > images[position].height) for position in self.positions])


class DetectionReader:
    """Reads, resizes and flips images with their objects, in the main process or in those of a ``DataLoader``."""

    def __init__(
        self,
        data: CocoSet,
        objects: TrainingObjects,
        transform: DetectionTransform,
        hflip: float,
        seed: int,
        has_masks: bool,
    ) -> None:
        """Prepare to read.

        Args:
            data: the set.
            objects: which images and objects of it.
            transform: of the detector.
            hflip: probability of a horizontal flip.
            seed: of the flips.
            has_masks: whether targets have masks.
        """
        self._data, self._objects, self._transform, self._has_masks = data, objects, transform, has_masks
        self._hflip, self._seed = hflip, seed
        self._labels = {number: label for label, number in enumerate(data.annotations.categories)}

    def __call__(self, epoch: int, positions: tuple[int, ...]) -> DetectionBatch:
        """The images with these numbers among those that are trained on, as they are in ``epoch``.

        Raises:
            RunError: none of them can be decoded.
        """
        found: list[tuple[ResizedImage, Target] | None] = []
        bad: list[BadImage] = []
        for index in positions:
            seed_sample(self._seed, epoch, index)
            is_flipped = random.random() < self._hflip
            try:
                image = self._transform.resize(self._data.read(int(self._objects.positions[index])))
            except InputError as error:
                path = str(self._data.path(int(self._objects.positions[index])))
                bad.append(BadImage(path, str(error).removeprefix(f'{path}: ').partition(';')[0]))
                found.append(None)
                continue
            pair = image, self._target(index, image)
            found.append(_flipped(*pair) if is_flipped else pair)
        images, targets = zip(*with_substitutes(found, bad), strict=True)
        return DetectionBatch(list(images), list(targets), bad)

    def _target(self, index: int, image: ResizedImage) -> Target:
        annotations, numbers = self._data.annotations, self._objects.of(index)
        boxes = torch.from_numpy(annotations.boxes[numbers]).float()
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([self._labels[number] for number in annotations.category_ids[numbers].tolist()])
        masks = None
        if self._has_masks:
            toolbox, size = toolbox_masks(), image.geometry.original_size
            codes = [mask_code(annotations.segmentations[number], size, toolbox) for number in numbers.tolist()]
            masks = torch.from_numpy(toolbox.decode(codes)).permute(2, 0, 1)
        return resized_target(boxes, labels, masks, image.geometry)


def _flipped(image: ResizedImage, target: Target) -> tuple[ResizedImage, Target]:
    """Both turned about the vertical axis of the resized image, as mmdetection v1 does it."""
    boxes, width = target.boxes, image.geometry.size[1]
    turned = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
    masks = None if target.masks is None else target.masks.flip(2)
    return image._replace(pixels=image.pixels.flip(2)), Target(turned, target.labels, masks)
