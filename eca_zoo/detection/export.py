"""Exports the networks of a detector to ONNX, for images of any size, checked against their eager outputs.

RetinaNet is one file. A detector of two stages is a file for each stage, between which boxes are chosen.
"""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eca_zoo.detection.evaluation.detector_spec import DetectorSettings, DetectorSpec, load_detector
from eca_zoo.detection.networks.detectors import Detector, FasterRcnn, RetinaNet
from eca_zoo.detection.networks.registry import create_detector
from eca_zoo.detection.networks.roi_heads import RoiPool
from eca_zoo.errors import RunError
from eca_zoo.files import replacing
from eca_zoo.harness.networks.export import ExportReport, check_installed, check_target, onnx_session

# Height and width of the image, multiples of 32 as the transform pads images, and number of boxes.
_TRACED, _CHECKED = (256, 320, 5), ((256, 320, 5), (320, 224, 9), (96, 192, 1))
_TOLERANCE = 1e-4
_Tensors = tuple[torch.Tensor, ...]


class _OneStage(nn.Module):
    """An image (1, 3, H, W) to logits (1, A, classes) and deltas (1, A, 4) of all anchors."""

    def __init__(self, detector: RetinaNet) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, image: torch.Tensor) -> _Tensors:
        predicted = self.head(self.backbone(image))
        return predicted['cls_logits'], predicted['bbox_regression']


class _FirstStage(nn.Module):
    """An image (1, 3, H, W) to logits (1, A) and deltas (1, A, 4) of all anchors, and the maps of the pyramid."""

    def __init__(self, detector: FasterRcnn) -> None:
        super().__init__()
        self.backbone, self.rpn = detector.backbone, detector.rpn

    def forward(self, image: torch.Tensor) -> _Tensors:
        maps = self.backbone(image)
        logits, deltas = self.rpn(maps)
        return torch.cat(logits, dim=1), torch.cat(deltas, dim=1), *maps


class _PooledAtAllLevels(nn.Module):
    """``RoiPool`` of one image without a number of boxes that depends on data: all are pooled from each level."""

    def __init__(self, pool: RoiPool) -> None:
        super().__init__()
        self._pool = pool

    def forward(self, maps: Sequence[torch.Tensor], boxes: torch.Tensor) -> torch.Tensor:
        levels, image = self._pool.levels(boxes), torch.zeros_like(boxes[:, :1])
        result = self._pool.pooled(maps[0], 0, image, boxes)
        for level, one in enumerate(maps[1:], start=1):
            pooled = self._pool.pooled(one, level, image, boxes)
            result = torch.where((levels == level)[:, None, None, None], pooled, result)
        return result


class _Boxes(nn.Module):
    """Maps of the pyramid and boxes (K, 4) to class logits (K, 1 + classes) and deltas (K, 1 + classes, 4)."""

    def __init__(self, detector: FasterRcnn) -> None:
        super().__init__()
        heads = detector.roi_heads
        self.pool = _PooledAtAllLevels(heads.box_roi_pool)
        self.head, self.predictor = heads.box_head, heads.box_predictor

    def forward(self, *given: torch.Tensor) -> _Tensors:
        *maps, boxes = given
        logits, deltas = self.predictor(self.head(self.pool(maps, boxes)))
        return logits, deltas.reshape(deltas.shape[0], -1, 4)


class _Masks(nn.Module):
    """Maps of the pyramid and boxes (K, 4) to the logits (K, 1 + classes, 28, 28) of all masks in them."""

    def __init__(self, detector: FasterRcnn) -> None:
        super().__init__()
        heads: Any = detector.roi_heads
        self.pool = _PooledAtAllLevels(heads.mask_roi_pool)
        self.head, self.predictor = heads.mask_head, heads.mask_predictor

    def forward(self, *given: torch.Tensor) -> _Tensors:
        *maps, boxes = given
        return (self.predictor(self.head(self.pool(maps, boxes))),)


@dataclass(frozen=True)
class _Part:
    """A file: what stands before its extension, its network, the names of what goes in and out, what it must give."""

    suffix: str
    network: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    eager: Callable[..., _Tensors]


