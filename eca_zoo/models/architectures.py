"""The networks of this package, a record each."""

from timm.models.resnet import BasicBlock, Bottleneck

from eca_zoo.models.mobilenetv2 import MOBILENETV2
from eca_zoo.models.registry import Architecture, register_architecture
from eca_zoo.models.resnet import RESNET
from eca_zoo.weights.manifest import usable_manifest

_ARCHITECTURES = (
    Architecture(
        'eca_resnet18',
        'ECA-Net18: ResNet-18 with an ECA layer in each block',
        RESNET,
        {'block': BasicBlock, 'layers': (2, 2, 2, 2)},
        kernel_sizes=(3, 5, 7, 7),
        plain='resnet18',
        is_in_zoo=True,
    ),
    Architecture(
        'eca_resnet34',
        'ECA-Net34: ResNet-34 with an ECA layer in each block',
        RESNET,
        {'block': BasicBlock, 'layers': (3, 4, 6, 3)},
        kernel_sizes=(3, 3, 5, 7),
        plain='resnet34',
        is_in_zoo=True,
    ),
    Architecture(
        'eca_resnet50',
        'ECA-Net50: ResNet-50 with an ECA layer in each block',
        RESNET,
        {'block': Bottleneck, 'layers': (3, 4, 6, 3)},
        kernel_sizes=(3, 5, 5, 7),
        plain='resnet50',
        is_in_zoo=True,
    ),
    Architecture(
        'eca_resnet101',
        'ECA-Net101: ResNet-101 with an ECA layer in each block',
        RESNET,
        {'block': Bottleneck, 'layers': (3, 4, 23, 3)},
        kernel_sizes=(3, 3, 5, 7),
        plain='resnet101',
        is_in_zoo=True,
    ),
    Architecture(
        'eca_resnet152',
        'ECA-Net152: ResNet-152 with an ECA layer in each block',
        RESNET,
        {'block': Bottleneck, 'layers': (3, 8, 36, 3)},
        kernel_sizes=(3, 3, 5, 7),
        plain='resnet152',
        is_in_zoo=True,
    ),
    Architecture(
        'eca_mobilenetv2',
        'ECA-MobileNetV2: the first kernel size in blocks with fewer than 96 output channels',
        MOBILENETV2,
        {},
        kernel_sizes=(1, 3),
        plain='mobilenetv2_100',
        is_in_zoo=True,
    ),
    Architecture(
        'test_eca_resnet',
        'A network under 0.6 M parameters with both kinds of block, for tests and the demo',
        RESNET,
        {
            'block': (BasicBlock, BasicBlock, Bottleneck, BasicBlock),
            'layers': (1, 1, 1, 1),
            'channels': (32, 48, 48, 96),
            'stem_type': 'deep',
            'stem_width': 16,
            'avg_down': True,
        },
        kernel_sizes=(3, 3, 5, 5),
        plain=None,
        first_conv='conv1.0',
    ),
)

_manifest = usable_manifest()
for _architecture in _ARCHITECTURES:
    register_architecture(_architecture, _manifest)
