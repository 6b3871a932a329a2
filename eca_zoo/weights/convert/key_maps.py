"""The key names of the authors' state dicts in the terms of the networks here: one function for each family."""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

_T = TypeVar('_T')

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


def rename_keys(state: Mapping[str, _T], rename_key: Callable[[str], str]) -> dict[str, _T]:
    """``state`` under its new key names, in the same order.

    A key whose new name is taken already keeps its own, so that a strict load reports it instead of losing a tensor.
    """
    renamed = {key: rename_key(key) for key in state}
    return {(key if new in state else new): state[key] for key, new in renamed.items()}


def resnet_key(key: str) -> str:
    """A key of the authors' ResNets in timm's terms; any other stays as it is."""
    return key.replace('.eca.conv.', '.se.conv.')


def mobilenetv2_key(key: str) -> str:
    """A key of the authors' MobileNetV2 in timm's terms; any other stays as it is."""
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
