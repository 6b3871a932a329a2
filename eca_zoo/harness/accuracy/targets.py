"""What is right for each image of a batch: its class, its ReaL labels, and the classes that results are about."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch

from eca_zoo.errors import InputError
from eca_zoo.harness.data.batches import Batch
from eca_zoo.harness.data.datasets import OpenData

_PAD = -1


class Classified(Protocol):
    """A model, as far as labels are concerned; see ``passes.NetworkInPass``."""

    title: str
    class_indices: torch.Tensor
    valid: tuple[int, ...] | None


class TargetsOnDevice(NamedTuple):
    """Of a batch, for one model, on the device.

    Attributes:
        targets: (N,) index of each image's class among the logits that count.
        right: (N,) the same, or (N, L) indices of all right classes, padded with -1.
        classes: (K,) class indices of the logits that count; None for all.
        counted: (N,) which images count; None for all.
    """

    targets: torch.Tensor
    right: torch.Tensor
    classes: torch.Tensor | None
    counted: torch.Tensor | None


class Targets:
    """The labels of a data set for several models: looked at on the CPU, where they come from, counted on the device.

    To look at anything on the device would be to wait for it, at every batch and model.
    """

    def __init__(self, data: OpenData, members: Sequence[Classified], device: torch.device) -> None:
        self._data, self._device = data, device
        self._real = _padded(data.real_labels) if data.real_labels is not None else None
        self._real_on_device = self._real.to(device) if self._real is not None else None
        self._known = {member.title: member.class_indices.to(device) for member in members}
        indices = [member.class_indices for member in members]
        most = max([int(classes.max()) + 1 for classes in indices if len(classes)], default=0)
        if self._real is not None:
            most = max(most, int(self._real.max()) + 1)
        self._places = {member.valid: _places(member.valid, most) for member in members}
        self._valid_on_device = {
            valid: (torch.tensor(valid, device=device), places.to(device))
            for valid, places in self._places.items()
            if valid is not None and places is not None
        }

    def counted(self, batch: Batch) -> torch.Tensor | None:
        """(N,) on the CPU: which images have a ReaL label; None where all count."""
        return None if self._real is None else (self._real[batch.positions] != _PAD).any(dim=1)

    def check(self, member: Classified, batch: Batch) -> None:
        """Refuse labels that are no class of a model, or none of those that results are restricted to.

        Raises:
            InputError: an image has such a label; the text names it.
        """
        known, labels, counted = member.class_indices, batch.labels, self.counted(batch)
        wrong = (labels < 0) | (labels >= len(known))
        wrong = wrong if counted is None else wrong & counted
        if bool(wrong.any()):
            index = int(wrong.nonzero()[0])
            raise InputError(
                f'{self._name(batch, index)}: its label {int(labels[index])} is none of the {len(known)} classes of '
                f'{member.title}; name the data set that the model was made for'
            )
        places = self._places[member.valid]
        if places is not None:
            absent = places[self.classes(member, batch)] == _PAD
            absent = absent if counted is None else absent & counted
            if bool(absent.any()):
                name = self._name(batch, int(absent.nonzero()[0]))
                raise InputError(f'{name}: its class is not among the valid labels; leave out --valid-labels')

    def classes(self, member: Classified, batch: Batch) -> torch.Tensor:
        """(N,) on the CPU: the class index of each image; of one that does not count, any."""
        return _looked_up(member.class_indices, batch.labels)

    def on_device(self, member: Classified, indices: torch.Tensor) -> TargetsOnDevice:
        """What is right for the images of a batch.

        Args:
            member: the model; its labels were checked.
            indices: (2, N) positions and labels, on the device.
        """
        positions, labels = indices
        targets = right = _looked_up(self._known[member.title], labels)
        counted = None
        if self._real_on_device is not None:
            right = self._real_on_device[positions]
            counted = (right != _PAD).any(dim=1)
        if member.valid is None:
            return TargetsOnDevice(targets, right, None, counted)
        classes, places = self._valid_on_device[member.valid]
        return TargetsOnDevice(places[targets], places[right], classes, counted)

    def _name(self, batch: Batch, index: int) -> str:
        return self._data.images.name(int(batch.positions[index]))


def _looked_up(known: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    # Only an image that does not count may have another label.
    return known[labels.clamp(0, len(known) - 1)]


def _padded(labels: list[list[int]]) -> torch.Tensor:
    width = max(map(len, labels), default=1) or 1
    return torch.tensor([row + [_PAD] * (width - len(row)) for row in labels])


def _places(classes: tuple[int, ...] | None, num_classes: int) -> torch.Tensor | None:
    """The place of each class index among ``classes``; -1 where it has none, and at the end, where index -1 looks."""
    if classes is None:
        return None
    places = torch.full((max(num_classes, *classes, 0) + 2,), _PAD)
    places[list(classes)] = torch.arange(len(classes))
    return places
