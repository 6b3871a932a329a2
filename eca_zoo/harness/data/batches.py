"""Batches of decoded images: read, decoded and transformed once for all models of a pass, normalised on the device."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from PIL import Image, UnidentifiedImageError
from timm.data import create_transform
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from eca_zoo.errors import InputError, one_line
from eca_zoo.harness.data.gpu_decoding.left_encoded import Encoded, LeftEncoded, pack
from eca_zoo.harness.data.images import BadImage, Images
from eca_zoo.harness.data.libraries import StreamedImages
from eca_zoo.harness.data.preprocess import PreprocessMode, evaluation_transform, stack_channels_last
from eca_zoo.harness.resume.signals import leave_signals_to_parent


@dataclass(frozen=True)
class PixelTransform:
    """From an encoded image to pixels; models with equal ones share a pass over the data.

    Attributes:
        input_size: (channels, height, width) in pixels.
        crop_pct: share of the resized image that the crop keeps.
        crop_mode: ``center``, ``squash`` or ``border``.
        interpolation: of the resize.
        mode: Pillow's mode that images are converted to.
        crop_border_pixels: trimmed from the image before anything else.
        mean: colour of the border in the crop mode ``border``, and of the normalisation if that is done here.
        std: of the normalisation if that is done here; None leaves bytes.
        preprocess: ``exact`` or ``fast``, see ``evaluation_transform``; ``gpu`` leaves JPEG files to a
            ``DeviceDecoder``.
    """

    input_size: tuple[int, int, int]
    crop_pct: float
    crop_mode: str
    interpolation: str
    mode: str
    crop_border_pixels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    preprocess: PreprocessMode = 'exact'

    def build(self) -> Callable[[Any], Any]:
        """A function from a file-like object or a Pillow image to pixels.

        They are bytes as an array (H, W, C), or numbers as a tensor (C, H, W) if they are normalised here; with
        ``preprocess`` gpu what ``LeftEncoded`` gives.
        """
        if self.preprocess == 'gpu':
            return _Bytes(self.left_encoded())
        if self.std is None:
            return _Bytes(evaluation_transform(self._config(), self.preprocess, self.mode))
        return _Normalized(create_transform(**self._config(), std=self.std, is_training=False), self.mode)

    def left_encoded(self) -> LeftEncoded:
        """The transform with ``preprocess`` gpu.

        Raises:
            InputError: the device has no such transform.
        """
        return LeftEncoded(self._config(), self.mode)

    def _config(self) -> dict[str, Any]:
        return {
            'input_size': self.input_size, 'crop_pct': self.crop_pct, 'crop_mode': self.crop_mode,
            'crop_border_pixels': self.crop_border_pixels, 'interpolation': self.interpolation, 'mean': self.mean,
        }  # fmt: skip


class _Bytes:
    def __init__(self, transform: Callable[[Any], Any]) -> None:
        self._transform = transform

    def __call__(self, source: Any) -> Any:
        if isinstance(source, Image.Image):
            return self._transform(source)
        with source:
            content = source.read()
        if not content:
            raise OSError('the file is empty')
        return self._transform(content)


class _Normalized:
    """What timm's data set does without its prefetcher."""

    def __init__(self, transform: Callable[[Any], Any], mode: str) -> None:
        self._transform, self._mode = transform, mode

    def __call__(self, source: Any) -> Any:
        if isinstance(source, Image.Image):
            return self._transform(source.convert(self._mode))
        with source, Image.open(source) as image:
            return self._transform(image.convert(self._mode))


class Batch(NamedTuple):
    """Images of one block.

    Attributes:
        block: its number; -1 in a stream.
        indices: (2, N) int64 on the CPU: ``positions`` and ``labels``, in one tensor because they are copied together.
        pixels: (N, C, H, W) bytes with channels last in memory, or float32 if they are normalised.
        bad: images of the block that could not be decoded.
        sent: ``indices`` on the device; None before ``on_device``.
        encoded: images that the device is to decode, whose pixels are not among ``pixels`` yet; None without any.
        by_gpu: images that the device has decoded.
    """

    block: int
    indices: torch.Tensor
    pixels: torch.Tensor
    bad: list[BadImage]
    sent: torch.Tensor | None = None
    encoded: Encoded | None = None
    by_gpu: int = 0

    @property
    def positions(self) -> torch.Tensor:
        """(N,) of the images in the data set; -1 in a stream."""
        return self.indices[0]

    @property
    def labels(self) -> torch.Tensor:
        """(N,) labels of the data set."""
        return self.indices[1]


