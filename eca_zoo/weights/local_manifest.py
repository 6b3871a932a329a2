"""The local manifest: recording what was fetched or converted on this machine."""

from eca_zoo.files import lock, write_atomically
from eca_zoo.weights.manifest import Entry, Manifest, dump_manifest, is_absent, read_manifest
from eca_zoo.weights.weights_folder import local_manifest_path, weights_folder


def local_manifest() -> Manifest:
    """The manifest under ``ECA_ZOO_HOME``; empty where there is none.

    Raises:
        ManifestError: it is refused.
    """
    path = local_manifest_path()
    return Manifest(models={}) if is_absent(path) else read_manifest(path)


def record_entry(name: str, entry: Entry) -> None:
    """Add ``entry`` to the local manifest, or replace the one of that name; other processes' entries stay.

    Raises:
        ManifestError: the present local manifest is refused.
        StorageError: it cannot be written; the present one stays.
    """
    with lock(weights_folder() / 'locks' / 'manifest.lock', 'recording a checkpoint'):
        models = {**local_manifest().models, name: entry}
        write_atomically(local_manifest_path(), dump_manifest(Manifest(models=models)).encode())
