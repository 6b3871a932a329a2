"""Data sets for tests, made from scikit-learn's handwritten digits: real images, real labels, many forms."""

import functools
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

MODEL = 'test_eca_resnet.digits'


@functools.lru_cache(maxsize=1)
def digits() -> list[tuple[Image.Image, int]]:
    """The first 60 digits as grey images with their values."""
    bunch = load_digits()
    grey = np.round(bunch.images[:60] * (255 / 16)).astype(np.uint8)
    return [(Image.fromarray(image), int(label)) for image, label in zip(grey, bunch.target[:60], strict=True)]


def encoded(image: Image.Image) -> bytes:
    """The image as PNG."""
    file = io.BytesIO()
    image.save(file, 'png')
    return file.getvalue()


def write_folder(root: Path, count: int = 60, names: list[str] | None = None) -> Path:
    """``count`` digits as ``root/validation/CLASS/NUMBER.png``; ``names`` of the ten classes in place of 0 to 9."""
    for index, (image, label) in enumerate(digits()[:count]):
        folder = root / 'validation' / (names[label] if names else str(label))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f'{index:04d}.png').write_bytes(encoded(image))
    return root


def write_named(root: Path, name_of: Callable[[int, int], str], count: int = 60) -> Path:
    """``count`` digits as PNG files below ``root``; ``name_of`` their number and value is the name of each."""
    for index, (image, label) in enumerate(digits()[:count]):
        path = root / name_of(index, label)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image))
    return root


def write_tar_of_tars(path: Path, name_of: Callable[[int, int], str], count: int = 60) -> Path:
    """``count`` digits in one tar a class, ``VALUE.tar``, in a tar; ``name_of`` as above, in the tar of the class."""
    with tarfile.open(path, 'w') as outer:
        for value in range(10):
            content = io.BytesIO()
            with tarfile.open(fileobj=content, mode='w') as inner:
                for index, (image, label) in enumerate(digits()[:count]):
                    if label == value:
                        add_file(inner, name_of(index, label), encoded(image))
            add_file(outer, f'{value}.tar', content.getvalue())
    return path


def write_tar(path: Path, count: int = 60) -> Path:
    """``count`` digits as ``CLASS/NUMBER.png`` in a tar."""
    with tarfile.open(path, 'w') as tar:
        for index, (image, label) in enumerate(digits()[:count]):
            add_file(tar, f'{label}/{index:04d}.png', encoded(image))
    return path


def write_shards(root: Path, count: int = 60, shards: int = 3) -> Path:
    """``count`` digits as WebDataset shards ``digits-00.tar`` and so on, of nearly equal length."""
    root.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with tarfile.open(root / f'digits-{shard:02d}.tar', 'w') as tar:
            for index in range(count * shard // shards, count * (shard + 1) // shards):
                image, label = digits()[index]
                add_file(tar, f'{index:04d}.png', encoded(image))
                add_file(tar, f'{index:04d}.cls', str(label).encode())
    return root


def add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to a tar."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
