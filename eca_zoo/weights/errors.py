"""What can go wrong with a checkpoint; each text is one line that ends with the remedy."""

from eca_zoo.errors import InputError, RunError
from eca_zoo.weights.manifest import Entry


class CheckpointError(InputError):
    """A checkpoint file, or its tensors, that cannot be used."""


class HashMismatchError(CheckpointError):
    """Bytes that are not those of the manifest."""


class NotPublishedError(InputError):
    """A checkpoint that the manifest describes, but that nobody has published or converted yet."""


class FetchError(RunError):
    """A published checkpoint that no source delivered; the text says what each of them answered."""


def not_published(name: str, entry: Entry) -> NotPublishedError:
    """The error for an entry without a checkpoint; it says how to get one."""
    original = entry.original
    if original is None:
        return NotPublishedError(f'{name} is not published: the manifest has no checkpoint for it')
    where = f' from {original.url}' if original.url else ''
    return NotPublishedError(
        f"{name} is not published: no hash of its weights is known; download the authors' file {original.file}{where} "
        f'and run: eca-zoo convert {original.file}'
    )
