"""timm's evaluation transform in less time: with identical pixels, or with nearly identical ones in half of it."""

import functools
import io
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import timm.data
import torch
from PIL import Image
from timm.data.transforms import MaybePILToTensor, ResizeKeepRatio, str_to_pil_interp
from torchvision import transforms
from torchvision.io import decode_jpeg

from eca_zoo.errors import InputError

_logger = logging.getLogger(__name__)

TransformMode = Literal['exact', 'fast']
TRANSFORM_MODES: tuple[TransformMode, ...] = ('exact', 'fast')
#: With what ``harness.data.gpu_decoding`` does.
PreprocessMode = Literal['exact', 'fast', 'gpu']
PREPROCESS_MODES: tuple[PreprocessMode, ...] = (*TRANSFORM_MODES, 'gpu')
UInt8Array = npt.NDArray[np.uint8]

# Half width of Pillow's filters, in output pixels; from its Resample.c.
_FILTER_SUPPORT = {'box': 0.5, 'bilinear': 1.0, 'hamming': 1.0, 'bicubic': 2.0, 'lanczos': 3.0}
# Modes of 8 bits whose bands Pillow resizes one by one; it multiplies colours by transparency before and divides after.
_INDEPENDENT_BANDS = ('RGB', 'L', 'CMYK', 'YCbCr', 'LAB', 'HSV')
# Usual sizes of photographs; the first use of a transform looks whether Pillow does there what is expected of it.
_CHECKED_SIZES = ((500, 375), (375, 500), (500, 333), (256, 600))
#: torch resizes with these filters alone as Pillow does.
TORCH_FILTERS = ('bilinear', 'bicubic')
# Pillow's resize takes its box as C floats, which hold integers below this exactly.
_FLOAT32_INTEGERS = 1 << 24
# Copying a band of rows pays where it leaves out this share of them.
_WORTHWHILE_SHARE = 0.05
# The fast resize begins and ends where an edge of an output pixel lies this near to one of an input pixel.
_GRID_DISTANCE = 1 / 16


def evaluation_transform(
    data_config: Mapping[str, Any], mode: TransformMode = 'exact', image_mode: str | None = None
) -> 'EvaluationTransform':
    """The transform from a stored image to the network's uint8 input, for a timm data set's ``transform``.

    Args:
        data_config: as ``timm.data.resolve_data_config`` gives it: ``input_size`` (channels, height, width),
            and optionally ``interpolation``, ``crop_pct``, ``crop_mode``, ``crop_border_pixels``, ``mean``.
        mode: ``exact`` gives the pixels of timm's evaluation transform, bit for bit. ``fast`` decodes JPEG files and
            resizes with torchvision; docs/notes/input_path.md says how much its pixels differ.
        image_mode: Pillow's mode that images are converted to; by default RGB for three channels, else L (as in
            timm's validate.py).

    Returns:
        A picklable callable from a PIL image, the bytes of an image file or an open one to an array of shape
        (height, width, channels) and type uint8, which may be read-only. ``fast`` gains most where it is given a file
        or its bytes (``load_bytes=True`` of timm's data sets). What is no image raises what Pillow raises (``OSError``,
        ``PIL.UnidentifiedImageError``, ``SyntaxError`` or ``ValueError``).

    Raises:
        InputError: the mode, the interpolation or the size of the input is none that can be had.
    """
    if mode not in TRANSFORM_MODES:
        raise InputError(f'preprocess mode {mode!r} is unknown; use one of {", ".join(TRANSFORM_MODES)}')
    size = _input_size(data_config)
    image_mode = image_mode or ('RGB' if size[0] == 3 else 'L')
    return EvaluationTransform(_timm_transform(data_config, size), image_mode, mode)


def stack_channels_last(images: Sequence[UInt8Array]) -> torch.Tensor:
    """One uint8 batch of shape (images, channels, height, width), channels-last in memory, from arrays of
    (height, width, channels).

    In a worker process of a ``DataLoader`` the batch is laid in shared memory, so that handing it over copies nothing.
    """
    shape = (len(images), *images[0].shape)
    if torch.utils.data.get_worker_info() is None:
        batch = torch.empty(shape, dtype=torch.uint8)
    else:
        size = math.prod(shape)
        batch = torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(size), 0, shape)  # type: ignore[call-overload]
    np.stack(images, out=batch.numpy())
    return batch.permute(0, 3, 1, 2)


