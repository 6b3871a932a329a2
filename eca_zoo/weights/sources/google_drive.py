"""Fetching the authors' own file from Google Drive, trusted on first use and compared ever after."""

import logging
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from eca_zoo.errors import InputError
from eca_zoo.weights.convert.conversion import ConvertResult, convert
from eca_zoo.weights.errors import FetchError, HashMismatchError
from eca_zoo.weights.files import hash_file, storage_error
from eca_zoo.weights.manifest import Entry, Original
from eca_zoo.weights.weights_folder import eca_zoo_home

_logger = logging.getLogger(__name__)

GOOGLE_DRIVE = 'https://drive.google.com'


def fetch_from_authors(
    name: str,
    entry: Entry,
    confirm: Callable[[str], bool],
    *,
    show_progress: bool = False,
    drive: str = GOOGLE_DRIVE,
) -> ConvertResult:
    """Download the authors' file of a checkpoint, convert it, and record both hashes in the local manifest.

    While no manifest has a hash of that file, its first copy is trusted, if ``confirm`` agrees; later copies must equal
    it. The file is a pickle, and is opened as ``convert`` opens every pickle.

    Args:
        name: ``architecture.tag``.
        entry: its manifest entry.
        confirm: is asked the question in its argument, in the case above.
        show_progress: let gdown show its progress on the terminal.
        drive: where Google Drive is.

    Raises:
        InputError: the manifest knows no such file, gdown is not installed, or ``confirm`` did not agree.
        FetchError: Google Drive did not deliver it.
        HashMismatchError: it is another file than the one before.
        CheckpointError: it cannot be converted.
    """
    original = entry.original
    if original is None or original.google_drive_id is None:
        raise InputError(f'{name}: the manifest knows no file of its authors on Google Drive')
    if original.sha256 is None and not confirm(
        f'No SHA-256 of {original.file} is known: this first copy from {original.url} is trusted as it is, and later '
        'copies must equal it. Download it?'
    ):
        raise InputError(f'{name}: not downloaded: nobody agreed to trust the first copy; answer y, or give --yes')
    try:
        eca_zoo_home().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(eca_zoo_home(), error) from None
    with TemporaryDirectory(prefix='.authors_', dir=eca_zoo_home()) as folder:
        path = Path(folder) / original.file
        _download(name, original, path, show_progress, drive)
        found, size = hash_file(path)
        if original.sha256 is not None and found != original.sha256:
            raise HashMismatchError(
                f'{original.url}: it delivers another file than before: SHA-256 {found} ({size} bytes), expected '
                f'{original.sha256}; nothing was converted; if the authors replaced it, download it in a browser and '
                f'give it a tag: eca-zoo convert {original.file} --model {name.split(".", 1)[0]}.TAG'
            )
        return convert(path, name)


def _download(name: str, original: Original, path: Path, show_progress: bool, drive: str) -> None:
    try:
        import gdown
    except ImportError:
        raise InputError("--from-authors needs gdown; install it with: pip install 'eca-zoo[authors]'") from None
    url = f'{drive}/uc?id={original.google_drive_id}'
    try:
        gdown.download(url=url, output=str(path), quiet=not show_progress, use_cookies=False)
    except Exception as error:  # gdown lets the errors of its HTTP library and of its parser through
        _logger.info('%s: %s', url, error)
    if not path.is_file():
        raise FetchError(
            f'{name} could not be fetched: Google Drive did not deliver {original.file} (too many downloads, or no '
            f'connection); open {original.url} in a browser, save the file and run: eca-zoo convert {original.file}'
        )
