"""Writes scikit-learn's 1,797 handwritten digits as an image folder: train/0..9 and validation/0..9."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

# Every fifth scan of a class is held out.
HELD_OUT = 5


def write_digits(folder: Path) -> dict[str, int]:
    """Write the scans as 8x8 grey PNG files under ``folder`` and return the number of images of each split."""
    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    seen = dict.fromkeys(range(10), 0)
    counts = {'train': 0, 'validation': 0}
    for index, (image, label) in enumerate(zip(grey, digits.target.tolist(), strict=True)):
        split = 'validation' if seen[label] % HELD_OUT == 0 else 'train'
        seen[label] += 1
        counts[split] += 1
        target = folder / split / str(label)
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(target / f'{index:04d}.png')
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path)
    args = parser.parse_args()
    counts = write_digits(args.folder)
    print(f'{args.folder}: {counts["train"]} training and {counts["validation"]} validation images')


if __name__ == '__main__':
    main()
