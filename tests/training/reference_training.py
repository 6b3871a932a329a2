"""Batches and starting weights of ``golden_training.npz``.

The file holds what the authors' own training loops (main.py, light_main.py, their networks) give in float64 for these
very weights and batches: the loss of every step, and sum, L2 norm and first value of every tensor afterwards, under the
authors' key names. ``SETTINGS`` says what was run.
"""

import numpy as np
import torch

from tests.reference_checkpoints import reference_state_dict

#: Learning rate at epoch 0, weight decay, epochs that were run in this order (their number decides the learning rate),
#: batches an epoch and images a batch; the last batch of an epoch has half of them and one more.
SETTINGS = {
    'eca_resnet18': {'lr': 0.02, 'weight_decay': 1e-4, 'epochs': (29, 30), 'batches': 10, 'batch_size': 8},
    'eca_mobilenetv2': {'lr': 0.02, 'weight_decay': 4e-5, 'epochs': (0,), 'batches': 3, 'batch_size': 8},
}
#: Momentum is 0.9; the dropout of eca_mobilenetv2 was set to 0 for this.
IMAGE_SIZE = 64


def start(name: str) -> dict:
    """The starting weights in float64, with the authors' key names."""
    return {k: v.double() if v.is_floating_point() else v for k, v in reference_state_dict(name).items()}


def batches(name: str) -> list:
    """[(images (N, 3, 64, 64) float64, class indices (N,) int64), ...] of one epoch; every epoch has the same."""
    settings, rng = SETTINGS[name], np.random.RandomState(77)
    result = []
    for index in range(settings['batches']):
        size = settings['batch_size'] if index < settings['batches'] - 1 else settings['batch_size'] // 2 + 1
        labels = rng.randint(0, 1000, size)
        images = rng.standard_normal((size, 3, IMAGE_SIZE, IMAGE_SIZE))
        result.append((torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))))
    return result
