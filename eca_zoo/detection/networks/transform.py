"""What is done to an image before a detector sees it: resized in bytes, normalised, padded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from eca_zoo.errors import InputError

# OpenCV's integers: weights of a pixel have 11 bits, sums over columns lose 4 bits before rows are weighted.
_BITS = 11
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Geometry(NamedTuple):
    """Sizes (height, width) in pixels of an image before and after its resize, and the factor that was asked for."""

    original_size: tuple[int, int]
    size: tuple[int, int]
    scale: float


class ResizedImage(NamedTuple):
    """Pixels (3, h, w) in uint8 after the resize, which detectors with an equal one may share."""

    pixels: torch.Tensor
    geometry: Geometry


@dataclass(frozen=True)
class DetectionTransform:
    """The transform of the authors' framework.

    Attributes:
        shorter: pixels that the shorter side is resized to,
        longest: unless the longer one would become longer than this.
        divisor: images are padded to a multiple of it, right and below.
        mean: of the pixels in [0, 1], by channel.
        std: of the pixels in [0, 1], by channel.
    """

    shorter: int = 800
    longest: int = 1333
    divisor: int = 32
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def geometry(self, height: int, width: int) -> Geometry:
        """Sizes of an image and its factor; a size is rounded to the nearest, where torchvision rounds down."""
        scale = min(self.shorter / min(height, width), self.longest / max(height, width))
        size = (max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1))
        return Geometry((height, width), size, scale)

    def resize(self, image: torch.Tensor) -> ResizedImage:
        """Resize an image (3, H, W), uint8 or floating point in [0, 1]; the latter is rounded to bytes first.

        Raises:
            InputError: it is no such image.
        """
        pixels = _to_bytes(image)
        geometry = self.geometry(*pixels.shape[1:])
        return ResizedImage(resize_bytes(pixels, geometry.size), geometry)

    def normalise(self, pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Bytes (3, h, w) to what networks are trained on, in ``dtype``; computed in float32 at least."""
        computed = torch.promote_types(dtype, torch.float32)
        mean, std = (torch.tensor(values, dtype=computed, device=pixels.device) for values in (self.mean, self.std))
        shift, factor = (mean * 255)[:, None, None], (1 / (std * 255))[:, None, None]
        return ((pixels.to(computed) - shift) * factor).to(dtype)

    def padded(self, size: Sequence[int]) -> tuple[int, int]:
        """The least multiples of the divisor that an image of ``size`` (height, width) fits in."""
        height, width = (-(-side // self.divisor) * self.divisor for side in size)
        return height, width

    def batch(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """Normalised images (3, h, w) as one tensor (N, 3, H, W), padded with zeros to the largest and the divisor."""
        height, width = self.padded([max(image.shape[axis] for image in images) for axis in (1, 2)])
        return torch.stack([F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image in images])


def _to_bytes(image: Any) -> torch.Tensor:
    if not isinstance(image, torch.Tensor) or image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        what = f'shape {tuple(image.shape)}' if isinstance(image, torch.Tensor) else type(image).__name__
        raise InputError(f'an image is a tensor (3, height, width) in [0, 1], not {what}')
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        raise InputError(f'an image has uint8 or floating-point values in [0, 1], not {image.dtype}')
    low, high = torch.aminmax(image.detach())
    if not (low >= 0 and high <= 1):
        raise InputError(
            f'an image has values in [0, 1], not from {float(low):g} to {float(high):g}; '
            'the detector normalises it itself'
        )
    return (image.detach() * 255).round().to(torch.uint8)


def resize_bytes(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """``image`` (C, H, W) in uint8, resized bilinearly without antialiasing to ``size`` (h, w), as OpenCV does it.

    In integers: columns first, then rows (OpenCV's ``resize``, ``INTER_LINEAR`` for bytes).
    """
    height, width = image.shape[1:]
    if (height, width) == size:
        return image
    left, right, column_weights = _neighbours(width, size[1], image.device)
    upper, lower, row_weights = _neighbours(height, size[0], image.device)
    pixels = image.to(torch.int32)
    columns = pixels.index_select(2, left).mul_(column_weights[0]).add_(
        pixels.index_select(2, right).mul_(column_weights[1])
    )  # fmt: skip
    columns >>= 4
    rows = [
        columns.index_select(1, index).mul_(weight[:, None]).bitwise_right_shift_(16)
        for index, weight in zip((upper, lower), row_weights, strict=True)
    ]
    return rows[0].add_(rows[1]).add_(2).bitwise_right_shift_(2).to(torch.uint8)


def _neighbours(
    count: int, new_count: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """The two pixels along one side that each new pixel lies between, and their integer weights."""
    centre = (torch.arange(new_count, dtype=torch.float64) + 0.5) * (count / new_count) - 0.5
    centre = centre.float()  # as OpenCV has it
    first = centre.floor()
    part = centre - first
    part[(first < 0) | (first >= count - 1)] = 0
    first = first.clamp(0, count - 1).long()
    weights = ((1 - part) * 2**_BITS).round().int(), (part * 2**_BITS).round().int()
    second = (first + 1).clamp(max=count - 1)
    return first.to(device), second.to(device), (weights[0].to(device), weights[1].to(device))
