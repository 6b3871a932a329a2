"""Which detections find an object: the matches of COCO's toolbox, all images at once.

The toolbox (pycocotools, ``cocoeval.py``) takes detections in the order of their scores and gives each the object that
it overlaps most. What a detection finds depends on those before it in its image and category alone, so that all images
take their first detection together here, then their second ones, and so on: the same matches in a hundred steps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from eca_zoo.detection.coco_annotations import CocoAnnotations
from eca_zoo.detection.evaluation.detections import Detections, Task
from eca_zoo.errors import InputError

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Intersections over union from which on a detection finds an object; the toolbox's values, to the last bit.
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
#: Areas of objects in pixels.
AREAS = {'all': (0.0, 1e5**2), 'small': (0.0, 32.0**2), 'medium': (32.0**2, 96.0**2), 'large': (96.0**2, 1e5**2)}
#: Detections of an image and category that count.
MAX_DETECTIONS = (1, 10, 100)
# Elements of the largest array of a step.
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Matches:
    """D detections, by category, then image, then score, and G objects, by category, then image.

    Attributes:
        categories: ids, ascending.
        images: number of images.
        category: (D,) index of the category of each detection.
        image: (D,) index of its image.
        scores: (D,) float64.
        rank: (D,) its place among those of its image and category, from 0.
        found: (A, T, D) whether it found an object, by area and threshold.
        ignored: (A, T, D) whether it does not count: what it found need not be found, or it is of another size.
        object_category: (G,) index of the category of each object.
        object_image: (G,) index of its image.
        object_ignored: (A, G) whether it need not be found: a crowd, or of another size.
    """

    categories: tuple[int, ...]
    images: int
    category: Ints
    image: Ints
    scores: Floats
    rank: Ints
    found: Bools
    ignored: Bools
    object_category: Ints
    object_image: Ints
    object_ignored: Bools


def match(annotations: CocoAnnotations, detections: Detections, task: Task) -> Matches:
    """Match detections with objects as COCO's toolbox does.

    Detections of images or categories that the annotations do not have are left out, as they are there.

    Args:
        annotations: for ``segm``, with masks that were checked.
        detections: for ``segm``, with masks.
        task: what overlaps: boxes or masks.

    Raises:
        InputError: pycocotools is not installed.
    """
    toolbox = toolbox_masks()
    categories = np.array(list(annotations.categories), dtype=np.int64)
    images = np.array([image.id for image in annotations.images], dtype=np.int64)
    order, key, rank = _by_group(detections, categories, images)
    objects = _Objects.of(annotations, task, categories, images, toolbox)
    regions = detections.boxes if task == 'bbox' else detections.masks
    shape = (len(AREAS), len(IOU_THRESHOLDS), len(order))
    found, ignored = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for batch in _batches(_pairs(key, objects.key)):
        overlaps = _overlaps(batch, regions, order, objects, toolbox)
        _find(batch, overlaps, objects, found, ignored)
    sizes = detections.areas(task)[order]
    ignored |= ~found & _outside(sizes)[:, None, :]
    count = max(len(images), 1)
    return Matches(
        tuple(categories.tolist()), len(images), key // count, key % count, detections.scores[order], rank, found,
        ignored, objects.key // count, objects.key % count, objects.ignored,
    )  # fmt: skip


def toolbox_masks() -> Any:
    """The module ``pycocotools.mask``.

    Raises:
        InputError: it is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError:
        raise InputError("COCO's evaluation needs pycocotools: pip install pycocotools") from None
    return mask


@dataclass(frozen=True)
class _Objects:
    """Marked objects, by category and image; their order within an image stays."""

    key: Ints
    ids: Ints
    regions: Any
    is_crowd: Bools
    ignored: Bools

    @classmethod
    def of(cls, annotations: CocoAnnotations, task: Task, categories: Ints, images: Ints, toolbox: Any) -> '_Objects':
        key = np.searchsorted(categories, annotations.category_ids) * len(images)
        key += np.searchsorted(images, annotations.image_ids)
        order = np.argsort(key, kind='stable')
        codes = annotations.boxes if task == 'bbox' else annotations.masks(toolbox)
        crowd = annotations.is_crowd[order]
        ignored = crowd | _outside(annotations.areas[order])
        return cls(key[order], annotations.ids[order], _taken(codes, order), crowd, ignored)


@dataclass(frozen=True)
class _Pairs:
    """Images and categories with both detections and objects: where each of the two begin, and how many there are."""

    first: Ints
    count: Ints
    first_object: Ints
    objects: Ints

    def __getitem__(self, selected: Any) -> '_Pairs':
        return _Pairs(self.first[selected], self.count[selected], self.first_object[selected], self.objects[selected])

    def __len__(self) -> int:
        return len(self.first)


