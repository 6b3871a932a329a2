"""Downloading the authors' own file of a checkpoint from Google Drive."""

import logging
from pathlib import Path

from eca_zoo.errors import InputError
from eca_zoo.files import hash_file
from eca_zoo.weights.errors import FetchError, HashMismatchError
from eca_zoo.weights.manifest import AuthorsFile

_logger = logging.getLogger(__name__)

GOOGLE_DRIVE = 'https://drive.google.com'


def download_authors_file(
    name: str, file: AuthorsFile, folder: Path, *, show_progress: bool = False, drive: str = GOOGLE_DRIVE
) -> Path:
    """Download ``file`` into ``folder``; nothing in it is opened.

    Args:
        name: ``architecture.tag``, for messages.
        file: what the manifest knows of it, with a Google Drive id; a recorded hash must be that of the download.
        folder: it exists.
        show_progress: let gdown show its progress on the terminal.
        drive: where Google Drive is.

    Raises:
        InputError: gdown is not installed.
        FetchError: Google Drive did not deliver it.
        HashMismatchError: it is another file than the one whose hash is recorded.
    """
    try:
        import gdown
    except ImportError:
        raise InputError('--from-authors needs gdown; install it with: pip install gdown') from None
    path, url = folder / file.file, f'{drive}/uc?id={file.google_drive_id}'
    try:
        gdown.download(url=url, output=str(path), quiet=not show_progress, use_cookies=False)
    except Exception as error:  # gdown lets the errors of its HTTP library and of its parser through
        _logger.info('%s: %s', url, error)
    if not path.is_file():
        raise FetchError(
            f'{name} could not be fetched: Google Drive did not deliver {file.file} (too many downloads, or no '
            f'connection); open {file.url} in a browser, save the file and run: eca-zoo convert {file.file}'
        )
    found, size = hash_file(path)
    if file.sha256 is not None and found != file.sha256:
        raise HashMismatchError(
            f'{file.url}: it delivers another file than before: SHA-256 {found} ({size} bytes), expected '
            f'{file.sha256}; nothing was converted; if the authors replaced it, download it in a browser and '
            f'give it a tag: eca-zoo convert {file.file} --model {name.split(".", 1)[0]}.TAG'
        )
    return path
