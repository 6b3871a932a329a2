"""The networks of ECA-Net and their ECA layer; importing this package registers them with timm."""

from collections.abc import Callable

import timm
from torch import nn

from eca_zoo.models import architectures  # noqa: F401  (registers the networks)
from eca_zoo.models.eca import EcaLayer, adaptive_kernel_size
from eca_zoo.models.inference_form import optimize_for_inference
from eca_zoo.models.registry import Architecture, Family, list_architectures, list_zoo, register_architecture

__all__ = [
    'Architecture',
    'EcaLayer',
    'Family',
    'adaptive_kernel_size',
    'list_architectures',
    'list_zoo',
    'optimize_for_inference',
    'register_architecture',
]


def __getattr__(name: str) -> Callable[..., nn.Module]:
    """The entry point of a registered network, such as ``eca_zoo.models.eca_resnet50``."""
    if name in (architecture.name for architecture in list_architectures()):
        return timm.models.model_entrypoint(name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
