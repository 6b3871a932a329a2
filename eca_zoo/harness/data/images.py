"""Encoded images with their labels and names, whatever kind of data set they come from."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eca_zoo.errors import InputError


class BadImage(NamedTuple):
    """An image that could not be decoded: its name and why."""

    name: str
    reason: str


class EncodedImage(NamedTuple):
    """An image that is not decoded yet: a file-like object or a Pillow image, and its label (-1 if it has none)."""

    source: Any
    label: int


class Images(ABC):
    """A data set with random access; positions count from 0.

    Attributes:
        class_names: class of each label; None where labels are class indices already.
        num_classes: number of classes where it is known without names.
        is_stream: images can be read in one go alone, see ``StreamedImages``.
        remarks: what a user has to know of it, a line each: files that do not count, and why.
        empty_classes: class folders without images.
    """

    class_names: tuple[str, ...] | None = None
    num_classes: int | None = None
    is_stream = False
    remarks: tuple[str, ...] = ()
    empty_classes: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def open(self, position: int) -> EncodedImage:
        """The image at ``position``; what goes wrong in reading it is raised as it is.

        What it reads from is opened by this call or by this process: a file that was opened before a process was forked
        has one position for both, and each would read where the other one left it.
        """

    @abstractmethod
    def names(self) -> list[str]:
        """File names relative to the data set's root, or what stands for them, by position."""

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 over names, sizes and labels of all images: differs if the data set was changed."""

    def name(self, position: int) -> str:
        """What messages call the image at ``position``."""
        return self.names()[position]

    def relabel(self, ground_truth: Path) -> tuple[str, ...] | None:
        """Take the labels from a ground-truth file; returns the new class names, or None for class indices.

        Raises:
            InputError: the file does not fit, or this kind of data set has its own labels.
        """
        raise InputError(f'{ground_truth}: this data set has labels of its own; leave out --ground-truth')

    def set_labels(self, labels: Sequence[int]) -> None:
        """Replace the labels by class indices.

        Raises:
            InputError: this kind of data set has its own labels.
        """
        raise InputError('this data set has labels of its own')


def digest(lines: Iterable[str]) -> str:
    """SHA-256 of lines of text."""
    hasher = hashlib.sha256()
    for line in lines:
        hasher.update(line.encode('utf-8', 'surrogateescape') + b'\n')
    return hasher.hexdigest()
