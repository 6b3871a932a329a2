"""From an encoded image to bytes for the network: timm's training transform, seeded image by image."""

import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from timm.data import auto_augment, create_transform
from timm.data.transforms import RandomResizedCropAndInterpolation, str_to_pil_interp
from torchvision.transforms import InterpolationMode

from eca_zoo.errors import RunError, one_line
from eca_zoo.harness.data.images import BadImage, Images
from eca_zoo.harness.data.preprocess import stack_channels_last
from eca_zoo.training.data.order import seed_sample
from eca_zoo.training.data.substitutes import with_substitutes
from eca_zoo.training.recipes.recipe import Recipe


class ImageBatch(NamedTuple):
    """Images of a part of a step.

    Attributes:
        pixels: (N, C, H, W) bytes with channels last in memory.
        labels: (N,) int64 class indices of the network.
        bad: images that could not be decoded; others of the part stand in their places.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    bad: list[BadImage]


@dataclass(frozen=True)
class TrainingTransform:
    """timm's training transform up to the bytes.

    Attributes:
        input_size: (channels, height, width) in pixels.
        mean: of the channels, in [0, 1]: what some augmentations fill with.
        mode: Pillow's mode that images are converted to.
        recipe: the augmentation.
    """

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    mode: str
    recipe: Recipe

    def build(self) -> Callable[[Image.Image], np.ndarray]:
        """A function from an image of ``mode`` to bytes (H, W, C); it draws from the global random states."""
        recipe = self.recipe
        jitter: Any = recipe.color_jitter
        composed: Any = create_transform(
            self.input_size, is_training=True, use_prefetcher=True, no_aug=recipe.no_aug,
            train_crop_mode=recipe.train_crop_mode, scale=recipe.scale, ratio=recipe.ratio, hflip=recipe.hflip,
            vflip=recipe.vflip, color_jitter=jitter, color_jitter_prob=recipe.color_jitter_prob,
            grayscale_prob=recipe.grayscale_prob, gaussian_blur_prob=recipe.gaussian_blur_prob, auto_augment=recipe.aa,
            interpolation=recipe.train_interpolation, mean=self.mean,
        )  # fmt: skip
        # The last step would make a tensor of the bytes, which the batch does.
        steps = list(composed.transforms[:-1])
        if recipe.preprocess == 'fast' and isinstance(steps[0], RandomResizedCropAndInterpolation):
            steps[0] = CropWithinResize(steps[0])
        for operation in _operations(steps):
            if operation.aug_fn is auto_augment.posterize:
                operation.aug_fn = posterize
        return _Steps(steps)


class _Steps:
    def __init__(self, steps: list[Callable[[Any], Any]]) -> None:
        self._steps = steps

    def __call__(self, image: Image.Image) -> np.ndarray:
        for step in self._steps:
            image = step(image)
        pixels = np.asarray(image)
        return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _operations(steps: list[Callable[[Any], Any]]) -> Iterator[auto_augment.AugmentOp]:
    for step in steps:
        if isinstance(step, auto_augment.AutoAugment):
            yield from (operation for operations in step.policy for operation in operations)
        elif isinstance(step, auto_augment.RandAugment | auto_augment.AugMixAugment):
            yield from step.ops


def posterize(image: Image.Image, bits_to_keep: int, **options: Any) -> Image.Image:
    """timm's, which keeps no bit at the end of the scale: the image is black, where Pillow from 13 on refuses."""
    if bits_to_keep < 1:
        return image.point(lambda _: 0)
    return auto_augment.posterize(image, bits_to_keep, **options)


class CropWithinResize:
    """timm's random resized crop with the same random crops, cut out by Pillow's resize.

    At the edges of the crop the filter sees the pixels beside it, in place of the edge's own ones.
    """

    def __init__(self, reference: RandomResizedCropAndInterpolation) -> None:
        self._reference = reference

    def __call__(self, image: Image.Image) -> Image.Image:
        reference = self._reference
        top, left, height, width = reference.get_params(image, reference.scale, reference.ratio)
        given: Any = reference.interpolation
        mode: InterpolationMode = random.choice(given) if isinstance(given, list | tuple) else given
        box = (left, top, left + width, top + height)
        return image.resize((reference.size[1], reference.size[0]), str_to_pil_interp(mode.value), box)


class ImageReader:
    """Reads, decodes and augments images, in the main process or in those that a ``DataLoader`` starts."""

    def __init__(self, images: Images, class_indices: list[int], transform: TrainingTransform, seed: int) -> None:
        self._images, self._transform, self._seed = images, transform, seed
        self._class_indices = class_indices
        self._augment: Callable[[Image.Image], np.ndarray] | None = None

    def __call__(self, epoch: int, positions: tuple[int, ...]) -> ImageBatch:
        """The images at ``positions`` as they are in ``epoch``.

        Raises:
            RunError: none of them can be decoded, or the augmentation fails.
        """
        if self._augment is None:
            self._augment = self._transform.build()
        found: list[tuple[np.ndarray, int] | None] = []
        bad: list[BadImage] = []
        for position in positions:
            if not self._transform.recipe.no_aug:  # else nothing is drawn
                seed_sample(self._seed, epoch, position)
            try:
                source, label = self._images.open(position)
                image = self._decoded(source)
            except Exception as error:  # a decoder meets whatever bytes there are, and raises what it likes
                unknown = isinstance(error, UnidentifiedImageError)
                reason = 'its content is no image that Pillow knows' if unknown else one_line(error)
                bad.append(BadImage(self._images.name(position), reason))
                found.append(None)
                continue
            try:
                found.append((self._augment(image), self._class_indices[label]))
            except Exception as error:
                name = self._images.name(position)
                raise RunError(f'{name}: the augmentation of the recipe fails on it: {one_line(error)}') from error
        pixels, labels = zip(*with_substitutes(found, bad), strict=True)
        return ImageBatch(stack_channels_last(pixels), torch.tensor(labels), bad)

    def _decoded(self, source: Any) -> Image.Image:
        mode = self._transform.mode
        if isinstance(source, Image.Image):
            return source if source.mode == mode else source.convert(mode)
        with source:
            content = source.read()
        if not content:
            raise OSError('the file is empty')
        image: Image.Image = Image.open(io.BytesIO(content))
        if image.mode != mode:
            return image.convert(mode)
        image.load()
        return image
