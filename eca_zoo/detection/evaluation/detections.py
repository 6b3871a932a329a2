"""Detections of a set of images, and the results file of COCO that holds them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from eca_zoo.detection.coco_annotations import read_json
from eca_zoo.detection.run_lengths import RunLengths, area, expand
from eca_zoo.errors import InputError

Task = Literal['bbox', 'segm']
TASKS: tuple[Task, ...] = ('bbox', 'segm')


@dataclass(frozen=True)
class Detections:
    """D detections of a set of images, in the order in which they are written; equal scores keep it.

    Attributes:
        image_ids: (D,) int64.
        category_ids: (D,) int64.
        scores: (D,) float64.
        boxes: (D, 4) float64: left, top, width and height in pixels of the stored image.
        masks: run-length code of each; None for a detector without masks.
    """

    image_ids: npt.NDArray[np.int64]
    category_ids: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    boxes: npt.NDArray[np.float64]
    masks: tuple[RunLengths, ...] | None = None

    @classmethod
    def joined(cls, parts: Sequence['Detections'], has_masks: bool = False) -> 'Detections':
        """Parts one after the other; ``has_masks`` says what none at all would have had."""
        if not parts:
            none = np.zeros(0, dtype=np.int64)
            return cls(none, none, np.zeros(0), np.zeros((0, 4)), () if has_masks else None)
        masks = [part.masks for part in parts if part.masks is not None]
        return cls(
            np.concatenate([part.image_ids for part in parts]),
            np.concatenate([part.category_ids for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.boxes for part in parts]),
            tuple(mask for own in masks for mask in own) if len(masks) == len(parts) else None,
        )

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.scores)

    def areas(self, task: Task) -> npt.NDArray[np.float64]:
        """(D,) what decides whether a detection is small: pixels of its box, or of its mask."""
        if task == 'bbox':
            return self.boxes[:, 2] * self.boxes[:, 3]
        return np.array([area(mask) for mask in self.masks or ()], dtype=np.float64)

    def to_json(self, task: Task) -> bytes:
        """COCO's results file: those of masks have no ``bbox``, which COCO's toolbox would take the area from."""
        rows = zip(self.image_ids.tolist(), self.category_ids.tolist(), self.scores.tolist(), strict=True)
        shared = [{'image_id': image, 'category_id': category, 'score': score} for image, category, score in rows]
        entries: Iterable[dict[str, Any]]
        if task == 'bbox':
            entries = ({**row, 'bbox': box} for row, box in zip(shared, self.boxes.tolist(), strict=True))
        else:
            codes = ({'size': mask['size'], 'counts': mask['counts'].decode()} for mask in self.masks or ())
            entries = ({**row, 'segmentation': code} for row, code in zip(shared, codes, strict=True))
        return b'[' + b',\n'.join(map(msgspec.json.encode, entries)) + b']\n'


class _Code(msgspec.Struct, frozen=True):
    size: tuple[int, int]
    counts: str


class _Entry(msgspec.Struct, frozen=True):
    image_id: int
    category_id: int
    score: float
    bbox: tuple[float, float, float, float] | None = None
    segmentation: _Code | None = None


def read_results(path: Path, task: Task) -> Detections:
    """Detections in a results file of COCO's format.

    Raises:
        InputError: it cannot be read, or lacks what ``task`` needs; the text names the entry.
    """
    content = read_json(path, 'results')
    try:
        plain = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f'{path}: no readable JSON: {error}') from None
    if not isinstance(plain, list):
        raise InputError(f"{path}: results in COCO's format are a list of detections")
    entries = []
    for index, value in enumerate(plain):
        try:
            entries.append(_checked(msgspec.convert(value, _Entry), task))
        except (msgspec.ValidationError, ValueError) as error:
            raise InputError(f'{path}: [{index}]: {error}') from None
    boxes = [entry.bbox or (0.0, 0.0, 0.0, 0.0) for entry in entries]
    masks: list[RunLengths] | None = None
    if task == 'segm':
        codes = [entry.segmentation for entry in entries if entry.segmentation is not None]
        masks = [{'size': list(code.size), 'counts': code.counts.encode()} for code in codes]
    return Detections(
        np.array([entry.image_id for entry in entries], dtype=np.int64),
        np.array([entry.category_id for entry in entries], dtype=np.int64),
        np.array([entry.score for entry in entries], dtype=np.float64),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        None if masks is None else tuple(masks),
    )


def _checked(entry: _Entry, task: Task) -> _Entry:
    if task == 'bbox' and entry.bbox is None:
        raise ValueError('it lacks the key `bbox`, which the evaluation of boxes needs')
    if task == 'segm':
        if entry.segmentation is None:
            raise ValueError('it lacks the key `segmentation`, which the evaluation of masks needs')
        if entry.bbox is not None:
            raise ValueError(
                "it has both `segmentation` and `bbox`, of which COCO's toolbox takes the area; leave out bbox"
            )
        height, width = entry.segmentation.size
        if expand(entry.segmentation.counts).sum() != height * width:
            raise ValueError(f'the run lengths of its segmentation do not add up to {height}x{width} pixels')
    return entry
