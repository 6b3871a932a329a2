"""What there is to be found in an image: boxes, labels and masks, checked and taken to the resized image."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from eca_zoo.detection.networks.boxes import clip, to_resized
from eca_zoo.detection.networks.transform import Geometry, resize_bytes
from eca_zoo.errors import InputError

_MASK_SIDE = 28


class Target(NamedTuple):
    """Objects of one image.

    Attributes:
        boxes: (N, 4) in pixels of the resized image.
        labels: (N,), from 0.
        masks: (N, h, w) of the resized image in uint8, 1 where the object is; None where there are none.
    """

    boxes: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor | None


def prepare_targets(
    targets: Sequence[Mapping[str, Any] | Target] | None,
    geometries: Sequence[Geometry],
    categories: Sequence[int],
    has_masks: bool,
    device: torch.device,
) -> list[Target]:
    """The targets that a user gives to a detector in training, for its losses; crowds are left out.

    Args:
        targets: of each image, see ``Detector.forward``; those that are resized already stay as they are.
        geometries: of the images.
        categories: ids in the order of the network's outputs.
        has_masks: whether masks are needed.
        device: where they are needed.

    Raises:
        InputError: targets are missing or are not of that kind.
    """
    if targets is None or len(targets) != len(geometries):
        found = 'none' if targets is None else str(len(targets))
        raise InputError(f'in training a detector needs targets, one for each of {len(geometries)} images, not {found}')
    position = {category: i for i, category in enumerate(categories)}
    return [
        _moved(target, device)
        if isinstance(target, Target)
        else _moved(_prepare(i, target, geometry, position, has_masks), device)
        for i, (target, geometry) in enumerate(zip(targets, geometries, strict=True))
    ]


def _moved(target: Target, device: torch.device) -> Target:
    boxes, labels, masks = (None if one is None else one.to(device, non_blocking=True) for one in target)
    assert boxes is not None and labels is not None
    return Target(boxes, labels, masks)


def _prepare(
    i: int, target: Mapping[str, Any], geometry: Geometry, position: Mapping[int, int], has_masks: bool
) -> Target:
    boxes, labels, masks = _checked(i, target, geometry, position, has_masks)
    crowd = target.get('iscrowd')
    kept = torch.ones(len(boxes), dtype=torch.bool) if crowd is None else torch.as_tensor(crowd).cpu() == 0
    places = torch.tensor([position[label] for label in labels.cpu()[kept].tolist()], dtype=torch.long)
    chosen = None if masks is None else masks[kept.to(masks.device)].to(torch.uint8)
    return resized_target(boxes.cpu()[kept], places, chosen, geometry)


def resized_target(boxes: torch.Tensor, labels: torch.Tensor, masks: torch.Tensor | None, geometry: Geometry) -> Target:
    """Objects of an image in its resized form.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2 in pixels of the image.
        labels: (N,), from 0.
        masks: (N, H, W) of the image in uint8; None where there are none.
        geometry: of the image.
    """
    resized = clip(to_resized(boxes, geometry.scale), geometry.size)
    if masks is None:
        return Target(resized, labels, None)
    # To the nearest pixel, as the framework resizes masks.
    rows, columns = (
        (torch.arange(new, dtype=torch.float64) * (old / new)).long().to(masks.device)
        for old, new in zip(geometry.original_size, geometry.size, strict=True)
    )
    return Target(resized, labels, masks[:, rows[:, None], columns])


def _checked(
    i: int, target: Mapping[str, Any], geometry: Geometry, position: Mapping[int, int], has_masks: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    where = f'targets[{i}]'
    for key in ('boxes', 'labels', *['masks'] * has_masks):
        if not isinstance(target.get(key), torch.Tensor):
            raise InputError(f'{where}: it has no tensor {key!r}')
    boxes, labels, masks = target['boxes'], target['labels'], target['masks'] if has_masks else None
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not boxes.is_floating_point():
        raise InputError(f'{where}: boxes are floating-point (N, 4), not {boxes.dtype} {tuple(boxes.shape)}')
    if labels.shape != (len(boxes),):
        raise InputError(f'{where}: it has {len(boxes)} boxes and labels of shape {tuple(labels.shape)}')
    if unknown := [label for label in labels.tolist() if label not in position]:
        raise InputError(f'{where}: the detector knows no category {unknown[0]}; its categories are {list(position)}')
    height, width = geometry.original_size
    is_inside = (boxes[:, :2] >= 0).all(1) & (boxes[:, 2] <= width) & (boxes[:, 3] <= height)
    wrong = ~is_inside | ~(boxes[:, 2:] > boxes[:, :2]).all(1)
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise InputError(
            f'{where}: box {first}, {boxes[first].tolist()}, has no area or lies outside the image of '
            f'{width}x{height}; boxes are x1, y1, x2, y2 in pixels'
        )
    if masks is not None and masks.shape != (len(boxes), height, width):
        raise InputError(
            f'{where}: masks have the shape {tuple(masks.shape)} instead of {(len(boxes), height, width)}'
        )  # fmt: skip
    return boxes, labels, masks


def mask_targets(masks: torch.Tensor, matches: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """What the mask head should put out (P, 28, 28) in each box: 0 or 1.

    The mask under the whole pixels of the box, resized in bytes as OpenCV does it (mmdetection v1, ``mask_target``);
    torchvision pools it.

    Args:
        masks: (G, h, w) in uint8, of the image.
        matches: (P,) which of them belongs to each box.
        boxes: (P, 4).
    """
    first = boxes[:, :2].trunc().long().tolist()
    last = (boxes[:, 2:] - 1).trunc().long().tolist()
    targets = [
        resize_bytes(
            masks[match, y1 : max(y2, y1) + 1, x1 : max(x2, x1) + 1][None].contiguous(), (_MASK_SIDE, _MASK_SIDE)
        )
        for match, (x1, y1), (x2, y2) in zip(matches.tolist(), first, last, strict=True)
    ]
    return torch.cat(targets).to(boxes.dtype) if targets else boxes.new_zeros(0, _MASK_SIDE, _MASK_SIDE)
