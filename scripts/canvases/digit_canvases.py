"""Writes scikit-learn's handwritten digits on textured canvases in COCO's format: boxes and masks of one to six digits.

DIR/annotations/instances_train.json and instances_validation.json, DIR/train and DIR/validation. Every fifth scan of a
class is on canvases of validation alone.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from eca_zoo.detection.run_lengths import encode

SIZE = 128
# Every fifth scan of a class is held out.
HELD_OUT = 5
_FEWEST, _MOST = 1, 6
_SMALLEST, _LARGEST = 16, 48
# A pixel of a scan belongs to the digit from here on; of 1.
_INK = 0.35
# Of the smaller of two boxes, that may be covered by the other.
_OVERLAP = 0.15
_TRIES = 20
#: Category ids are from 1 on, as in COCO.
CATEGORIES = [{'id': digit + 1, 'name': str(digit)} for digit in range(10)]


class Canvases:
    """Canvases of a split; each depends on its number and the split alone."""

    def __init__(self, split: str) -> None:
        digits = load_digits()
        seen = np.zeros(10, dtype=int)
        held_out = np.zeros(len(digits.target), dtype=bool)
        for index, digit in enumerate(digits.target.tolist()):
            held_out[index] = seen[digit] % HELD_OUT == 0
            seen[digit] += 1
        chosen = held_out if split == 'validation' else ~held_out
        self._scans, self._digits = digits.images[chosen] / 16, digits.target[chosen]
        self._split = {'train': 0, 'validation': 1}[split]

    def make(self, number: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Pixels (H, W, 3) of a canvas, and for each digit ``category_id``, ``bbox`` and ``mask``.

        ``bbox`` is left, top, width and height of what is seen of it; ``mask`` (H, W) is bool.
        """
        rng = np.random.default_rng((self._split, number))
        canvas = _ground(rng)
        objects: list[dict[str, Any]] = []
        boxes: list[tuple[int, int, int]] = []
        for _ in range(rng.integers(_FEWEST, _MOST + 1)):
            box = _place(rng, boxes)
            if box is None:
                continue
            boxes.append(box)
            index = int(rng.integers(len(self._scans)))
            mask, ink = _digit(self._scans[index], box)
            for other in objects:
                other['mask'] &= ~mask
            dark = canvas[mask].mean() > 127 if mask.any() else True
            colour = rng.uniform(0, 90, 3) if dark else rng.uniform(165, 255, 3)
            canvas += ink[..., None] * (colour - canvas)
            objects.append({'category_id': int(self._digits[index]) + 1, 'mask': mask})
        canvas += rng.normal(0, 6, canvas.shape)
        kept = [one for one in objects if one['mask'].sum() >= 16]
        for one in kept:
            one['bbox'] = _box_of(one['mask'])
        return canvas.clip(0, 255).round().astype(np.uint8), kept


def write_canvases(folder: Path, split: str, count: int) -> int:
    """Write ``count`` canvases of a split with their annotations; returns the number of digits on them."""
    canvases = Canvases(split)
    images, annotations = [], []
    (folder / split).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels, objects = canvases.make(number)
        name = f'{number:05d}.png'
        Image.fromarray(pixels).save(folder / split / name)
        images.append({'id': number + 1, 'file_name': name, 'height': SIZE, 'width': SIZE})
        for one in objects:
            code = encode(one['mask'])
            annotations.append(
                {
                    'id': len(annotations) + 1, 'image_id': number + 1, 'category_id': one['category_id'],
                    'bbox': one['bbox'], 'area': int(one['mask'].sum()), 'iscrowd': 0,
                    'segmentation': {'size': code['size'], 'counts': code['counts'].decode()},
                }
            )  # fmt: skip
    content = {'images': images, 'categories': CATEGORIES, 'annotations': annotations}
    (folder / 'annotations').mkdir(exist_ok=True)
    (folder / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content) + '\n')
    return len(annotations)


def _ground(rng: np.random.Generator) -> np.ndarray:
    """A textured ground: waves of two scales in a random colour."""
    colour = rng.uniform(30, 225, 3)
    texture = np.zeros((SIZE, SIZE))
    for cells, height in ((4, 18.0), (16, 9.0)):
        coarse = Image.fromarray(rng.normal(0, height, (cells, cells)).astype(np.float32))
        texture += np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    return colour + texture[..., None] * rng.uniform(0.6, 1.4, 3)


def _place(rng: np.random.Generator, boxes: list[tuple[int, int, int]]) -> tuple[int, int, int] | None:
    """Left, top and side of a square that covers others but little; None where there is no room."""
    side = int(rng.integers(_SMALLEST, _LARGEST + 1))
    for _ in range(_TRIES):
        left, top = (int(value) for value in rng.integers(0, SIZE - side + 1, 2))
        covered = [
            max(min(left + side, x + s) - max(left, x), 0) * max(min(top + side, y + s) - max(top, y), 0)
            / min(side, s) ** 2
            for x, y, s in boxes
        ]  # fmt: skip
        if max(covered, default=0) <= _OVERLAP:
            return left, top, side
    return None


def _digit(scan: np.ndarray, box: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Mask and ink (H, W) of a scan that is enlarged into a box."""
    left, top, side = box
    large = Image.fromarray(scan.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    ink = np.zeros((SIZE, SIZE))
    ink[top : top + side, left : left + side] = np.asarray(large).clip(0, 1)
    mask = ink >= _INK
    return mask, np.where(mask, 0.35 + 0.65 * ink, 0.0)


def _box_of(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--train', type=int, default=4000, metavar='N', help='canvases (default: 4000)')
    parser.add_argument('--validation', type=int, default=300, metavar='N', help='canvases (default: 300)')
    args = parser.parse_args()
    for split in ('train', 'validation'):
        digits = write_canvases(args.folder, split, getattr(args, split))
        print(f'{args.folder / split}: {getattr(args, split)} canvases with {digits} digits')


if __name__ == '__main__':
    main()
