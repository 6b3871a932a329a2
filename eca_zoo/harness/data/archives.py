"""Images in tars: class folders, a tar a class, WebDataset shards; read by place, so that no tar is kept open."""

import io
import json
import os
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from eca_zoo.errors import InputError, one_line
from eca_zoo.files import decode_text
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.images import EncodedImage, Images, digest
from eca_zoo.harness.data.listing import ListedImages, Listing, is_hidden

_CHUNK = 1 << 20
_Extent = tuple[int, int]  # offset and size in bytes


class TarContent(NamedTuple):
    """What a tar holds.

    Attributes:
        files: offset and size of each file by its name, without a leading slash or dot.
        folders: names of folders.
        repeated: names that occur again, of which the last one counts, as where a tar is unpacked.
        sparse: names of files that are stored without their holes.
        lost: names of other files that do not lie in it, such as links.
        remarks: warnings.
    """

    files: dict[str, _Extent]
    folders: list[str]
    repeated: list[str]
    sparse: list[str]
    lost: list[str]
    remarks: list[str]


def read_tar(path: Path, problem: str, unpack: bool = False) -> TarContent:
    """The content of a tar, from its headers.

    Args:
        path: the tar.
        problem: what a message says of a damaged one.
        unpack: list tars in it as folders of their names.

    Raises:
        InputError: it is damaged.
    """
    content = TarContent({}, [], [], [], [], [])
    try:
        with path.open('rb') as file:
            _read_members(file, content, '', 0, unpack)
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise InputError(f'{path}: {problem}: {one_line(error)}; pack or download it again') from None
    return content


def _read_members(file: BinaryIO, content: TarContent, prefix: str, start: int, unpack: bool) -> None:
    """Add what a tar holds that begins at the offset ``start`` of the outermost one."""
    with tarfile.open(fileobj=file, mode='r:') as tar:
        for member in tar:
            name = prefix + _clean(member.name)
            if member.isdir():
                content.folders.append(name)
            elif member.islnk():
                extent = content.files.get(prefix + _clean(member.linkname))
                _add(content, name, extent) if extent is not None else content.lost.append(name)
            elif not member.isfile():
                content.lost.append(name)
            elif member.issparse():
                content.sparse.append(name)
            elif unpack and name.lower().endswith('.tar') and not is_hidden(name):
                content.folders.append(name[:-4])
                inner: Any = tar.extractfile(member)
                _read_members(inner, content, f'{name[:-4]}/', start + member.offset_data, unpack)
            else:
                _add(content, name, (start + member.offset_data, member.size))
        _check_end(file, tar.offset, content, prefix.rstrip('/'))


def _add(content: TarContent, name: str, extent: _Extent) -> None:
    if name in content.files:
        content.repeated.append(name)
    content.files[name] = extent


def _clean(name: str) -> str:
    return posixpath.normpath(f'/{name}').lstrip('/')


def _check_end(file: BinaryIO, offset: int, content: TarContent, name: str) -> None:
    """Notice files that the headers do not lead to.

    Raises:
        tarfile.ReadError: there is no header where one must be.
    """
    where = f'the tar {name} in it' if name else 'it'
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if block.strip(b'\0'):
        raise tarfile.ReadError(f'no header at byte {offset}, after {len(content.files)} files')
    if len(block) < tarfile.BLOCKSIZE:
        content.remarks.append(f'{where} has no end mark: files that were written after that are missing')
    while chunk := file.read(_CHUNK):
        if chunk.strip(b'\0'):
            content.remarks.append(f'{where} goes on after its end mark, as tars do that were joined: that is not read')
            return


def _note(content: TarContent, path: Path, listing: Listing, folder: str = '') -> None:
    """Note in ``listing`` what does not count of a tar.

    Raises:
        InputError: an image is stored as a sparse file.
    """
    sparse = next((name for name in content.sparse if listing.takes(name)), None)
    if sparse is not None:
        raise InputError(f'{path}: {sparse} is stored as a sparse file; pack the tar again without --sparse')
    listing.repeated += [folder + name for name in content.repeated if listing.takes(name)]
    listing.lost += [folder + name for name in content.lost if listing.takes(name)]
    listing.remarks += [f'{folder.replace("/", ": ")}{remark}' for remark in content.remarks]


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


class TarImages(ListedImages):
    """A tar of class folders, or of one tar a class."""

    def __init__(self, listing: Listing, spec: DataSpec, class_map: Mapping[str, int] | None) -> None:
        assert spec.root is not None
        self._path = spec.root
        content = read_tar(self._path, 'cannot be opened', unpack=True)
        listing.images = [name for name in content.files if listing.takes(name)]
        listing.empty = _empty_folders(content)
        _note(content, self._path, listing)
        super().__init__(listing, spec, class_map)
        self._extents = [content.files[name] for name in self._names]

    def open(self, position: int) -> EncodedImage:
        return EncodedImage(read_extent(self._path, *self._extents[position]), self._labels[position])

    def name(self, position: int) -> str:
        return f'{self._path}:{self._names[position]}'

    def size(self, position: int) -> int:
        return self._extents[position][1]