def export_detector(
    spec: DetectorSpec, path: Path, pretrained: bool = True, opset: int | None = None, fuse: bool = False
) -> list[ExportReport]:
    """Write the networks of a detector as ONNX, for normalised images (1, 3, H, W) whose sides are any multiples of 32.

    RetinaNet's ``path`` maps an image to ``cls_logits`` (1, A, classes) and ``bbox_regression`` (1, A, 4) of its
    anchors. Of two stages ``path`` maps it to ``objectness`` (1, A) and ``deltas`` (1, A, 4) of the proposals' anchors
    and the maps ``p2`` to ``p6``; ``NAME.boxes.onnx`` beside it maps ``p2`` to ``p5`` and ``boxes`` (K, 4) to
    ``class_logits`` and ``box_deltas``, and ``NAME.masks.onnx`` to ``mask_logits`` (K, 1 + classes, 28, 28).

    Each file is run by ONNX Runtime on images of several sizes and compared with the eager outputs before any gets its
    name. Resize, normalisation, the choice of boxes and their suppression are not part of them.

    Raises:
        InputError: a package is not installed, or a file cannot be written.
        RunError: the weights cannot be had, the export fails, or a file gives other outputs.
    """
    check_installed(('onnx', 'onnxscript', 'onnxruntime'))
    check_target(path)
    if not pretrained and spec.checkpoint is None:
        spec = DetectorSpec(spec.name, module=create_detector(spec.name, **spec.options).eval())
    settings = DetectorSettings('cpu', channels_last=False, fuse=fuse).checked()
    detector = load_detector(spec, settings).module
    parts, reports = _parts(detector), []
    targets = [path.with_name(f'{path.stem}{part.suffix}{path.suffix}') for part in parts]
    for target in targets:
        check_target(target)
    with contextlib.ExitStack() as stack:
        for part, target in zip(parts, targets, strict=True):
            place = stack.enter_context(replacing(target, '--out'))
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix='.export-', dir=place.parent))
            temporary = Path(folder) / target.name
            _write(part, detector, temporary, opset)
            error = _largest_error(part, detector, temporary)
            if not error <= _TOLERANCE:
                raise RunError(f'{target.name}: what was exported differs from the eager network by {error:.1e}')
            reports.append(ExportReport(target, 'onnx', temporary.stat().st_size, _opset_of(temporary), error))
            os.replace(temporary, place)
    return reports


def _parts(detector: Detector) -> list[_Part]:
    if isinstance(detector, RetinaNet):
        network: nn.Module = _OneStage(detector).eval()
        return [_Part('', network, ('input',), ('cls_logits', 'bbox_regression'), network)]
    assert isinstance(detector, FasterRcnn)
    network = _FirstStage(detector).eval()
    maps = tuple(f'p{level}' for level in range(2, 2 + len(detector.backbone.strides)))
    pooled = (*maps[: len(detector.roi_heads.box_roi_pool.strides)], 'boxes')
    parts = [
        _Part('', network, ('input',), ('objectness', 'deltas', *maps), network),
        _Part('.boxes', _Boxes(detector).eval(), pooled, ('class_logits', 'box_deltas'),
              lambda *given: detector.roi_heads(given[:-1], [given[-1]])),
    ]  # fmt: skip
    if detector.has_masks:
        parts.append(
            _Part('.masks', _Masks(detector).eval(), pooled, ('mask_logits',), lambda *given: _masks(detector, given))
        )
    return parts


def _masks(detector: FasterRcnn, given: _Tensors) -> _Tensors:
    """What the eager mask head says, of all classes."""
    heads: Any = detector.roi_heads
    return (heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(given[:-1], [given[-1]]))),)


def _example(part: _Part, detector: Detector, size: tuple[int, int, int], seed: int) -> _Tensors:
    """What goes into ``part`` for an image of a height and a width, and a number of boxes."""
    generator = torch.Generator().manual_seed(seed)
    height, width, count = size
    image = torch.randn(1, 3, height, width, generator=generator)
    if part.inputs == ('input',):
        return (image,)
    ends = torch.rand(2, count, 2, generator=generator).sort(dim=0).values * torch.tensor([width, height])
    return *detector.backbone(image)[: len(part.inputs) - 1], torch.cat([ends[0], ends[1] + 1], dim=1)


def _dynamic(part: _Part) -> Any:
    if part.inputs == ('input',):
        rows, columns = (32 * torch.export.Dim(name, min=2, max=128) for name in ('rows', 'columns'))
        return ({2: rows, 3: columns},)
    # torch.export takes a network's *arguments as one.
    any_size = torch.export.Dim.DYNAMIC
    return (tuple({0: any_size} if name == 'boxes' else {2: any_size, 3: any_size} for name in part.inputs),)


def _write(part: _Part, detector: Detector, path: Path, opset: int | None) -> None:
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter('ignore')
            torch.onnx.export(
                part.network, _example(part, detector, _TRACED, 0), path, dynamo=True, dynamic_shapes=_dynamic(part),
                opset_version=opset, external_data=False, input_names=list(part.inputs),
                output_names=list(part.outputs), verbose=False,
            )  # fmt: skip
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RunError(f'{path.name}: the detector cannot be exported to onnx: {reason}') from error


def _opset_of(path: Path) -> int:
    import onnx

    written = onnx.load(path, load_external_data=False)
    return next(opset.version for opset in written.opset_import if opset.domain in ('', 'ai.onnx'))


def _largest_error(part: _Part, detector: Detector, path: Path) -> float:
    """||exported - eager|| / ||eager||, the largest over the outputs and the checked sizes."""
    session, errors = onnx_session(path), []
    for seed, size in enumerate(_CHECKED, start=1):
        with torch.no_grad():
            given = _example(part, detector, size, seed)
            expected = part.eager(*given)
        actual = session.run(None, {name: one.numpy() for name, one in zip(part.inputs, given, strict=True)})
        for one, other in zip(expected, actual, strict=True):
            errors.append(float((torch.from_numpy(other) - one).norm() / one.norm()))
    return max(errors)
