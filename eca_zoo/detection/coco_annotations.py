"""Annotations in COCO's format, read strictly: what is wrong with them is said before a detector runs."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from eca_zoo.detection.run_lengths import expand
from eca_zoo.errors import InputError

# COCO's own boxes end up to a pixel outside, because their corners are rounded.
_BORDER = 1.0
_FEWEST_VALUES = 6  # three corners; the toolbox takes four values for a box


class _Image(msgspec.Struct, gc=False, frozen=True):
    id: int
    file_name: str
    height: int
    width: int


class _Category(msgspec.Struct, gc=False, frozen=True):
    id: int
    name: str


class _Annotation(msgspec.Struct, frozen=True):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int | bool = 0
    segmentation: Any = None


class _File(msgspec.Struct):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


@dataclass(frozen=True)
class CocoImage:
    """An image of a set: its id, its file below the folder of images, its height and width in pixels."""

    id: int
    file_name: str
    height: int
    width: int


@dataclass(frozen=True)
class CocoAnnotations:
    """A set of images and the N objects that are marked in them, in the order of the file.

    Attributes:
        path: the file.
        images: by their ids, ascending, as COCO's toolbox goes through them.
        categories: name of each category id, ascending.
        ids: (N,) int64.
        image_ids: (N,) int64.
        category_ids: (N,) int64.
        boxes: (N, 4) float64: left, top, width and height in pixels of the stored image.
        areas: (N,) float64: pixels of the mask, as the file says.
        is_crowd: (N,) bool: marks several objects, which a detection may match again and again.
        segmentations: of each object, as the file says: polygons or run lengths; None where there is none.
        remarks: what a user has to know of it, a line each.
    """

    path: Path
    images: tuple[CocoImage, ...]
    categories: dict[int, str]
    ids: npt.NDArray[np.int64]
    image_ids: npt.NDArray[np.int64]
    category_ids: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    areas: npt.NDArray[np.float64]
    is_crowd: npt.NDArray[np.bool_]
    segmentations: tuple[Any, ...]
    remarks: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        """Number of marked objects."""
        return len(self.ids)

    def check_masks(self) -> None:
        """Refuse objects whose masks cannot be compared.

        Raises:
            InputError: one has no segmentation, or a wrong one.
        """
        sizes = {image.id: (image.height, image.width) for image in self.images}
        for index, segmentation in enumerate(self.segmentations):
            fault = _mask_fault(segmentation, sizes[int(self.image_ids[index])])
            if fault is not None:
                raise InputError(f'{self._entry(index)}: {fault}')

    def masks(self, toolbox: Any) -> list[Any]:
        """Run-length code of each object, as ``toolbox`` (``pycocotools.mask``) makes it of polygons."""
        sizes = {image.id: (image.height, image.width) for image in self.images}
        return [
            mask_code(segmentation, sizes[number], toolbox)
            for number, segmentation in zip(self.image_ids.tolist(), self.segmentations, strict=True)
        ]

    def check_categories(self, known: dict[int, str], detector: str) -> list[str]:
        """Refuse a detector that gives other names to the categories, or does not know one.

        Args:
            known: name of each category id of the detector.
            detector: its name, for messages.

        Returns:
            What a user has to know, a line each.

        Raises:
            InputError: the categories do not line up.
        """
        for number, name in self.categories.items():
            if number not in known:
                raise InputError(
                    f'{self.path}: {detector} does not know the category {number} ({name}); it has {len(known)}: '
                    f'{_first(known.values())}; name a detector that was trained for these {len(self.categories)}'
                )
            if known[number].casefold() != name.casefold():
                raise InputError(
                    f'{self.path}: the category {number} is {name!r} there and {known[number]!r} for {detector}; give '
                    'the categories the ids that the detector was trained with'
                )
        if len(known) > len(self.categories):
            text = f'{self.path}: it has {len(self.categories)} of the {len(known)} categories of {detector}'
            return [f'{text}; detections of others do not count']
        return []

    def _entry(self, index: int) -> str:
        return f'{self.path}: annotations[{index}] (id {self.ids[index]})'


def mask_code(segmentation: Any, size: tuple[int, int], toolbox: Any) -> Any:
    """Run-length code of an object in an image of ``size``, as ``toolbox`` (``pycocotools.mask``) makes it."""
    if isinstance(segmentation, list):
        return toolbox.merge(toolbox.frPyObjects(segmentation, *size))
    return toolbox.frPyObjects(segmentation, *size) if isinstance(segmentation['counts'], list) else segmentation


def read_annotations(path: Path, leave_out_faulty_boxes: bool = False) -> CocoAnnotations:
    """Read a file in COCO's format (``instances_val2017.json``).

    Args:
        path: JSON with ``images``, ``categories`` and ``annotations``.
        leave_out_faulty_boxes: leave out objects whose boxes have no area or lie outside their image, as training does;
            a remark says how many there are.

    Raises:
        InputError: it cannot be read, lacks something, or contradicts itself; the text names the entry.
    """
    content = _decoded(path)
    for name, entries in (('images', content.images), ('categories', content.categories)):
        _check_ids(path, name, [entry.id for entry in entries])
    _check_ids(path, 'annotations', [entry.id for entry in content.annotations])
    images = tuple(
        CocoImage(image.id, image.file_name, image.height, image.width)
        for image in sorted(content.images, key=lambda image: image.id)
    )
    categories = {category.id: category.name for category in sorted(content.categories, key=lambda entry: entry.id)}
    _check_references(path, content, {image.id for image in images}, categories)
    faulty = _faulty_boxes(content)
    remarks = []
    if faulty and not leave_out_faulty_boxes:
        index, fault = next(iter(faulty.items()))
        raise InputError(f'{path}: annotations[{index}] (id {content.annotations[index].id}): {fault}')
    if faulty:
        index, fault = next(iter(faulty.items()))
        remarks.append(
            f'{path}: {len(faulty)} of its {len(content.annotations)} objects are left out (annotations[{index}]: '
            f'{fault})'
        )
    kept = [entry for index, entry in enumerate(content.annotations) if index not in faulty]
    if any(entry.id == 0 for entry in kept):
        remarks.append(
            f"{path}: an annotation has the id 0, and COCO's toolbox takes what matches it for wrong; number them from "
            '1 on'
        )
    return CocoAnnotations(
        path, images, categories,
        np.array([entry.id for entry in kept], dtype=np.int64),
        np.array([entry.image_id for entry in kept], dtype=np.int64),
        np.array([entry.category_id for entry in kept], dtype=np.int64),
        np.array([entry.bbox for entry in kept], dtype=np.float64).reshape(-1, 4),
        np.array([entry.area for entry in kept], dtype=np.float64),
        np.array([bool(entry.iscrowd) for entry in kept], dtype=bool),
        tuple(entry.segmentation for entry in kept),
        tuple(remarks),
    )  # fmt: skip


def read_json(path: Path, what: str) -> bytes:
    """The bytes of a JSON file, without a byte-order mark.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.read_bytes().removeprefix(b'\xef\xbb\xbf')
    except OSError as error:
        raise InputError(f'{path}: cannot read the {what}: {error.strerror or error}; name a JSON file') from None


