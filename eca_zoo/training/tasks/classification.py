"""Training a classifier: its data sets, its loss by timm's parts, its validation by the harness."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.data import Mixup, resolve_data_config
from timm.data.mixup import mixup_target
from timm.data.random_erasing import RandomErasing
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import nn

from eca_zoo.errors import InputError
from eca_zoo.harness.accuracy.evaluation import evaluate
from eca_zoo.harness.accuracy.run_log import said_by_the_caller
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.batches import Normalization, check_channels, fit_channels
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.datasets import OpenData
from eca_zoo.harness.data.images import BadImage
from eca_zoo.harness.networks.building import input_channels
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.resume.signals import StopRequest
from eca_zoo.training.data.pixels import ImageBatch, ImageReader, TrainingTransform
from eca_zoo.training.recipes.recipe import Recipe
from eca_zoo.training.record.log import CLASSIFIER_COLUMNS
from eca_zoo.training.tasks.task import Task


class ClassificationTask(Task):
    """A classifier and its images."""

    metric = 'top1'
    columns = tuple(CLASSIFIER_COLUMNS)

    def __init__(
        self,
        title: str,
        network: nn.Module,
        data: OpenData,
        recipe: Recipe,
        validation: 'Validation | None' = None,
        device: torch.device | None = None,
    ) -> None:
        """Put them together.

        Args:
            title: of the network.
            network: on ``device``; its parameters' type is that of its input.
            data: to be trained on.
            recipe: how.
            validation: on what it is validated; None for never.
            device: of the network.

        Raises:
            InputError: classes and network do not fit, or the images have other channels.
        """
        self.title, self.network, self._data, self._recipe = title, network, data, recipe
        self._validation = validation
        self._device = device or torch.device('cpu')
        self._dtype = next(network.parameters()).dtype
        config = training_config(network, recipe)
        self._input_size, mean, std = config.input_size, config.mean, config.std
        self._normalize = Normalization(mean, std, config.input_size[0], self._device, self._dtype)
        num_classes = int(getattr(network, 'num_classes', 0))
        self._loss = ClassificationLoss(recipe, num_classes).to(self._device)
        self._erase = _erasing(recipe, self._device)
        mode = check_channels(config.input_size[0], data.spec.input_img_mode)
        transform = TrainingTransform(config.input_size, mean, mode, recipe)
        self._reader = ImageReader(data.images, data.class_indices(num_classes, title), transform, recipe.seed)

    def __len__(self) -> int:
        return len(self._data.images)

    def reader(self) -> ImageReader:
        return self._reader

    def loss(self, network: nn.Module, part: ImageBatch, epoch: int) -> torch.Tensor:
        memory_format = torch.channels_last if self._recipe.channels_last else torch.contiguous_format
        pixels = part.pixels.to(self._device, non_blocking=True).contiguous(memory_format=memory_format)
        labels = part.labels.to(self._device, non_blocking=True)
        images = self._normalize(pixels)
        if self._erase is not None:
            images = self._erase(images)
        images, targets = self._loss.mix(images, labels, epoch)
        logits = network(images)
        return self._loss(logits[0] if isinstance(logits, tuple | list) else logits, targets)

    def validate(self, network: nn.Module, stop: StopRequest) -> dict[str, Any]:
        return {} if self._validation is None else self._validation.run(network, stop)

    def names(self, positions: Sequence[int]) -> list[str]:
        return [self._data.images.name(position) for position in positions]

    def bad_images(self, part: ImageBatch) -> list[BadImage]:
        return part.bad

    def fingerprints(self) -> dict[str, Any]:
        validation = {} if self._validation is None else {'validation': self._validation.fingerprint}
        return {'train': self._data.fingerprints(), **validation}


@dataclass(frozen=True)
class Config:
    """What a network is trained with: (channels, height, width) in pixels, mean and deviation of the channels."""

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def training_config(network: nn.Module, recipe: Recipe) -> Config:
    """Input of ``network`` in training, as timm resolves it from the recipe and the network's cfg."""
    arguments = {'img_size': recipe.img_size, 'mean': None, 'std': None}
    config = resolve_data_config(arguments, model=network)
    channels = input_channels(network, config['input_size'][0])
    mean, std = (
        fit_channels(given if given is not None else config[key], channels)
        for key, given in (('mean', recipe.mean), ('std', recipe.std))
    )
    return Config((channels, *config['input_size'][1:]), mean, std)


