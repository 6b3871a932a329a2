"""Images without labels: files and folders as a user names them, in their order, each once."""

import os
from collections.abc import Sequence
from pathlib import Path

from eca_zoo.errors import InputError
from eca_zoo.harness.data.images import EncodedImage, Images, digest
from eca_zoo.harness.data.labels import natural_key
from eca_zoo.harness.data.listing import extensions_of, is_hidden


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The files that ``paths`` stand for: themselves, and the images in and below folders, in natural order.

    A file that is named twice, or named and found in a folder, counts once.

    Raises:
        InputError: a path is not there, or a folder has no images.
    """
    extensions = extensions_of(None)
    found: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            names = [
                os.path.relpath(os.path.join(folder, file), path)
                for folder, _, files in os.walk(path, followlinks=False)
                for file in files
            ]
            kept = [name for name in names if name.lower().endswith(tuple(extensions)) and not is_hidden(name)]
            if not kept:
                raise InputError(f'{path}: there are no images ({" ".join(extensions)}) in it or below; name another')
            files = [path / name for name in sorted(kept, key=lambda name: (natural_key(name), name))]
        elif path.exists():
            files = [path]
        else:
            raise InputError(f'{path}: there is no such file or folder')
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


class ImageFiles(Images):
    """Files without labels."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = list(files)

    def __len__(self) -> int:
        return len(self._files)

    def open(self, position: int) -> EncodedImage:
        return EncodedImage(self._files[position].open('rb'), -1)

    def names(self) -> list[str]:
        return [str(file) for file in self._files]

    def fingerprint(self) -> str:
        return digest(f'{file}\t{file.stat().st_size}' for file in self._files)
