"""The images of a set that a detector does worst on, drawn: what is marked beside what was found."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eca_zoo.detection.coco_images import CocoSet
from eca_zoo.detection.evaluation.average_precision import slice_of
from eca_zoo.detection.evaluation.detections import Detections
from eca_zoo.detection.evaluation.matching import IOU_THRESHOLDS, Floats, Matches, toolbox_masks
from eca_zoo.detection.evaluation.results import DetectorResult
from eca_zoo.detection.pictures import Drawn, beside, draw
from eca_zoo.detection.run_lengths import RunLengths
from eca_zoo.files import replacing

_ALL = 0
# Detections below are left out of a picture, and count as none where images are compared.
_SCORE = 0.3


def image_errors(matches: Matches, score: float = _SCORE) -> Floats:
    """(images,) objects that were missed, and detections of at least ``score`` that found none: mean of all thresholds.

    Args:
        matches: of a detector.
        score: from which on a detection counts.
    """
    counted = ~matches.ignored[_ALL] & (matches.scores >= score)
    right = matches.found[_ALL] & counted
    errors = np.zeros(matches.images)
    np.add.at(errors, matches.object_image[~matches.object_ignored[_ALL]], 1)
    shares = (counted.sum(axis=0) - 2 * right.sum(axis=0)) / len(IOU_THRESHOLDS)
    np.add.at(errors, matches.image, shares)
    return errors


def draw_worst(result: DetectorResult, data: CocoSet, folder: Path, count: int) -> list[Path]:
    """Draw the ``count`` images with the most errors into ``folder``, the worst first; returns the files.

    Args:
        result: of a detector on ``data``.
        data: the set.
        folder: it is made.
        count: of images.
    """
    task = 'segm' if 'segm' in result.tasks else 'bbox'
    matches = result.tasks[task].matches  # type: ignore[index]
    assert matches is not None and result.detections is not None
    errors = image_errors(matches)
    worst = np.argsort(-errors, kind='stable')[:count].tolist()
    codes = data.annotations.masks(toolbox_masks()) if task == 'segm' else None
    order = np.argsort(result.detections.image_ids, kind='stable')
    paths = []
    for place, position in enumerate(worst, 1):
        image = data.annotations.images[position]
        pixels = Image.fromarray(data.read(position).permute(1, 2, 0).numpy())
        own = order[slice_of(result.detections.image_ids[order], image.id)]
        marked = draw(pixels, _marked(data, image.id, codes))
        found = draw(pixels, _found(result.detections, own.tolist(), data))
        name = Path(image.file_name).stem
        path = folder / f'{place:03d}-{name}.png'
        with replacing(path, '--save-pictures') as temporary:
            beside(marked, found, ('annotations', f'{result.model}: {errors[position]:.1f} errors')).save(
                temporary, 'PNG'
            )
        paths.append(path)
    return paths


def _marked(data: CocoSet, image: int, codes: list | None) -> list[Drawn]:
    annotations = data.annotations
    objects = []
    for index in np.flatnonzero(annotations.image_ids == image).tolist():
        number = int(annotations.category_ids[index])
        text = annotations.categories[number] + (' (crowd)' if annotations.is_crowd[index] else '')
        objects.append(Drawn(_corners(annotations.boxes[index]), text, number, _bytes(codes[index]) if codes else None))
    return objects


def _found(detections: Detections, own: list[int], data: CocoSet) -> list[Drawn]:
    objects = []
    for index in own:
        score, number = float(detections.scores[index]), int(detections.category_ids[index])
        if score >= _SCORE:
            name = data.annotations.categories.get(number, str(number))
            mask = detections.masks[index] if detections.masks is not None else None
            objects.append(Drawn(_corners(detections.boxes[index]), f'{name} {score:.2f}', number, mask))
    return objects


def _corners(box: Floats) -> tuple[float, float, float, float]:
    left, top, width, height = box.tolist()
    return left, top, left + width, top + height


def _bytes(code: Any) -> RunLengths:
    counts = code['counts']
    return {'size': code['size'], 'counts': counts if isinstance(counts, bytes) else counts.encode()}
