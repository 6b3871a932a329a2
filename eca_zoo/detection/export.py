"""Exports the networks of a one-stage detector to ONNX, for images of any size, checked against its eager outputs."""

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eca_zoo.detection.evaluation.detector_spec import DetectorSettings, DetectorSpec, load_detector
from eca_zoo.detection.networks.detectors import Detector, RetinaNet
from eca_zoo.detection.networks.registry import create_detector
from eca_zoo.errors import InputError, RunError
from eca_zoo.files import replacing
from eca_zoo.harness.networks.export import ExportReport, check_installed, check_target, onnx_session

# Height and width; a multiple of 32, as the transform pads images.
_TRACED, _CHECKED = (256, 320), ((256, 320), (320, 224))
_TOLERANCE = 1e-4
OUTPUTS = ('cls_logits', 'bbox_regression')


class _Networks(nn.Module):
    """Backbone, pyramid and heads: an image (1, 3, H, W) to logits (1, A, classes) and deltas (1, A, 4)."""

    def __init__(self, detector: RetinaNet) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        predicted = self.head(self.backbone(image))
        return predicted['cls_logits'], predicted['bbox_regression']


def export_detector(
    spec: DetectorSpec, path: Path, pretrained: bool = True, opset: int | None = None, fuse: bool = False
) -> ExportReport:
    """Write the networks of a detector as ONNX: from a normalised image (1, 3, H, W), whose sides are any multiples of
    32, to ``cls_logits`` (1, A, classes) and ``bbox_regression`` (1, A, 4) of its anchors.

    The file is run by ONNX Runtime on images of two sizes and compared with the eager outputs before it gets its name.
    Resize, normalisation, the choice of boxes and their suppression are not part of it.

    Raises:
        InputError: the detector has two stages, a package is not installed, or the file cannot be written.
        RunError: the weights cannot be had, the export fails, or the file gives other outputs.
    """
    check_installed(('onnx', 'onnxscript', 'onnxruntime'))
    check_target(path)
    if not pretrained and spec.checkpoint is None:
        spec = DetectorSpec(spec.name, module=create_detector(spec.name, **spec.options).eval())
    module = _one_stage(
        load_detector(spec, DetectorSettings('cpu', channels_last=False, fuse=fuse).checked()).module, spec
    )
    networks = _Networks(module).eval()
    with (
        replacing(path, '--out') as place,
        tempfile.TemporaryDirectory(prefix='.export-', dir=place.parent) as folder,
    ):
        temporary = Path(folder) / path.name
        _write(networks, temporary, opset)
        error = _largest_error(networks, temporary)
        if not error <= _TOLERANCE:
            raise RunError(f'{path.name}: the exported networks differ from the eager ones by {error:.1e} (relative)')
        size, written_opset = temporary.stat().st_size, _opset_of(temporary)
        os.replace(temporary, place)
    return ExportReport(path, 'onnx', size, written_opset, error)


def check_one_stage(spec: DetectorSpec) -> None:
    """Refuse detectors of two stages before their weights are looked for.

    Raises:
        InputError: it has two stages.
    """
    with torch.device('meta'):
        _one_stage(create_detector(spec.name, **spec.options), spec)


def _one_stage(detector: Detector, spec: DetectorSpec) -> RetinaNet:
    if not isinstance(detector, RetinaNet):
        raise InputError(
            f'{spec.title}: its box and mask heads pool as many boxes from each level of the pyramid as an image has '
            'there, which torch.export has no graph for; export a retinanet_*, whose heads see all anchors'
        )
    return detector


def _write(networks: nn.Module, path: Path, opset: int | None) -> None:
    image = torch.randn(1, 3, *_TRACED, generator=torch.Generator().manual_seed(0))
    height, width = 32 * torch.export.Dim('rows', min=2, max=128), 32 * torch.export.Dim('columns', min=2, max=128)
    shapes: Any = ({2: height, 3: width},)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter('ignore')
            torch.onnx.export(
                networks, (image,), path, dynamo=True, dynamic_shapes=shapes, opset_version=opset,
                external_data=False, input_names=['input'], output_names=list(OUTPUTS), verbose=False,
            )  # fmt: skip
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RunError(f'{path.name}: the detector cannot be exported to onnx: {reason}') from error


def _opset_of(path: Path) -> int:
    import onnx

    written = onnx.load(path, load_external_data=False)
    return next(opset.version for opset in written.opset_import if opset.domain in ('', 'ai.onnx'))


def _largest_error(networks: nn.Module, path: Path) -> float:
    session, errors = onnx_session(path), []
    for size in _CHECKED:
        image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = networks(image)
        actual = session.run(None, {'input': image.numpy()})
        for one, other in zip(expected, actual, strict=True):
            errors.append(float((torch.from_numpy(other) - one).norm() / one.norm()))
    return max(errors)
