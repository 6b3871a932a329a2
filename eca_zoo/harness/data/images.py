"""Encoded images with their labels and names, whatever kind of data set they come from."""

import copy
import hashlib
import io
import os
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eca_zoo.errors import InputError
from eca_zoo.harness.data.ground_truth import Label, read_ground_truth


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
    """

    class_names: tuple[str, ...] | None = None
    num_classes: int | None = None
    is_stream = False

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


def read_extent(path: str | os.PathLike[str], offset: int, size: int) -> io.BytesIO:
    """``size`` bytes of a file from ``offset`` on.

    Raises:
        OSError: they are not all there.
    """
    with open(path, 'rb') as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) < size:
        raise OSError(f'the file ends after {len(content)} of its {size} bytes')
    return io.BytesIO(content)


def check_plain(member: tarfile.TarInfo, path: str | os.PathLike[str]) -> None:
    """Refuse a file that does not lie in one piece in the tar ``path``.

    Raises:
        InputError: it was stored without its holes.
    """
    if member.issparse():
        raise InputError(f'{path}: {member.name} is stored as a sparse file; pack the tar again without --sparse')


class ReaderImages(Images):
    """A folder or a tar, as timm's reader lists it; of a tar, images are read from where the reader found them.

    The reader would keep the tar open.
    """

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._is_tar = not hasattr(reader, 'class_to_idx')
        if self._is_tar:
            for member, _, around in reader.samples:
                check_plain(member, reader.root)
                if around is not None:
                    check_plain(around, reader.root)
        class_to_idx = reader.class_name_to_idx if self._is_tar else reader.class_to_idx
        self.class_names = tuple(sorted(class_to_idx, key=lambda name: class_to_idx[name]))
        targets: Iterable[int] = reader.targets if self._is_tar else (target for _, target in reader.samples)
        self._labels = [int(target) for target in targets]

    def __len__(self) -> int:
        return len(self._labels)

    def open(self, position: int) -> EncodedImage:
        source = self._read_member(position) if self._is_tar else self._reader[position][0]
        return EncodedImage(source, self._labels[position])

    def _read_member(self, position: int) -> io.BytesIO:
        """An image of the tar, or of a tar in it."""
        member, _, around = self._reader.samples[position]
        start = around.offset_data if around is not None else 0
        return read_extent(self._reader.root, start + member.offset_data, member.size)

    def names(self) -> list[str]:
        return self._reader.filenames()

    def name(self, position: int) -> str:
        name = self._reader.filename(position)
        return f'{self._reader.root}:{name}' if self._is_tar else os.path.join(self._reader.root, name)

    def fingerprint(self) -> str:
        if self._is_tar:
            sizes = [sample[0].size for sample in self._reader.samples]
        else:
            sizes = [os.stat(path).st_size for path, _ in self._reader.samples]
        rows = zip(self.names(), sizes, self._labels, strict=True)
        return digest(f'{name}\t{size}\t{label}' for name, size, label in rows)

    def relabel(self, ground_truth: Path) -> tuple[str, ...] | None:
        labels = read_ground_truth(ground_truth, self.names())
        self._labels, self.class_names = number_labels(labels)
        return self.class_names

    def set_labels(self, labels: Sequence[int]) -> None:
        self._labels, self.class_names = list(labels), None


def number_labels(labels: Sequence[Label]) -> tuple[list[int], tuple[str, ...] | None]:
    """Labels as numbers with the class name of each number; class indices stay as they are, without names."""
    indices = [label for label in labels if isinstance(label, int)]
    if len(indices) == len(labels):
        return indices, None
    names = sorted({str(label) for label in labels})
    number = {name: index for index, name in enumerate(names)}
    return [number[str(label)] for label in labels], tuple(names)


class DatasetsLibraryImages(Images):
    """A data set of the Hugging Face Hub's library with random access (``hfds/``), through timm's reader."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        names = tuple(sorted(reader.class_to_idx, key=reader.class_to_idx.get))
        if not reader.remap_class and names:
            self.num_classes = len(names)
            if all(name[:1] == 'n' and name[1:].isdecimal() and len(name) == 9 for name in names):
                self.class_names = names

    def __len__(self) -> int:
        return len(self._reader)

    def open(self, position: int) -> EncodedImage:
        source, target = self._reader[position]
        return EncodedImage(source, -1 if target is None else int(target))

    def names(self) -> list[str]:
        key = self._reader.image_key
        paths = self._reader.dataset.select_columns([key]).flatten().select_columns([f'{key}.path'])[f'{key}.path']
        return [path or f'image {position}' for position, path in enumerate(paths)]

    def name(self, position: int) -> str:
        path = self._reader.dataset[position][self._reader.image_key]['path']
        return f'image {position}' + (f' ({path})' if path else '')

    def fingerprint(self) -> str:
        import pyarrow.compute

        key = self._reader.image_key
        table = self._reader.dataset.select_columns([key]).flatten().with_format('arrow')[:]
        sizes = pyarrow.compute.binary_length(table[f'{key}.bytes']).to_pylist()
        rows = zip(self.names(), sizes, self._reader.iter_targets(), strict=True)
        return digest(f'{name}\t{size}\t{target}' for name, size, target in rows)


class TorchImages(Images):
    """A data set of torchvision (``torch/``)."""

    def __init__(self, dataset: Any, name: str, split: str) -> None:
        self._dataset, self._name = dataset, f'{name}[{split}]'
        self.num_classes = len(dataset.classes) if hasattr(dataset, 'classes') else None
        class_to_idx = getattr(dataset, 'class_to_idx', {})
        if name.endswith('folder'):
            self.class_names = tuple(sorted(class_to_idx, key=lambda name: class_to_idx[name]))

    def __len__(self) -> int:
        return len(self._dataset)

    def open(self, position: int) -> EncodedImage:
        image, label = self._dataset[position]
        return EncodedImage(image, int(label))

    def names(self) -> list[str]:
        samples = getattr(self._dataset, 'samples', None)
        if samples is not None:
            return [os.path.relpath(path, self._dataset.root) for path, _ in samples]
        return [f'{self._name}:{position}' for position in range(len(self))]

    def fingerprint(self) -> str:
        targets = getattr(self._dataset, 'targets', None)
        labels = [int(target) for target in targets] if targets is not None else [-1] * len(self)
        return digest(f'{name}\t{label}' for name, label in zip(self.names(), labels, strict=True))


class StreamedImages(Images):
    """A data set that can only be read in one go, in an order that its reader decides: no shards, no resuming.

    timm's readers open their pipeline for the process and worker that reads first and keep it; so the reader that is
    kept here never reads, and each stream has a copy.
    """

    is_stream = True

    def __init__(self, dataset: Any, name: str, split: str) -> None:
        self._dataset, self._name = dataset, f'{name}[{split}]'

    def __len__(self) -> int:
        return len(self._dataset)

    def open(self, position: int) -> EncodedImage:
        raise TypeError('a stream has no random access')

    def stream(self, num_workers: int) -> Iterator[tuple[Any, int]]:
        """Pillow images with their labels; in a loader's worker, that worker's part."""
        dataset = copy.copy(self._dataset)
        dataset.reader = copy.copy(self._dataset.reader)
        dataset.set_loader_cfg(num_workers=num_workers)
        yield from dataset

    def names(self) -> list[str]:
        raise InputError(f'{self._name}: a streamed data set has no file names; leave out --real-labels')

    def name(self, position: int) -> str:
        return f'{self._name}:{position}'

    def fingerprint(self) -> str:
        return digest([self._name, str(len(self))])
