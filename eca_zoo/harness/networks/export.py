"""Exports a network to ONNX or torch.export, checked against its eager logits before the file gets its name."""

import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eca_zoo.errors import InputError, RunError
from eca_zoo.files import is_stream, replacing
from eca_zoo.harness.networks.building import create_network, default_input_size, fused, in_evaluation
from eca_zoo.harness.networks.model_spec import ModelSpec, network_arguments
from eca_zoo.harness.networks.pretrained import check_classifier, pretrained_cfg
from eca_zoo.harness.networks.user_checkpoint import load_checkpoint, with_head_classes

FORMATS = {'onnx': '.onnx', 'torch-export': '.pt2'}
_CHECKED_BATCHES = (1, 3)
_TOLERANCE = 1e-4
_OLDEST_OPSET = 18
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportReport:
    """An exported file; ``error`` is ||exported - eager|| / ||eager||, the largest over the checked batch sizes."""

    path: Path
    format: str
    size: int
    opset: int | None
    error: float


def export_model(
    model: nn.Module, input_size: tuple[int, int, int], path: Path, format: str = 'onnx', opset: int | None = None
) -> ExportReport:
    """Write ``model`` to ``path`` with a dynamic batch dimension, in evaluation mode and float32.

    The file is run (ONNX by ONNX Runtime on the CPU) on random images of batch 1 and 3 and compared with the eager
    logits; only then it gets its name, so that a failed export leaves nothing behind.

    Args:
        model: float32 network on the CPU; it is left as it was.
        input_size: (channels, height, width) in pixels.
        path: file to write.
        format: ``onnx`` or ``torch-export``.
        opset: ONNX operator set; the one that the installed PyTorch recommends by default.

    Raises:
        InputError: unknown format, a package that is not installed, or a folder that cannot be written to.
        RunError: the network cannot be exported, or the file gives other logits.
    """
    if format not in FORMATS:
        raise InputError(f'format {format!r} is unknown; use one of {", ".join(FORMATS)}')
    check_installed(('onnx', 'onnxscript', 'onnxruntime') if format == 'onnx' else ())
    check_target(path)
    with (
        in_evaluation(model),
        replacing(path, '--out') as place,
        # The exporters look at the end of a file's name.
        tempfile.TemporaryDirectory(prefix='.export-', dir=place.parent) as name,
    ):
        temporary = Path(name) / path.name
        run, opset = _write(model, input_size, temporary, format, opset)
        deviation = _largest_error(model, run, input_size)
        if not deviation <= _TOLERANCE:
            raise RunError(
                f'{path.name}: the exported network differs from the eager one by {deviation:.1e} (relative)'
            )
        size = temporary.stat().st_size
        os.replace(temporary, place)
    return ExportReport(path, format, size, opset, deviation)


def export_network(
    name: str,
    path: Path,
    format: str = 'onnx',
    pretrained: bool = True,
    img_size: int | None = None,
    model_kwargs: dict[str, Any] | None = None,
    opset: int | None = None,
    fuse: bool = False,
    checkpoint: Path | None = None,
) -> ExportReport:
    """Build ``name`` of timm's registry, with its weights if ``pretrained``, and export it with ``export_model``.

    A user's ``checkpoint`` replaces these weights, and its head says how many classes there are. With ``fuse`` it is
    exported in the form for inference that ``eca_zoo.optimize_for_inference`` makes.

    Raises:
        InputError: an argument that cannot be used.
        RunError: the weights cannot be had, or the export fails.
    """
    if format == 'onnx' and opset is not None and opset < _OLDEST_OPSET:
        raise InputError(f'opset {opset} is too old for the exporter; use {_OLDEST_OPSET} or newer')
    if img_size is not None and img_size < 1:
        raise InputError(f'img_size must be at least 1, not {img_size}')
    check_target(path)
    spec = with_head_classes(ModelSpec(name, pretrained, checkpoint, model_kwargs=dict(model_kwargs or {})))
    check_classifier(spec, pretrained_cfg(spec))
    model = create_network(name, img_size, network_arguments(spec), pretrained and checkpoint is None)
    if checkpoint is not None:
        load_checkpoint(model, checkpoint, name)
    channels, height, width = default_input_size(model)
    size = (channels, img_size or height, img_size or width)
    if fuse:
        model = fused(model.eval(), size, name)
    return export_model(model, size, path, format, opset)


def check_target(path: Path) -> None:
    if path.is_dir():
        raise InputError(f'{path}: is a folder; name a file')
    if not is_stream(path) and not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise InputError(
            f'{path}: cannot be written, there is no folder {path.parent} that can be; choose another --out'
        )


def check_installed(packages: tuple[str, ...]) -> None:
    """Refuse to go on without ``packages``.

    Raises:
        InputError: one of them is not installed; the text says how to get it.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise InputError(f'{package} is not installed; pip install {" ".join(packages)}')


Run = Callable[[torch.Tensor], torch.Tensor]


def _write(
    model: nn.Module, input_size: tuple[int, int, int], path: Path, format: str, opset: int | None
) -> tuple[Run, int | None]:
    """Export to ``path``; returns a function that runs the file, and the operator set of an ONNX file."""
    # Two images: torch.export takes a dimension of size 1 for a constant.
    image = torch.randn(2, *input_size, generator=torch.Generator().manual_seed(0))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            if format == 'onnx':
                return write_onnx(model, image, path, opset)
            return _write_torch_export(model, image, path), None
    except Exception as error:
        # The exporters add pages of advice to the line that says what is wrong.
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RunError(f'{path.name}: the network cannot be exported to {format}: {reason}') from error


def write_onnx(model: nn.Module, image: torch.Tensor, path: Path, opset: int | None = None) -> tuple[Run, int]:
    """Write ``model`` as one ONNX file, input ``input`` and output ``logits``; returns how to run it, and its opset."""
    import onnx

    torch.onnx.export(
        model,
        (image,),
        path,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim('batch')},),
        opset_version=opset,
        external_data=False,
        input_names=['input'],
        output_names=['logits'],
        verbose=False,
    )
    written = onnx.load(path, load_external_data=False)
    session = onnx_session(path)

    def run(images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {'input': images.numpy()})[0])

    return run, next(opset.version for opset in written.opset_import if opset.domain in ('', 'ai.onnx'))


def onnx_session(path: Path, threads: int | None = None) -> Any:
    """An ONNX Runtime session for the file on the CPU with ``threads`` threads (default: its own choice)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])


def _write_torch_export(model: nn.Module, image: torch.Tensor, path: Path) -> Run:
    with torch.no_grad():
        program = torch.export.export(model, (image,), dynamic_shapes=({0: torch.export.Dim('batch')},))
    torch.export.save(program, path)
    return torch.export.load(path).module()


def _largest_error(model: nn.Module, run: Run, input_size: tuple[int, int, int]) -> float:
    errors = []
    generator = torch.Generator().manual_seed(1)
    for batch in _CHECKED_BATCHES:
        images = torch.randn(batch, *input_size, generator=generator)
        with torch.no_grad():
            expected, actual = model(images), run(images)
        errors.append(float((actual - expected).norm() / expected.norm()))
    _logger.info('relative errors at batch sizes %s: %s', _CHECKED_BATCHES, errors)
    return max(errors)
