"""ECA-Net on ResNets: timm's ResNet with an ECA layer at the end of each block, before the residual sum."""

import functools
from typing import Any, cast

import torch
from timm.models import DefaultCfg
from timm.models.resnet import BasicBlock, Bottleneck, ResNet

from eca_zoo.models.building import KernelSizes, build_network
from eca_zoo.models.eca import EcaLayer, adaptive_kernel_size, check_kernel_size
from eca_zoo.models.registry import Architecture, Family
from eca_zoo.weights.convert.key_maps import resnet_key

__all__ = ['RESNET']  # timm's register_model adds the entry points
default_cfgs: dict[str, DefaultCfg] = {}  # the registry fills it, for timm's register_model


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


def _build_resnet(architecture: Architecture, pretrained: bool, **kwargs: Any) -> ResNet:
    return cast(ResNet, build_network(_make_resnet, architecture, pretrained, **kwargs))


#: Arguments of a record: block, layers, and whatever else timm's ResNet takes.
RESNET = Family(__name__, _build_resnet, resnet_key, first_conv='conv1', classifier='fc')
