"""A user's checkpoint file in a network: read without executing anything, hashed, and refused if it is another's."""

import argparse
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eca_zoo.errors import InputError
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.networks.pretrained import pretrained_cfg
from eca_zoo.weights.convert.recognition import is_of_detector, rename_to_fit
from eca_zoo.weights.convert.untrusted_file import UntrustedFile, read_untrusted
from eca_zoo.weights.errors import CheckpointError

_COUNTER = '.num_batches_tracked'
_SHOWN = 3
#: Files of a folder that count as checkpoints.
SUFFIXES = ('.safetensors', '.pth.tar', '.pth', '.pt', '.bin', '.ckpt')


def read_checkpoint(path: Path, use_ema: bool = False, setting: str = '--checkpoint') -> UntrustedFile:
    """The tensors of a user's checkpoint, read without executing anything.

    safetensors and PyTorch's containers (bare state dicts and training checkpoints) are understood.

    Args:
        path: the checkpoint.
        use_ema: take the averaged weights of a training checkpoint.
        setting: what names it, for messages.

    Raises:
        InputError: the file is missing, damaged, or would run code.
    """
    if not path.exists():
        raise InputError(f'{path}: there is no such checkpoint; check {setting}')
    # timm's training checkpoints hold their arguments.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return read_untrusted(path, use_ema)


def head_classes(state: Mapping[str, torch.Tensor], cfg: Mapping[str, Any]) -> int | None:
    """Classes of the classifier in a checkpoint; None where it has none under the name in the network's cfg."""
    names = cfg.get('classifier') or ()
    for name in [names] if isinstance(names, str) else names:
        weight = state.get(f'{name}.weight')
        if weight is not None and weight.ndim > 1:
            return weight.shape[0]
    return None


def with_head_classes(spec: ModelSpec, use_ema: bool = False) -> ModelSpec:
    """``spec`` with the number of classes of its checkpoint, where it says none itself.

    It is as it was where the checkpoint cannot be read: loading it will say why.
    """
    if spec.checkpoint is None or spec.num_classes is not None or spec.module is not None:
        return spec
    try:
        cfg, state = pretrained_cfg(spec), read_checkpoint(spec.checkpoint, use_ema).state
    except InputError:
        return spec
    classes = head_classes(state, cfg)
    return spec if classes in (None, cfg.get('num_classes')) else dataclasses.replace(spec, num_classes=classes)


def load_checkpoint(module: nn.Module, path: Path, title: str, use_ema: bool = False) -> str:
    """Load the weights in ``path`` strictly and return the SHA-256 of the file's bytes.

    Args:
        module: the network; it is unchanged if the file is refused.
        path: the checkpoint, see ``read_checkpoint``; the ECA authors' key names are understood.
        title: of the network, for messages.
        use_ema: take the averaged weights of a training checkpoint.

    Raises:
        InputError: the file is missing, damaged, would run code, or holds another network.
    """
    file = read_checkpoint(path, use_ema)
    fill(module, file, path, title)
    return file.sha256


def fill(module: nn.Module, file: UntrustedFile, path: Path, title: str) -> None:
    """Put the tensors of ``file``, which was read from ``path``, into the network, see ``load_checkpoint``."""
    expected = module.state_dict()
    state = rename_to_fit(file.state, expected)
    problems = misfits(state, expected)
    if problems and is_of_detector(state) and not is_of_detector(expected):
        raise CheckpointError(
            f'{path}: it holds a detector, and {title} is a classifier; name the detector, such as '
            'maskrcnn_eca_resnet50_fpn'
        )
    if problems:
        more = f'; and {len(problems) - _SHOWN} more' if len(problems) > _SHOWN else ''
        raise CheckpointError(
            f'{path}: these are not the weights of {title}: {"; ".join(problems[:_SHOWN])}{more}; name the model that '
            f'they were trained for{_class_hint(problems)}'
        )
    # A counter that old checkpoints lack has no part in evaluation.
    module.load_state_dict(state, strict=False)


def is_counter(key: str) -> bool:
    """Whether it counts the batches of a norm: old checkpoints lack such, and they have no part in evaluation."""
    return key.endswith(_COUNTER)


def misfits(state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> list[str]:
    """What keeps ``state`` from being loaded as ``expected``, of any type; counters of batches may be missing."""
    problems = []
    for key, tensor in expected.items():
        if key not in state:
            if not is_counter(key):
                problems.append(f'missing {key}')
        elif state[key].shape != tensor.shape:
            problems.append(f'{key} has shape {list(state[key].shape)} instead of {list(tensor.shape)}')
    problems += [f'unexpected {key}' for key in state if key not in expected]
    return problems


def _class_hint(problems: list[str]) -> str:
    """A checkpoint whose classifier alone has another shape was trained with another number of classes."""
    if len(problems) > 2 or not all(' has shape ' in problem for problem in problems):
        return ''
    return f', or its number of classes with --num-classes {problems[0].split("[")[1].split(",")[0].rstrip("]")}'


def checkpoint_files(path: Path) -> list[Path]:
    """The checkpoints that ``path`` stands for: itself, or all in the folder, in the natural order of their names.

    Raises:
        InputError: there is none.
    """
    if not path.is_dir():
        return [path]
    from timm.utils import natural_key

    files = [file for file in path.iterdir() if file.is_file() and file.name.endswith(SUFFIXES)]
    if not files:
        raise InputError(f'{path}: there are no checkpoints ({", ".join(SUFFIXES)}) in this folder')
    return sorted(files, key=lambda file: natural_key(file.name))


def training_title(file: Path) -> str:
    """What a training of ours, in whose folder a checkpoint lies, is called: network, recipe, what was overridden."""
    try:
        title = json.loads((file.parent / 'run.json').read_text(encoding='utf-8'))['title']
    except (OSError, ValueError, KeyError, TypeError):
        return ''
    return title if isinstance(title, str) else ''


def distinct_names(files: Sequence[Path]) -> list[str]:
    """Names for files: each its own, with as many of the folders around it as tell it from the others.

    Raises:
        InputError: a file is given twice.
    """
    parts = [Path(os.path.abspath(file)).parts for file in files]
    repeated = next((file for file, own in zip(files, parts, strict=True) if parts.count(own) > 1), None)
    if repeated is not None:
        raise InputError(f'{repeated}: this checkpoint is given twice; name it once')
    names = []
    for own in parts:
        others = [other for other in parts if other != own]
        length = next(n for n in range(1, len(own) + 1) if all(other[-n:] != own[-n:] for other in others))
        names.append('/'.join(own[-length:]))
    return names
