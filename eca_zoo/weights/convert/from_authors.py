"""The authors' file from their own link, converted: trusted on first use, and compared ever after."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from eca_zoo.errors import InputError
from eca_zoo.files import storage_error
from eca_zoo.weights.convert.conversion import ConvertResult, convert
from eca_zoo.weights.manifest import Entry
from eca_zoo.weights.sources.google_drive import GOOGLE_DRIVE, download_authors_file
from eca_zoo.weights.weights_folder import weights_folder


def convert_from_authors(
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
        show_progress: of the download, on the terminal.
        drive: where Google Drive is.

    Raises:
        InputError: the manifest knows no such file, gdown is not installed, or ``confirm`` did not agree.
        FetchError: Google Drive did not deliver it.
        HashMismatchError: it is another file than the one before.
        CheckpointError: it cannot be converted.
    """
    file = entry.authors_file
    if file is None or file.google_drive_id is None:
        raise InputError(f'{name}: the manifest knows no file of its authors on Google Drive')
    if file.sha256 is None and not confirm(
        f'No SHA-256 of {file.file} is known: this first copy from {file.url} is trusted as it is, and later copies '
        'must equal it. Download it?'
    ):
        raise InputError(f'{name}: not downloaded: nobody agreed to trust the first copy; answer y, or give --yes')
    try:
        weights_folder().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(weights_folder(), error) from None
    with TemporaryDirectory(prefix='.authors_', dir=weights_folder()) as folder:
        path = download_authors_file(name, file, Path(folder), show_progress=show_progress, drive=drive)
        return convert(path, name)
