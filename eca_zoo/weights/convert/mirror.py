"""A mirror: a folder of checkpoints for a web server, with the manifest that sends users to it."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from eca_zoo.errors import InputError
from eca_zoo.files import lock, write_atomically
from eca_zoo.weights.manifest import Entry, Manifest, Source, dump_manifest, is_absent, read_manifest

MANIFEST = 'weights_manifest.yaml'


def mirror_source(url: str, name: str) -> Source:
    """Where a mirror at ``url`` has the weights of ``name``.

    Raises:
        InputError: it is no https, http or file URL.
    """
    try:
        return Source(url=f'{url.rstrip("/")}/{name}/model.safetensors')
    except ValueError as error:
        raise InputError(f'--mirror-url: {error}') from None


def write_mirror_manifest(folder: Path, entries: Mapping[str, Entry], url: str) -> Path:
    """Write the manifest of a mirror, for ``ECA_ZOO_MANIFEST``; entries that it has of other checkpoints stay.

    Args:
        folder: of the mirror, with one folder a checkpoint, named like it.
        entries: name to entry with a checkpoint, of what was written there.
        url: where the folder is served.

    Returns:
        Path of the manifest.

    Raises:
        ManifestError: the one that is there is refused.
        StorageError: it cannot be written.
    """
    path = folder / MANIFEST
    with lock(folder / f'.{MANIFEST}.lock', 'writing the manifest of a mirror'):
        models = {} if is_absent(path) else dict(read_manifest(path).models)
        models |= {name: _mirrored(name, entry, url) for name, entry in entries.items()}
        write_atomically(path, dump_manifest(Manifest(models=models)).encode(), '--folder')
    return path


def _mirrored(name: str, entry: Entry, url: str) -> Entry:
    assert entry.checkpoint is not None
    # A path under ECA_ZOO_HOME is one of this machine.
    others = [source for source in entry.checkpoint.sources if source.file is None]
    sources = dict.fromkeys([mirror_source(url, name), *others])
    return msgspec.structs.replace(entry, checkpoint=msgspec.structs.replace(entry.checkpoint, sources=tuple(sources)))
