"""Counting right guesses in integers, and what follows from the counts: percentages, intervals, precision, recall."""

import math
from collections.abc import Sequence

import torch

TOP_K = 5
#: Two-sided 95 % quantile of the normal distribution.
_Z95 = 1.959963984540054
#: A loss is summed as an integer multiple of this, so that the sum does not depend on the order of the images.
LOSS_UNIT = 2.0**-30
_LARGEST_LOSS = 2.0**20

#: Columns of a table of per-class counts.
IMAGES, TOP1, TOP5, PREDICTED = range(4)


def top_guesses(logits: torch.Tensor) -> torch.Tensor:
    """The best ``min(5, C)`` classes of each image, best first.

    Args:
        logits: (N, C).

    Returns:
        (N, min(5, C)) int64 class indices; equal logits are ordered as ``torch.topk`` orders them.
    """
    return logits.topk(min(TOP_K, logits.shape[1]), dim=1, largest=True, sorted=True).indices


def are_correct(guesses: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which images have a right first guess, and which have one among all guesses.

    Args:
        guesses: (N, K) class indices, best first.
        labels: (N,) class index of each image, or (N, L) right classes of each image, padded with -1.

    Returns:
        Two boolean tensors (N,).
    """
    hits = (guesses[:, :, None] == labels.reshape(len(labels), 1, -1)).any(dim=2)
    return hits[:, 0], hits.any(dim=1)


def count_correct(logits: torch.Tensor, target: torch.Tensor) -> tuple[int, int]:
    """Number of images whose class is the first guess, and is among the first five (all, if there are fewer classes).

    Args:
        logits: (N, C).
        target: (N,) class indices, or (N, L) right classes of each image, padded with -1.
    """
    first, any_of_five = are_correct(top_guesses(logits), target)
    return int(first.sum()), int(any_of_five.sum())


def loss_units(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each image as an int64 multiple of ``LOSS_UNIT``; at most 2^20.

    Args:
        logits: (N, C).
        target: (N,) class indices.
    """
    losses = torch.nn.functional.cross_entropy(logits.float(), target, reduction='none')
    # Exact in float32, which every device has: a division by a power of two moves the exponent alone.
    return (losses.nan_to_num(nan=_LARGEST_LOSS).clamp(max=_LARGEST_LOSS) / LOSS_UNIT).round().long()


def percent(count: int, total: int) -> float:
    """``count`` in percent of ``total``."""
    return 100 * count / total


def wilson_half_width(count: int, total: int) -> float:
    """Half width, in percent, of the 95 % Wilson score interval of ``count`` successes in ``total`` trials.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927), 209-212.
    """
    share, z2 = count / total, _Z95**2
    spread = math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return 100 * _Z95 * spread / (1 + z2 / total)


def precision_recall_f1(per_class: Sequence[Sequence[int]], average: str) -> tuple[float, float, float]:
    """Precision, recall and F1 in percent, averaged over classes as scikit-learn does with ``zero_division=0``.

    Args:
        per_class: a row a class with its images, the right first and first five guesses, and how often it was guessed.
        average: ``micro``, ``macro`` (over the classes that occur or were guessed) or ``weighted`` (by images).
    """
    rows = [row for row in per_class if row[IMAGES] or row[PREDICTED]]
    if average == 'micro':
        right = percent(sum(row[TOP1] for row in rows), sum(row[IMAGES] for row in rows))
        return right, right, right
    total = sum(row[IMAGES] for row in rows)
    weights = [row[IMAGES] / total if average == 'weighted' else 1 / len(rows) for row in rows]
    precision = [row[TOP1] / row[PREDICTED] if row[PREDICTED] else 0.0 for row in rows]
    recall = [row[TOP1] / row[IMAGES] if row[IMAGES] else 0.0 for row in rows]
    f1 = [2 * p * r / (p + r) if p + r else 0.0 for p, r in zip(precision, recall, strict=True)]
    means = [100 * math.fsum(w * v for w, v in zip(weights, values, strict=True)) for values in (precision, recall, f1)]
    return means[0], means[1], means[2]
