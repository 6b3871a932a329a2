"""Images in class folders or in a tar of them."""

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from eca_zoo.harness.data.archives import check_plain, read_extent
from eca_zoo.harness.data.ground_truth import Label, read_ground_truth
from eca_zoo.harness.data.images import EncodedImage, Images, digest


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