def collate_channels_last(samples: Sequence[tuple[UInt8Array, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``collate_fn`` of a ``DataLoader`` for (image, class index) pairs of ``evaluation_transform``.

    Returns:
        Images as ``stack_channels_last`` gives them, and class indices of shape (images,) and type int64.
    """
    images, targets = zip(*samples, strict=True)
    return stack_channels_last(images), torch.tensor(targets, dtype=torch.int64)


class EvaluationTransform:
    """See ``evaluation_transform``; ``reference`` is timm's own transform, whose pixels are the standard.

    ``plan`` says what it does where it is a resize and a centre crop; else it is None.
    """

    def __init__(self, reference: transforms.Compose, image_mode: str, mode: TransformMode) -> None:
        """Speed up what is known of ``reference``; the rest is left to it.

        Args:
            reference: steps from a PIL image of ``image_mode`` to a uint8 tensor (channels, height, width).
            image_mode: Pillow's mode that images are converted to.
            mode: ``exact`` or ``fast``.
        """
        self.reference = reference
        self.image_mode = image_mode
        self.mode = mode
        self.plan = CropPlan.of(reference.transforms) if image_mode in _INDEPENDENT_BANDS else None
        self._agrees: bool | None = None

    def __call__(self, image: Image.Image | bytes | BinaryIO) -> UInt8Array:
        """The network's input of shape (height, width, channels), uint8."""
        if not isinstance(image, Image.Image | bytes):
            image = image.read()
        if self.mode == 'fast' and self.plan and self.plan.interpolation in TORCH_FILTERS:
            return self._fast(image, self.plan)
        picture = self._picture(image)
        if self.plan and self._is_exact():
            axes = self.plan.axes(picture)
            if axes and rows_first(picture.size, (axes[0].resized, axes[1].resized)):
                return _with_channels(_resize_exactly(picture, *axes, self.plan.interpolation))
        return self._as_timm(picture)

    def __repr__(self) -> str:
        return f'EvaluationTransform({self.mode}, {self.image_mode}, {self.reference})'

    def _is_exact(self) -> bool:
        """Whether the pixels equal those of timm with the Pillow of this process; looked at once."""
        if self._agrees is None:
            self._agrees = True
            for size in _CHECKED_SIZES:
                picture = _noise(size, self.image_mode)
                if not np.array_equal(self(picture), self._as_timm(picture)):
                    self._agrees = False
                    _logger.warning('Pillow resizes in another way than is known here; images take longer to prepare')
                    break
        return self._agrees

    def _picture(self, image: Image.Image | bytes) -> Image.Image:
        picture = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image
        if picture.mode != self.image_mode:
            return picture.convert(self.image_mode)
        picture.load()
        return picture

    def _as_timm(self, picture: Image.Image) -> UInt8Array:
        return self.reference(picture).permute(1, 2, 0).contiguous().numpy()

    def _fast(self, image: Image.Image | bytes, plan: 'CropPlan') -> UInt8Array:
        pixels = _decode_jpeg(image) if isinstance(image, bytes) and self.image_mode == 'RGB' else None
        if pixels is None:
            image = self._picture(image)
            pixels = torch.from_numpy(_with_channels(np.array(image))).permute(2, 0, 1)
        axes = plan.axes(pixels)
        if axes is None:
            return self._as_timm(self._picture(image))
        return _resize_fast(pixels, *axes, plan.interpolation)


@dataclass(frozen=True)
class Axis:
    """One axis of a resize and crop: ``size`` pixels become ``resized``, of which ``count`` from ``first`` are kept."""

    size: int
    resized: int
    first: int
    count: int

    def source(self, interpolation: str) -> tuple[int, int]:
        """The first input pixel that the kept ones depend on, and the one after the last; a little generous."""
        scale = self.size / self.resized
        support = _FILTER_SUPPORT[interpolation] * max(scale, 1.0) + 1.5
        first = math.floor((self.first + 0.5) * scale - support)
        last = math.ceil((self.first + self.count - 0.5) * scale + support)
        return max(first, 0), min(last, self.size)

    def exact_box(self) -> tuple[float, float] | None:
        """Where the kept pixels begin and end in the input, if Pillow's arithmetic is exact there.

        Pillow derives its filter weights from the scale and the box in floating point. When the scale is an integer
        over a power of two, all of that is exact, so that the weights of the kept pixels alone equal those which a
        resize of everything gives them. Otherwise they may differ in the last bit, and a pixel by one grey level.
        """
        divisor = math.gcd(self.size, self.resized)
        numerator, denominator = self.size // divisor, self.resized // divisor
        if denominator & (denominator - 1) or 2 * self.size * denominator >= _FLOAT32_INTEGERS:
            return None
        scale = numerator / denominator
        return self.first * scale, (self.first + self.count) * scale


@dataclass(frozen=True)
class CropPlan:
    """What timm's transform does where it is a resize and a centre crop."""

    resize: transforms.Resize | ResizeKeepRatio
    crop: tuple[int, int]
    interpolation: str

    @classmethod
    def of(cls, steps: Sequence[Any]) -> 'CropPlan | None':
        """The plan of ``steps``, or None where they are anything else."""
        if len(steps) != 3 or type(steps[1]) is not transforms.CenterCrop or type(steps[2]) is not MaybePILToTensor:
            return None
        resize = steps[0]
        if type(resize) is transforms.Resize:
            if resize.max_size is not None:
                return None
        elif type(resize) is not ResizeKeepRatio or resize.random_scale_prob or resize.random_aspect_prob:
            return None
        interpolation = getattr(resize.interpolation, 'value', None)
        if interpolation not in _FILTER_SUPPORT:
            return None
        height, width = steps[1].size
        return cls(resize, (height, width), interpolation)

    def axes(self, image: Image.Image | torch.Tensor) -> tuple[Axis, Axis] | None:
        """The horizontal and the vertical axis; None where the crop is larger than the resized ``image``."""
        width, height = image.size if isinstance(image, Image.Image) else (image.shape[2], image.shape[1])
        resized = self._resized(image, height, width)
        if resized[0] < self.crop[0] or resized[1] < self.crop[1]:
            return None
        vertical, horizontal = (
            # torchvision's centre crop rounds half to even, as round does.
            Axis(size, after, round((after - kept) / 2), kept)
            for size, after, kept in zip((height, width), resized, self.crop, strict=True)
        )
        return horizontal, vertical

    def _resized(self, image: Image.Image | torch.Tensor, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.resize, ResizeKeepRatio):
            height, width = self.resize.get_params(image, self.resize.size, self.resize.longest)
            return height, width
        size = self.resize.size
        if not isinstance(size, int):
            return size[0], size[-1]
        if width <= height:
            return int(size * height / width), size
        return size, int(size * width / height)


def rows_first(size: tuple[int, int], resized: tuple[int, int]) -> bool:
    """Whether Pillow resizes along rows (horizontally) before it does along columns; sizes are (width, height).

    It does up to version 12. Since 13, columns go first where the height shrinks by more than twice as many pixels as
    the width. The order shows, because the pixels in between are rounded.
    """
    shrinks_by = size[1] - resized[1]
    return shrinks_by <= 0 or shrinks_by <= 2 * (size[0] - resized[0])


def _noise(size: tuple[int, int], image_mode: str) -> Image.Image:
    bands = len(Image.new(image_mode, (1, 1)).getbands())
    pixels = np.random.default_rng(0).integers(0, 256, size[0] * size[1] * bands, dtype=np.uint8)
    return Image.frombytes(image_mode, size, pixels.tobytes())


def _resize_exactly(image: Image.Image, horizontal: Axis, vertical: Axis, interpolation: str) -> UInt8Array:
    """The pixels that Pillow's resize of everything and a crop give, computing as few of the others as is possible.

    Pillow resizes along rows first and rounds in between. Rows are independent of each other in the first pass and
    columns in the second, so that what the crop does not need can be left out of either.
    """
    resample = str_to_pil_interp(interpolation)
    columns, rows = horizontal.exact_box(), vertical.exact_box()
    size = (horizontal.count, vertical.count)
    if columns and rows and rows_first(image.size, size):
        return np.asarray(image.resize(size, resample, (columns[0], rows[0], columns[1], rows[1])))
    top, bottom = vertical.source(interpolation)
    if bottom - top > (1 - _WORTHWHILE_SHARE) * image.height:
        top, bottom = 0, image.height
    else:
        image = image.crop((0, top, image.width, bottom))
    if columns:
        image = image.resize((horizontal.count, bottom - top), resample, (columns[0], 0, columns[1], bottom - top))
    else:
        image = image.resize((horizontal.resized, bottom - top), resample)
        image = image.crop((horizontal.first, 0, horizontal.first + horizontal.count, bottom - top))
    if rows:
        return np.asarray(image.resize(size, resample, (0, rows[0] - top, horizontal.count, rows[1] - top)))
    if bottom - top < vertical.size:
        # The weights depend on the image's height; what the rows outside hold does not matter.
        full = Image.new(image.mode, (horizontal.count, vertical.size))
        full.paste(image, (0, top))
        image = full
    image = image.resize((horizontal.count, vertical.resized), resample)
    return np.asarray(image)[vertical.first : vertical.first + vertical.count]


@functools.lru_cache(maxsize=1024)
def _meeting_range(axis: Axis) -> tuple[int, int, int, int]:
    """Resized pixels (first, last + 1) around the kept ones, and the nearly same range in whole input pixels."""
    scale = axis.size / axis.resized

    def meets(edge: int) -> bool:
        return abs(edge * scale - round(edge * scale)) <= _GRID_DISTANCE

    # The ends of the axis meet always.
    start = next(edge for edge in range(axis.first, -1, -1) if meets(edge))
    stop = next(edge for edge in range(axis.first + axis.count, axis.resized + 1) if meets(edge))
    return start, stop, round(start * scale), max(round(stop * scale), round(start * scale) + 1)


def _resize_fast(pixels: torch.Tensor, horizontal: Axis, vertical: Axis, interpolation: str) -> UInt8Array:
    """Resize and crop with torch's antialiased uint8 kernels, around the crop alone.

    The region is chosen so that its edges lie on whole input pixels as nearly as possible.
    """
    left, right, source_left, source_right = _meeting_range(horizontal)
    top, bottom, source_top, source_bottom = _meeting_range(vertical)
    region = pixels[None, :, source_top:source_bottom, source_left:source_right]
    # The kernels are slower on a view.
    region = region.contiguous(memory_format=torch.channels_last)
    size = (bottom - top, right - left)
    resized = torch.nn.functional.interpolate(region, size=size, mode=interpolation, antialias=True)
    y, x = vertical.first - top, horizontal.first - left
    kept = resized[0].permute(1, 2, 0).numpy()[y : y + vertical.count, x : x + horizontal.count]
    return np.ascontiguousarray(kept)


def _decode_jpeg(data: bytes) -> torch.Tensor | None:
    """RGB pixels (3, height, width) of a JPEG file, or None where Pillow should see to it."""
    if data[:3] != b'\xff\xd8\xff':
        return None
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    try:
        pixels = decode_jpeg(encoded)
    except RuntimeError:
        return None
    if pixels.shape[0] == 1:
        return pixels.expand(3, -1, -1)
    return pixels if pixels.shape[0] == 3 else None


def _with_channels(pixels: UInt8Array) -> UInt8Array:
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _input_size(data_config: Mapping[str, Any]) -> tuple[int, int, int]:
    size = tuple(data_config.get('input_size', ()))
    if len(size) != 3 or min(size) < 1:
        raise InputError(f'input_size is {size}; it must be (channels, height, width), each at least 1')
    return size


def _timm_transform(data_config: Mapping[str, Any], size: tuple[int, int, int]) -> transforms.Compose:
    options = ('interpolation', 'crop_pct', 'crop_mode', 'crop_border_pixels', 'mean', 'std')
    given = {name: data_config[name] for name in options if data_config.get(name) is not None}
    interpolation = given.get('interpolation', 'bilinear')
    known = ('nearest', *_FILTER_SUPPORT)
    if interpolation not in known and interpolation != 'random':
        raise InputError(f'interpolation {interpolation!r} is unknown; use one of {", ".join(known)}')
    return timm.data.create_transform(size, is_training=False, use_prefetcher=True, **given)
