"""The networks of ECA-Net and their ECA layer; importing this package registers them with timm."""

from eca_zoo.models.eca import EcaLayer, adaptive_kernel_size
from eca_zoo.models.inference_form import optimize_for_inference
from eca_zoo.models.mobilenetv2 import eca_mobilenetv2
from eca_zoo.models.resnet import (
    eca_resnet18,
    eca_resnet34,
    eca_resnet50,
    eca_resnet101,
    eca_resnet152,
    test_eca_resnet,
)

__all__ = [
    'EcaLayer',
    'adaptive_kernel_size',
    'eca_mobilenetv2',
    'eca_resnet18',
    'eca_resnet34',
    'eca_resnet50',
    'eca_resnet101',
    'eca_resnet152',
    'optimize_for_inference',
    'test_eca_resnet',
]
