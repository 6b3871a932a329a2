"""COCO's run-length codes of masks: a mask that is pasted into an image is encoded at once and never stored whole.

Pixels are counted column by column: background first, then the mask, in turn. Source of the format: ``maskApi.c`` of
COCO's toolbox (``rleEncode``, ``rleToString``).
"""

from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

# The text has five bits a character, of which the sixth says that more follow; characters begin at '0'.
_BITS, _MORE, _SIGN, _FIRST = 5, 0x20, 0x10, 48
# Characters that a count takes at most: images have fewer than 2^34 pixels.
_LONGEST = 7


class RunLengths(TypedDict):
    """A mask.

    Attributes:
        size: height and width of the image in pixels.
        counts: lengths of the runs as COCO's text.
    """

    size: list[int]
    counts: bytes


def encode_in_box(mask: npt.NDArray[Any], left: int, top: int, size: tuple[int, int]) -> RunLengths:
    """Run-length code of an image that is empty but for ``mask``, without making that image.

    Args:
        mask: (h, w), true where the object is; what lies outside the image is cut off.
        left: column of the image at which it begins.
        top: row of the image at which it begins.
        size: height and width of the image in pixels.
    """
    height, width = size
    mask = np.asarray(mask, dtype=bool)
    mask = mask[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    left, top = max(left, 0), max(top, 0)
    rows, columns = mask.shape
    # Below each column lies background, unless the box is as high as the image.
    stride = rows + (rows < height)
    flat = np.zeros((columns, stride), dtype=np.int8)
    flat[:, :rows] = mask.T
    edges = np.flatnonzero(np.diff(flat.ravel(), prepend=np.int8(0), append=np.int8(0)))
    column, row = np.divmod(edges, stride) if stride else (edges, edges)
    return {'size': [height, width], 'counts': compress(_runs((left + column) * height + top + row, height * width))}


def encode(mask: npt.NDArray[Any]) -> RunLengths:
    """Run-length code of a mask (H, W), true where the object is."""
    return encode_in_box(mask, 0, 0, (mask.shape[0], mask.shape[1]))


def decode(code: RunLengths) -> npt.NDArray[np.bool_]:
    """The mask (H, W) of a run-length code.

    Raises:
        ValueError: the runs are not as long as the image.
    """
    height, width = code['size']
    counts = expand(code['counts'])
    if (counts < 0).any() or counts.sum() != height * width:
        raise ValueError(f'its runs have {int(counts.sum())} pixels and the image {height}x{width} has another number')
    values = (np.arange(len(counts)) % 2).astype(bool)
    return np.repeat(values, counts).reshape(width, height).T


def area(code: RunLengths) -> int:
    """Pixels of the mask."""
    return int(expand(code['counts'])[1::2].sum())


def compress(counts: npt.NDArray[np.int64]) -> bytes:
    """Run lengths as COCO's text: from the fourth on, what they differ by from the last one but one."""
    values = counts.astype(np.int64)
    values[3:] -= counts[1:-2]
    pieces = values[:, None] >> (_BITS * np.arange(_LONGEST))
    digits, rest = pieces & 0x1F, pieces >> _BITS
    # A number ends where all that is left repeats the sign of its last digit.
    is_last = rest == -((digits & _SIGN) >> 4)
    length = is_last.argmax(axis=1)
    place = np.arange(_LONGEST)
    characters = _FIRST + digits + _MORE * (place < length[:, None])
    return characters[place <= length[:, None]].astype(np.uint8).tobytes()


def expand(text: bytes | str) -> npt.NDArray[np.int64]:
    """Run lengths of COCO's text.

    Raises:
        ValueError: it is none.
    """
    encoded = text.encode('ascii', 'replace') if isinstance(text, str) else text
    characters = np.frombuffer(encoded, dtype=np.uint8).astype(np.int64) - _FIRST
    ends = np.flatnonzero((characters & _MORE) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
    longest = int((ends - starts).max(initial=0)) + 1
    if len(characters) == 0 or characters.min() < 0 or characters.max() > 63 or characters[-1] & _MORE or longest > 12:
        raise ValueError('its run lengths are not text as COCO writes it')
    place = np.arange(len(characters)) - np.repeat(starts, ends - starts + 1)
    values = np.add.reduceat((characters & 0x1F) << (_BITS * place), starts)
    is_negative = (characters[ends] & _SIGN) != 0
    values[is_negative] -= 1 << (_BITS * (ends - starts + 1)[is_negative])
    # Every other one adds up, but the first three, which are the counts themselves.
    values[1::2], values[2::2] = np.cumsum(values[1::2]), np.cumsum(values[2::2])
    return values


def _runs(edges: npt.NDArray[np.int64], pixels: int) -> npt.NDArray[np.int64]:
    """Lengths of the runs between ``edges``, where the mask begins and ends in turn; none of them ends empty."""
    bounds = np.concatenate([[0], edges, [pixels]]).astype(np.int64)
    runs = np.diff(bounds)
    return runs[:-1] if len(edges) and edges[-1] == pixels else runs
