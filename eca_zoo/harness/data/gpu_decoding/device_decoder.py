"""Decodes and resizes on the device the JPEG files that batches hold, and on the CPU what it does not take of them."""

import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from eca_zoo.errors import InputError, one_line
from eca_zoo.harness.data.gpu_decoding.left_encoded import LeftEncoded
from eca_zoo.harness.data.images import BadImage
from eca_zoo.harness.data.preprocess import EvaluationTransform, rows_first
from eca_zoo.harness.machine.device_errors import is_device_lost, is_out_of_memory
from eca_zoo.harness.machine.memory import release_memory

if TYPE_CHECKING:
    from eca_zoo.harness.data.batches import Batch

_logger = logging.getLogger(__name__)

#: Kinds of devices that decode; tests of what surrounds nvJPEG add the CPU, where torchvision has libjpeg-turbo.
DECODING_DEVICES = ('cuda',)
# Bytes of decoded files that are on the device at once; 256 photographs of ImageNet's usual size are 144 million.
_ROOM = 1 << 28
# Since torchvision 0.29; what it names instead, TorchCodec, is a dependency more.
_DEPRECATION = 'The image decoding and encoding capabilities of TorchVision'
# Mean difference to Pillow, in levels, that is no rounding: channels in another order, memory that was not written.
_OTHER_PICTURE = 8


def check_decoding_device(device: torch.device) -> None:
    """Refuse a device that decodes no JPEG files.

    Raises:
        InputError: it does not.
    """
    if device.type not in DECODING_DEVICES or torch.version.hip is not None:
        found = 'an AMD GPU' if torch.version.hip is not None and device.type == 'cuda' else device
        raise InputError(f'--preprocess gpu decodes with nvJPEG, on CUDA alone, not on {found}; choose exact or fast')


def check_decoder(device: torch.device) -> None:
    """Have a small picture decoded on ``device``, so that a decoder that is not there is found before a run begins.

    Raises:
        InputError: it is not there, or gives another picture.
    """
    y, x = np.mgrid[:48, :64]
    file = io.BytesIO()
    Image.fromarray(np.stack([4 * x, 5 * y, 2 * (x + y)], axis=2).astype(np.uint8)).save(
        file, 'jpeg', quality=95, subsampling=0
    )
    expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
    try:
        [pixels] = decode_jpegs([torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)], device)
        difference = (pixels.cpu().float() - expected.float()).abs().mean().item()
    except RuntimeError as error:
        if is_device_lost(error):
            raise
        raise InputError(
            f'--preprocess gpu: JPEG files cannot be decoded on {device}: {one_line(error)}; choose exact or fast'
        ) from None
    if difference > _OTHER_PICTURE:
        raise InputError(
            f'--preprocess gpu: JPEG files are not decoded rightly on {device}: a picture is {difference:.0f} levels '
            'off; choose exact or fast'
        )


