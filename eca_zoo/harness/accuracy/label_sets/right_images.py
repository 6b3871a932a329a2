"""Which images of a data set a model got right: a bit each, as text, and what follows from two such texts."""

import base64
from collections.abc import Sequence

import numpy as np
import torch

from eca_zoo.harness.accuracy.label_sets.paired import PairedCounts
from eca_zoo.harness.accuracy.results import AccuracyResult


def to_text(right: torch.Tensor) -> str:
    """Booleans (N,) as a text of N bits."""
    return base64.b64encode(np.packbits(right.numpy()).tobytes()).decode('ascii')


def from_text(text: str, count: int) -> torch.Tensor:
    """The ``count`` booleans that ``to_text`` made a text of."""
    return torch.from_numpy(np.unpackbits(_bytes(text), count=count).astype(bool))


def union(texts: Sequence[str]) -> str:
    """What is right in any of several texts of the same images."""
    return base64.b64encode(np.bitwise_or.reduce([_bytes(text) for text in texts]).tobytes()).decode('ascii')


def paired(model: AccuracyResult, baseline: AccuracyResult) -> PairedCounts | None:
    """How ``model`` did beside ``baseline``; None where it is not known that both were counted on the same images."""
    if model.right is None or baseline.right is None or model.num_images != baseline.num_images:
        return None
    own, other = _bytes(model.right), _bytes(baseline.right)
    if len(own) != len(other) or model.dataset != baseline.dataset:
        return None
    return PairedCounts(model.num_images, _ones(own & ~other), _ones(other & ~own))


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype=np.uint8)


def _ones(packed: np.ndarray) -> int:
    return int(np.unpackbits(packed).sum())
