"""Small sets in COCO's format with everything that counts: crowds, ties, gaps in the ids, empty images and classes."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from eca_zoo.detection import create_detector
from eca_zoo.detection.run_lengths import encode_in_box

CATEGORIES = {3: 'cat', 7: 'dog', 8: 'bird', 90: 'never marked'}
SIZE = (120, 160)


def make_set(
    seed: int, images: int = 12, objects: int = 6, detections: int = 14, first_id: int = 1
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations, and detections with both ``bbox`` and ``segmentation``, in COCO's format.

    Args:
        seed: of everything.
        images: number of images; some have no object, some no detection.
        objects: at most, of an image.
        detections: at most, of an image; many share their scores.
        first_id: of the annotations.
    """
    rng = np.random.default_rng(seed)
    listed = [
        {'id': 10 * number + 5, 'file_name': f'{number:03d}.png', 'height': SIZE[0], 'width': SIZE[1]}
        for number in range(images)
    ]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in rng.permutation(listed).tolist():
        marked = [_object(rng) for _ in range(rng.integers(0, objects + 1))]
        for number, (category, box) in enumerate(marked):
            crowd = int(number == 1 and rng.random() < 0.4)
            annotations.append(
                {
                    'id': first_id + len(annotations), 'image_id': image['id'], 'category_id': category, 'bbox': box,
                    'area': float(np.prod(box[2:]) * rng.uniform(0.5, 1)), 'iscrowd': crowd,
                    'segmentation': _run_lengths(rng, box) if crowd else [_polygon(box)],
                }
            )  # fmt: skip
        for _ in range(rng.integers(0, detections + 1)):
            category, box = marked[rng.integers(len(marked))] if marked and rng.random() < 0.8 else _object(rng)
            box = _within([value + shift for value, shift in zip(box, rng.normal(0, 3, 4), strict=True)])
            results.append(
                {
                    'image_id': image['id'], 'category_id': category, 'bbox': box,
                    'score': float(rng.integers(0, 20)) / 20, 'segmentation': _run_lengths(rng, box),
                }
            )  # fmt: skip
    categories = [{'id': number, 'name': name} for number, name in CATEGORIES.items()]
    return {'images': listed, 'categories': categories, 'annotations': annotations}, results


def of_task(results: list[dict[str, Any]], task: str) -> list[dict[str, Any]]:
    """Results as a file of that task has them."""
    other = 'segmentation' if task == 'bbox' else 'bbox'
    return [{key: value for key, value in entry.items() if key != other} for entry in results]


def toolbox_evaluation(annotations: Path, results: list[dict[str, Any]], task: str) -> Any:
    """pycocotools' evaluation of these, summarised."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        if results:
            found = truth.loadRes(json.loads(json.dumps(of_task(results, task))))
        else:
            # Its reader of results takes no empty list.
            found = COCO()
            found.dataset = {**truth.dataset, 'annotations': []}
            found.createIndex()
        evaluation = COCOeval(truth, found, task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _object(rng: np.random.Generator) -> tuple[int, list[float]]:
    width, height = rng.uniform(4, 90), rng.uniform(4, 90)
    left, top = rng.uniform(0, SIZE[1] - width), rng.uniform(0, SIZE[0] - height)
    return int(rng.choice(list(CATEGORIES)[:3])), [round(value, 2) for value in (left, top, width, height)]


def _within(box: list[float]) -> list[float]:
    left, top = min(max(box[0], 0), SIZE[1] - 3), min(max(box[1], 0), SIZE[0] - 3)
    return [left, top, min(max(box[2], 2), SIZE[1] - left), min(max(box[3], 2), SIZE[0] - top)]


def _polygon(box: list[float]) -> list[float]:
    left, top, width, height = box
    return [left, top, left + width, top + height / 4, left + width, top + height, left + width / 3, top + height]


def _run_lengths(rng: np.random.Generator, box: list[float]) -> dict[str, Any]:
    left, top, width, height = (round(value) for value in box)
    mask = np.ones((max(height, 1), max(width, 1)), dtype=bool)
    mask[: int(rng.integers(0, 3)), : int(rng.integers(0, 3))] = False
    code = encode_in_box(mask, left, top, SIZE)
    return {'size': code['size'], 'counts': code['counts'].decode()}


def write_set(folder: Path, seed: int = 0, images: int = 10, split: str = 'val', **arguments: Any) -> Path:
    """Write a set as COCO is unpacked, with images of noise; returns its folder."""
    truth, _ = make_set(seed, images, **arguments)
    (folder / 'annotations').mkdir(parents=True, exist_ok=True)
    (folder / split).mkdir()
    (folder / 'annotations' / f'instances_{split}.json').write_text(json.dumps(truth))
    rng = np.random.default_rng(seed)
    for image in truth['images']:
        coarse = rng.integers(0, 256, (SIZE[0] // 10, SIZE[1] // 10, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((SIZE[1], SIZE[0])).save(folder / split / image['file_name'])
    return folder


def write_checkpoint(path: Path, classes: int = 4, seed: int = 0) -> Path:
    """Write the weights of a ``test_maskrcnn`` that finds something everywhere."""
    torch.manual_seed(seed)
    detector = create_detector('test_maskrcnn', num_classes=classes)
    detector.roi_heads.box_predictor.cls_score.weight.data *= 20
    detector.roi_heads.box_predictor.bbox_pred.weight.data *= 5
    save_file(detector.state_dict(), path)
    return path
