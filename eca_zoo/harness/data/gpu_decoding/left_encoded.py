"""What a process that reads images does for a decoder on the GPU: it leaves JPEG files as they are, and packs them."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image

from eca_zoo.errors import InputError
from eca_zoo.harness.data.preprocess import TORCH_FILTERS, UInt8Array, evaluation_transform

_FIRST_BYTES, _LAST_BYTES = b'\xff\xd8\xff', b'\xff\xd9'


class Undecoded(NamedTuple):
    """A JPEG file that the device is to decode: its bytes, and its width and height in pixels."""

    content: bytes
    size: tuple[int, int]


class DecodedHere(NamedTuple):
    """The network's input (height, width, channels) of an image that the device is not to decode, and why it is not."""

    pixels: UInt8Array
    why: str


class Encoded(NamedTuple):
    """What the device is to decode of a batch.

    Attributes:
        places: of these images in the batch; its pixels are those of the others, in their order.
        content: (B,) bytes of the files, one after the other.
        lengths: bytes of each.
        sizes: width and height of each in pixels.
        reasons: for each of the others, why it is not among them.
    """

    places: Sequence[int]
    content: torch.Tensor
    lengths: Sequence[int]
    sizes: Sequence[Sequence[int]]
    reasons: Sequence[str]


def pack(images: Sequence[Undecoded | DecodedHere]) -> tuple[list[UInt8Array], Encoded]:
    """The pixels of the images of a batch that are decoded, and the other ones as one tensor of bytes."""
    left = [(place, image) for place, image in enumerate(images) if isinstance(image, Undecoded)]
    here = [image for image in images if isinstance(image, DecodedHere)]
    content = bytearray().join(image.content for _, image in left)
    encoded = Encoded(
        [place for place, _ in left],
        torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8),
        [len(image.content) for _, image in left],
        [image.size for _, image in left],
        [image.why for image in here],
    )
    return [image.pixels for image in here], encoded


class LeftEncoded:
    """The transform of an image for ``preprocess`` gpu, where it is read: JPEG files stay as they are.

    Attributes:
        exact: the transform of all others, on the CPU.
    """

    def __init__(self, data_config: Mapping[str, Any], image_mode: str) -> None:
        """As of ``evaluation_transform``.

        Raises:
            InputError: it is no transform that the device has: a resize and a centre crop of RGB images.
        """
        self.exact = evaluation_transform(data_config, 'exact', image_mode)
        plan = self.exact.plan
        if plan is None or plan.interpolation not in TORCH_FILTERS or image_mode != 'RGB':
            names = ('interpolation', 'crop_mode', 'crop_border_pixels')
            asked = [f'{name} {data_config[name]}' for name in names if data_config.get(name) is not None]
            raise InputError(
                '--preprocess gpu resizes RGB images bilinearly or bicubically and crops their centre, and this is '
                f'{", ".join(asked)}, images of the mode {image_mode}; choose exact or fast'
            )
        self.plan = plan

    def __call__(self, image: Image.Image | bytes) -> Undecoded | DecodedHere:
        """A file that stays encoded, or pixels. What is no image raises what Pillow raises.

        Args:
            image: bytes of a file, or what another library has opened.
        """
        if isinstance(image, Image.Image):
            return DecodedHere(self.exact(image), 'opened by another library')
        if not image.startswith(_FIRST_BYTES):
            return DecodedHere(self.exact(image), 'not JPEG')
        picture = Image.open(io.BytesIO(image))
        why = self._why_here(picture, image)
        return Undecoded(image, picture.size) if why is None else DecodedHere(self.exact(image), why)

    def _why_here(self, picture: Image.Image, content: bytes) -> str | None:
        """Why the device is not to decode a file whose header Pillow has read; None if it is."""
        if picture.format != 'JPEG':
            return f'{picture.format}, not JPEG'
        if picture.mode not in ('RGB', 'L'):
            return f'{picture.mode} in JPEG'
        # NVIDIA's documentation promises grey and YCbCr; Adobe's marker, or the names of the components, say RGB.
        components = [component[0] for component in getattr(picture, 'layer', ())]
        if components == list(b'RGB') or (picture.mode == 'RGB' and picture.info.get('adobe_transform') == 0):
            return 'RGB in JPEG, not YCbCr'
        if not content.endswith(_LAST_BYTES):
            # Pillow says whether it is an image. Of a decoder on the device nobody has promised that.
            return "bytes after the image's end, or none of it"
        return None if self.plan.axes(picture) is not None else 'smaller than the crop'