def number_of_blocks(count: int, block_size: int) -> int:
    """Blocks of ``block_size`` images, the last one maybe smaller, that ``count`` images make."""
    return -(-count // block_size)


class _Blocks(Dataset):
    """The block with a number: consecutive images, so that a batch is the same whichever process makes it."""

    def __init__(self, images: Images, block_size: int) -> None:
        self._images, self._block_size = images, block_size
        self._transform: PixelTransform | None = None

    def __getitem__(self, asked: tuple[PixelTransform, int]) -> Batch:
        transform, block = asked
        if self._transform != transform:
            self._transform, self._decode = transform, transform.build()
        start = block * self._block_size
        pixels: list[Any] = []
        good: list[int] = []
        labels: list[int] = []
        bad: list[BadImage] = []
        for position in range(start, min(start + self._block_size, len(self._images))):
            try:
                source, label = self._images.open(position)
                pixels.append(self._decode(source))
            except Exception as error:  # a decoder meets whatever bytes there are, and raises what it likes
                reason = one_line(error)
                if isinstance(error, UnidentifiedImageError):
                    reason = 'its content is no image that Pillow knows'
                bad.append(BadImage(self._images.name(position), reason))
                continue
            good.append(position)
            labels.append(label)
        encoded = None
        if transform.preprocess == 'gpu':
            pixels, encoded = pack(pixels)
        return Batch(block, _indices(good, labels), _stacked(pixels, transform), bad, encoded=encoded)


class _Stream(IterableDataset):
    """Blocks of a data set that can only be read in one go."""

    def __init__(self, images: StreamedImages, transform: PixelTransform, block_size: int, num_workers: int) -> None:
        self._images, self._transform, self._block_size = images, transform, block_size
        self._num_workers = num_workers

    def __iter__(self) -> Iterator[Batch]:
        decode = self._transform.build()
        pixels: list[Any] = []
        labels: list[int] = []
        for image, label in self._images.stream(self._num_workers):
            pixels.append(decode(image))
            labels.append(int(label))
            if len(pixels) == self._block_size:
                yield self._batch(pixels, labels)
                pixels, labels = [], []
        if pixels:
            yield self._batch(pixels, labels)

    def _batch(self, pixels: list[Any], labels: list[int]) -> Batch:
        return Batch(-1, _indices([-1] * len(labels), labels), _stacked(pixels, self._transform), [])


def _stacked(pixels: list[Any], transform: PixelTransform) -> torch.Tensor:
    if not pixels:
        return torch.empty((0, *transform.input_size), dtype=torch.uint8)
    return stack_channels_last(pixels) if transform.std is None else torch.stack(pixels)


def _indices(positions: Sequence[int], labels: Sequence[int]) -> torch.Tensor:
    return torch.tensor([positions, labels], dtype=torch.int64)


class Loader:
    """Batches of one data set; the processes that decode stay for all passes over it, whatever their transforms."""

    def __init__(
        self,
        images: Images,
        block_size: int,
        num_workers: int,
        pin_memory: bool = False,
        prefetch: int | None = None,
    ) -> None:
        """No process is started before the first pass.

        Args:
            images: the data set.
            block_size: images of a block.
            num_workers: processes that decode; 0 decodes in this one.
            pin_memory: page-locked batches.
            prefetch: batches that each process makes ahead; by default two.
        """
        self._images, self._block_size = images, block_size
        self._num_workers, self._pin_memory, self._prefetch = num_workers, pin_memory, prefetch
        self._asked: list[tuple[PixelTransform, int]] = []
        self._loader: DataLoader | None = None

    def batches(self, transform: PixelTransform, blocks: Sequence[int]) -> Iterable[Batch]:
        """Batches of the given blocks in their order; all images in the reader's order for a stream.

        Args:
            transform: what is done to each image.
            blocks: numbers of the blocks; of no use for a stream.
        """
        if isinstance(self._images, StreamedImages):
            stream = _Stream(self._images, transform, self._block_size, self._num_workers)
            return self._data_loader(stream, None, self._num_workers)
        self._asked[:] = [(transform, block) for block in blocks]
        if not self._asked:
            return ()
        if self._loader is None:
            workers = min(self._num_workers, number_of_blocks(len(self._images), self._block_size))
            self._loader = self._data_loader(_Blocks(self._images, self._block_size), self._asked, workers)
        return self._loader

    def close(self) -> None:
        """End the processes."""
        self._loader = None

    def _data_loader(self, data: Any, sampler: Any, workers: int) -> DataLoader:
        return DataLoader(
            data,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            collate_fn=_unchanged,
            worker_init_fn=prepare_worker,
            pin_memory=self._pin_memory,
            prefetch_factor=self._prefetch if workers else None,
            persistent_workers=workers > 0 and sampler is not None,
            # Without one, the loader would fix the process's own start method for good.
            multiprocessing_context=start_method() if workers else None,
            # Without one, the loader would draw from torch's global random state.
            generator=torch.Generator(),
        )


def start_method() -> str:
    """How a loader starts its processes: the way of this process, or the system's where it has chosen none yet."""
    return multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]


