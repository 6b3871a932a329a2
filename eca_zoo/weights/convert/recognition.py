"""Recognising a network from the tensors of a checkpoint, and the authors' key names in timm's terms."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch

from eca_zoo.weights.errors import CheckpointError


class Recognised(NamedTuple):
    """What the tensors of a checkpoint belong to."""

    architecture: str
    kernel_sizes: tuple[int, ...]
    num_classes: int


# (bottleneck, blocks of each stage) of the ResNets, as in the authors' models/eca_resnet.py.
_RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): 'eca_resnet18',
    (False, (3, 4, 6, 3)): 'eca_resnet34',
    (True, (3, 4, 6, 3)): 'eca_resnet50',
    (True, (3, 4, 23, 3)): 'eca_resnet101',
    (True, (3, 8, 36, 3)): 'eca_resnet152',
}
ARCHITECTURES = (*_RESNETS.values(), 'eca_mobilenetv2', 'test_eca_resnet')
# Blocks of each stage of MobileNetV2 (arXiv:1801.04381, table 2); the authors number them through, from 1.
_MOBILENETV2_STAGES = (1, 2, 3, 4, 3, 3, 1)
# Parts of an inverted residual of the authors' code in timm's terms; the first block has no expansion.
_INVERTED = {
    '0.0': 'conv_pw', '0.1': 'bn1', '1.0': 'conv_dw', '1.1': 'bn2', '2': 'conv_pwl', '3': 'bn3',
    '4.conv': 'bn3.act.conv',
}  # fmt: skip
_SEPARABLE = {'0.0': 'conv_dw', '0.1': 'bn1', '1': 'conv_pw', '2': 'bn2', '3.conv': 'bn2.act.conv'}
_MOBILENETV2_ENDS = {
    'features.0.0': 'conv_stem', 'features.0.1': 'bn1', 'features.18.0': 'conv_head', 'features.18.1': 'bn2',
    'classifier.1': 'classifier',
}  # fmt: skip
_WIDE = 96  # output channels from which a MobileNetV2 block takes the second kernel size


def to_timm_keys(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``state`` with the authors' key names replaced by those of the networks here; other names stay as they are."""
    if any(key.startswith('features.') for key in state):
        return {_mobilenetv2_key(key): tensor for key, tensor in state.items()}
    return {key.replace('.eca.conv.', '.se.conv.'): tensor for key, tensor in state.items()}


def _mobilenetv2_key(key: str) -> str:
    module, _, name = key.rpartition('.')
    if module in _MOBILENETV2_ENDS:
        return f'{_MOBILENETV2_ENDS[module]}.{name}'
    match = re.fullmatch(r'features\.(\d+)\.conv\.(.+)', module)
    if match is None or not 1 <= int(match.group(1)) <= sum(_MOBILENETV2_STAGES):
        return key
    stage, block = 0, int(match.group(1)) - 1
    while block >= _MOBILENETV2_STAGES[stage]:
        block -= _MOBILENETV2_STAGES[stage]
        stage += 1
    part = (_INVERTED if stage else _SEPARABLE).get(match.group(2))
    return f'blocks.{stage}.{block}.{part}.{name}' if part else key


def recognise(state: Mapping[str, torch.Tensor]) -> Recognised:
    """The network that the tensors of ``state`` (keys as ``to_timm_keys`` returns them) belong to.

    Raises:
        CheckpointError: they belong to none of the networks here; the text says what is in the way.
    """
    gates = {key: tensor for key, tensor in state.items() if key.endswith(('.se.conv.weight', '.act.conv.weight'))}
    if not gates:
        shown = ', '.join(list(state)[:3])
        raise CheckpointError(f'no ECA-Net: there is no ECA layer among its {len(state)} tensors ({shown}, ...)')
    for key, tensor in gates.items():
        if tensor.ndim != 3 or tensor.shape[:2] != (1, 1) or tensor.shape[2] % 2 == 0:
            raise CheckpointError(f'{key} is no ECA layer: its shape is {list(tensor.shape)}, not [1, 1, odd]')
    if 'conv_stem.weight' in state:
        return Recognised('eca_mobilenetv2', _mobilenetv2_kernels(state, gates), _num_classes(state, 'classifier'))
    return Recognised(_resnet(state), _resnet_kernels(gates), _num_classes(state, 'fc'))


def _resnet(state: Mapping[str, torch.Tensor]) -> str:
    if 'conv1.0.weight' in state:
        return 'test_eca_resnet'
    blocks = {match.groups() for key in state if (match := re.match(r'layer(\d+)\.(\d+)\.', key))}
    counts = tuple(sum(1 for stage, _ in blocks if stage == str(number)) for number in range(1, 5))
    bottleneck = any(re.match(r'layer1\.\d+\.conv3\.', key) for key in state)
    found = _RESNETS.get((bottleneck, counts))
    if found is None:
        kind = 'bottleneck' if bottleneck else 'basic'
        raise CheckpointError(f'no network here has stages of {counts} {kind} blocks')
    return found


def _resnet_kernels(gates: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
    sizes: dict[str, set[int]] = {}
    for key, tensor in gates.items():
        sizes.setdefault(key.split('.')[0], set()).add(tensor.shape[2])
    return tuple(_only(sizes[stage], stage) for stage in sorted(sizes))


def _mobilenetv2_kernels(state: Mapping[str, torch.Tensor], gates: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
    narrow: set[int] = set()
    wide: set[int] = set()
    for key, tensor in gates.items():
        norm = state.get(key.removesuffix('act.conv.weight') + 'weight')
        if norm is None:
            raise CheckpointError(f'{key}: the batch norm before it is missing')
        (narrow if norm.numel() < _WIDE else wide).add(tensor.shape[2])
    return _only(narrow, 'the narrow blocks'), _only(wide, 'the wide blocks')


def _only(sizes: set[int], where: str) -> int:
    if len(sizes) != 1:
        raise CheckpointError(f'the ECA layers of {where} have several kernel sizes or none: {sorted(sizes)}')
    return next(iter(sizes))


def _num_classes(state: Mapping[str, torch.Tensor], classifier: str) -> int:
    weight = state.get(f'{classifier}.weight')
    if weight is None or weight.ndim != 2:
        raise CheckpointError(f'it has no classifier: the tensor {classifier}.weight is missing')
    return weight.shape[0]
