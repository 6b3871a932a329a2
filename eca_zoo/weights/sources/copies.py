"""The copies of a checkpoint on this machine: where the file of a manifest entry may lie."""

from pathlib import Path

from eca_zoo.resources import packaged_path
from eca_zoo.weights.manifest import Checkpoint, HubSource, ManifestError, Source
from eca_zoo.weights.weights_folder import local_manifest_path, weights_folder


def path_in_weights_folder(name: str, sha256: str) -> str:
    """Path of a checkpoint relative to ``ECA_ZOO_HOME``; it names the content, so two contents never share a file."""
    return f'checkpoints/{name}-{sha256[:12]}/model.safetensors'


def copies_on_disk(name: str, checkpoint: Checkpoint) -> list[Path]:
    """The existing files that should hold the checkpoint, the preferred one first; nothing is verified here.

    Raises:
        ManifestError: a ``file`` source leads out of its folder through a symbolic link.
    """
    return [path for path in _places(name, checkpoint) if _exists(path)]


def condition_on_disk(name: str, checkpoint: Checkpoint) -> str | None:
    """What can be said of the copies on this machine without reading them; None where there is none.

    Returns:
        ``here``: one can be read, and has the right size; else, of the first one, ``unreadable`` or ``damaged``: its
        size is another.

    Raises:
        ManifestError: a ``file`` source leads out of its folder through a symbolic link.
    """
    conditions = []
    for path in _places(name, checkpoint):
        if _is_hidden(path):
            conditions.append('unreadable')
        elif path.exists():
            conditions.append('here' if path.stat().st_size == checkpoint.size else 'damaged')
    return 'here' if 'here' in conditions else next(iter(conditions), None)


def hidden_copy(name: str, checkpoint: Checkpoint) -> Path | None:
    """The first place of the checkpoint that this user may not read or look at; None where there is none."""
    return next((path for path in _places(name, checkpoint) if _is_hidden(path)), None)


def _is_hidden(path: Path) -> bool:
    try:
        path.open('rb').close()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _places(name: str, checkpoint: Checkpoint) -> list[Path]:
    candidates = [place_on_disk(name, source) for source in checkpoint.sources]
    candidates.insert(0, weights_folder() / path_in_weights_folder(name, checkpoint.sha256))
    return [path for path in dict.fromkeys(candidates) if path is not None]


def _exists(path: Path) -> bool:
    """Whether the file can be seen; one in a folder of somebody else's counts as absent."""
    try:
        return path.exists()
    except OSError:
        return False


def place_on_disk(name: str, source: Source) -> Path | None:
    """Where ``source`` lies on this machine without any transfer, or None."""
    if source.package is not None:
        try:
            return packaged_path(source.package)
        except FileNotFoundError:
            return None
    if source.file is not None:
        return _inside_home(name, source.file)
    return path_in_hub_cache(source.hub) if source.hub is not None else None


def _inside_home(name: str, relative: str) -> Path:
    home = weights_folder()
    path = home / relative
    if not path.resolve().is_relative_to(home.resolve()):
        raise ManifestError(
            f'{local_manifest_path()}: models.{name}.checkpoint.sources.file: {relative} is a symbolic link that leads '
            f'out of {home}; copy the file there, or list it as url: file://...'
        )
    return path


def path_in_hub_cache(source: HubSource) -> Path | None:
    """The file in the cache of ``huggingface_hub``, or None."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repo, source.file, revision=source.revision)
    return Path(found) if isinstance(found, str) else None
