"""Data sets of other libraries: the Hugging Face Hub's, torchvision's, and those that are streams."""

import copy
import os
from collections.abc import Iterator
from typing import Any

from eca_zoo.errors import InputError
from eca_zoo.harness.data.images import EncodedImage, Images, digest


class DatasetsLibraryImages(Images):
    """A data set of the Hugging Face Hub's library with random access (``hfds/``), through timm's reader."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        if not reader.remap_class and reader.class_to_idx:
            self.class_names = tuple(sorted(reader.class_to_idx, key=reader.class_to_idx.get))

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
        classes = getattr(dataset, 'wnids', None) or getattr(dataset, 'classes', None)
        self.num_classes = len(classes) if classes is not None else None
        if classes is not None and all(isinstance(known, str) for known in classes):
            self.class_names = tuple(classes)

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
