"""Builds a network through timm's builder, with weights that were verified against the manifest."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from timm.models import (
    PretrainedCfg,
    adapt_input_conv,
    build_model_with_cfg,
    get_pretrained_cfg,
    resolve_pretrained_cfg,
)
from torch import nn

from eca_zoo.errors import InputError
from eca_zoo.models._cfg import LOCATION_FIELDS
from eca_zoo.weights.load import check_tensors, load_verified
from eca_zoo.weights.manifest import Entry, load_manifest

KernelSizes = tuple[int, ...] | str


def build_network(
    make_network: Callable[..., nn.Module],
    variant: str,
    pretrained: bool,
    *,
    default_kernel_sizes: tuple[int, ...],
    kernel_sizes: Any = None,
    init_layer: Callable[[nn.Module], None] | None = None,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build ``variant`` as timm's builder does; where weights are asked for that the manifest lists, verify them.

    Args:
        make_network: makes the network from timm's keyword arguments and ``kernel_sizes``.
        variant: name of the architecture.
        pretrained: load the weights of the cfg.
        default_kernel_sizes: of the architecture, where neither the caller nor the checkpoint names any.
        kernel_sizes: what the caller asked for, or None.
        init_layer: what the network does to a new layer after PyTorch's own initialisation.
        pretrained_cfg: timm's cfg, its dict, a tag, or None for the default tag.
        pretrained_cfg_overlay: replaces fields of the cfg.
        **kwargs: for timm's builder and the network.

    Raises:
        ValueError: kernel sizes that do not exist or are not those of the checkpoint.
        ConvertNeededError: ``pretrained`` and the weights are not to be had.
        HashMismatchError: the bytes are not those that the manifest promises.
    """
    overlay = pretrained_cfg_overlay or {}
    cfg = resolve_pretrained_cfg(variant, pretrained_cfg=pretrained_cfg, pretrained_cfg_overlay=dict(overlay))
    name = f'{variant}.{cfg.tag}'
    entry = load_manifest().models.get(name) if _is_from_manifest(cfg, name) else None
    trained_sizes = entry.kernel_sizes if entry else None
    if kernel_sizes is None:
        kernel_sizes = trained_sizes or default_kernel_sizes
    if isinstance(kernel_sizes, list):
        kernel_sizes = tuple(kernel_sizes)
    make = functools.partial(make_network, kernel_sizes=kernel_sizes)
    if pretrained and entry is not None:
        if trained_sizes is not None and kernel_sizes != trained_sizes:
            raise InputError(
                f'{name} was trained with kernel_sizes {trained_sizes}, not {kernel_sizes}: '
                'leave kernel_sizes out, or build with pretrained=False'
            )
        make = functools.partial(_make_pretrained, make, init_layer, name, entry, cfg)
        pretrained = False
    return build_model_with_cfg(
        make, variant, pretrained, pretrained_cfg=pretrained_cfg, pretrained_cfg_overlay=dict(overlay), **kwargs
    )


def _is_from_manifest(cfg: PretrainedCfg, name: str) -> bool:
    """Whether ``cfg`` is the registered one as far as the place of the weights goes, and not a user's own source."""
    try:
        registered = get_pretrained_cfg(name)
    except RuntimeError:
        return False
    return registered is not None and all(getattr(cfg, key) == getattr(registered, key) for key in LOCATION_FIELDS)


def _make_pretrained(
    make_network: Callable[..., nn.Module],
    init_layer: Callable[[nn.Module], None] | None,
    name: str,
    entry: Entry,
    cfg: PretrainedCfg,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **kwargs: Any,
) -> nn.Module:
    """The network with the verified tensors of ``entry``, adapted to other class counts and channels as timm does.

    The network is built on the meta device and takes over the verified tensors: nothing is initialised to be
    overwritten.
    """
    tensors = load_verified(name, entry)
    network = make_network(device='meta', dtype=torch.float32, **kwargs)
    expected = network.state_dict()
    if cfg.first_conv and kwargs.get('in_chans', 3) != 3:
        key = f'{cfg.first_conv}.weight'
        tensors[key] = adapt_input_conv(kwargs['in_chans'], tensors[key])
    if cfg.classifier and getattr(network, 'num_classes', None) != cfg.num_classes:
        # A network without this head, or with another class count: the checkpoint's classifier has no place in it.
        for key in (f'{cfg.classifier}.weight', f'{cfg.classifier}.bias'):
            tensors.pop(key, None)
            expected.pop(key, None)
    if not hasattr(network, 'forward_head'):
        # timm's feature extractors stop before the head; what they lack is read and verified all the same.
        for key in tensors.keys() - expected.keys():
            del tensors[key]
    check_tensors(tensors, expected, name)
    network.load_state_dict(tensors, strict=False, assign=True)
    _init_new_layers(network, init_layer)
    return network.to(device=device or torch.get_default_device(), dtype=dtype or torch.get_default_dtype())


def _init_new_layers(network: nn.Module, init_layer: Callable[[nn.Module], None] | None) -> None:
    """Give layers that the checkpoint does not cover the values that a new network has."""
    module: Any
    for module in network.modules():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if any(tensor.is_meta for tensor in own):
            module.to_empty(device='cpu', recurse=False)
            module.reset_parameters()
            if init_layer is not None:
                init_layer(module)