def _empty_folders(content: TarContent) -> list[str]:
    used = {posixpath.dirname(name) for name in [*content.files, *content.folders, *content.lost]}
    return [folder for folder in content.folders if folder and folder not in used and not is_hidden(folder)]


class _Sample(NamedTuple):
    """Where an image lies: shard, key, and offset and size in bytes."""

    shard: int
    key: str
    offset: int
    size: int
    label: int


class ShardImages(Images):
    """Samples of WebDataset shards: files that share their name up to the first dot of the last part.

    timm's reader streams shards: it skips samples that it cannot read, and gives each worker whole shards. Here every
    sample has a position, so that shards are split between processes exactly and a broken image is named.
    """

    def __init__(self, paths: list[Path], reader: Any, target_key: str | None) -> None:
        """Read the headers of all shards.

        Args:
            paths: tar files; one that is named or linked to again counts once.
            reader: timm's reader of the data set, for its keys and class map.
            target_key: field of the JSON file of a sample with its label; by default its ``cls`` file.

        Raises:
            InputError: a shard is damaged, or a sample has no image or label.
        """
        self._image_keys = [key.strip().lower().lstrip('.') for key in reader.input_key.split(';')]
        self._label_key = target_key or reader.split_info.alt_label
        self._class_map = reader.class_to_idx if reader.remap_class else None
        listing = Listing(str(paths[0].parent), ';'.join(self._image_keys))
        self._paths: list[Path] = []
        seen: set[str] = set()
        for path in paths:
            if os.path.realpath(path) in seen:
                listing.repeated.append(path.name)
            else:
                self._paths.append(path)
            seen.add(os.path.realpath(path))
        self._samples = [sample for shard in range(len(self._paths)) for sample in self._index(shard, listing)]
        self.remarks = tuple(listing.warnings())
        declared = reader.num_samples
        if declared and declared != len(self._samples):
            raise InputError(
                f'{paths[0].parent}: its shards hold {len(self._samples)} images, {declared} were declared; complete '
                'the shards, or correct --num-samples, the split or _info.json'
            )

    def __len__(self) -> int:
        return len(self._samples)

    def open(self, position: int) -> EncodedImage:
        sample = self._samples[position]
        return EncodedImage(read_extent(self._paths[sample.shard], sample.offset, sample.size), sample.label)

    def names(self) -> list[str]:
        return [f'{self._paths[sample.shard].name}/{sample.key}' for sample in self._samples]

    def name(self, position: int) -> str:
        sample = self._samples[position]
        return f'{self._paths[sample.shard]}:{sample.key}'

    def fingerprint(self) -> str:
        return digest(
            f'{name}\t{sample.size}\t{sample.label}' for name, sample in zip(self.names(), self._samples, strict=True)
        )

    def _index(self, shard: int, listing: Listing) -> Iterator[_Sample]:
        path = self._paths[shard]
        content = read_tar(path, 'damaged WebDataset shard')
        _note(content, path, listing, f'{path.name}/')
        samples: dict[str, dict[str, _Extent]] = {}
        for name, extent in content.files.items():
            folder, slash, base = name.rpartition('/')
            key, dot, extension = base.partition('.')
            if is_hidden(name):
                listing.takes(name)
            elif dot:
                samples.setdefault(folder + slash + key, {})[extension.lower()] = extent
        with path.open('rb') as file:
            for key, files in samples.items():
                sample = self._sample(file, shard, key, files)
                if sample is not None:
                    yield sample

    def _sample(self, file: BinaryIO, shard: int, key: str, files: Mapping[str, _Extent]) -> _Sample | None:
        path = self._paths[shard]
        image = next((files[name] for name in self._image_keys if name in files), None)
        if image is None:
            raise InputError(
                f'{path}: sample {key} has no image ({", ".join(self._image_keys)}) but {", ".join(files)}; name its '
                'extension with --input-key'
            )
        wanted = 'json' if self._label_key else 'cls'
        if wanted not in files:
            raise InputError(f'{path}: sample {key} has no {wanted} file with its label')
        offset, size = files[wanted]
        file.seek(offset)
        try:
            text = decode_text(file.read(size))
            label: Any = json.loads(text)[self._label_key] if self._label_key else int(text)
            if self._class_map is not None:
                label = self._class_map[label]
            # Images that a split leaves out have the label -1 in it.
            return _Sample(shard, key, *image, int(label)) if int(label) >= 0 else None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f'{path}: sample {key}: its label cannot be read: {one_line(error)}') from None
