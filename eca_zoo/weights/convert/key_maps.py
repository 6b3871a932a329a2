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
# mmdetection v1's modules in torchvision's terms; a ``.conv`` may follow those of the first table, which early versions
# lack.
_DETECTOR_CONVOLUTIONS = (
    (r'neck\.lateral_convs\.(\d+)', r'backbone.fpn.inner_blocks.\1.0'),
    (r'neck\.fpn_convs\.(\d+)', r'backbone.fpn.layer_blocks.\1.0'),
    (r'mask_head\.convs\.(\d+)', r'roi_heads.mask_head.\1.0'),
    (r'bbox_head\.cls_convs\.(\d+)', r'head.classification_head.conv.\1.0'),
    (r'bbox_head\.reg_convs\.(\d+)', r'head.regression_head.conv.\1.0'),
)
_DETECTOR_ENDS = {
    'rpn_head.rpn_conv': 'rpn.head.conv.0.0',
    'rpn_head.rpn_cls': 'rpn.head.cls_logits',
    'rpn_head.rpn_reg': 'rpn.head.bbox_pred',
    'bbox_head.shared_fcs.0': 'roi_heads.box_head.fc6',
    'bbox_head.shared_fcs.1': 'roi_heads.box_head.fc7',
    'bbox_head.fc_cls': 'roi_heads.box_predictor.cls_score',
    'bbox_head.fc_reg': 'roi_heads.box_predictor.bbox_pred',
    'mask_head.upsample': 'roi_heads.mask_predictor.conv5_mask',
    'mask_head.conv_logits': 'roi_heads.mask_predictor.mask_fcn_logits',
    'bbox_head.retina_cls': 'head.classification_head.cls_logits',
    'bbox_head.retina_reg': 'head.regression_head.bbox_reg',
}
_RETINANET_LEVELS = {
    'neck.fpn_convs.3': 'backbone.fpn.extra_blocks.p6',
    'neck.fpn_convs.4': 'backbone.fpn.extra_blocks.p7',
}
# Names that an ECA layer has in the blocks of others' ResNets.
_ECA_NAMES = re.compile(r'\.(?:eca|se|attention)\.conv\.')


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


def two_stage_key(key: str) -> str:
    """A key of mmdetection v1's Faster or Mask R-CNN in torchvision's terms; any other stays as it is."""
    body = re.fullmatch(r'backbone\.((?:conv1|bn1|layer\d)\..+)', key)
    if body is not None:
        return f'backbone.body.{_ECA_NAMES.sub(".se.conv.", body.group(1))}'
    module, _, name = key.rpartition('.')
    if module in _DETECTOR_ENDS:
        return f'{_DETECTOR_ENDS[module]}.{name}'
    for pattern, replacement in _DETECTOR_CONVOLUTIONS:
        match = re.fullmatch(rf'{pattern}(?:\.conv)?', module)
        if match is not None:
            return f'{match.expand(replacement)}.{name}'
    return key


def retinanet_key(key: str) -> str:
    """A key of mmdetection v1's RetinaNet in torchvision's terms; any other stays as it is."""
    module, _, name = key.rpartition('.')
    level = _RETINANET_LEVELS.get(module.removesuffix('.conv'))
    return f'{level}.{name}' if level else two_stage_key(key)
