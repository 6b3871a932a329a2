"""The order of the data and the random state of everything, as functions of (seed, epoch, index) and (seed, step).

No result depends on how many processes decode images, or on where a run was interrupted.
"""

import contextlib
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

_ORDER, _SAMPLE, _STEP = 1, 2, 3


def mixed(*values: int) -> int:
    """A 64-bit number that looks random for any integers (the finaliser of SplitMix64, chained)."""
    state = 0
    for value in values:
        state = (state ^ value) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state


def seed_all(value: int) -> None:
    """Set the random states of Python, numpy and torch's processors, as cheaply as it can be done for each image."""
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)
    torch.default_generator.manual_seed(value & 0x7FFFFFFFFFFFFFFF)


def seed_sample(seed: int, epoch: int, position: int) -> None:
    """Set the random states for what is done to the image at ``position`` of the data set."""
    seed_all(mixed(_SAMPLE, seed, epoch, position))


def seed_step(seed: int, step: int, process: int, part: int, device: torch.device) -> None:
    """Set the random states for a part of a step: dropout, mixup and erasing, on the device too."""
    value = mixed(_STEP, seed, step, process, part)
    seed_all(value)
    if device.type == 'cuda':
        torch.cuda.default_generators[device.index or 0].manual_seed(value & 0x7FFFFFFFFFFFFFFF)


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Give the caller's random states back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() and torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def epoch_order(seed: int, epoch: int, count: int) -> torch.Tensor:
    """The positions 0 to ``count`` - 1 in the order of an epoch, int64."""
    generator = torch.Generator().manual_seed(mixed(_ORDER, seed, epoch) & 0x7FFFFFFFFFFFFFFF)
    return torch.randperm(count, generator=generator)


def grouped_order(order: torch.Tensor, kinds: torch.Tensor, size: int) -> torch.Tensor:
    """``order`` with the images of a kind brought together, ``size`` at a time; each image stays there once.

    The groups stand where their first images stood, and at the end the images that make no whole group.

    Args:
        order: (N,) positions.
        kinds: (N,) int64, of the image at each position.
        size: images of a group.
    """
    own = kinds[order]
    groups, rest = [], []
    for kind in own.unique():
        places = torch.where(own == kind)[0]
        whole = len(places) // size * size
        groups.append(places[:whole].view(-1, size))
        rest.append(places[whole:])
    places = torch.cat(groups)
    return order[torch.cat([places[places[:, 0].argsort()].flatten(), torch.cat(rest).sort().values])]


@dataclass(frozen=True)
class Share:
    """What one process does in one step.

    Attributes:
        parts: positions of the images, for each part of the accumulation.
        weights: of the mean loss of each part in the step's mean over all images and processes; they add up to 1 over
            the processes. A process without an image of its own works on another one's with the weight 0, so that all
            take part in every exchange.
    """

    parts: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Schedule:
    """Which images belong to which step.

    Attributes:
        count: images of the data set.
        batch_size: images of a step, over all processes.
        seed: of the order.
        drop_last: leave out the last batch of an epoch where it is smaller.
        processes: number of processes.
        parts: number of parts that a process's share is worked off in.
        kinds: (N,) of the images, those of which are brought together in
        group_size: images each; None where it does not matter.
    """

    count: int
    batch_size: int
    seed: int
    drop_last: bool = False
    processes: int = 1
    parts: int = 1
    kinds: torch.Tensor | None = None
    group_size: int = 1

    def order(self, epoch: int) -> torch.Tensor:
        """Positions in the data set (N,) in the order of an epoch (from 0)."""
        order = epoch_order(self.seed, epoch, self.count)
        return order if self.kinds is None else grouped_order(order, self.kinds, self.group_size)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.count // self.batch_size if self.drop_last else -(-self.count // self.batch_size)

    def images_of(self, step: int) -> int:
        """Images of a step over all processes."""
        within = step % self.steps_per_epoch
        return min(self.batch_size, self.count - within * self.batch_size)

    def positions(self, step: int, order: torch.Tensor) -> list[int]:
        """Positions of the images of a step in the data set, given the order of its epoch."""
        start = step % self.steps_per_epoch * self.batch_size
        return order[start : start + self.batch_size].tolist()

    def share(self, positions: Sequence[int], process: int) -> Share:
        """What ``process`` does of the images of a step: consecutive parts of nearly equal size."""
        own = _slices(positions, self.processes)[process]
        parts = [part for part in _slices(own, self.parts) if part]
        if not parts:
            parts, weights = [positions[:1]], [0.0]
        else:
            weights = [len(part) / len(positions) for part in parts]
        return Share(tuple(tuple(part) for part in parts), tuple(weights))


def _slices(items: Sequence[int], count: int) -> list[Sequence[int]]:
    size, extra = divmod(len(items), count)
    bounds = [number * size + min(number, extra) for number in range(count + 1)]
    return [items[start:stop] for start, stop in itertools.pairwise(bounds)]
