"""A user's checkpoint file in a network: read without executing anything, hashed, and refused if it is another's."""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from eca_zoo.errors import InputError
from eca_zoo.weights.convert.recognition import rename_to_fit
from eca_zoo.weights.convert.untrusted_file import read_untrusted
from eca_zoo.weights.errors import CheckpointError

_AVERAGED = ('state_dict_ema', 'model_ema')
_COUNTER = '.num_batches_tracked'
_SHOWN = 3
#: Files of a folder that count as checkpoints.
SUFFIXES = ('.safetensors', '.pth.tar', '.pth', '.pt', '.bin')


def load_checkpoint(module: nn.Module, path: Path, title: str, use_ema: bool = False) -> str:
    """Load the weights in ``path`` strictly and return the SHA-256 of the file's bytes.

    safetensors, PyTorch's containers (bare state dicts and training checkpoints), and the ECA authors' key names are
    understood.

    Args:
        module: the network; it is unchanged if the file is refused.
        path: the checkpoint.
        title: of the network, for messages.
        use_ema: take the averaged weights of a training checkpoint.

    Raises:
        InputError: the file is missing, damaged, would run code, or holds another network.
    """
    if not path.exists():
        raise InputError(f'{path}: there is no such checkpoint; check --checkpoint')
    # timm's training checkpoints hold their arguments.
    with torch.serialization.safe_globals([argparse.Namespace]):
        file = read_untrusted(path)
        state = _averaged(path) if use_ema else file.state
    expected = module.state_dict()
    state = rename_to_fit(state, expected)
    problems = _differences(state, expected)
    if problems:
        more = f'; and {len(problems) - _SHOWN} more' if len(problems) > _SHOWN else ''
        raise CheckpointError(
            f'{path}: these are not the weights of {title}: {"; ".join(problems[:_SHOWN])}{more}; name the model that '
            f'they were trained for{_class_hint(problems)}'
        )
    # A counter that old checkpoints lack has no part in evaluation.
    module.load_state_dict(state, strict=False)
    return file.sha256


def _averaged(path: Path) -> dict[str, torch.Tensor]:
    """The averaged weights in a training checkpoint that ``read_untrusted`` has found to be harmless."""
    loaded = torch.load(path, map_location='cpu', weights_only=True) if path.suffix != '.safetensors' else {}
    for key in _AVERAGED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            return {name.removeprefix('module.'): tensor for name, tensor in loaded[key].items()}
    raise CheckpointError(f'{path}: it holds no averaged weights ({" or ".join(_AVERAGED)}); leave out --use-ema')


def _differences(state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> list[str]:
    problems = []
    for key, tensor in expected.items():
        if key not in state:
            if not key.endswith(_COUNTER):
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
