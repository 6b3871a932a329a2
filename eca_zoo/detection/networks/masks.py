"""Masks of objects from the small maps that a network predicts in their boxes."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from eca_zoo.detection.run_lengths import RunLengths, encode_in_box

_THRESHOLD = 0.5


def paste_codes(maps: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> list[RunLengths]:
    """Run-length codes of masks; each is pasted into its box and encoded at once, so that memory does not grow.

    Args:
        maps: (N, M, M) probabilities inside the boxes.
        boxes: (N, 4) in pixels of the image.
        size: of the image, (height, width).
    """
    return [encode_in_box(mask.numpy(), x, y, size) for mask, x, y in _pasted(maps, boxes)]


def paste_dense(maps: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The masks as a bool tensor (N, height, width), on the device of ``maps``."""
    result = torch.zeros(len(maps), *size, dtype=torch.bool)
    for image, (mask, x, y) in zip(result, _pasted(maps, boxes), strict=True):
        image[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    return result.to(maps.device)


def _pasted(maps: torch.Tensor, boxes: torch.Tensor) -> Iterator[tuple[torch.Tensor, int, int]]:
    """For each box its mask as bool (h, w) on the CPU, and the column and row at which it begins.

    The framework truncates corners to whole pixels and resizes the map to that size (mmdetection v1,
    ``get_seg_masks``); torchvision pads the map and enlarges the box by 30/28.
    """
    maps, corners = maps.detach().cpu(), boxes.detach().cpu().double()
    first = corners[:, :2].trunc().long().tolist()
    last = (corners[:, 2:] - 1).trunc().long().tolist()
    for probability, (x1, y1), (x2, y2) in zip(maps, first, last, strict=True):
        size = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
        resized = F.interpolate(probability[None, None], size=size, mode='bilinear', align_corners=False)[0, 0]
        yield resized > _THRESHOLD, x1, y1