def _by_group(detections: Detections, categories: Ints, images: Ints) -> tuple[Ints, Ints, Ints]:
    """Detections that count, by category, image and score: their indices, groups, and places in these."""
    known = np.flatnonzero(np.isin(detections.image_ids, images) & np.isin(detections.category_ids, categories))
    key = np.searchsorted(categories, detections.category_ids[known]) * len(images)
    key += np.searchsorted(images, detections.image_ids[known])
    # Stable: equal scores keep their order.
    order = np.lexsort((-detections.scores[known], key))
    key = key[order]
    rank = np.arange(len(key)) - np.searchsorted(key, key)
    counts = rank < MAX_DETECTIONS[-1]
    return known[order][counts], key[counts], rank[counts]


def _pairs(key: Ints, object_key: Ints) -> _Pairs:
    groups, first, count = np.unique(key, return_index=True, return_counts=True)
    object_groups, first_object, objects = np.unique(object_key, return_index=True, return_counts=True)
    _, here, there = np.intersect1d(groups, object_groups, assume_unique=True, return_indices=True)
    return _Pairs(first[here], count[here], first_object[there], objects[there])


def _batches(pairs: _Pairs) -> Iterator[_Pairs]:
    """Pairs of similar size, as many as fit a step; those with most detections first."""
    pairs = pairs[np.argsort(pairs.objects, kind='stable')]
    start = 0
    while start < len(pairs):
        # Doubled at most, so that little is filled up.
        widest = 2 * int(pairs.objects[start])
        stop = start + int(np.searchsorted(pairs.objects[start:], widest, side='right'))
        size = widest * max(len(AREAS) * len(IOU_THRESHOLDS), int(pairs.count[start:stop].max()))
        stop = min(stop, start + max(_CHUNK // size, 1))
        batch = pairs[start:stop]
        yield batch[np.argsort(-batch.count, kind='stable')]
        start = stop


def _overlaps(batch: _Pairs, regions: Any, order: Ints, objects: _Objects, toolbox: Any) -> Floats:
    """(pairs, detections, objects) intersection over union, as the toolbox computes it; -1 where there is none."""
    overlaps = np.full((len(batch), int(batch.count[0]), int(batch.objects.max())), -1.0)
    for number in range(len(batch)):
        first, count = batch.first[number], batch.count[number]
        start, end = batch.first_object[number], batch.first_object[number] + batch.objects[number]
        overlaps[number, :count, : end - start] = toolbox.iou(
            _taken(regions, order[first : first + count]), objects.regions[start:end],
            objects.is_crowd[start:end].astype(int).tolist(),
        )  # fmt: skip
    return overlaps


def _find(batch: _Pairs, overlaps: Floats, objects: _Objects, found: Bools, ignored: Bools) -> None:
    """Let the detections of a batch find objects, best first; ``found`` and ``ignored`` are filled."""
    width = overlaps.shape[2]
    place = np.minimum(batch.first_object[:, None] + np.arange(width), len(objects.ids) - 1)
    crowd = objects.is_crowd[place][:, None, None, :]
    needless = objects.ignored[:, place].transpose(1, 0, 2)[:, :, None, :]
    # The toolbox notes what was found by its id, and takes 0 for nothing.
    is_noted = objects.ids[place] != 0
    taken = np.zeros((len(batch), len(AREAS), len(IOU_THRESHOLDS), width), dtype=bool)
    pair, area, threshold = np.ogrid[: len(batch), : len(AREAS), : len(IOU_THRESHOLDS)]
    for step in range(overlaps.shape[1]):
        active = int(np.count_nonzero(batch.count > step))
        overlap = overlaps[:active, step][:, None, None, :]
        open_to = (overlap >= IOU_THRESHOLDS[:, None]) & (~taken[:active] | crowd[:active])
        # One that need not be found is taken only where no other is left.
        wanted = open_to & ~needless[:active]
        candidates = np.where(wanted.any(axis=3, keepdims=True), wanted, open_to)
        # Of equal ones the toolbox takes the last.
        best = width - 1 - np.where(candidates, overlap, -1.0)[..., ::-1].argmax(axis=3)
        own = pair[:active]
        hit = candidates[own, area, threshold, best]
        taken[own, area, threshold, best] |= hit
        detection = batch.first[:active] + step
        found[:, :, detection] = (hit & is_noted[own, best]).transpose(1, 2, 0)
        ignored[:, :, detection] = (hit & needless[own, area, 0, best]).transpose(1, 2, 0)


def _outside(sizes: Floats) -> Bools:
    """(A, N) whether sizes in pixels are outside each of the areas."""
    return np.stack([(sizes < low) | (sizes > high) for low, high in AREAS.values()])


def _taken(regions: Any, order: Sequence[int] | Ints) -> Any:
    return regions[order] if isinstance(regions, np.ndarray) else [regions[index] for index in order]
