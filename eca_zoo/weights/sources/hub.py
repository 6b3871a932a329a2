"""Fetching from the Hugging Face Hub through its own client and cache, with the verification that these leave out."""

import logging
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from eca_zoo.files import StorageError, hash_file, storage_error
from eca_zoo.weights.manifest import HubSource
from eca_zoo.weights.sources.download import Progress, RetryPolicy, SourceError, wrong_bytes

_logger = logging.getLogger(__name__)


def fetch_from_hub(source: HubSource, size: int, sha256: str, policy: RetryPolicy, progress: Progress) -> Path:
    """The verified file of ``source`` in the hub's cache, downloaded if it is not there; one that is wrong is replaced.

    Args:
        source: repository, commit and file.
        size: expected bytes.
        sha256: expected hash, hexadecimal.
        policy: how often a failing server is asked again.
        progress: is told the number of bytes that arrived.

    Raises:
        SourceError: the hub does not deliver, or delivers other bytes (these are removed from the cache).
        StorageError: the cache cannot be written.
    """
    path = _download(source, policy, progress, force=False)
    found = hash_file(path)
    if found != (sha256, size):
        _logger.info('%s: its SHA-256 is %s, not %s; downloading it again', path, found[0], sha256)
        path = _download(source, policy, progress, force=True)
        found = hash_file(path)
    if found != (sha256, size):
        _remove_from_cache(path)
        raise wrong_bytes(*found, sha256, size)
    return path


def _remove_from_cache(path: Path) -> None:
    """Remove a file of the cache and the blob that it points to, so that nothing takes it for the real one."""
    blob = path.resolve()
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


def _download(source: HubSource, policy: RetryPolicy, progress: Progress, force: bool) -> Path:
    from huggingface_hub import hf_hub_download

    bar: Any = _make_bar(progress)
    delay = policy.first_delay
    for attempt in range(1, policy.attempts + 1):
        try:
            path = hf_hub_download(
                source.repo, source.file, revision=source.revision, force_download=force, tqdm_class=bar,
                library_name='eca_zoo',
            )  # fmt: skip
        except Exception as error:  # also those of the client's HTTP library, which depends on the client's version
            problem = _storage_problem(error)
            if problem is not None:
                raise problem from None
            if attempt == policy.attempts or not _may_pass(error):
                raise SourceError(explain(error, source)) from None
            _logger.info('%s: %s; trying again in %.1f s', source.repo, error, delay)
        else:
            return Path(path)
        time.sleep(delay)
        delay = min(delay * 2, policy.max_delay)
    raise AssertionError('the last attempt returns or raises')


def _may_pass(error: Exception) -> bool:
    """Whether another try may help with something that the client itself does not try again."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    return type(error).__name__ in ('ReadError', 'RemoteProtocolError') or 'Consistency check failed' in str(error)


def _make_bar(progress: Progress) -> type:
    """A silent progress bar for the hub's client that passes on what it is told."""
    from tqdm.auto import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop('name', None)
            super().__init__(*args, **{**kwargs, 'disable': True})

        def update(self, n: float | None = 1) -> None:
            progress(int(n or 0))

    return Bar


def _storage_problem(error: BaseException) -> StorageError | None:
    """The error for a file that could not be written, or None if ``error`` is something else."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if isinstance(error, (HfHubHTTPError, LocalEntryNotFoundError)) or not isinstance(error, OSError):
        return None
    return storage_error(Path(constants.HF_HUB_CACHE), error, 'HF_HOME') if error.errno else None


def explain(error: BaseException, source: HubSource) -> str:
    """One line for what the hub's client raised: what happened, and which setting or command mends it."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        FileMetadataError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    endpoint = constants.ENDPOINT
    if isinstance(error, (LocalEntryNotFoundError, ValueError)) and error.__cause__ is not None:
        return explain(error.__cause__, source)
    if isinstance(error, (OfflineModeIsEnabled, LocalEntryNotFoundError)):
        return 'offline; unset HF_HUB_OFFLINE, or leave --offline out, to download it'
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, GatedRepoError):
        return f'status {status}: access is granted on request; ask at {endpoint}/{source.repo} and set HF_TOKEN'
    if status == 401:
        return 'status 401: no such repository, or a private one; set HF_TOKEN (hf auth login) if it is yours'
    if status == 403:
        return 'status 403: HF_TOKEN has no access to this repository; set one that has (hf auth login)'
    if isinstance(error, RevisionNotFoundError):
        return f'status 404: the repository has no commit {source.revision}; correct revision in the manifest'
    if isinstance(error, RepositoryNotFoundError):
        return f'status 404: {endpoint} has no such repository; correct repo in the manifest, or set HF_ENDPOINT'
    if isinstance(error, EntryNotFoundError):
        return f'status 404: this commit has no file {source.file}; correct file in the manifest'
    if status == 429:
        return 'status 429: too many requests; try again later, or set HF_TOKEN for a higher limit'
    if status is not None:
        return f'status {status}: {urlsplit(endpoint).hostname} is failing; try again later'
    text = ' '.join(str(error).split()) or type(error).__name__
    sizes = re.search(r'should be of size (\d+) but has size (\d+)', text)
    if sizes:
        return f'it delivers {sizes[2]} bytes instead of {sizes[1]} (a login page?); try again, or check HF_ENDPOINT'
    if isinstance(error, FileMetadataError):
        return f'{endpoint} does not answer as a hub does (a login page?); check HF_ENDPOINT and the connection'
    if not isinstance(error, OSError) and not type(error).__module__.startswith('httpx'):
        return f'the client of the hub failed: {type(error).__name__}: {text}'
    return f'cannot reach {urlsplit(endpoint).netloc} ({text}); check the connection and HF_ENDPOINT, or use --offline'
