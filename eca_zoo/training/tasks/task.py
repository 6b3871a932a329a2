"""What is trained: where its images come from, its loss, its validation. The loop knows nothing else of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from eca_zoo.harness.data.images import BadImage
from eca_zoo.harness.resume.signals import StopRequest

#: From the epoch and positions in the data set to a part of a step, in a process that decodes images. It calls
#: ``seed_sample`` before it draws anything for an image, and is safe to be copied by a fork.
Reader = Callable[[int, tuple[int, ...]], Any]


class Task(ABC):
    """A network with its data; a subclass for each kind of network.

    Attributes:
        title: of the network, for messages and tables.
        network: with its first weights, on its device.
        group: of ``torch.distributed``, in which gradients are exchanged; None for the default one.
        metric: column of ``validate`` that decides which weights are the best; the larger the better.
        columns: of the log that ``validate`` fills, those of averaged weights with ``ema_`` before them; without any,
            all that it returns come after the others.
    """

    title: str
    network: nn.Module
    metric: str
    columns: tuple[str, ...] = ()
    group: Any = None

    @abstractmethod
    def __len__(self) -> int:
        """Number of training images."""

    @abstractmethod
    def reader(self) -> Reader:
        """What reads the images."""

    @abstractmethod
    def loss(self, network: nn.Module, part: Any, epoch: int) -> torch.Tensor:
        """The mean loss over the images of ``part``, a scalar.

        Args:
            network: to be called, and called once: ``self.network``, or what exchanges its gradients with other
                processes.
            part: what the reader made, on the CPU.
            epoch: from 0.
        """

    @abstractmethod
    def validate(self, network: nn.Module, stop: StopRequest) -> dict[str, Any]:
        """Figures of ``network`` on the validation data by name; all processes call it, and all get the same.

        Raises:
            InterruptedRunError: ``stop`` was set.
        """

    @abstractmethod
    def names(self, positions: Sequence[int]) -> list[str]:
        """What messages call the images at ``positions``."""

    @abstractmethod
    def fingerprints(self) -> dict[str, Any]:
        """JSON values that fix the data."""

    def kinds(self) -> torch.Tensor:
        """(N,) int64: images of one kind are brought together where a recipe says so; here all are of one."""
        return torch.zeros(len(self), dtype=torch.int64)

    def bad_images(self, part: Any) -> list[BadImage]:
        """Images of ``part`` that could not be decoded."""
        return []
