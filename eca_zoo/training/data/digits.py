"""scikit-learn's 1,797 handwritten digits as an image folder: ``train/0`` to ``9`` and ``validation/0`` to ``9``."""

from pathlib import Path

import numpy as np
from PIL import Image

from eca_zoo.errors import InputError
from eca_zoo.files import storage_error

# Every fifth scan of a class is held out.
_HELD_OUT = 5


def write_digits(folder: Path) -> dict[str, int]:
    """Write the scans as 8x8 grey PNG files under ``folder`` and return the number of images of each split.

    Raises:
        InputError: scikit-learn is not installed.
        StorageError: they cannot be written.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError('the digits come with scikit-learn; install it: pip install scikit-learn') from None
    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    seen = dict.fromkeys(range(10), 0)
    counts = {'train': 0, 'validation': 0}
    try:
        for index, (image, label) in enumerate(zip(grey, digits.target.tolist(), strict=True)):
            split = 'validation' if seen[label] % _HELD_OUT == 0 else 'train'
            seen[label] += 1
            counts[split] += 1
            target = folder / split / str(label)
            target.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(target / f'{index:04d}.png')
    except OSError as error:
        raise storage_error(folder, error, '--run-dir') from None
    return counts
