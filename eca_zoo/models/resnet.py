"""ECA-Net on ResNets: timm's ResNet with an ECA layer at the end of each block, before the residual sum."""

import functools
from typing import Any, cast

import torch
from timm.models import register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet

from eca_zoo.models._build import KernelSizes, build_network
from eca_zoo.models._cfg import default_cfgs_of
from eca_zoo.models.eca import EcaLayer, adaptive_kernel_size, check_kernel_size
from eca_zoo.weights.manifest import load_manifest

_NETWORK_FIELDS = {'first_conv': 'conv1', 'classifier': 'fc'}
default_cfgs = default_cfgs_of(
    load_manifest(),
    {
        'eca_resnet18': _NETWORK_FIELDS,
        'eca_resnet34': _NETWORK_FIELDS,
        'eca_resnet50': _NETWORK_FIELDS,
        'eca_resnet101': _NETWORK_FIELDS,
        'eca_resnet152': _NETWORK_FIELDS,
        'test_eca_resnet': {'first_conv': 'conv1.0', 'classifier': 'fc'},
    },
)

__all__: list[str] = []  # timm's register_model adds the entry points


def _kernel_size_of_width(kernel_sizes: KernelSizes, widths: tuple[int, ...]) -> dict[int, int]:
    """Output channels of a stage to the kernel size of its ECA layers.

    Raises:
        ValueError: not one odd, positive size for each stage.
    """
    if kernel_sizes == 'adaptive':
        return {width: adaptive_kernel_size(width) for width in widths}
    if not isinstance(kernel_sizes, tuple) or len(kernel_sizes) != len(widths):
        raise ValueError(
            f"kernel_sizes must be {len(widths)} odd, positive integers, one for each stage, or 'adaptive'; "
            f'not {kernel_sizes!r}'
        )
    return dict(zip(widths, map(check_kernel_size, kernel_sizes), strict=True))


def _eca_of_width(
    kernel_size_of_width: dict[int, int],
    width: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> EcaLayer:
    return EcaLayer(width, kernel_size_of_width[width], device=device, dtype=dtype)


def _make_resnet(
    block: type[BasicBlock | Bottleneck] | tuple[type[BasicBlock | Bottleneck], ...],
    channels: tuple[int, ...] = (64, 128, 256, 512),
    *,
    kernel_sizes: KernelSizes,
    block_args: dict[str, Any] | None = None,
    **kwargs: Any,
) -> ResNet:
    blocks = block if isinstance(block, tuple) else (block,) * len(channels)
    widths = tuple(planes * stage.expansion for planes, stage in zip(channels, blocks, strict=True))
    attention = functools.partial(_eca_of_width, _kernel_size_of_width(kernel_sizes, widths))
    block_args = {'attn_layer': attention, **(block_args or {})}
    return ResNet(cast(Any, block), channels=channels, block_args=block_args, **kwargs)


def _eca_resnet(variant: str, pretrained: bool, default_kernel_sizes: tuple[int, ...], **kwargs: Any) -> ResNet:
    """Build ``variant`` with the arguments of its block and timm's."""
    network = build_network(_make_resnet, variant, pretrained, default_kernel_sizes=default_kernel_sizes, **kwargs)
    return cast(ResNet, network)


@register_model
def eca_resnet18(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ECA-Net18: ResNet-18 with kernel sizes 3, 5, 7, 7."""
    arguments = {'block': BasicBlock, 'layers': (2, 2, 2, 2)}
    return _eca_resnet('eca_resnet18', pretrained, (3, 5, 7, 7), **{**arguments, **kwargs})


@register_model
def eca_resnet34(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ECA-Net34: ResNet-34 with kernel sizes 3, 3, 5, 7."""
    arguments = {'block': BasicBlock, 'layers': (3, 4, 6, 3)}
    return _eca_resnet('eca_resnet34', pretrained, (3, 3, 5, 7), **{**arguments, **kwargs})


@register_model
def eca_resnet50(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ECA-Net50: ResNet-50 with kernel sizes 3, 5, 5, 7."""
    arguments = {'block': Bottleneck, 'layers': (3, 4, 6, 3)}
    return _eca_resnet('eca_resnet50', pretrained, (3, 5, 5, 7), **{**arguments, **kwargs})


@register_model
def eca_resnet101(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ECA-Net101: ResNet-101 with kernel sizes 3, 3, 5, 7."""
    arguments = {'block': Bottleneck, 'layers': (3, 4, 23, 3)}
    return _eca_resnet('eca_resnet101', pretrained, (3, 3, 5, 7), **{**arguments, **kwargs})


@register_model
def eca_resnet152(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ECA-Net152: ResNet-152 with kernel sizes 3, 3, 5, 7."""
    arguments = {'block': Bottleneck, 'layers': (3, 8, 36, 3)}
    return _eca_resnet('eca_resnet152', pretrained, (3, 3, 5, 7), **{**arguments, **kwargs})


@register_model
def test_eca_resnet(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """A network under 0.6 M parameters with both kinds of block, for tests and the demo."""
    arguments = {
        'block': (BasicBlock, BasicBlock, Bottleneck, BasicBlock),
        'layers': (1, 1, 1, 1),
        'channels': (32, 48, 48, 96),
        'stem_type': 'deep',
        'stem_width': 16,
        'avg_down': True,
    }
    return _eca_resnet('test_eca_resnet', pretrained, (3, 3, 5, 5), **{**arguments, **kwargs})
