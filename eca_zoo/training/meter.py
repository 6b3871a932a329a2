"""Losses and rates between two rows of the log; losses stay on the device until somebody asks."""

import math
import time
from typing import Any

import torch

from eca_zoo.harness.machine.processes import gather


class Meter:
    """Mean losses of the current row and of the current epoch, and how fast the steps are."""

    def __init__(self) -> None:
        self._pending: list[tuple[int, int, torch.Tensor]] = []
        self.row, self.epoch = Mean(), Mean()
        self.row_clock, self.epoch_clock = Clock(), Clock()

    def waited(self, seconds: float) -> None:
        """Note that a step waited for its images."""
        self.row_clock.waited += seconds
        self.epoch_clock.waited += seconds

    def add(self, step: int, images: int, loss: torch.Tensor) -> None:
        """Note a step.

        Args:
            step: its number.
            images: over all processes.
            loss: this process's part of the mean loss, on the device.
        """
        self._pending.append((step, images, loss))
        self.row_clock.images += images
        self.epoch_clock.images += images

    def flush(self) -> int | None:
        """Take the losses from the device and add them up in the order of the steps and processes.

        Every process calls it after the same step.

        Returns:
            The first step whose loss is no number; None where all are.
        """
        if not self._pending:
            return None
        own = torch.stack([loss for _, _, loss in self._pending]).tolist()
        parts = gather(own)
        bad = None
        for number, (step, images, _) in enumerate(self._pending):
            loss = sum(part[number] for part in parts)
            if not math.isfinite(loss) and bad is None:
                bad = step
            self.row.add(loss, images)
            self.epoch.add(loss, images)
        self._pending.clear()
        return bad

    def state(self) -> dict[str, Any]:
        """What a state keeps of it."""
        return {'row': [self.row.total, self.row.images], 'epoch': [self.epoch.total, self.epoch.images]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` returned."""
        self.row, self.epoch = Mean(*state['row']), Mean(*state['epoch'])


class Mean:
    """A mean over images."""

    def __init__(self, total: float = 0.0, images: int = 0) -> None:
        self.total, self.images = total, images

    def add(self, value: float, images: int) -> None:
        """Add the mean ``value`` of ``images``."""
        self.total += value * images
        self.images += images

    def take(self) -> float | None:
        """The mean, which begins anew; None of nothing."""
        value = self.total / self.images if self.images else None
        self.total, self.images = 0.0, 0
        return value


class Clock:
    """Images and time since it was made.

    Attributes:
        images: over all processes.
        waited: seconds in which steps waited for images.
    """

    def __init__(self) -> None:
        self.images, self.waited = 0, 0.0
        self._since = time.monotonic()

    def timings(self) -> dict[str, Any]:
        """Images a second, and the share of the time in which steps waited; None where there were none."""
        if not self.images:
            return {'images_per_sec': None, 'data_time': None}
        seconds = max(time.monotonic() - self._since, 1e-9)
        return {'images_per_sec': round(self.images / seconds, 1), 'data_time': round(self.waited / seconds, 3)}
