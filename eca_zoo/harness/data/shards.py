"""WebDataset shards on disk, indexed once, so that they can be read at any position like a folder."""

import json
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

from eca_zoo.errors import InputError
from eca_zoo.harness.data.archives import check_plain, read_extent
from eca_zoo.harness.data.images import EncodedImage, Images, digest


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
            paths: tar files.
            reader: timm's reader of the data set, for its keys and class map.
            target_key: field of the JSON file of a sample with its label; by default its ``cls`` file.

        Raises:
            InputError: a shard is damaged, or a sample has no image or label.
        """
        self._paths = paths
        self._image_keys = reader.input_key.split(';')
        self._label_key = target_key or reader.split_info.alt_label
        self._class_map = reader.class_to_idx if reader.remap_class else None
        self._samples = [sample for shard in range(len(paths)) for sample in self._index(shard)]
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

    def _index(self, shard: int) -> list[_Sample]:
        path = self._paths[shard]
        members: dict[str, dict[str, tarfile.TarInfo]] = {}
        try:
            with tarfile.open(path, 'r:') as tar:
                for member in tar:
                    folder, slash, base = member.name.rpartition('/')
                    key, dot, extension = base.partition('.')
                    if member.isfile() and dot:
                        members.setdefault(folder + slash + key, {})[extension.lower()] = member
                found = [self._sample(tar, shard, key, files) for key, files in members.items()]
        except (tarfile.TarError, OSError, ValueError, KeyError) as error:
            raise InputError(f'{path}: damaged WebDataset shard: {" ".join(str(error).split())}') from None
        return [sample for sample in found if sample is not None]

    def _sample(self, tar: tarfile.TarFile, shard: int, key: str, files: dict[str, tarfile.TarInfo]) -> _Sample | None:
        image = next((files[name] for name in self._image_keys if name in files), None)
        if image is None:
            raise InputError(
                f'{self._paths[shard]}: sample {key} has no image ({", ".join(self._image_keys)}) but '
                f'{", ".join(files)}; name its extension with --input-key'
            )
        check_plain(image, self._paths[shard])
        wanted = 'json' if self._label_key else 'cls'
        if wanted not in files:
            raise InputError(f'{self._paths[shard]}: sample {key} has no {wanted} file with its label')
        content = tar.extractfile(files[wanted])
        assert content is not None
        text = content.read()
        label: Any = json.loads(text)[self._label_key] if self._label_key else int(text)
        if self._class_map is not None:
            label = self._class_map[label]
        # Images that a split leaves out have the label -1 in it.
        return _Sample(shard, key, image.offset_data, image.size, int(label)) if int(label) >= 0 else None
