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
from eca_zoo.models.pretrained_cfgs import LOCATION_FIELDS
from eca_zoo.models.registry import Architecture
from eca_zoo.weights.convert.key_maps import rename_keys
from eca_zoo.weights.load import check_tensors, load_verified
from eca_zoo.weights.manifest import Entry, load_manifest, usable_manifest

KernelSizes = tuple[int, ...] | str


def build_network(
    make_network: Callable[..., nn.Module],
    architecture: Architecture,
    pretrained: bool,
    *,
    kernel_sizes: Any = None,
    init_layer: Callable[[nn.Module], None] | None = None,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build a network as timm's builder does; where weights are asked for that the manifest lists, verify them.

    Weights from elsewhere go through timm's own loading, and may have the authors' key names.

    Args:
        make_network: makes the network from the architecture's and timm's keyword arguments and ``kernel_sizes``.
        architecture: its record.
        pretrained: load the weights of the cfg.
        kernel_sizes: what the caller asked for, or None.
        init_layer: what the network does to a new layer after PyTorch's own initialisation.
        pretrained_cfg: timm's cfg, its dict, a tag, or None for the default tag.
        pretrained_cfg_overlay: replaces fields of the cfg.
        **kwargs: for timm's builder and the network.

    Raises:
        ValueError: kernel sizes that do not exist or are not those of the checkpoint.
        ConvertNeededError: ``pretrained`` and the weights are not to be had.
        ManifestError: the same, and a manifest that may know them is refused.
        HashMismatchError: the bytes are not those that the manifest promises.
    """
    variant, overlay = architecture.name, pretrained_cfg_overlay or {}
    cfg = resolve_pretrained_cfg(variant, pretrained_cfg=pretrained_cfg, pretrained_cfg_overlay=dict(overlay))
    name = f'{variant}.{cfg.tag}'
    entry = _entry(name, pretrained) if _is_from_manifest(cfg, name) else None
    sizes = _choose_kernel_sizes(kernel_sizes, architecture, name, entry, pretrained)
    rename_key = architecture.family.rename_key
    make = functools.partial(_make_renaming, make_network, rename_key, kernel_sizes=sizes)
    if pretrained and entry is not None:
        make = functools.partial(_make_pretrained, make, init_layer, name, entry, cfg)
        pretrained = False
    arguments = {'pretrained_filter_fn': lambda state, model: rename_keys(state, rename_key), **architecture.arguments}
    return build_model_with_cfg(
        make,
        variant,
        pretrained,
        pretrained_cfg=pretrained_cfg,
        pretrained_cfg_overlay=dict(overlay),
        **{**arguments, **kwargs},
    )


def _entry(name: str, pretrained: bool) -> Entry | None:
    """The manifests' entry of a checkpoint; one that is refused is an error where it may have the weights asked for."""
    entry = usable_manifest().models.get(name)
    if pretrained and entry is not None and entry.checkpoint is None:
        load_manifest()
    return entry


def _choose_kernel_sizes(
    asked_for: Any, architecture: Architecture, name: str, entry: Entry | None, pretrained: bool
) -> Any:
    """What the caller asked for, else those of the checkpoint ``name``, else those of the architecture."""
    trained = entry.kernel_sizes if entry is not None else None
    if asked_for is None:
        return trained or architecture.kernel_sizes
    sizes = tuple(asked_for) if isinstance(asked_for, list) else asked_for
    if pretrained and trained is not None and sizes != trained:
        raise InputError(
            f'{name} was trained with kernel_sizes {trained}, not {sizes}: '
            'leave kernel_sizes out, or build with pretrained=False'
        )
    return sizes


def _make_renaming(
    make_network: Callable[..., nn.Module], rename_key: Callable[[str], str], **kwargs: Any
) -> nn.Module:
    """The network, whose ``load_state_dict`` understands the authors' key names: timm's loading calls it with a file's.

    timm's ``checkpoint_path`` and ``load_checkpoint`` have no other place for a filter.
    """
    network = make_network(**kwargs)
    network.register_load_state_dict_pre_hook(functools.partial(_rename_before_loading, rename_key))
    return network


def _rename_before_loading(
    rename_key: Callable[[str], str], module: nn.Module, state_dict: dict[str, Any], prefix: str, *others: Any
) -> None:
    own = {key.removeprefix(prefix): state_dict.pop(key) for key in list(state_dict) if key.startswith(prefix)}
    state_dict.update((prefix + key, tensor) for key, tensor in rename_keys(own, rename_key).items())


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
