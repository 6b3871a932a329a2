"""Counts of one model: on the device while it runs, and as integers that add up across processes and restarts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from eca_zoo.harness.accuracy.counts import (
    IMAGES,
    LOSS_UNIT,
    PREDICTED,
    TOP1,
    TOP5,
    are_correct,
    loss_units,
    top_guesses,
)

_COLUMNS = 4
_NONE_BAD = torch.iinfo(torch.int64).max


@dataclass
class Tally:
    """What was counted.

    Attributes:
        per_class: (C, 4) int64: images, right first guesses, right among five, and first guesses of each class.
        loss: sum of the cross-entropies in multiples of ``counts.LOSS_UNIT``.
    """

    per_class: torch.Tensor
    loss: int = 0

    @classmethod
    def empty(cls, num_classes: int) -> 'Tally':
        """Nothing counted yet."""
        return cls(torch.zeros((num_classes, _COLUMNS), dtype=torch.int64))

    def __add__(self, other: 'Tally') -> 'Tally':
        return Tally(self.per_class + other.per_class, self.loss + other.loss)

    def __sub__(self, other: 'Tally') -> 'Tally':
        return Tally(self.per_class - other.per_class, self.loss - other.loss)

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self.per_class[:, IMAGES].sum())

    @property
    def top1(self) -> int:
        """Right first guesses."""
        return int(self.per_class[:, TOP1].sum())

    @property
    def top5(self) -> int:
        """Images whose class is among the first five guesses."""
        return int(self.per_class[:, TOP5].sum())

    @property
    def mean_loss(self) -> float | None:
        """Mean cross-entropy; None without images."""
        return self.loss * LOSS_UNIT / self.images if self.images else None

    def to_json(self) -> dict[str, Any]:
        """As JSON: rows of classes that were met, each with its index first."""
        met = self.per_class.any(dim=1).nonzero().flatten().tolist()
        return {'loss': self.loss, 'classes': [[index, *self.per_class[index].tolist()] for index in met]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], num_classes: int) -> 'Tally':
        """The tally that ``to_json`` wrote."""
        tally = cls.empty(num_classes)
        tally.loss = int(record['loss'])
        for index, *counts in record['classes']:
            tally.per_class[index] = torch.tensor(counts, dtype=torch.int64)
        return tally


class DeviceTally:
    """Counts on the device of the model, without waiting for it."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._per_class = torch.zeros((num_classes, _COLUMNS), dtype=torch.int64, device=device)
        self._loss = torch.zeros((), dtype=torch.int64, device=device)
        self._first_bad = torch.full((), _NONE_BAD, dtype=torch.int64, device=device)

    def add(
        self,
        logits: torch.Tensor,
        target: torch.Tensor,
        right: torch.Tensor,
        positions: torch.Tensor,
        classes: torch.Tensor | None = None,
        counted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Count one batch; everything is on the device, and nothing waits for it.

        Args:
            logits: (N, K).
            target: (N,) index of each image's class among the K logits.
            right: (N,) the same, or (N, L) indices of all right classes, padded with -1.
            positions: (N,) of the images in the data set.
            classes: (K,) the model's class index of each logit, where they are a part of its classes.
            counted: (N,) which images count, where not all do; the target of the others may be -1.

        Returns:
            (N, min(5, K)) best classes among the K, best first.
        """
        guesses = top_guesses(logits)
        first, any_of_five = are_correct(guesses, right)
        ones = torch.ones_like(first) if counted is None else counted
        if counted is not None:
            # Left in and weighted with 0: how many they are is known on the device alone.
            target = target.clamp(min=0)
        rows = torch.stack([ones, first & ones, any_of_five & ones, torch.zeros_like(first)], dim=1).long()
        classes_met, guessed = (target, guesses[:, 0]) if classes is None else (classes[target], classes[guesses[:, 0]])
        self._per_class.index_add_(0, classes_met, rows)
        self._per_class[:, PREDICTED].index_add_(0, guessed, ones.long())
        self._loss += (loss_units(logits, target) * ones).sum()
        is_bad = ~torch.isfinite(logits).all(dim=1) & ones
        self._first_bad = torch.minimum(self._first_bad, torch.where(is_bad, positions, _NONE_BAD).min())
        return guesses

    def take(self) -> Tally:
        """The counts so far; waits for the device."""
        return Tally(self._per_class.to('cpu', copy=True), int(self._loss))

    def first_bad(self) -> int | None:
        """Position of the first image whose logits are not all finite; None if there is none. Waits for the device."""
        position = int(self._first_bad)
        return None if position == _NONE_BAD else position
