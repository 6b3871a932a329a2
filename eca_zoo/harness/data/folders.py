"""Images in class folders."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eca_zoo.errors import InputError
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.images import EncodedImage
from eca_zoo.harness.data.listing import ListedImages, Listing, class_of, is_hidden, is_image

_TRAINING = ('train', 'training')
_EVALUATION = ('val', 'valid', 'validation', 'eval', 'evaluation')


def split_folder(root: Path, split: str) -> Path:
    """The folder of a split below ``root``, by its name or, as in timm, one that means the same; else ``root``."""
    name = split.split('[')[0]
    same = next((names for names in (_TRAINING, _EVALUATION) if name in names), ())
    return next((root / folder for folder in (name, *same) if folder and (root / folder).is_dir()), root)


class FolderImages(ListedImages):
    """A folder, listed as timm's reader lists it where that reads every image once."""

    def __init__(
        self, root: Path, listing: Listing, spec: DataSpec, class_map: Mapping[str, int] | None, **options: Any
    ) -> None:
        self._root = str(root)
        _Walk(self._root, listing, spec.class_level).run()
        super().__init__(listing, spec, class_map, **options)

    def open(self, position: int) -> EncodedImage:
        return EncodedImage(open(self.name(position), 'rb'), self._labels[position])

    def name(self, position: int) -> str:
        return os.path.join(self._root, self._names[position])

    def size(self, position: int) -> int:
        try:
            return os.stat(self.name(position)).st_size
        except OSError:
            return -1


class _Walk:
    """Lists a folder and all below it, links included; each real folder and each real file once."""

    def __init__(self, root: str, listing: Listing, level: str | None) -> None:
        self._root, self._listing, self._level = root, listing, level
        self._real: dict[str, str] = {}  # name of each folder by its real path
        self._linked: set[str] = set()  # real paths of those that a link led to
        self._with_images: set[str] = set()  # and of those with images
        self._folder_links: list[tuple[str, str]] = []  # names of links, and real paths of the folders that they lie in
        self._file_links: list[str] = []
        self._files: dict[str, str] = {}  # the real folder of each folder's name

    def run(self) -> None:
        self._walk('', os.path.realpath(self._root), False)
        # What a folder holds itself comes before what links lead to.
        for name, folder in self._folder_links:  # grows meanwhile
            self._follow(name, folder)
        self._read_file_links()

    def _walk(self, name: str, real: str, linked: bool) -> None:
        waiting = [(name, real)]
        while waiting:
            folder, real = waiting.pop()
            if real in self._real:
                self._repeat(folder, real)
                continue
            self._real[real], self._files[folder] = folder, real
            if linked:
                self._linked.add(real)
            waiting += self._read(folder, real)

    def _read(self, folder: str, real: str) -> list[tuple[str, str]]:
        """Note the files of one folder; returns the folders in it, with their real paths."""
        path = os.path.join(self._root, folder)
        inner: list[tuple[str, str]] = []
        before = len(self._listing.images), len(self._folder_links), len(self._file_links)
        try:
            with os.scandir(path) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    name = f'{folder}/{entry.name}' if folder else entry.name
                    if is_hidden(entry.name):
                        self._hide(name, entry)
                    elif entry.is_dir(follow_symlinks=False):
                        inner.append((name, f'{real.rstrip("/")}/{entry.name}'))
                    elif _links_to_folder(entry):
                        self._folder_links.append((name, real))
                    elif self._listing.takes(name):
                        self._add(name, entry)
        except OSError as error:
            raise InputError(f'{path}: cannot be read: {error.strerror}; allow it, or move it away') from None
        after = len(self._listing.images), len(self._folder_links), len(self._file_links)
        if after[0] > before[0]:
            self._with_images.add(real)
        if folder and not inner and after == before:
            self._listing.empty.append(folder)
        return inner

    def _add(self, name: str, entry: os.DirEntry) -> None:
        if entry.is_symlink():
            self._file_links.append(name)
        elif entry.is_file():
            self._listing.images.append(name)
        else:
            # A pipe would keep its reader waiting.
            self._listing.lost.append(name)

    def _hide(self, name: str, entry: os.DirEntry) -> None:
        if not entry.is_dir(follow_symlinks=False):
            self._listing.takes(name)
        elif any(is_image(file) for _, _, files in os.walk(entry.path) for file in files):
            self._listing.hidden.append(name)

    def _follow(self, name: str, folder: str) -> None:
        real = os.path.realpath(os.path.join(self._root, name))
        if f'{folder}/'.startswith(f'{real.rstrip("/")}/'):
            self._listing.repeated.append(name)
        else:
            self._walk(name, real, True)

    def _repeat(self, name: str, real: str) -> None:
        """Leave out a folder that was listed under another name."""
        first = self._real[real]
        self._listing.repeated.append(name)
        if real in self._linked and real in self._with_images:
            self._check_same_class(f'{first}/', f'{name}/')

    def _read_file_links(self) -> None:
        if not self._file_links:
            return
        seen = {}
        for name in self._listing.images:
            folder, _, file = name.rpartition('/')
            seen[f'{self._files[folder].rstrip("/")}/{file}'] = ''
        for name in sorted(self._file_links):
            real = os.path.realpath(os.path.join(self._root, name))
            first = seen.setdefault(real, name)
            if os.path.exists(real) and not os.path.isfile(real):
                self._listing.lost.append(name)
            elif first == name:
                # Also if it leads nowhere: reading it will say so.
                self._listing.images.append(name)
            else:
                self._listing.repeated.append(name)
                if first:
                    self._check_same_class(first, name)

    def _check_same_class(self, first: str, second: str) -> None:
        if class_of(first, self._level) != class_of(second, self._level):
            raise InputError(
                f'{self._listing.where}: {first.rstrip("/")} and {second.rstrip("/")} are links to the same images, '
                'which have one class; remove one of them'
            )


def _links_to_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:  # a link to itself, or into what may not be read
        return False