def _unchanged(batch: Any) -> Any:
    return batch


def prepare_worker(worker_id: int) -> None:
    """Leave signals to the main process: it stops its workers after it has saved what they did."""
    assert get_worker_info() is not None
    leave_signals_to_parent()


def on_device(batches: Iterable[Batch], device: torch.device, channels_last: bool) -> Iterator[Batch]:
    """Batches with their pixels and indices on ``device``; on CUDA the next is copied while the current one is used."""
    if device.type != 'cuda':
        for batch in batches:
            yield _sent(batch, device, channels_last)
        return
    stream = torch.cuda.Stream(device)
    ready: Batch | None = None
    for batch in batches:
        current = torch.cuda.current_stream(device)
        # Memory that the consumer gave back must not be overwritten before its work is done.
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            sent = _sent(batch, device, channels_last)
        if batch.pixels.is_cuda:
            # Decoded there, on a stream of its own.
            batch.pixels.record_stream(stream)
        if ready is not None:
            yield ready
        current.wait_stream(stream)
        for tensor in (sent.pixels, sent.sent):
            if tensor is not None:
                tensor.record_stream(current)
        ready = sent
    if ready is not None:
        yield ready


def _sent(batch: Batch, device: torch.device, channels_last: bool) -> Batch:
    asynchronous = device.type == 'cuda'
    pixels = _laid_out(batch.pixels.to(device, non_blocking=asynchronous), channels_last)
    return batch._replace(pixels=pixels, sent=batch.indices.to(device, non_blocking=asynchronous))


def _laid_out(pixels: torch.Tensor, channels_last: bool) -> torch.Tensor:
    # A convolution takes the memory format of its input, so that bytes in the wrong one would change the numbers.
    return pixels.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


class Normalization:
    """Subtracts the mean and divides by the deviation, on the device, in the order in which timm's prefetcher does."""

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], channels: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._dtype = dtype
        self._mean, self._std = (
            torch.tensor([value * 255 for value in fit_channels(stats, channels)], device=device, dtype=dtype).view(
                1, channels, 1, 1
            )
            for stats in (mean, std)
        )

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Bytes (N, C, H, W) as numbers of the model's type."""
        return pixels.to(self._dtype).sub_(self._mean).div_(self._std)


def fit_channels(stats: Sequence[float], channels: int) -> tuple[float, ...]:
    """One value for each channel; the mean of all where their number is another, as in timm."""
    if len(stats) == channels:
        return tuple(stats)
    return (sum(stats) / len(stats),) * channels


def check_channels(channels: int, mode: str | None) -> str:
    """Pillow's mode for images of ``channels``, ``mode`` if it is given.

    Raises:
        InputError: no mode has as many channels.
    """
    mode = mode or {1: 'L', 3: 'RGB'}.get(channels)
    with suppress(KeyError, ValueError):  # no such mode
        if mode is not None and len(Image.new(mode, (1, 1)).getbands()) == channels:
            return mode
    raise InputError(
        f'the model takes {channels} channels, and images have 1 (L) or 3 (RGB)'
        + (f', not those of --input-img-mode {mode}' if mode else "; --input-img-mode names another of Pillow's modes")
    )
