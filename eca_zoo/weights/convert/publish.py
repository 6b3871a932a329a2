"""Publishing a checkpoint on the Hugging Face Hub, and the manifest entry that lets everybody verify it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from eca_zoo.errors import InputError, RunError
from eca_zoo.files import write_atomically
from eca_zoo.weights.convert.hub_folder import check_folder, hub_config, model_card, write_folder
from eca_zoo.weights.errors import HashMismatchError, convert_needed
from eca_zoo.weights.manifest import Checkpoint, Entry, HubSource, Manifest, Source, dump_manifest
from eca_zoo.weights.sources.fetch import fetch
from eca_zoo.weights.sources.hub import explain

_FILES = ['model.safetensors', 'config.json', 'README.md', 'curves.svg']


@dataclass(frozen=True)
class PublishResult:
    """What was published: repository, commit hash, size (bytes) and SHA-256; ``entry`` is the manifest entry for it."""

    name: str
    repo: str
    commit: str
    size: int
    sha256: str
    entry: Entry

    @property
    def manifest_text(self) -> str:
        """The entry as YAML, to be committed to ``weights_manifest.yaml``."""
        return dump_manifest(Manifest(models={self.name: self.entry})).partition('models:\n')[2]


def write_hub_folder(
    name: str,
    entry: Entry,
    folder: Path,
    repo: str | None,
    measured: Mapping[str, str],
    package_url: str | None = None,
    section: str = '',
    picture: bytes | None = None,
) -> Checkpoint:
    """Write weights, config and model card of a checkpoint to ``folder``; returns size and hash of the weights.

    Args:
        name: ``architecture.tag``.
        entry: its manifest entry.
        folder: it is made; one with another checkpoint is refused.
        repo: ``ORG/NAME`` for the card, or None.
        measured: figures for the card, title to value with unit.
        package_url: what pip installs this package from, for the card.
        section: Markdown that the card has besides.
        picture: ``curves.svg``, which the section shows.

    Raises:
        ConvertNeededError: the entry has no checkpoint.
        FetchError: it is not here and cannot be fetched.
        InputError: the folder holds another checkpoint.
        StorageError: the folder cannot be written.
    """
    if entry.checkpoint is None:
        raise convert_needed(name, entry)
    path = fetch(name, entry)
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != entry.checkpoint.sha256:
        raise HashMismatchError(f'{path}: it changed: SHA-256 {found}, expected {entry.checkpoint.sha256}; try again')
    check_folder(folder, found, '--folder')
    card = model_card(name, entry, repo, measured, package_url, section)
    write_folder(folder, content, hub_config(name, entry), card)
    if picture is not None:
        write_atomically(folder / 'curves.svg', picture)
    return entry.checkpoint


def publish(
    name: str,
    entry: Entry,
    repo: str,
    private: bool = False,
    measured: Mapping[str, str] | None = None,
    package_url: str | None = None,
    section: str = '',
    picture: bytes | None = None,
) -> PublishResult:
    """Upload a checkpoint to the hub repository ``repo``, which is made if need be.

    Args:
        name: ``architecture.tag``.
        entry: its manifest entry; the file must be here or to be had.
        repo: ``ORG/NAME``.
        private: whether a new repository is private.
        measured: figures for the model card, title to value with unit.
        package_url: what pip installs this package from, for the model card.
        section: Markdown that the card has besides.
        picture: ``curves.svg``, which the section shows.

    Raises:
        RunError: the hub refuses, cannot be reached, or holds other bytes than were sent.
        InputError: as for ``write_hub_folder``.
    """
    try:
        HubSource(repo=repo, revision='0' * 40)
    except ValueError as error:
        raise InputError(f'--repo: {error}') from None
    with TemporaryDirectory(prefix='eca_zoo_publish_') as temporary:
        folder = Path(temporary)
        checkpoint = write_hub_folder(name, entry, folder, repo, measured or {}, package_url, section, picture)
        commit = _upload(folder, name, repo, private, checkpoint)
    source = Source(hub=HubSource(repo=repo, revision=commit))
    others = [other for other in (entry.checkpoint.sources if entry.checkpoint else ()) if other.url or other.package]
    published = msgspec.structs.replace(checkpoint, sources=(source, *others))
    return PublishResult(
        name, repo, commit, checkpoint.size, checkpoint.sha256, msgspec.structs.replace(entry, checkpoint=published)
    )


def _upload(folder: Path, name: str, repo: str, private: bool, checkpoint: Checkpoint) -> str:
    """Commit the folder's files to ``repo`` and return the commit's hash, after comparing what the hub holds."""
    from huggingface_hub import HfApi

    api = HfApi(library_name='eca_zoo')
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        info = api.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=_FILES, commit_message=f'Add {name}')
        stored: Any = api.get_paths_info(repo, [_FILES[0]], revision=info.oid)
    except Exception as error:  # also those of the client's HTTP library, which depends on the client's version
        raise RunError(f'{name} could not be published: {repo}: {_explain_upload(error, repo)}') from None
    lfs = stored[0].lfs if stored else None
    if lfs is None or (lfs.sha256, lfs.size) != (checkpoint.sha256, checkpoint.size):
        held = 'no such file' if lfs is None else f'SHA-256 {lfs.sha256} ({lfs.size} bytes)'
        expected = f'{checkpoint.sha256} ({checkpoint.size} bytes)'
        raise RunError(f'{name} was not published: {repo}@{info.oid} holds {held}, expected {expected}; publish again')
    return info.oid


def _explain_upload(error: Exception, repo: str) -> str:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, OfflineModeIsEnabled):
        return 'offline; unset HF_HUB_OFFLINE to publish'
    if status == 401:
        return 'status 401: the hub knows no such login; set HF_TOKEN to a token with write access (hf auth login)'
    if status == 403:
        return f'status 403: HF_TOKEN may not write to {repo.split("/")[0]}; set one that may (hf auth login)'
    if status in (400, 404, 409, 413):
        server = ' '.join(str(getattr(error, 'server_message', None) or 'no reason given').split())
        return f'status {status}: the hub refuses it: {server[:200]}'
    return explain(error, HubSource(repo=repo, revision='0' * 40))