class Validation:
    """The evaluation of the harness, on one data set with one network after the other."""

    def __init__(self, title: str, data: DataSpec, settings: EvalSettings, fingerprint: Any) -> None:
        self._title, self._data, self._settings = title, data, settings
        self.fingerprint = fingerprint

    def run(self, network: nn.Module, stop: StopRequest) -> dict[str, Any]:
        """Loss, top-1, top-5, the half width of top-1's interval, and the number of images.

        Raises:
            InputError: an image cannot be decoded.
            RunError: the network cannot be evaluated.
            InterruptedRunError: ``stop`` was set.
        """
        with said_by_the_caller():
            [result] = evaluate([ModelSpec(self._title, module=network)], self._data, self._settings, stop=stop)
        if result.error is not None:
            raise InputError(result.error)
        return {
            'val_loss': result.loss, 'top1': result.top1, 'top5': result.top5, 'top1_ci95': result.top1_ci95,
            'num_images': result.num_images,
        }  # fmt: skip


def validation_settings(recipe: Recipe, network: nn.Module, given: EvalSettings) -> EvalSettings:
    """``given`` with the transform and the numerics of the recipe."""
    config = training_config(network, recipe)
    return dataclasses.replace(
        given,
        img_size=recipe.val_img_size or recipe.img_size,
        use_train_size=True,
        crop_pct=recipe.crop_pct,
        interpolation=recipe.interpolation,
        mean=config.mean,
        std=config.std,
        channels_last=recipe.channels_last,
        precision=('amp' if recipe.amp_dtype == 'float16' else 'amp_bf16') if recipe.amp else 'fp32',
        seed=recipe.seed,
    )


class ClassificationLoss(nn.Module):
    """The loss that timm's training script chooses, and the mixing of images before it."""

    def __init__(self, recipe: Recipe, num_classes: int) -> None:
        super().__init__()
        self._num_classes, self._smoothing = num_classes, recipe.smoothing
        self._off_epoch = recipe.mixup_off_epoch
        self._mixup: Mixup | None = None
        if recipe.mixup > 0 or recipe.cutmix > 0 or recipe.cutmix_minmax is not None:
            self._mixup = Mixup(
                mixup_alpha=recipe.mixup, cutmix_alpha=recipe.cutmix, cutmix_minmax=recipe.cutmix_minmax,
                prob=recipe.mixup_prob, switch_prob=recipe.mixup_switch_prob, mode=recipe.mixup_mode,
                label_smoothing=recipe.smoothing, num_classes=num_classes,
            )  # fmt: skip
        self._criterion = self._choose(recipe)

    def _choose(self, recipe: Recipe) -> nn.Module:
        if recipe.bce_loss:
            return BinaryCrossEntropy(
                smoothing=0.0 if self._mixup is not None else recipe.smoothing,
                target_threshold=recipe.bce_target_thresh,
                sum_classes=recipe.bce_sum,
                pos_weight=recipe.bce_pos_weight,
            )
        if self._mixup is not None:
            return SoftTargetCrossEntropy()
        return LabelSmoothingCrossEntropy(recipe.smoothing) if recipe.smoothing else nn.CrossEntropyLoss()

    def mix(self, images: torch.Tensor, labels: torch.Tensor, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and targets with mixup or cutmix; timm mixes pairs, so that the last of an odd number stays alone."""
        if self._mixup is None:
            return images, labels
        self._mixup.mixup_enabled = not self._off_epoch or epoch < self._off_epoch
        even = len(images) // 2 * 2
        rest = mixup_target(labels[even:], self._num_classes, 1.0, self._smoothing)
        if not even:
            return images, rest
        mixed, targets = self._mixup(images[:even], labels[:even])
        return torch.cat([mixed, images[even:]]), torch.cat([targets, rest.to(targets.dtype)])

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean loss, of logits (N, C) and class indices (N,) or mixed targets (N, C)."""
        return self._criterion(logits, targets)


def _erasing(recipe: Recipe, device: torch.device) -> RandomErasing | None:
    if not recipe.reprob or recipe.no_aug:
        return None
    return RandomErasing(recipe.reprob, mode=recipe.remode, max_count=recipe.recount, device=str(device))
