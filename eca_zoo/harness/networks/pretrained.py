"""The weights that a model's name stands for: their cfg, their hash, and what identifies them unloaded."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import load_model_config_from_hf
from timm.models._hub import load_model_config_from_path
from torch import nn

import eca_zoo.models  # noqa: F401  (registers the networks)
from eca_zoo.errors import InputError, one_line
from eca_zoo.files import hash_file
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.models.pretrained_cfgs import LOCATION_FIELDS
from eca_zoo.weights.manifest import usable_manifest

_HUB = ('hf-hub:', 'hf_hub:')
_FOLDER = 'local-dir:'


def pretrained_cfg(spec: ModelSpec) -> dict[str, Any]:
    """timm's cfg of a model with what its keyword arguments change in it, without building it."""
    if spec.module is not None:
        return dict(getattr(spec.module, 'pretrained_cfg', None) or {})
    given = spec.model_kwargs.get('pretrained_cfg')
    if isinstance(given, str):
        # A tag.
        spec = dataclasses.replace(spec, name=f'{spec.name.partition(".")[0]}.{given}')
    cfg = dict(given) if isinstance(given, dict) else _registered_cfg(spec)
    return cfg | dict(spec.model_kwargs.get('pretrained_cfg_overlay') or {})


def _registered_cfg(spec: ModelSpec) -> dict[str, Any]:
    try:
        if spec.name.startswith(_FOLDER):
            return dict(load_model_config_from_path(spec.name.removeprefix(_FOLDER))[0] or {})
        if spec.name.startswith(_HUB):
            return dict(load_model_config_from_hf(spec.name.partition(':')[2])[0] or {})
    except Exception as error:
        # It is timm that reads it, here and where it builds the network.
        remedy = '; save config.json without a byte-order mark' if 'BOM' in str(error) else ''
        raise InputError(f'{spec.name}: its config cannot be read: {one_line(error)}{remedy}') from error
    cfg = timm.get_pretrained_cfg(spec.name) if timm.is_model(spec.name) else None
    return cfg.to_dict() if cfg is not None else {}


def check_classifier(spec: ModelSpec, cfg: Mapping[str, Any]) -> None:
    """Refuse to evaluate a classifier that no weights are for: timm would make a random one.

    Raises:
        InputError: another number of classes is asked for than the weights that the name stands for have.
    """
    known, asked = cfg.get('num_classes'), spec.num_classes
    if spec.module is not None or spec.checkpoint is not None or not spec.pretrained:
        return
    if asked is not None and known is not None and asked != known:
        has = f'{known} classes, not {asked}' if known else 'no classifier'
        raise InputError(
            f'{spec.title}: its weights have {has}, so that its classifier would be random; name the --checkpoint of a '
            f'network with {asked} classes, or leave out --num-classes'
        )


def label_names(cfg: Mapping[str, Any], num_classes: int | None) -> dict[int, str] | None:
    """The names of class indices in a cfg; None where it has none, or those of another classifier."""
    if num_classes != cfg.get('num_classes', num_classes):
        return None
    given = cfg.get('label_names') or ()
    pairs = given.items() if isinstance(given, Mapping) else enumerate(given)
    try:
        names = {int(key): str(name) for key, name in pairs}
    except ValueError:
        return None
    return names if names and num_classes and max(names) < num_classes else None


def weights_identity(spec: ModelSpec) -> dict[str, Any]:
    """What identifies the weights of a model before they are loaded: a hash where one is known, else their place.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    if spec.module is not None:
        return {'name': spec.name, 'state_sha256': state_sha256(spec.module)}
    place: dict[str, Any] = {'name': spec.name, 'pretrained': spec.pretrained, 'weights_sha256': weights_sha256(spec)}
    if place['weights_sha256'] is None and spec.pretrained:
        cfg = pretrained_cfg(spec)
        place |= {key: str(cfg[key]) for key in ('url', 'file', 'hf_hub_id', 'hf_hub_filename') if cfg.get(key)}
    return place | {
        'num_classes': spec.num_classes,
        'in_chans': spec.in_chans,
        'model_kwargs': {key: repr(value) for key, value in sorted(spec.model_kwargs.items())},
    }


def weights_sha256(spec: ModelSpec) -> str | None:
    """SHA-256 of the file that the weights of a model come from; None if nobody knows it, or if they are random.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    if spec.checkpoint is not None:
        return _hash(spec.checkpoint)
    if not spec.pretrained or spec.module is not None:
        return None
    overlay = spec.model_kwargs.get('pretrained_cfg_overlay') or {}
    given = spec.model_kwargs.get('pretrained_cfg')
    place = {**(given if isinstance(given, dict) else {}), **overlay}
    if any(place.get(field) for field in LOCATION_FIELDS):
        # Not what the name stands for.
        return _hash(Path(place['file'])) if place.get('file') else None
    if spec.name.startswith(_FOLDER):
        file = Path(spec.name.removeprefix(_FOLDER)) / 'model.safetensors'
        return _hash(file) if file.is_file() else None
    if spec.name.startswith(_HUB):
        return None
    cfg = pretrained_cfg(spec)
    name = f'{cfg.get("architecture") or spec.name.partition(".")[0]}.{cfg.get("tag") or ""}'
    entry = usable_manifest().models.get(name)
    return entry.checkpoint.sha256 if entry is not None and entry.checkpoint is not None else None


def state_sha256(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of a network's state."""
    digest = hashlib.sha256()
    for key, tensor in module.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            digest.update(f'{key}\t{tensor.dtype}\t{list(tensor.shape)}\n'.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _hash(path: Path) -> str:
    try:
        return hash_file(path)[0]
    except OSError as error:
        raise InputError(f'{path}: cannot read the checkpoint: {error.strerror}') from None
