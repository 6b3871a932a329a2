"""Layouts of sixty digits that timm reads too: how each is made, and what is asked for beside its folder or tar."""

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from eca_zoo.harness.data.data_spec import DataSpec
from tests.harness.image_sets import (
    add_file,
    digits,
    encoded,
    write_folder,
    write_named,
    write_shards,
    write_tar,
    write_tar_of_tars,
)


def plain(root: Path) -> Path:
    return write_named(root, lambda index, label: f'{label}/{index:04d}.png')


def twice(path: Path) -> Path:
    """A tar that was added to a second time."""
    with tarfile.open(path, 'w') as tar:
        for _ in range(2):
            for index, (image, label) in enumerate(digits()):
                add_file(tar, f'{label}/{index:04d}.png', encoded(image))
    return path


def looping(root: Path) -> Path:
    plain(root)
    (root / '3' / 'again').symlink_to('..')
    return root


def half_webp(root: Path) -> Path:
    for index, (image, label) in enumerate(digits()):
        path = root / str(label) / f'{index:04d}.{"png" if index % 2 else "webp"}'
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, lossless=True)
    return root


class Layout(NamedTuple):
    """A layout that timm reads too: how it is made, what is asked for beside its root, and the images of timm."""

    make: Callable[[Path], Path]
    asked: dict[str, Any] = {}  # noqa: RUF012
    images_of_timm: int = 60


def without_two(root: Path) -> Path:
    shutil.rmtree(plain(root) / '2')
    return root


LAYOUTS = {
    'plain': Layout(plain),
    'split': Layout(write_folder),
    'tar': Layout(lambda path: write_tar(path.with_suffix('.tar'))),
    'unique leaves': Layout(lambda root: write_named(root, lambda index, label: f'{label % 3}/{label}/{index}.png')),
    'tar of tars': Layout(lambda path: write_tar_of_tars(path.with_suffix('.tar'), lambda index, _: f'{index}.png')),
    'tar of tars with folders': Layout(
        lambda path: write_tar_of_tars(path.with_suffix('.tar'), lambda index, label: f'a/{label}/{index:04d}.png')
    ),
    'a loop': Layout(looping, images_of_timm=2460),
    'each member twice': Layout(lambda path: twice(path.with_suffix('.tar')), images_of_timm=120),
    'two formats': Layout(half_webp, {'input_key': '.png;.webp'}),
    'shards': Layout(write_shards, {'dataset': 'wds/digits', 'split': 'digits-{00..02}.tar|60'}),
    'part of the classes': Layout(without_two, {'class_map': '0 1  3 4 5 6 7 8 9'}, 53),
}


def laid_out(layout: Layout, folder: Path) -> DataSpec:
    """Make a layout in a folder; returns how it is named."""
    asked = dict(layout.asked)
    if 'class_map' in asked:
        path = folder / 'classes.txt'
        path.write_text(asked['class_map'].replace(' ', '\n') + '\n')
        asked['class_map'] = path
    return DataSpec(root=layout.make(folder / 'digits'), **asked)