def _decoded(path: Path) -> _File:
    content = read_json(path, 'annotations')
    try:
        return msgspec.json.decode(content, type=_File)
    except msgspec.ValidationError as error:
        reason = str(error)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f'{path}: no readable JSON: {error}') from None
    # msgspec does not say which entry of a list is wrong.
    plain = msgspec.json.decode(content)
    kinds: dict[str, type] = {'images': _Image, 'categories': _Category, 'annotations': _Annotation}
    for name, kind in kinds.items():
        entries = plain.get(name) if isinstance(plain, dict) else None
        if not isinstance(entries, list):
            raise InputError(f"{path}: it has no list {name!r}; annotations in COCO's format have {', '.join(kinds)}")
        for index, entry in enumerate(entries):
            fault = _fault(entry, kind)
            if fault is not None:
                number = f' (id {entry["id"]})' if isinstance(entry, dict) and 'id' in entry else ''
                raise InputError(f'{path}: {name}[{index}]{number}: {fault}')
    raise InputError(f'{path}: {reason}')


def _fault(entry: Any, kind: type) -> str | None:
    try:
        msgspec.convert(entry, kind)
    except msgspec.ValidationError as error:
        return str(error).replace('Object missing required field', 'it lacks the key').replace(' - at `$.', ' in `')
    return None


