"""Networks and detectors of a checkpoint, built on the meta device, where they take neither memory nor time."""

from typing import Any

import timm
import torch

from eca_zoo.weights.manifest import Resize, Transform


def is_detector(architecture: str) -> bool:
    """Whether ``architecture`` is a detector and no classification network."""
    from eca_zoo.detection.networks.registry import list_detectors

    return architecture in list_detectors()


def build_on_meta(architecture: str, num_classes: int, kernel_sizes: tuple[int, ...] | None) -> Any:
    """The network or detector on the meta device."""
    import eca_zoo.models  # noqa: F401  (registers the networks)
    from eca_zoo.detection.networks.registry import create_detector

    arguments: dict[str, Any] = {} if kernel_sizes is None else {'kernel_sizes': kernel_sizes}
    make = create_detector if is_detector(architecture) else timm.create_model
    with torch.device('meta'):
        return make(architecture, num_classes=num_classes, **arguments)


def transform_of(network: Any) -> dict[str, Any]:
    """The field of a manifest entry that says how images are prepared for ``network``."""
    transform = getattr(network, 'transform', None)
    if transform is not None:
        return {'resize': Resize(transform.shorter, transform.longest, transform.mean, transform.std)}
    cfg = network.pretrained_cfg
    values = (cfg[key] for key in ('input_size', 'crop_pct', 'interpolation', 'mean', 'std'))
    return {'transform': Transform(*values)}
