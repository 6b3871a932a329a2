"""The kinds of data sets that can be read, by the prefix of ``--dataset``; each is opened through timm's reader.

Another kind is one more ``DataKind`` in ``KINDS``: the help of the command and the documentation derive from it.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eca_zoo.errors import InputError
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.folders import ReaderImages
from eca_zoo.harness.data.images import Images
from eca_zoo.harness.data.libraries import DatasetsLibraryImages, StreamedImages, TorchImages
from eca_zoo.harness.data.shards import ShardImages


@dataclass(frozen=True)
class DataKind:
    """A kind of data set.

    Attributes:
        prefix: of ``--dataset``, such as ``hfds`` for ``hfds/ORG/NAME``; empty for a folder or a tar.
        meaning: what it is.
        example: how it is named on the command line.
        package: that has to be installed for it.
        open: from what was asked for and timm's data set to the images.
        keys: fields of ``DataSpec`` that its reader takes.
        options: further arguments of its reader.
    """

    prefix: str
    meaning: str
    example: str
    package: str
    open: Callable[[DataSpec, Any], Images]
    keys: tuple[str, ...] = ('input_key', 'target_key', 'class_map')
    options: Mapping[str, Any] = field(default_factory=dict)


def _stream(spec: DataSpec, dataset: Any) -> Images:
    return StreamedImages(dataset, spec.dataset, spec.split)


def _shards(spec: DataSpec, dataset: Any) -> Images:
    """Shards on disk have random access; others are a stream."""
    reader = dataset.reader
    paths = [os.path.join(reader.root, name) for name in reader.split_info.filenames]
    if all(os.path.isfile(path) for path in paths):
        return ShardImages([Path(path) for path in paths], reader, spec.target_key)
    return _stream(spec, dataset)


def _folder_or_tar(spec: DataSpec, dataset: Any) -> Images:
    return ReaderImages(dataset.reader)


_FOLDER = DataKind(
    '', 'folder with one folder a class', '--data-dir DIR', 'timm', _folder_or_tar, ('input_key', 'class_map')
)
# timm would keep an index of the tar as a pickle beside it.
_TAR = DataKind(
    '', 'tar of such a folder', '--data-dir FILE.tar', 'timm', _folder_or_tar, ('class_map',), {'cache_tarinfo': False}
)
KINDS = {
    kind.prefix: kind
    for kind in (
        DataKind(
            'hfds',
            'data set of the Hugging Face Hub, downloaded',
            '--dataset hfds/ORG/NAME',
            'datasets',
            lambda spec, dataset: DatasetsLibraryImages(dataset.reader),
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
            lambda spec, dataset: TorchImages(dataset, spec.dataset, spec.split),
            keys=(),
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
