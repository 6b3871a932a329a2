"""Fetching checkpoints with a known hash: each source in turn, one at a time, nothing kept that was not verified."""

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from eca_zoo.errors import EcaZooError
from eca_zoo.files import StorageError, hash_file, lock, remove_leftovers
from eca_zoo.weights.errors import FetchError, convert_needed
from eca_zoo.weights.manifest import Checkpoint, Entry, Source
from eca_zoo.weights.sources.copies import copies_on_disk, path_in_weights_folder, place_on_disk
from eca_zoo.weights.sources.download import Progress, RetryPolicy, SourceError, default_policy, download
from eca_zoo.weights.sources.hub import fetch_from_hub
from eca_zoo.weights.weights_folder import weights_folder

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchResult:
    """What became of one checkpoint: its verified file, or the error; ``was_here`` if nothing had to be transferred."""

    name: str
    path: Path | None = None
    was_here: bool = False
    error: EcaZooError | None = None


def fetch(
    name: str,
    entry: Entry,
    *,
    offline: bool = False,
    policy: RetryPolicy | None = None,
    progress: Progress | None = None,
) -> Path:
    """The verified file of a checkpoint with a known hash, fetched from the first source that delivers it.

    A file on this machine with the right hash is used as it is; one with a wrong hash is replaced.

    Args:
        name: ``architecture.tag``.
        entry: its manifest entry.
        offline: use what is here; ``HF_HUB_OFFLINE`` does the same.
        policy: how patiently servers are asked; by default ``default_policy()``.
        progress: is told the number of bytes that arrived; without it a bar on the terminal shows them.

    Raises:
        ConvertNeededError: the entry has no checkpoint.
        FetchError: no source delivered; the text lists what each said.
        StorageError: the file cannot be written.
    """
    if entry.checkpoint is None:
        raise convert_needed(name, entry)
    path = _verified_path(name, entry.checkpoint)
    if path is not None:
        return path
    from huggingface_hub import is_offline_mode

    checkpoint, offline = entry.checkpoint, offline or is_offline_mode()
    with lock(weights_folder() / 'locks' / f'{checkpoint.sha256}.lock', f'fetching {name}'):
        path = _verified_path(name, checkpoint)  # another process may have been faster
        if path is None:
            with _reporting(progress, name, checkpoint.size) as report:
                path = _fetch_in_turn(name, checkpoint, offline, policy or default_policy(), report)
        _remove_bad_copies(name, checkpoint, path)
    return path


def _verified_path(name: str, checkpoint: Checkpoint) -> Path | None:
    """The local file that loading takes, if it has the right bytes."""
    paths = copies_on_disk(name, checkpoint)
    return paths[0] if paths and _is_right(paths[0], checkpoint) else None


def _is_right(path: Path, checkpoint: Checkpoint) -> bool:
    try:
        return path.stat().st_size == checkpoint.size and hash_file(path)[0] == checkpoint.sha256
    except OSError:
        return False


def _fetch_in_turn(name: str, checkpoint: Checkpoint, offline: bool, policy: RetryPolicy, progress: Progress) -> Path:
    answers: list[str] = []
    for source in checkpoint.sources:
        received = _Counter(progress)
        try:
            path = _fetch_from(name, source, checkpoint, offline, policy, received)
        except StorageError as error:
            if len(checkpoint.sources) == 1:
                raise
            answers.append(f'{source}: {error}')
            received.take_back()
        except SourceError as error:
            _logger.info('%s: %s: %s', name, source, error)
            answers.append(f'{source}: {error}')
            received.take_back()
        else:
            _logger.info('%s: from %s', name, source)
            return path
    raise FetchError(f'{name} could not be fetched: {"; ".join(answers)}')


