"""What can go wrong with a checkpoint; each text is one line that ends with the remedy."""

from eca_zoo.errors import InputError, RunError
from eca_zoo.weights.manifest import Entry


class CheckpointError(InputError):
    """A checkpoint file, or its tensors, that cannot be used."""


class HashMismatchError(CheckpointError):
    """Bytes that are not those of the manifest."""


class ConvertNeededError(InputError):
    """A checkpoint whose hash no manifest knows yet: its authors' file has to be converted on this machine first."""


class FetchError(RunError):
    """A checkpoint with a known hash that no source delivered; the text says what each of them answered."""


def convert_needed(name: str, entry: Entry) -> ConvertNeededError:
    """The error for an entry without a checkpoint; it says how to get one."""
    file = entry.authors_file
    if file is None:
        return ConvertNeededError(
            f'{name} has no checkpoint: the manifest knows neither a hash of its weights nor a file of its authors; '
            f'convert one: eca-zoo convert FILE --model {name}'
        )
    where = f' from {file.url}' if file.url else ''
    return ConvertNeededError(
        f"{name} needs conversion: no hash of its weights is known; download the authors' file {file.file}{where} "
        f'and run: eca-zoo convert {file.file}'
    )
