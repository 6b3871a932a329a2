"""The kinds of data sets that can be read, by the prefix of ``--dataset``; those of libraries through timm's readers.

Another kind is one more ``DataKind`` in ``KINDS``: the help of the command and the documentation derive from it.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eca_zoo.errors import InputError
from eca_zoo.harness.data.archives import ShardImages, TarImages
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.folders import FolderImages, split_folder
from eca_zoo.harness.data.images import Images
from eca_zoo.harness.data.libraries import DatasetsLibraryImages, StreamedImages, TorchImages
from eca_zoo.harness.data.listing import Listing

ClassMap = Mapping[str, int]
_TORCHVISIONS_FOLDERS = ('folder', 'image_folder')


@dataclass(frozen=True)
class DataKind:
    """A kind of data set.

    Attributes:
        prefix: of ``--dataset``, such as ``hfds`` for ``hfds/ORG/NAME``; empty for a folder or a tar.
        meaning: what it is.
        example: how it is named on the command line.
        package: that has to be installed for it.
        open: from what was asked for, the class map, and what makes timm's data set, to the images.
        keys: fields of ``DataSpec`` that it takes, of those that not every kind does.
    """

    prefix: str
    meaning: str
    example: str
    package: str
    open: Callable[[DataSpec, ClassMap | None, Callable[[], Any]], Images]
    keys: tuple[str, ...] = ('input_key', 'target_key', 'class_map')


def _stream(spec: DataSpec, class_map: ClassMap | None, timms: Callable[[], Any]) -> Images:
    return StreamedImages(timms(), spec.dataset, spec.split)


def _shards(spec: DataSpec, class_map: ClassMap | None, timms: Callable[[], Any]) -> Images:
    """Shards on disk have random access; others are a stream."""
    reader = timms().reader
    paths = [os.path.join(reader.root, name) for name in reader.split_info.filenames]
    if all(os.path.isfile(path) for path in paths):
        return ShardImages([Path(path) for path in paths], reader, spec.target_key)
    return _stream(spec, class_map, timms)


def _folder(spec: DataSpec, class_map: ClassMap | None, timms: Callable[[], Any]) -> Images:
    assert spec.root is not None
    return FolderImages(split_folder(spec.root, spec.split), Listing(str(spec.root), spec.input_key), spec, class_map)


def _tar(spec: DataSpec, class_map: ClassMap | None, timms: Callable[[], Any]) -> Images:
    return TarImages(Listing(str(spec.root), spec.input_key), spec, class_map)


def _torchvisions(spec: DataSpec, class_map: ClassMap | None, timms: Callable[[], Any]) -> Images:
    if spec.dataset.rpartition('/')[2].lower() not in _TORCHVISIONS_FOLDERS:
        if spec.class_map is not None or spec.input_key is not None:
            raise InputError(f'{spec.dataset}: it takes no --class-map and no --input-key; leave them out')
        return TorchImages(timms(), spec.dataset, spec.split)
    if spec.root is None or not spec.root.is_dir():
        raise InputError(f'{spec.root or spec.dataset}: there is no such folder; name it with --data-dir')
    from torchvision.datasets.folder import IMG_EXTENSIONS

    # Its classes are the first folders, in the order of their letters.
    folder = split_folder(spec.root, spec.split)
    listing = Listing(str(spec.root), spec.input_key or ';'.join(IMG_EXTENSIONS))
    spec = dataclasses.replace(spec, class_level='top')
    return FolderImages(folder, listing, spec, class_map, class_order=str)


_FOLDER = DataKind(
    '',
    'folder with one folder a class',
    '--data-dir DIR',
    'timm',
    _folder,
    ('input_key', 'class_map', 'class_level', 'sets'),
)
_TAR = DataKind(
    '', 'tar of such a folder, or of one tar a class', '--data-dir FILE.tar', 'timm', _tar, _FOLDER.keys
)  # fmt: skip
KINDS = {
    kind.prefix: kind
    for kind in (
        DataKind(
            'hfds',
            'data set of the Hugging Face Hub, downloaded',
            '--dataset hfds/ORG/NAME',
            'datasets',
            lambda spec, class_map, timms: DatasetsLibraryImages(timms().reader),
        ),
        DataKind('hfids', 'the same, streamed', '--dataset hfids/ORG/NAME --num-samples N', 'datasets', _stream),
        DataKind(
            'wds',
            'WebDataset shards',
            "--dataset wds/NAME --data-dir DIR --split 'shards-{000..063}.tar'",
            'webdataset',
            _shards,
        ),
        DataKind('tfds', 'TensorFlow data set, streamed', '--dataset tfds/NAME', 'tensorflow-datasets', _stream),
        DataKind(
            'torch',
            "torchvision's data set",
            '--dataset torch/imagenet --data-dir DIR',
            'torchvision',
            _torchvisions,
            keys=('input_key', 'class_map'),
        ),
    )
}


def kind_of(spec: DataSpec) -> DataKind:
    """The kind of data set that ``spec`` names.

    Raises:
        InputError: there is no such kind.
    """
    prefix, slash, _ = spec.dataset.partition('/')
    if not slash:
        return _TAR if spec.root is not None and spec.root.is_file() else _FOLDER
    kind = KINDS.get(prefix.lower())
    if kind is None:
        raise InputError(f'dataset {spec.dataset!r}: there is no kind {prefix}/; use {prefixes()}, or name a folder')
    return kind


def prefixes() -> str:
    """The prefixes as a text, for help and messages."""
    names = [f'{prefix}/' for prefix in KINDS]
    return f'{", ".join(names[:-1])} or {names[-1]}'


def kinds_as_markdown() -> str:
    """The kinds as a Markdown table."""
    lines = ['| what it is | how it is named | needs | |', '|---|---|---|---|']
    for kind in (_FOLDER, _TAR, *KINDS.values()):
        access = 'read in one go: one process, no continuing' if kind.open is _stream else ''
        lines.append(f'| {kind.meaning} | `{kind.example}` | `{kind.package}` | {access} |')
    return '\n'.join(lines)