def decode_jpegs(contents: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """RGB pixels (3, height, width) on ``device``, uint8, of JPEG files; with nvJPEG on CUDA. EXIF turns nothing.

    It waits for the current stream first: nvJPEG writes at once into memory that torch hands out before the work that
    is queued on it is done (pytorch/vision pull request 9606).

    Args:
        contents: (bytes,) uint8 of each file, on the CPU.
        device: where to.

    Raises:
        RuntimeError: one of them cannot be decoded, or there is no memory for all of them.
    """
    if device.type == 'cuda':
        torch.cuda.current_stream(device).synchronize()
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', _DEPRECATION, DeprecationWarning)
        return decode_jpeg(list(contents), mode=ImageReadMode.RGB, device=device)


def resize_on_device(pixels: torch.Tensor, transform: EvaluationTransform) -> torch.Tensor:
    """Resize and crop one image as Pillow does: along rows and then along columns, or the reverse, rounded in between.

    Args:
        pixels: (channels, height, width) uint8.
        transform: one that has a plan, whose crop is not larger than the resized image.

    Returns:
        (channels, height, width) uint8 on the same device.
    """
    plan = transform.plan
    axes = plan.axes(pixels) if plan is not None else None
    if plan is None or axes is None:
        raise ValueError(f'{tuple(pixels.shape)}: it has no resize and crop on a device')
    horizontal, vertical = axes
    height, width = pixels.shape[1:]
    is_first = rows_first((width, height), (horizontal.resized, vertical.resized))
    between = (height, horizontal.resized) if is_first else (vertical.resized, width)
    image = pixels[None].float()
    for size in (between, (vertical.resized, horizontal.resized)):
        if image.shape[2:] != size:
            # No kernel of CUDA resizes bytes.
            image = torch.nn.functional.interpolate(image, size, mode=plan.interpolation, antialias=True)
            # Halves go up there.
            image = image.add_(0.5).floor_().clamp_(0, 255)
    top, left = vertical.first, horizontal.first
    return image[0, :, top : top + vertical.count, left : left + horizontal.count].to(torch.uint8)


class DeviceDecoder:
    """Decodes on the device what batches hold encoded, and on the CPU what the device does not take of it."""

    def __init__(self, files: LeftEncoded, device: torch.device, name: Callable[[int], str]) -> None:
        """Nothing is decoded yet.

        Args:
            files: the transform that has left the files as they are.
            device: where to decode.
            name: of the image at a position of the data set, for messages.
        """
        self._files, self._device, self._name = files, device, name
        self._room = _ROOM
        self._stream: Any = None
        self.reasons: Counter[str] = Counter()

    def batches(self, batches: Iterable['Batch']) -> Iterator['Batch']:
        """The batches with the pixels of all images; at the end the log says how many the CPU has decoded, and why."""
        for batch in batches:
            yield self.decoded(batch)
        if self.reasons:
            reasons = '; '.join(f'{count:,} {reason}' for reason, count in self.reasons.most_common())
            _logger.info('decoded on the CPU: %s', reasons)

    def decoded(self, batch: 'Batch') -> 'Batch':
        """``batch`` with the pixels (N, C, H, W) of all its images on the device, which are there when this returns.

        Images that nobody can decode are among its ``bad`` ones instead.
        """
        with self._own_stream():
            return self.complete(batch)

    @contextlib.contextmanager
    def _own_stream(self) -> Iterator[None]:
        """A stream on which nothing else is queued, so that waiting for it is no waiting for networks."""
        if self._device.type != 'cuda':
            yield
            return
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)
        with torch.cuda.stream(self._stream):
            yield
            self._stream.synchronize()

    def complete(self, batch: 'Batch') -> 'Batch':
        """As ``decoded``, on the current stream."""
        encoded = batch.encoded
        assert encoded is not None
        self.reasons.update(encoded.reasons)
        if not len(encoded.places):
            return batch._replace(encoded=None)
        contents = encoded.content.split(list(encoded.lengths))
        images: dict[int, torch.Tensor] = {}
        bad = list(batch.bad)
        by_gpu = 0
        decoded = self._on_device(contents, encoded.sizes)
        for place, content, found in zip(encoded.places, contents, decoded, strict=True):
            if isinstance(found, torch.Tensor):
                images[place] = found
                by_gpu += 1
                continue
            try:
                images[place] = self._on_cpu(content)
                self.reasons[found] += 1
            except Exception as error:  # a decoder meets whatever bytes there are
                bad.append(BadImage(self._name(int(batch.positions[place])), one_line(error)))
        others = sorted({*range(len(batch.labels))} - {*encoded.places})
        images |= zip(others, batch.pixels.to(self._device, non_blocking=True).unbind(), strict=True)
        kept = sorted(images)
        rows = [images[place].to(self._device) for place in kept]
        return batch._replace(
            indices=batch.indices if len(kept) == len(batch.labels) else batch.indices[:, kept],
            pixels=torch.stack(rows) if rows else batch.pixels.to(self._device),
            bad=bad,
            encoded=None,
            by_gpu=by_gpu,
        )

    def _on_cpu(self, content: torch.Tensor) -> torch.Tensor:
        pixels = np.array(self._files.exact(content.numpy().tobytes()))
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def _on_device(self, contents: Sequence[torch.Tensor], sizes: Sequence[Sequence[int]]) -> list[torch.Tensor | str]:
        """The network's input of each file, or why the device does not decode it; as many at once as fit."""
        found: list[torch.Tensor | str] = []
        while len(found) < len(contents):
            start = stop = len(found)
            taken = 0
            while stop < len(contents) and (stop == start or taken + _bytes(sizes[stop]) <= self._room):
                taken += _bytes(sizes[stop])
                stop += 1
            found += self._group(contents[start:stop], sizes[start:stop])
        return found

    def _group(self, contents: Sequence[torch.Tensor], sizes: Sequence[Sequence[int]]) -> list[torch.Tensor | str]:
        """The same for files that are decoded at once; halved until those are alone that the device does not decode."""
        try:
            return [*self._at_once(contents, sizes)]
        except (RuntimeError, MemoryError) as error:
            if is_device_lost(error):
                raise
            reason, lacks_memory = one_line(error), is_out_of_memory(error)
        # Outside of except, whose error keeps the tensors of the frames that it went through.
        if self._device.type == 'cuda':
            # What was queued before the error may still write into memory that was given back.
            torch.cuda.synchronize(self._device)
        if lacks_memory:
            self._room = sum(map(_bytes, sizes)) // 2
            release_memory()
        if len(contents) == 1:
            _logger.debug('a JPEG file that %s does not decode: %s', self._device, reason)
            return ['too large for the memory of the device' if lacks_memory else 'refused by the decoder']
        half = len(contents) // 2
        return self._group(contents[:half], sizes[:half]) + self._group(contents[half:], sizes[half:])

    def _at_once(self, contents: Sequence[torch.Tensor], sizes: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        decoded = decode_jpegs(contents, self._device)
        for pixels, (width, height) in zip(decoded, sizes, strict=True):
            if pixels.shape != (3, height, width):
                raise RuntimeError(f'decoded to {list(pixels.shape)}, not to {[3, height, width]}')
        return [resize_on_device(pixels, self._files.exact) for pixels in decoded]


def _bytes(size: Sequence[int]) -> int:
    """Of the pixels of an image of that width and height."""
    return 3 * size[0] * size[1]
