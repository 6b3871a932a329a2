"""Training a detector: images with objects in COCO's format, the sum of its losses, validation by average precision."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from eca_zoo.detection.coco_images import CocoSet
from eca_zoo.detection.evaluation.detector_spec import DetectorSettings, DetectorSpec
from eca_zoo.detection.evaluation.run import evaluate_detectors
from eca_zoo.detection.networks.detectors import Detector
from eca_zoo.errors import InputError
from eca_zoo.harness.data.images import BadImage
from eca_zoo.harness.resume.signals import StopRequest
from eca_zoo.training.data.objects import DetectionBatch, DetectionReader, TrainingObjects
from eca_zoo.training.recipes.recipe import Recipe
from eca_zoo.training.record.log import DETECTOR_COLUMNS
from eca_zoo.training.tasks.task import Task

_PREFIXES = {'bbox': 'box', 'segm': 'mask'}
_FIGURES = ('ap', 'ap50', 'ap75')


@dataclass(frozen=True)
class ValidationSet:
    """What a detector is validated on, and how it runs there."""

    data: CocoSet
    settings: DetectorSettings


class DetectionTask(Task):
    """A detector and its images."""

    metric = 'box_ap'
    columns = tuple(DETECTOR_COLUMNS)

    def __init__(
        self,
        title: str,
        network: Detector,
        data: CocoSet,
        recipe: Recipe,
        validation: ValidationSet | None = None,
    ) -> None:
        """Put them together.

        Args:
            title: of the network.
            network: on its device; its categories are those of ``data``.
            data: to be trained on.
            recipe: how.
            validation: on what it is validated; None for never.

        Raises:
            InputError: no image has an object to be trained on, or objects lack masks that the network needs.
        """
        self.title, self.network, self._data, self._validation = title, network, data, validation
        self._objects = TrainingObjects(data.annotations)
        if not len(self._objects):
            raise InputError(f'{data.annotations.path}: none of its {len(data)} images has a box to be trained on')
        if network.has_masks:
            data.annotations.check_masks()
        self._reader = DetectionReader(
            data, self._objects, network.transform, recipe.hflip, recipe.seed, network.has_masks
        )

    def __len__(self) -> int:
        return len(self._objects)

    @property
    def left_out(self) -> int:
        """Images that have no object to be trained on."""
        return len(self._data) - len(self._objects)

    def reader(self) -> DetectionReader:
        return self._reader

    def loss(self, network: nn.Module, part: DetectionBatch, epoch: int) -> torch.Tensor:
        """The sum of the losses of ``part``, each of which is a mean over its own boxes, as in mmdetection v1."""
        losses = network(part.images, part.targets)
        return torch.stack(list(losses.values())).sum()

    def validate(self, network: nn.Module, stop: StopRequest) -> dict[str, Any]:
        if self._validation is None:
            return {}
        spec, data = DetectorSpec(self.title, label=self.title, module=network), self._validation.data  # type: ignore[arg-type]
        [result] = evaluate_detectors([spec], data, self._validation.settings, resamples=0, stop=stop, in_training=True)
        if result.error is not None:
            raise InputError(result.error)
        figures = {
            f'{_PREFIXES[task]}_{name}': found.figures[name]
            for task, found in result.tasks.items()
            for name in _FIGURES
        }
        return {**figures, 'num_images': result.num_images}

    def kinds(self) -> torch.Tensor:
        """(N,) int64: whether an image is wider than high."""
        return self._objects.is_lying()

    def names(self, positions: Sequence[int]) -> list[str]:
        images = self._data.annotations.images
        return [images[self._objects.positions[position]].file_name for position in positions]

    def bad_images(self, part: DetectionBatch) -> list[BadImage]:
        return part.bad

    def fingerprints(self) -> dict[str, Any]:
        validation = {} if self._validation is None else {'validation': self._validation.data.fingerprints()}
        train = {'name': self._data.name, 'categories': self._data.annotations.categories}
        return {'train': {**train, **self._data.fingerprints()}, **validation}
