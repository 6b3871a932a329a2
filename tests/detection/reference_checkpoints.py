#!/usr/bin/env python3
"""Write stand-ins for the authors' six detection checkpoints, in the layout of mmdetection v1.

The real files are behind file-sharing links. These have the key names and shapes of an mmdetection v1 checkpoint
(``detection_state_dicts.json``; the name ``eca`` of the layer in the backbone is assumed from the authors'
classification code) and seeded values that spread scores and boxes. ``golden_detections.npz`` holds what mmdetection
v1's inference, written out in plain tensor code and float64, gives for these very values and ``golden_input()``.

    python reference_checkpoints.py maskrcnn_eca_resnet50_fpn --out mask_rcnn_ecanet50_k3377_bs8_lr0.01.pth
"""

import argparse
import json
import zlib
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parents[1] / 'data'
#: Height and width of the original image, the factor of the resize, and the resized image before padding to 32.
ORIGINAL_SIZE, SCALE = (300, 452), 256 / 300
RESIZED_SIZE = (256, int(452 * SCALE + 0.5))

# Scale of the values of a layer, by the end of its key, in units of 1 / sqrt(fan-in); 1.4 elsewhere.
_GAINS = {
    'rpn_cls.weight': 2.0, 'rpn_reg.weight': 0.5, 'fc_cls.weight': 4.0, 'fc_reg.weight': 1.5,
    'retina_cls.weight': 1.2, 'retina_reg.weight': 0.5,
}  # fmt: skip


def layouts() -> dict:
    """Name -> {"file", "kernels", "tensors": [[key, shape], ...]}."""
    return json.loads((DATA / 'detection_state_dicts.json').read_text())


def _values(key: str, shape: list) -> np.ndarray:
    """Seeded values for one tensor: they depend on its key and shape alone."""
    rng = np.random.RandomState(zlib.crc32(key.encode()))
    if key.endswith('num_batches_tracked'):
        return np.array(100, dtype=np.int64)
    if key.endswith('running_var'):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) == 3:  # the 1-D convolution of an ECA layer
        return (rng.standard_normal(shape) * 0.5).astype(np.float32)
    if key.startswith('backbone.') and len(shape) == 1:
        if key.endswith('.weight'):  # batch norm scale
            return rng.uniform(0.3, 0.7, shape).astype(np.float32)
        return (rng.standard_normal(shape) * 0.1).astype(np.float32)
    if len(shape) == 1:
        bias = rng.standard_normal(shape) * 0.1
        return (bias - (3.2 if key.endswith('retina_cls.bias') else 0.0)).astype(np.float32)
    fan_in = shape[0] if key.endswith('upsample.weight') else int(np.prod(shape[1:]))
    gain = next((value for end, value in _GAINS.items() if key.endswith(end)), 1.4)
    values = rng.standard_normal(shape) * gain / np.sqrt(fan_in)
    if any(key.endswith(end) for end in _GAINS):  # rows that add up to zero: what all places share cancels out
        values -= values.mean(axis=tuple(range(1, len(shape))), keepdims=True)
    return values.astype(np.float32)


def reference_state_dict(name: str) -> dict:
    """State dict with mmdetection v1's key names, float32."""
    return {
        key: torch.from_numpy(np.ascontiguousarray(_values(key, shape))).reshape(shape)
        for key, shape in layouts()[name]['tensors']
    }


def checkpoint(name: str) -> dict:
    """The object that mmcv's runner hands to ``torch.save``."""
    return {'meta': {'epoch': 12, 'iter': 175908}, 'state_dict': reference_state_dict(name), 'optimizer': {}}


def golden_input() -> torch.Tensor:
    """The (1, 3, 256, 416) float64 input of ``golden_detections.npz``: normalised, then padded with zeros to 32."""
    rng = np.random.RandomState(2017)
    height, width = RESIZED_SIZE
    image = np.zeros((1, 3, -(-height // 32) * 32, -(-width // 32) * 32))
    patches = np.kron(rng.standard_normal((1, 3, 8, 13)), np.ones((32, 32))) + np.kron(
        rng.standard_normal((1, 3, 32, 52)), np.ones((8, 8))
    )
    image[:, :, :height, :width] = patches[:, :, :height, :width] + rng.standard_normal((1, 3, height, width)) * 0.3
    return torch.from_numpy(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', choices=list(layouts()))
    parser.add_argument('--out', type=Path, required=True)
    args = parser.parse_args()
    torch.save(checkpoint(args.model), args.out)


if __name__ == '__main__':
    main()
