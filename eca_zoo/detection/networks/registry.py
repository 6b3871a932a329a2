"""One record a detector, and ``create_detector``, which makes it or a system on any other backbone."""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from eca_zoo.detection import torchvision_models
from eca_zoo.detection.networks.building import build_detector, coco_categories, options_of
from eca_zoo.detection.networks.detectors import Detector
from eca_zoo.errors import InputError
from eca_zoo.weights.checkpoint_names import expand_checkpoint_names
from eca_zoo.weights.convert.key_maps import retinanet_key, two_stage_key
from eca_zoo.weights.load import check_tensors, load_verified
from eca_zoo.weights.manifest import Entry, load_manifest

SYSTEMS = ('fasterrcnn', 'maskrcnn', 'retinanet')
_COCO_CLASSES = 80


@dataclass(frozen=True, eq=False)
class DetectorArchitecture:
    """One detector; recognition of its checkpoints, help and tables derive from it.

    Attributes:
        name: as torchvision names its detectors.
        description: a line without its full stop.
        system: one of ``SYSTEMS``.
        backbone: in timm's registry.
        kernel_sizes: of the backbone's ECA layers, where neither the caller nor a checkpoint names any.
        options: see ``DetectorOptions``; a caller may replace each.
        is_in_zoo: whether it is one of those that the authors published.
    """

    name: str
    description: str
    system: str
    backbone: str
    kernel_sizes: tuple[int, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    is_in_zoo: bool = False

    @property
    def rename_key(self) -> Callable[[str], str]:
        """A key of mmdetection v1's state dicts in the terms of the detector; any other stays as it is."""
        return retinanet_key if self.system == 'retinanet' else two_stage_key

    def build(
        self,
        categories: Mapping[int, str],
        kernel_sizes: tuple[int, ...] | None = None,
        pretrained_backbone: bool = False,
        **options: Any,
    ) -> Detector:
        """The detector with random heads."""
        sizes = kernel_sizes or self.kernel_sizes
        return build_detector(
            self.system, self.backbone, categories, options_of({**self.options, **options}), pretrained_backbone,
            None if sizes is None else {'kernel_sizes': sizes},
        )  # fmt: skip


_TITLES = {'fasterrcnn': 'Faster R-CNN', 'maskrcnn': 'Mask R-CNN', 'retinanet': 'RetinaNet'}
# The sizes of Faster R-CNN on ECA-Net50 are published as "k5", which the adaptive formula would be too; a checkpoint
# says which.
_KERNEL_SIZES = {
    ('fasterrcnn', 50): (5, 5, 5, 5), ('maskrcnn', 50): (3, 3, 7, 7), ('retinanet', 50): (3, 3, 7, 7),
    ('fasterrcnn', 101): (3, 3, 5, 7), ('maskrcnn', 101): (3, 3, 5, 7), ('retinanet', 101): (3, 3, 5, 7),
}  # fmt: skip
_DETECTORS = {
    (name := f'{system}_eca_resnet{depth}_fpn'): DetectorArchitecture(
        name,
        f'{_TITLES[system]} with a feature pyramid on ECA-Net{depth}',
        system,
        f'eca_resnet{depth}',
        _KERNEL_SIZES[system, depth],
        is_in_zoo=True,
    )
    for system in SYSTEMS
    for depth in (50, 101)
}
# For demonstrations and tests: digits of 16 to 48 pixels on canvases of 128x128.
_DETECTORS['test_maskrcnn'] = DetectorArchitecture(
    'test_maskrcnn', 'Mask R-CNN on test_eca_resnet, for demonstrations and tests', 'maskrcnn', 'test_eca_resnet',
    (3, 3, 5, 5),
    {
        'min_size': 128, 'max_size': 128, 'channels': 64, 'hidden': 128, 'anchor_sizes': ((12,), (20,), (32,), (48,)),
        'finest_scale': 10, 'proposals_per_level': 100, 'proposals': 50, 'trainable_stages': 5,
        'fixed_statistics': False,
    },
)  # fmt: skip


# Rows of each class in the tensors of a second stage; background has as many.
_CLASS_ROWS = {
    'roi_heads.box_predictor.cls_score': 1,
    'roi_heads.box_predictor.bbox_pred': 4,
    'roi_heads.mask_predictor.mask_fcn_logits': 1,
}
_RETINANET_CLASSES, _RETINANET_BOXES = 'head.classification_head.cls_logits', 'head.regression_head.bbox_reg'


def class_rows(key: str, rows: int, num_classes: int) -> int:
    """First size of the tensor ``key`` for ``num_classes`` classes, where it is ``rows`` for one."""
    module = key.rpartition('.')[0]
    if module in _CLASS_ROWS:
        return rows + (num_classes - 1) * _CLASS_ROWS[module]
    return rows * num_classes if module == _RETINANET_CLASSES else rows


def depends_on_classes(key: str) -> bool:
    """Whether the tensor ``key`` has another shape for another number of classes."""
    return class_rows(key, 1, 2) != 1


def load_but_classes(detector: Detector, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load ``tensors`` that were checked, but for those of another number of classes, which stay as they are."""
    own = detector.state_dict()
    fitting = {key: tensor for key, tensor in tensors.items() if tensor.shape == own[key].shape}
    detector.load_state_dict(fitting, strict=False)


def count_classes(state: Mapping[str, torch.Tensor]) -> int | None:
    """Classes, without background, of a detector's state dict; None where its tensors do not say."""
    scores = state.get('roi_heads.box_predictor.cls_score.bias')
    if scores is not None and scores.ndim == 1:
        return len(scores) - 1
    classes, boxes = state.get(f'{_RETINANET_CLASSES}.bias'), state.get(f'{_RETINANET_BOXES}.bias')
    if classes is None or boxes is None or classes.ndim != 1 or boxes.ndim != 1 or len(boxes) < 4:
        return None
    return len(classes) // (len(boxes) // 4)


def register_detector(architecture: DetectorArchitecture) -> None:
    """Make a detector known to ``create_detector``, to torchvision, to ``convert`` and to every command.

    Raises:
        InputError: its name is taken or no checkpoint can be named after it, or there is no such system.
    """
    name = architecture.name
    if not re.fullmatch(r'[a-z0-9_]+', name) or name in _DETECTORS or name in SYSTEMS:
        raise InputError(f'a detector is named with a-z, 0-9 and _ alone, and as no other one, not {name!r}')
    if architecture.system not in SYSTEMS:
        raise InputError(f'{name}: system {architecture.system!r} is unknown; use one of {", ".join(SYSTEMS)}')
    _DETECTORS[name] = architecture
    torchvision_models.register(name)


def list_detector_architectures() -> list[DetectorArchitecture]:
    """The registered detectors, in the order of their registration."""
    return list(_DETECTORS.values())


def list_detectors() -> list[str]:
    """The names that ``create_detector`` knows, beside the systems, which take any backbone."""
    return list(_DETECTORS)


def create_detector(
    name: str,
    pretrained: bool = False,
    *,
    num_classes: int | None = None,
    categories: Mapping[int, str] | None = None,
    backbone: str | nn.Module | None = None,
    backbone_kwargs: Mapping[str, Any] | None = None,
    pretrained_backbone: bool = False,
    kernel_sizes: tuple[int, ...] | None = None,
    **options: Any,
) -> Detector:
    """Make a detector.

    Args:
        name: one of ``list_detectors()``, with or without the tag of a checkpoint, or ``fasterrcnn``, ``maskrcnn`` or
            ``retinanet`` with a ``backbone``.
        pretrained: load the checkpoint of that name, verified against the manifest.
        num_classes: without background; COCO's 80, or as many as the checkpoint has. Where it has another number, the
            layers that depend on it are new.
        categories: ids and names of the classes, in the order of the network's outputs; by default COCO's for 80
            classes, else 1, 2, ....
        backbone: network of timm's registry, or a feature extractor with timm's ``feature_info``.
        backbone_kwargs: further arguments of the backbone's entry point.
        pretrained_backbone: load the ImageNet checkpoint of the backbone.
        kernel_sizes: of the backbone's ECA layers, in place of the published ones.
        **options: see ``DetectorOptions``.

    Raises:
        InputError: the name, an option or the backbone does not fit, or weights are asked for that are not to be had.
    """
    system, _, tag = name.partition('.')
    if system in SYSTEMS and not tag:
        if backbone is None or pretrained:
            problem = 'has no checkpoint' if pretrained else 'needs a backbone, such as backbone="resnet50"'
            raise InputError(f'{name} {problem}; the published detectors are {", ".join(_DETECTORS)}')
        kwargs = {**(backbone_kwargs or {}), **({} if kernel_sizes is None else {'kernel_sizes': kernel_sizes})}
        chosen = _categories(num_classes, categories, None)
        return build_detector(system, backbone, chosen, options_of(options), pretrained_backbone, kwargs)
    if system not in _DETECTORS:
        nearest = difflib.get_close_matches(system, [*_DETECTORS, *SYSTEMS], n=3, cutoff=0.3) or list(_DETECTORS)
        raise InputError(f'no detector is called {name!r}; the nearest are {", ".join(nearest)}')
    if backbone is not None or backbone_kwargs:
        record = _DETECTORS[system]
        raise InputError(f'{name} stands on {record.backbone}; for another backbone use {record.system!r}')
    return _create_registered(name, pretrained, num_classes, categories, kernel_sizes, pretrained_backbone, options)


def _create_registered(
    name: str,
    pretrained: bool,
    num_classes: int | None,
    categories: Mapping[int, str] | None,
    kernel_sizes: tuple[int, ...] | None,
    pretrained_backbone: bool,
    options: Mapping[str, Any],
) -> Detector:
    record = _DETECTORS[name.partition('.')[0]]
    if pretrained or '.' in name:
        name = expand_checkpoint_names([name], load_manifest())[0]
    entry = load_manifest().models[name] if '.' in name else None
    trained = entry.kernel_sizes if entry is not None else None
    sizes = tuple(kernel_sizes) if kernel_sizes is not None else trained or record.kernel_sizes
    if pretrained and trained is not None and sizes != trained:
        raise InputError(
            f'{name} was trained with kernel_sizes {trained}, not {sizes}: leave kernel_sizes out, or build with '
            'pretrained=False'
        )
    chosen = _categories(num_classes, categories, entry)
    if entry is not None and entry.resize is not None:
        resize = entry.resize
        trained_on = {'min_size': resize.shorter, 'max_size': resize.longest, 'image_mean': resize.mean,
                      'image_std': resize.std}  # fmt: skip
        options = {**trained_on, **options}
    if pretrained:
        assert entry is not None
        return _load_pretrained(name, entry, record, chosen, sizes, options)
    if pretrained_backbone:
        _check_backbone_sizes(record, sizes)
    return record.build(chosen, sizes, pretrained_backbone, **options)


def _categories(num_classes: int | None, categories: Mapping[int, str] | None, entry: Entry | None) -> dict[int, str]:
    if categories is not None:
        if num_classes not in (None, len(categories)):
            raise InputError(f'categories names {len(categories)} classes, and num_classes is {num_classes}')
        if not categories or not all(isinstance(key, int) for key in categories):
            raise InputError('categories is a mapping from category ids, which are integers, to names')
        return dict(categories)
    count = num_classes if num_classes is not None else entry.num_classes if entry is not None else _COCO_CLASSES
    if entry is not None and entry.categories is not None and count == entry.num_classes:
        return dict(entry.categories)
    if count < 1:
        raise InputError(f'num_classes is at least 1, not {count}; background is not counted')
    return coco_categories() if count == _COCO_CLASSES else {i: str(i) for i in range(1, count + 1)}


def _check_backbone_sizes(record: DetectorArchitecture, sizes: tuple[int, ...] | None) -> None:
    manifest = load_manifest()
    names = manifest.tags(record.backbone)
    if names and sizes is not None:
        name = expand_checkpoint_names([record.backbone], manifest)[0]
        trained = manifest.models[name].kernel_sizes
        if trained != sizes:
            raise InputError(
                f'{record.name} has kernel sizes {sizes}, and the ImageNet checkpoint {name} has {trained}, so it does '
                f'not fit: name kernel_sizes={trained}, or leave out pretrained_backbone'
            )


def _in_single(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _load_pretrained(
    name: str,
    entry: Entry,
    record: DetectorArchitecture,
    categories: Mapping[int, str],
    kernel_sizes: tuple[int, ...] | None,
    options: Mapping[str, Any],
) -> Detector:
    """The detector with the verified tensors of ``entry``, or its body and pyramid where the class count differs."""
    # Small files hold half precision.
    tensors = {key: _in_single(tensor) for key, tensor in load_verified(name, entry).items()}
    is_equal = len(categories) == entry.num_classes
    with torch.device('meta'):  # nothing is initialised to be overwritten
        as_trained = record.build(
            categories if is_equal else _categories(entry.num_classes, None, None), kernel_sizes, **options
        )  # fmt: skip
    check_tensors(tensors, as_trained.state_dict(), name)
    if is_equal:
        as_trained.load_state_dict(tensors, assign=True)
        return as_trained.to(torch.get_default_device(), torch.get_default_dtype())
    detector = record.build(categories, kernel_sizes, **options)
    load_but_classes(detector, tensors)
    return detector
