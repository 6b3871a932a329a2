"""ECA-Net on MobileNetV2: timm's EfficientNet with an ECA layer after the last batch norm of each block."""

import functools
from typing import Any

from timm.layers import create_attn
from timm.models import DefaultCfg, EfficientNet, EfficientNetFeatures
from timm.models._builder import pretrained_cfg_for_features
from timm.models._efficientnet_builder import decode_arch_def, efficientnet_init_weights, resolve_bn_args
from torch import nn

from eca_zoo.models.building import KernelSizes, build_network
from eca_zoo.models.eca import EcaLayer, check_kernel_size
from eca_zoo.models.registry import Architecture, Family
from eca_zoo.weights.convert.key_maps import mobilenetv2_key

__all__ = ['MOBILENETV2']  # timm's register_model adds the entry point
default_cfgs: dict[str, DefaultCfg] = {}  # the registry fills it, for timm's register_model

# Kind of block, repeats, stride, expansion and output channels of each stage (arXiv:1801.04381, table 2).
_STAGES = [
    ['ds_r1_k3_s1_c16'],
    ['ir_r2_k3_s2_e6_c24'],
    ['ir_r3_k3_s2_e6_c32'],
    ['ir_r4_k3_s2_e6_c64'],
    ['ir_r3_k3_s1_e6_c96'],
    ['ir_r3_k3_s2_e6_c160'],
    ['ir_r1_k3_s1_e6_c320'],
]
# The authors' code takes the first kernel size for blocks with fewer output channels, else the second.
_WIDE = 96


def _kernel_size(kernel_sizes: KernelSizes, channels: int) -> int | None:
    """Kernel size of a block with ``channels`` output channels; None for the paper's formula.

    Raises:
        ValueError: not two odd, positive sizes.
    """
    if kernel_sizes == 'adaptive':
        return None
    if not isinstance(kernel_sizes, tuple) or len(kernel_sizes) != 2:
        raise ValueError(
            f'kernel_sizes must be 2 odd, positive integers, for blocks of fewer than {_WIDE} output channels and for '
            f"the others, or 'adaptive'; not {kernel_sizes!r}"
        )
    narrow, wide = map(check_kernel_size, kernel_sizes)
    return narrow if channels < _WIDE else wide


def _make_mobilenetv2(
    network: type[EfficientNet] | type[EfficientNetFeatures],
    *,
    kernel_sizes: KernelSizes,
    attn_layer: Any = EcaLayer,
    **kwargs: Any,
) -> nn.Module:
    if norm_args := resolve_bn_args(kwargs):  # takes timm's bn_eps and bn_momentum out
        kwargs['norm_layer'] = functools.partial(kwargs.get('norm_layer') or nn.BatchNorm2d, **norm_args)
    arguments = {'block_args': decode_arch_def(_STAGES), 'act_layer': nn.ReLU6, **kwargs}
    model: Any = network(**arguments)
    placement: dict[str, Any] = {'device': kwargs.get('device'), 'dtype': kwargs.get('dtype')}
    for stage in model.blocks:
        for block in stage:
            # The slot of the last norm's activation, which is empty in a linear bottleneck, is where the gate belongs.
            last_norm = block.bn3 if hasattr(block, 'bn3') else block.bn2
            channels = last_norm.num_features
            if attn_layer is EcaLayer:
                placement['kernel_size'] = _kernel_size(kernel_sizes, channels)
            last_norm.act = create_attn(attn_layer, channels, **placement) or nn.Identity()
    return model


def _build_mobilenetv2(
    architecture: Architecture, pretrained: bool, features_only: bool = False, **kwargs: Any
) -> EfficientNet:
    # As for timm's own: a class without a head unless the caller names another kind of feature extractor.
    by_class = features_only and 'feature_cls' not in kwargs and 'feature_cfg' not in kwargs
    model: Any = build_network(
        functools.partial(_make_mobilenetv2, EfficientNetFeatures if by_class else EfficientNet),
        architecture,
        pretrained,
        init_layer=efficientnet_init_weights,
        features_only=features_only and not by_class,
        pretrained_strict=not by_class,
        kwargs_filter=('num_classes', 'num_features', 'head_conv', 'global_pool') if by_class else None,
        **kwargs,
    )
    if by_class:
        model.pretrained_cfg = model.default_cfg = pretrained_cfg_for_features(model.pretrained_cfg)
    return model


#: A record needs no arguments; others replace what timm's EfficientNet gets, such as ``block_args``.
MOBILENETV2 = Family(__name__, _build_mobilenetv2, mobilenetv2_key, first_conv='conv_stem', classifier='classifier')