class _Counter:
    """Passes progress on, and takes it back for a source that failed."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._total = 0

    def __call__(self, count: int) -> None:
        self._total += count
        self._progress(count)

    def take_back(self) -> None:
        self(-self._total)


def _fetch_from(
    name: str, source: Source, checkpoint: Checkpoint, offline: bool, policy: RetryPolicy, progress: Progress
) -> Path:
    if source.hub is not None:
        cached = place_on_disk(name, source)
        if cached is not None and _is_right(cached, checkpoint):
            return cached
        if offline:
            state = 'not in the cache' if cached is None else f'{cached} is damaged'
            raise SourceError(f'{state}, and offline; unset HF_HUB_OFFLINE, or leave --offline out, to download it')
        return fetch_from_hub(source.hub, checkpoint.size, checkpoint.sha256, policy, progress)
    if source.url is not None:
        if offline and urlsplit(source.url).scheme != 'file':
            raise SourceError('offline; unset HF_HUB_OFFLINE, or leave --offline out, to download it')
        path = weights_folder() / path_in_weights_folder(name, checkpoint.sha256)
        download(source.url, path, checkpoint.size, checkpoint.sha256, policy, progress)
        remove_leftovers(path.parent)
        return path
    return _check_own_file(name, source, checkpoint)


def _check_own_file(name: str, source: Source, checkpoint: Checkpoint) -> Path:
    """The file of a ``package`` or ``file`` source, if it is there and right."""
    path = place_on_disk(name, source)
    remedy = 'reinstall eca-zoo' if source.package is not None else 'convert it again: eca-zoo convert FILE'
    if path is None or not path.exists():
        raise SourceError(f'it is missing; {remedy}')
    try:
        found, size = hash_file(path)
    except OSError as error:
        raise SourceError(f'it cannot be read ({error.strerror}); {remedy}') from None
    if found != checkpoint.sha256:
        expected = f'{checkpoint.sha256} ({checkpoint.size} bytes)'
        raise SourceError(f'it was changed: SHA-256 {found} ({size} bytes), expected {expected}; {remedy}')
    return path


def _remove_bad_copies(name: str, checkpoint: Checkpoint, good: Path) -> None:
    """Put copies under ``ECA_ZOO_HOME`` aside that loading would find before the ``good`` one.

    A damaged download is removed; a file that the user has put there, under a name of its own, gets another one.
    """
    for path in copies_on_disk(name, checkpoint):
        if path == good:
            return
        if not path.is_relative_to(weights_folder()) or _is_right(path, checkpoint):
            continue
        if path == weights_folder() / path_in_weights_folder(name, checkpoint.sha256):
            _logger.warning('%s: removed: its SHA-256 is wrong', path)
            path.unlink()
        else:
            aside = path.with_name(f'{path.name}.{hash_file(path)[0][:12]}')
            _logger.warning('%s: its SHA-256 is wrong; it is %s now', path, aside)
            path.rename(aside)


@contextmanager
def _reporting(progress: Progress | None, name: str, size: int) -> Iterator[Progress]:
    """``progress``, or else a bar on the terminal, unless HF_HUB_DISABLE_PROGRESS_BARS is set."""
    if progress is not None:
        yield progress
        return
    from huggingface_hub.utils import tqdm

    with tqdm(total=size, unit='B', unit_scale=True, desc=name, disable=None) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        yield advance


def fetch_many(
    entries: Mapping[str, Entry],
    *,
    offline: bool = False,
    workers: int = 4,
    policy: RetryPolicy | None = None,
    progress: Progress = lambda count: None,
    done: Callable[[FetchResult], None] = lambda result: None,
) -> list[FetchResult]:
    """Fetch several checkpoints at once; one that fails does not stop the others.

    Args:
        entries: name to manifest entry.
        offline: as for ``fetch``.
        workers: how many are fetched at a time.
        policy: as for ``fetch``.
        progress: is told the number of bytes that arrived, or were here already, from several threads.
        done: is called with each result as soon as it is known, from several threads.

    Returns:
        A result for each entry, in the order of ``entries``.
    """

    def run(name: str, entry: Entry) -> FetchResult:
        received = _Counter(progress)
        try:
            here = _verified_path(name, entry.checkpoint) if entry.checkpoint is not None else None
            path = here or fetch(name, entry, offline=offline, policy=policy, progress=received)
            result = FetchResult(name, path, was_here=here is not None)
        except EcaZooError as error:
            result = FetchResult(name, error=error)
        done(result)
        return result

    with ThreadPoolExecutor(max(1, workers)) as pool:
        return list(pool.map(run, entries, entries.values()))
