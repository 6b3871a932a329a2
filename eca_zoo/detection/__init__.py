"""Detection and instance segmentation: the six COCO systems, COCO's data and its evaluation.

Importing it makes the detectors known to torchvision; what they need is imported when one is made.
"""

import importlib
from typing import TYPE_CHECKING, Any

from eca_zoo.detection import torchvision_models  # noqa: F401  (registers the detectors)

if TYPE_CHECKING:
    from eca_zoo.detection.networks.registry import create_detector, list_detectors

_MODULES = {
    'create_detector': 'eca_zoo.detection.networks.registry',
    'list_detectors': 'eca_zoo.detection.networks.registry',
}

__all__ = ['create_detector', 'list_detectors']


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return __all__