def _check_ids(path: Path, name: str, ids: Sequence[int]) -> None:
    if len(set(ids)) == len(ids):
        return
    seen: dict[int, int] = {}
    for index, number in enumerate(ids):
        if number in seen:
            raise InputError(
                f'{path}: {name}[{seen[number]}] and {name}[{index}] have one id, {number}; give each its own'
            )
        seen[number] = index


def _check_references(path: Path, content: _File, images: set[int], categories: dict[int, str]) -> None:
    for index, image in enumerate(content.images):
        if image.height < 1 or image.width < 1 or not image.file_name:
            raise InputError(
                f'{path}: images[{index}] (id {image.id}): a file name, and a height and width of at least 1 are '
                f'needed, not {image.file_name!r}, {image.height} and {image.width}'
            )
    for index, entry in enumerate(content.annotations):
        where = f'{path}: annotations[{index}] (id {entry.id})'
        if entry.image_id not in images:
            raise InputError(f'{where}: its image_id {entry.image_id} is none of the {len(images)} images of the file')
        if entry.category_id not in categories:
            raise InputError(
                f'{where}: its category_id {entry.category_id} is none of the {len(categories)} categories of the file'
            )
        if entry.area < 0 or entry.iscrowd not in (0, 1):
            raise InputError(f'{where}: area is at least 0 and iscrowd 0 or 1, not {entry.area:g} and {entry.iscrowd}')


def _faulty_boxes(content: _File) -> dict[int, str]:
    """What is wrong with boxes, by the index of the entry."""
    sizes = {image.id: (image.width, image.height) for image in content.images}
    faults = {}
    for index, entry in enumerate(content.annotations):
        left, top, width, height = entry.bbox
        size = sizes[entry.image_id]
        shown = ', '.join(f'{value:g}' for value in entry.bbox)
        if not (width > 0 and height > 0 and math.isfinite(left + top + width + height)):
            faults[index] = f'its box [{shown}] has no area; correct it, or remove the entry'
        elif min(left, top) < -_BORDER or left + width > size[0] + _BORDER or top + height > size[1] + _BORDER:
            faults[index] = (
                f'its box [{shown}] (left, top, width, height) ends outside its image of {size[0]}x{size[1]} pixels; '
                'correct it, or remove the entry'
            )
    return faults


def _mask_fault(segmentation: Any, size: tuple[int, int]) -> str | None:
    """Why a segmentation cannot be compared; None if it can be."""
    if isinstance(segmentation, list) and segmentation:
        for polygon in segmentation:
            if not isinstance(polygon, list) or not all(isinstance(value, int | float) for value in polygon):
                return 'its segmentation is no list of polygons, each a list of numbers x1, y1, x2, y2, ...'
            if len(polygon) % 2 or len(polygon) < _FEWEST_VALUES:
                return (
                    f'a polygon of its segmentation has {len(polygon)} values; an even number of at least '
                    f'{_FEWEST_VALUES} is needed'
                )
        return None
    if isinstance(segmentation, dict):
        return _run_length_fault(segmentation, size)
    return 'it has no segmentation, which the evaluation of masks needs; evaluate boxes alone with --task bbox'


def _run_length_fault(code: dict[str, Any], size: tuple[int, int]) -> str | None:
    counts = code.get('counts')
    if list(code.get('size') or ()) != list(size):
        return f'its segmentation is of {code.get("size")} pixels, and its image of {list(size)} (height, width)'
    try:
        runs = expand(counts) if isinstance(counts, str | bytes) else np.array(counts, dtype=np.int64)
    except (ValueError, TypeError, OverflowError):
        runs = np.array([-1])
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != size[0] * size[1]:
        return f'the run lengths of its segmentation do not add up to its image of {size[0]}x{size[1]} pixels'
    return None


def _first(names: Iterable[str]) -> str:
    shown = list(names)
    return ', '.join(shown[:3]) + (', ...' if len(shown) > 3 else '')
