"""Pictures of detections: boxes, names, scores and translucent masks, legible on light and on dark ground."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from eca_zoo.detection.run_lengths import RunLengths, decode

# Colours that colour-blind people tell apart. Source: M. Okabe, K. Ito, Color Universal Design (2008).
_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_MASK_SHARE = 0.45
# A picture whose longer side is smaller is enlarged by a whole factor, so that names can be read.
_LEGIBLE = 480
_MARGIN = 2


@dataclass(frozen=True)
class Drawn:
    """An object to draw.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the image.
        text: beside it.
        colour: number of its colour, such as its category id.
        mask: run-length code, or (H, W) bool; None for none.
    """

    box: tuple[float, float, float, float]
    text: str
    colour: int
    mask: RunLengths | npt.NDArray[np.bool_] | None = None


def draw(image: Image.Image, objects: Sequence[Drawn]) -> Image.Image:
    """A copy of an image with objects drawn into it, the first of them on top.

    Args:
        image: of any mode.
        objects: best first.
    """
    factor = max(1, _LEGIBLE // max(image.size))
    pixels = np.asarray(image.convert('RGB')).copy()
    for one in reversed(objects):
        if one.mask is not None:
            mask = decode(one.mask) if isinstance(one.mask, dict) else one.mask
            colour = np.array(_colour(one.colour))
            pixels[mask] = ((1 - _MASK_SHARE) * pixels[mask] + _MASK_SHARE * colour).astype(np.uint8)
    picture = Image.fromarray(pixels)
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    canvas = ImageDraw.Draw(picture)
    side = max(picture.size)
    font = ImageFont.load_default(max(11.0, side / 50))
    width = max(2, round(side / 320))
    for one in reversed(objects):
        _draw_box(canvas, [value * factor for value in one.box], _colour(one.colour), width)
    # Names come after all boxes, so that none is crossed out.
    taken: list[tuple[float, float, float, float]] = []
    for one in objects:
        _write(canvas, picture.size, [value * factor for value in one.box], one, font, taken)
    return picture


def objects_of(found: Mapping[str, Any], categories: Mapping[int, str], threshold: float = 0.0) -> list[Drawn]:
    """What a detector found in an image, best first; scores of at least ``threshold``."""
    masks = found.get('masks') or [None] * len(found['scores'])
    rows = zip(found['boxes'].tolist(), found['labels'].tolist(), found['scores'].tolist(), masks, strict=True)
    return [
        Drawn(tuple(box), f'{categories[label]} {score:.2f}', label, mask)
        for box, label, score, mask in rows
        if score >= threshold
    ]


def beside(left: Image.Image, right: Image.Image, titles: tuple[str, str]) -> Image.Image:
    """Two pictures of one height beside each other, each under its title."""
    size = max(12.0, max(left.size) / 45)
    font, head = ImageFont.load_default(size), round(size * 1.6)
    picture = Image.new('RGB', (left.width + right.width + head // 2, max(left.height, right.height) + head), 'white')
    canvas = ImageDraw.Draw(picture)
    for image, title, x in ((left, titles[0], 0), (right, titles[1], left.width + head // 2)):
        picture.paste(image, (x, head))
        canvas.text((x + _MARGIN, head / 2), title, fill='black', font=font, anchor='lm')
    return picture


def _colour(number: int) -> tuple[int, int, int]:
    return _COLOURS[number % len(_COLOURS)]


def _draw_box(canvas: ImageDraw.ImageDraw, box: Sequence[float], colour: tuple[int, int, int], width: int) -> None:
    x1, y1, x2, y2 = box[0], box[1], max(box[2] - 1, box[0]), max(box[3] - 1, box[1])
    # Black around it on light ground, white within on dark: one of them always stands out.
    canvas.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline='black', width=1)
    canvas.rectangle((x1, y1, x2, y2), outline=colour, width=width)
    if x2 - x1 > 2 * width + 2 and y2 - y1 > 2 * width + 2:
        canvas.rectangle((x1 + width, y1 + width, x2 - width, y2 - width), outline='white', width=1)


def _write(
    canvas: ImageDraw.ImageDraw,
    size: tuple[int, int],
    box: Sequence[float],
    one: Drawn,
    font: Any,
    taken: list[tuple[float, float, float, float]],
) -> None:
    """Write the name on a plate of its colour, at the first corner of the box where no other name stands."""
    left, top, right, bottom = canvas.textbbox((0, 0), one.text, font=font)
    width, height = right - left + 2 * _MARGIN, bottom - top + 2 * _MARGIN
    plates = []
    for x, y in (
        (box[0], box[1] - height), (box[0], box[1]), (box[2] - width, box[1] - height), (box[0], box[3]),
        (box[2] - width, box[3]), (box[0], box[3] - height),
    ):  # fmt: skip
        x, y = min(max(x, 0), max(size[0] - width, 0)), min(max(y, 0), max(size[1] - height, 0))
        plates.append((x, y, x + width, y + height))
    plate = next((plate for plate in plates if not any(_overlap(plate, other) for other in taken)), plates[0])
    taken.append(plate)
    colour = _colour(one.colour)
    # Black on light colours and white on dark ones. Source: WCAG 2.2, relative luminance.
    bright = _luminance(colour) > 0.18
    canvas.rectangle(plate, fill=colour, outline='black')
    canvas.text(
        (plate[0] + _MARGIN - left, plate[1] + _MARGIN - top), one.text, font=font, fill='black' if bright else 'white'
    )


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _luminance(colour: tuple[int, int, int]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
