"""Part of the first hour: the pixels of --preprocess gpu beside those of the CPU's decoder, and what they change."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from gpu_hour.counting import counted
from gpu_hour.hour import Hour, Skipped
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from eca_zoo.harness.data.batches import Loader, PixelTransform, number_of_blocks
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.datasets import open_data
from eca_zoo.harness.data.gpu_decoding import device_decoder
from eca_zoo.harness.data.gpu_decoding.device_decoder import DeviceDecoder, check_decoder, decode_jpegs

_BLOCK = 32
# How photographs are encoded; None leaves the files as they are, which have half the colours' resolution (4:2:0).
_KINDS: dict[str, dict[str, Any] | None] = {
    'as they are': None,
    '4:4:4': {'subsampling': '4:4:4'},
    '4:2:2': {'subsampling': '4:2:2'},
    'progressive': {'progressive': True},
    'grey': {},
}
# Of every so many files there is one of each other kind.
_EVERY = 5


class Levels:
    """Differences of pixels, in levels of 0 to 255."""

    def __init__(self) -> None:
        self._counts = torch.zeros(256, dtype=torch.int64)

    def add(self, pixels: torch.Tensor, reference: torch.Tensor) -> None:
        """Count the differences of two tensors of bytes of the same shape."""
        if pixels.shape != reference.shape:
            raise AssertionError(f'shapes {list(pixels.shape)} and {list(reference.shape)}')
        difference = (pixels.cpu().short() - reference.cpu().short()).abs()
        self._counts += torch.bincount(difference.flatten().long(), minlength=256)

    def __str__(self) -> str:
        total = int(self._counts.sum())
        mean = float((self._counts * torch.arange(256)).sum()) / total
        within = int((self._counts.cumsum(0) < 0.999 * total).sum())
        different = total - int(self._counts[0])
        return (
            f'{different:,} of {total:,} values differ ({100 * different / total:.3f} %); the mean difference is '
            f'{mean:.4f} levels, the 99.9th percentile {within}, the largest {int(self._counts.nonzero().max())}'
        )


def decoding(hour: Hour) -> str:
    """(j) The pixels of --preprocess gpu beside Pillow's and timm's: how many differ, by how much, and what changes."""
    if torch.version.hip is not None:
        raise Skipped('needs nvJPEG, which is for GPUs of NVIDIA')
    device = torch.device('cuda:0' if hour.gpus else 'cpu')
    check_decoder(device)
    name = "nvJPEG's" if hour.gpus else "torchvision's decoder on the CPU (nvJPEG needs a GPU)"
    data, model = hour.data()['photographs']
    lines = [f'Pixels: {name}, resized on {device}; the reference is Pillow, and the exact input of a network.']
    for kind, options in _KINDS.items():
        other = hour.folder / 'kinds' / kind.replace(':', '')
        folder = data if options is None else _encoded(data, other, kind, options)
        lines.append(f'- {kind}, decoded: {_decoded(folder, device)}')
        for interpolation in ('bilinear', 'bicubic'):
            levels, by_device, images = _inputs(folder, device, interpolation)
            who = f'{by_device} of {images} images decoded there, the others by Pillow'
            lines.append(f'- {kind}, input ({interpolation}): {levels}; {who}')
    # Without a GPU everything but nvJPEG is run.
    with mock.patch.object(device_decoder, 'DECODING_DEVICES', (device.type,)):
        return '\n'.join([*lines, _guesses(hour, data, model, device)])


def _encoded(data: Path, folder: Path, kind: str, options: dict[str, Any]) -> Path:
    """Some of the photographs, encoded in another way."""
    for path in sorted(data.rglob('*.JPEG'))[::_EVERY]:
        target = folder / path.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.convert('L' if kind == 'grey' else 'RGB').save(target, quality=90, **options)
    return folder


def _decoded(folder: Path, device: torch.device) -> Levels:
    """Pixels of the files themselves, before any resize."""
    levels = Levels()
    for path in sorted(folder.rglob('*.JPEG')):
        content = path.read_bytes()
        [pixels] = decode_jpegs([torch.frombuffer(bytearray(content), dtype=torch.uint8)], device)
        levels.add(pixels, pil_to_tensor(Image.open(io.BytesIO(content)).convert('RGB')))
    return levels


def _inputs(folder: Path, device: torch.device, interpolation: str) -> tuple[Levels, int, int]:
    """Pixels that a network sees, how many images the device has decoded, and how many there are."""
    images = open_data(DataSpec(root=folder)).images
    levels, by_device = Levels(), 0

    def batches(preprocess: Any) -> Iterator[Any]:
        transform = PixelTransform((3, 224, 224), 0.875, 'center', interpolation, 'RGB', preprocess=preprocess)
        made = Loader(images, _BLOCK, 0).batches(transform, range(number_of_blocks(len(images), _BLOCK)))
        if preprocess == 'gpu':
            made = DeviceDecoder(transform.left_encoded(), device, images.name).batches(made)
        yield from made

    for batch, exact in zip(batches('gpu'), batches('exact'), strict=True):
        levels.add(batch.pixels, exact.pixels)
        by_device += batch.by_gpu
    return levels, by_device, len(images)


def _guesses(hour: Hour, data: Path, model: dict, device: torch.device) -> str:
    """What the other pixels do to the guesses of a real classifier."""
    exact, reference = counted(hour, data, model, str(device), 'fp32')
    frame, guesses = counted(hour, data, model, str(device), 'fp32', preprocess='gpu')
    flips = sum(ours[0] != theirs[0] for ours, theirs in zip(guesses, reference, strict=True))
    right = [round(table.top1[0] * table.num_images[0] / 100) for table in (exact, frame)]
    if not frame.gpu_decoded[0]:
        raise AssertionError(f'{device} has decoded none of the photographs')
    return (
        f'- guesses of {model["models"]}: {flips} of {len(guesses)} first guesses change; top-1 {right[0]} exact and '
        f'{right[1]} gpu of {frame.num_images[0]}; {frame.gpu_decoded[0]} images decoded on {device}, '
        f'{frame.cpu_decoded[0]} by Pillow'
    )
