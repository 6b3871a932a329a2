"""What can go wrong with a checkpoint; each text is one line that ends with the remedy."""

from eca_zoo.errors import InputError, RunError
from eca_zoo.weights.manifest import Entry


class CheckpointError(InputError):
    """A checkpoint file, or its tensors, that cannot be used."""


class HashMismatchError(CheckpointError):
    """Bytes that are not those of the manifest."""


class ConvertNeededError(InputError):
    """A checkpoint whose hash no manifest knows yet: its authors' file has to be converted on this machine first.

    ``remedy`` is the part of the text that says what to do.
    """

    remedy = ''


class FetchError(RunError):
    """A checkpoint with a known hash that no source delivered; the text says what each of them answered."""


def convert_needed(name: str, entry: Entry) -> ConvertNeededError:
    """The error for an entry without a checkpoint; it says how to get one."""
    file = entry.authors_file
    if file is None:
        problem = f'{name} has no checkpoint: the manifest knows no hash of its weights, nor a file of its authors'
        remedy = f'convert one: eca-zoo convert FILE --model {name}'
    else:
        where = f' from {file.url}' if file.url else ''
        problem = f'{name} needs conversion: no hash of its weights is known'
        remedy = f"download the authors' file {file.file}{where} and run: eca-zoo convert {file.file}"
    error = ConvertNeededError(f'{problem}; {remedy}')
    error.remedy = remedy
    return error
