"""The detectors in torchvision's registry: ``torchvision.models.get_model('maskrcnn_eca_resnet50_fpn')``."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torchvision.models._api import BUILTIN_MODELS

#: Those of ``eca_zoo.detection.networks.registry``, which is imported when one is made.
NAMES = (
    *(f'{system}_eca_resnet{depth}_fpn' for system in ('fasterrcnn', 'maskrcnn', 'retinanet') for depth in (50, 101)),
    'test_maskrcnn',
)


def _entry_point(name: str) -> Callable[..., nn.Module]:
    def create(
        *,
        weights: Any = None,
        progress: bool = True,
        num_classes: int | None = None,
        weights_backbone: Any = None,
        **kwargs: Any,
    ) -> nn.Module:
        """Make the detector, see ``eca_zoo.detection.create_detector``.

        Args:
            weights: None for random ones, ``DEFAULT`` for the checkpoint, or its tag.
            progress: accepted and not used.
            num_classes: without background, which torchvision's own detectors count.
            weights_backbone: not None for the ImageNet checkpoint of the backbone.
            **kwargs: further arguments of ``create_detector``.
        """
        from eca_zoo.detection.networks.registry import create_detector

        tag = '' if weights in (None, 'DEFAULT', True) else f'.{weights}'
        return create_detector(
            f'{name}{tag}',
            weights is not None,
            num_classes=num_classes,
            pretrained_backbone=weights_backbone is not None,
            **kwargs,
        )

    create.__name__ = create.__qualname__ = name
    return create


def register(name: str) -> None:
    """Make the detector ``name`` of ``create_detector`` known to torchvision."""
    BUILTIN_MODELS[name] = _entry_point(name)


for _name in NAMES:
    register(_name)
