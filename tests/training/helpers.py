"""Small trainings for tests: a few handwritten digits, a recipe with everything in it that is random."""

import csv
from pathlib import Path

from eca_zoo.training.record.log import TIMINGS
from eca_zoo.training.record.state import StateFolder
from tests.harness.image_sets import digits, encoded

RECIPE = """\
version: 1
model: test_eca_resnet
epochs: 2
batch_size: 16
img_size: 32
lr: 0.05
weight_decay: 1.0e-4
scale: [0.5, 1.0]
color_jitter: 0.2
aa: rand-m3-mstd0.5
reprob: 0.3
mixup: 0.2
cutmix: 1.0
smoothing: 0.1
drop: 0.2
drop_path: 0.1
model_ema: true
model_ema_decay: 0.9
"""


def write_splits(root: Path, count: int = 60) -> Path:
    """The first digits as ``train/CLASS`` and, every third one, ``validation/CLASS``; of 30 each class is in both."""
    for index, (image, label) in enumerate(digits()[:count]):
        folder = root / ('train' if index % 3 else 'validation') / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f'{index:04d}.png').write_bytes(encoded(image))
    return root


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    path = folder / 'small.yaml'
    path.write_text(text, encoding='utf-8')
    return path


def log_of(out: Path) -> list[dict[str, str]]:
    """The log without what depends on the clock."""
    with (out / 'log.csv').open(newline='', encoding='utf-8') as file:
        return [{key: value for key, value in row.items() if key not in TIMINGS} for row in csv.DictReader(file)]


def state_of(out: Path) -> dict:
    """The state of a run without what depends on the clock."""
    loop = StateFolder(out).load()['loop']
    rows = [{key: value for key, value in row.items() if key not in TIMINGS} for row in loop['log']]
    return loop | {'log': rows}


def assert_equal_bits(first: Path, second: Path) -> None:
    """Both folders hold the same run: weights, averages, optimiser, log, to the bit."""
    for name in ('last.safetensors', 'best.safetensors', 'last.ema.safetensors'):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert log_of(first) == log_of(second)
    assert_same(state_of(first), state_of(second))


def assert_same(first, second, where: str = 'state') -> None:
    import torch

    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert list(first) == list(second), where
        for key in first:
            assert_same(first[key], second[key], f'{where}.{key}')
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for number, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f'{where}.{number}')
    elif isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype, where
        assert torch.equal(first, second), where
    else:
        assert first == second, where
