#!/usr/bin/env python3
"""Write checkpoints in the layout that the original ECA-Net training script saves.

The authors' real files are behind file-sharing links. This script builds stand-ins with
the same container, key names and shapes (``original_state_dicts.json``) and seeded values, so that
conversion, hashing and numerical parity can be tested end to end. ``golden_logits.npz`` holds the
float64 logits which the authors' own model code gives for these very values and ``golden_input()``.

    python make_reference_checkpoint.py eca_resnet50 --out eca_resnet50_k3557.pth.tar
    python make_reference_checkpoint.py --all --out-dir DIR [--data-parallel] [--bare] [--legacy]
"""

import argparse
import json
import zlib
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parent / 'data'


def layouts() -> dict:
    """Model name -> {"arch", "file", "kernels", "tensors": [[key, shape, dtype], ...]} of the original code."""
    return json.loads((DATA / 'original_state_dicts.json').read_text())


def _values(key: str, shape: list, dtype: str) -> np.ndarray:
    """Seeded values for one tensor: they depend on its original key name and shape alone."""
    rng = np.random.RandomState(zlib.crc32(key.encode()))
    if key.endswith('num_batches_tracked'):
        return np.array(100, dtype=dtype)
    if key.endswith('running_var'):
        return rng.uniform(0.5, 1.5, shape).astype(dtype)
    if len(shape) == 4:  # convolution, scaled by its fan-in
        return (rng.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))).astype(dtype)
    if len(shape) == 3:  # the 1-D convolution of an ECA module
        return (rng.standard_normal(shape) * 0.5).astype(dtype)
    if len(shape) == 2:  # classifier
        return (rng.standard_normal(shape) * 0.05).astype(dtype)
    if key.endswith('.weight'):  # batch norm scale
        return rng.uniform(0.5, 1.0, shape).astype(dtype)
    return (rng.standard_normal(shape) * 0.1).astype(dtype)  # biases and running means


def reference_state_dict(name: str) -> dict:
    """State dict with the original key names, float32."""
    return {
        key: torch.from_numpy(np.ascontiguousarray(_values(key, shape, dtype))).reshape(shape)
        for key, shape, dtype in layouts()[name]['tensors']
    }


def golden_input() -> torch.Tensor:
    """The (1, 3, 224, 224) float32 input of ``golden_logits.npz``; already normalised."""
    rng = np.random.RandomState(1910)
    return torch.from_numpy(rng.standard_normal((1, 3, 224, 224)).astype(np.float32))


def checkpoint(name: str, data_parallel: bool = False, bare: bool = False) -> dict:
    """The object that the original script hands to ``torch.save``.

    data_parallel: prefix every key with ``module.``, as a model wrapped in DataParallel saves it.
    bare: the state dict alone, without epoch, accuracy and optimizer around it.
    """
    state = reference_state_dict(name)
    if data_parallel:
        state = {f'module.{k}': v for k, v in state.items()}
    if bare:
        return state
    first = next(iter(state.values()))
    return {
        'epoch': 100,
        'arch': layouts()[name]['arch'],
        'state_dict': state,
        'best_prec1': torch.tensor([77.0]),
        'optimizer': {
            'state': {0: {'momentum_buffer': torch.zeros_like(first)}},
            'param_groups': [{'lr': 1e-4, 'momentum': 0.9, 'weight_decay': 1e-4, 'params': [0]}],
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', nargs='?', choices=list(layouts()))
    parser.add_argument('--all', action='store_true')
    parser.add_argument('--out', type=Path)
    parser.add_argument('--out-dir', type=Path, default=Path('.'))
    parser.add_argument('--data-parallel', action='store_true')
    parser.add_argument('--bare', action='store_true')
    parser.add_argument('--legacy', action='store_true', help='the container of PyTorch before 1.6 (no zip)')
    args = parser.parse_args()
    if bool(args.model) == args.all:
        parser.error('name one model, or --all')
    for name in layouts() if args.all else [args.model]:
        out = args.out or args.out_dir / f'{layouts()[name]["file"]}.pth.tar'
        out.parent.mkdir(parents=True, exist_ok=True)
        torch.save(
            checkpoint(name, args.data_parallel, args.bare),
            out,
            _use_new_zipfile_serialization=not args.legacy,
        )
        print(out)


if __name__ == '__main__':
    main()
