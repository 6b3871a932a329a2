"""Images as people have them, as tensors."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from eca_zoo.errors import InputError, one_line


def read_image(image: Any) -> torch.Tensor:
    """Bytes (3, H, W) of a file, a Pillow image or a tensor, which stays as it is; pixels as they are stored.

    Grey images get three equal channels, others are converted to RGB; images of 16 bits are scaled to bytes.

    Raises:
        InputError: it is none of these, or cannot be decoded.
    """
    if isinstance(image, torch.Tensor):
        return image
    if isinstance(image, str | Path):
        try:
            with Image.open(image) as opened:
                return _to_tensor(opened)
        except UnidentifiedImageError:
            raise InputError(f'{image}: no image that Pillow can read; repair it or leave it out') from None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = getattr(error, 'strerror', None) or one_line(error)
            raise InputError(f'{image}: the image cannot be read: {reason}') from None
    if isinstance(image, Image.Image):
        return _to_tensor(image)
    raise InputError(f'an image is a path, a Pillow image or a tensor, not {type(image).__name__}')


def _to_tensor(image: Image.Image) -> torch.Tensor:
    if image.mode.startswith('I'):
        levels = np.asarray(image).astype(np.int64)
        image = Image.fromarray((levels >> 8).clip(0, 255).astype(np.uint8))
    return torch.from_numpy(np.array(image.convert('RGB'))).permute(2, 0, 1)
