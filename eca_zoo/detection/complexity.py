"""Parameters and multiply-adds of a detector for one image, counted on the meta device."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from eca_zoo.detection.networks.detectors import Detector, FasterRcnn, RetinaNet
from eca_zoo.detection.networks.registry import create_detector, list_detector_architectures
from eca_zoo.harness.networks.complexity import Complexity, complexity, hooks_on
from eca_zoo.models import EcaLayer
from eca_zoo.weights.manifest import Entry, packaged_manifest

#: Height and width of the image that the authors' table counts.
PUBLISHED_SIZE = (1280, 800)
# RoIs that mmdetection v1's get_flops sends through the box head and through the mask head.
_BOX_ROIS, _MASK_ROIS = 1000, 100


@dataclass(frozen=True)
class DetectorComplexity:
    """Exact counts for one image.

    Attributes:
        model: name of the detector.
        image_size: (height, width) in pixels.
        params: all parameters.
        trained_params: those that are trained, which the authors' table counts: without stem and first stage.
        flops: what mmdetection v1's ``get_flops`` counts, as the authors' table has it: multiply-adds, with bias, norms
            and activations, 1,000 RoIs in the box head and 100 in the mask head, and a transposed convolution by its
            output.
        macs: multiply-adds of convolutions and linear layers alone, a transposed convolution by its input.
    """

    model: str
    image_size: tuple[int, int]
    params: int
    trained_params: int
    flops: int
    macs: int


def detector_complexity(
    detector: str | Detector, image_size: tuple[int, int] = PUBLISHED_SIZE, **kwargs: Any
) -> DetectorComplexity:
    """Count a detector, which is left as it was.

    Args:
        detector: a name for ``create_detector``, which then takes ``kwargs``, or a detector.
        image_size: (height, width) in pixels, multiples of 32.

    Raises:
        InputError: there is no such detector.
    """
    name = detector if isinstance(detector, str) else type(detector).__name__
    with torch.device('meta'):
        model = create_detector(detector, **kwargs) if isinstance(detector, str) else _on_meta(detector)
        counts = _Counts()
        with torch.no_grad(), counts.hooked(model):
            _run(model, image_size, counts)
    return DetectorComplexity(
        model=name,
        image_size=image_size,
        params=sum(parameter.numel() for parameter in model.parameters()),
        trained_params=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        flops=counts.flops,
        macs=counts.macs,
    )


def complexity_of_checkpoint(name: str, entry: Entry) -> Complexity | DetectorComplexity:
    """Counts of a network at its own size, or of a detector at that of its authors' table.

    Args:
        name: ``architecture.tag``.
        entry: its manifest entry.
    """
    return detector_complexity(name) if entry.is_detector else complexity(name)


def _on_meta(detector: Detector) -> Detector:
    """A copy without memory of its own."""
    import copy

    memo: dict[int, Any] = {}
    for tensor in [*detector.parameters(), *detector.buffers()]:
        empty = torch.empty_like(tensor, device='meta')
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    return copy.deepcopy(detector, memo)


def _run(model: Detector, image_size: tuple[int, int], counts: '_Counts') -> None:
    """Every module as often as for one image with as many RoIs as ``get_flops`` counts."""
    model.eval()
    features = model.backbone(torch.empty(1, 3, *image_size))
    if isinstance(model, RetinaNet):
        model.head(features)
        return
    assert isinstance(model, FasterRcnn)
    model.rpn(features)
    heads, channels = model.roi_heads, features[0].shape[1]
    side = heads.box_roi_pool.side
    heads.box_predictor(heads.box_head(torch.empty(_BOX_ROIS, channels, side, side)))
    counts.flops += _BOX_ROIS * (heads.box_head.fc6.out_features + heads.box_head.fc7.out_features)  # its ReLUs
    if heads.mask_roi_pool is not None:
        assert heads.mask_head is not None and heads.mask_predictor is not None
        side = heads.mask_roi_pool.side
        heads.mask_predictor(heads.mask_head(torch.empty(_MASK_ROIS, channels, side, side)))


class _Counts:
    """Sums over the calls of modules, by their type."""

    def __init__(self) -> None:
        self.flops = 0
        self.macs = 0

    @contextlib.contextmanager
    def hooked(self, model: Detector) -> Iterator[None]:
        """Count while parts of ``model`` run, but for the proposal head's ReLU, which is a function in mmdetection."""
        skipped = {inner for module in model.modules() if isinstance(module, EcaLayer) for inner in module.children()}
        if isinstance(model, FasterRcnn):
            skipped |= {module for module in model.rpn.modules() if isinstance(module, nn.ReLU)}
        counted = [
            module
            for module in model.modules()
            if module not in skipped and any(isinstance(module, kind) for kind, _ in _RULES)
        ]
        with hooks_on(counted, self._count):
            yield

    def _count(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        rule = next(rule for kind, rule in _RULES if isinstance(module, kind))
        flops, macs = rule(module, inputs[0], output)
        self.flops += flops
        self.macs += macs


_Rule = Callable[[Any, torch.Tensor, torch.Tensor], tuple[int, int]]


def _transposed(module: _ConvTransposeNd, x: torch.Tensor, y: torch.Tensor) -> tuple[int, int]:
    flops = module.weight.numel() * y[:, 0].numel() + (y.numel() if module.bias is not None else 0)
    return flops, module.weight.numel() * x[:, 0].numel()


def _conv(module: _ConvNd, x: torch.Tensor, y: torch.Tensor) -> tuple[int, int]:
    macs = module.weight.numel() * y[:, 0].numel()
    return macs + (y.numel() if module.bias is not None else 0), macs


def _linear(module: nn.Linear, x: torch.Tensor, y: torch.Tensor) -> tuple[int, int]:
    return (x.numel() * module.out_features,) * 2


def _eca(module: EcaLayer, x: torch.Tensor, y: torch.Tensor) -> tuple[int, int]:
    macs = module.conv.weight.numel() * x.shape[1]
    return x.numel() + macs, macs


# Source: mmdetection v1, mmcv's get_model_complexity_info.
_RULES: list[tuple[type[nn.Module], _Rule]] = [
    (_ConvTransposeNd, _transposed),
    (_ConvNd, _conv),
    (nn.Linear, _linear),
    (EcaLayer, _eca),
    (_BatchNorm, lambda module, x, y: (2 * x.numel(), 0)),
    (nn.ReLU, lambda module, x, y: (y.numel(), 0)),
    (nn.MaxPool2d, lambda module, x, y: (x.numel(), 0)),
    (nn.AdaptiveAvgPool2d, lambda module, x, y: (x.numel(), 0)),
]


def detectors_as_markdown() -> str:
    """The table of the detectors in the documentation; what this machine has fetched or converted does not count."""
    titles = (
        'detector', 'tag', 'kernel sizes', 'trained params', 'FLOPs as published', 'multiply-adds', 'reported box AP',
        'mask AP',
    )  # fmt: skip
    rows = [f'| {" | ".join(titles)} |', '|---' * len(titles) + '|']
    manifest = packaged_manifest()
    for record in (one for one in list_detector_architectures() if one.is_in_zoo):
        counts = detector_complexity(record.name)
        for name in manifest.tags(record.name):
            reported = manifest.models[name].reported
            box, mask = (reported.box, reported.mask) if reported is not None else (None, None)
            cells = [
                f'`{record.name}`', f'`{name.partition(".")[2]}`', ', '.join(map(str, record.kernel_sizes or ())),
                f'{counts.trained_params:,}', f'{counts.flops:,}', f'{counts.macs:,}',
                *(f'{figures.ap:.1f}' if figures is not None else '-' for figures in (box, mask)),
            ]  # fmt: skip
            rows.append(f'| {" | ".join(cells)} |')
    return '\n'.join(rows)
