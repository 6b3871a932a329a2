"""What can go wrong with a checkpoint; each text is one line that ends with the remedy."""

from eca_zoo.errors import InputError, RunError


class CheckpointError(InputError):
    """A checkpoint file, or its tensors, that cannot be used."""


class HashMismatchError(CheckpointError):
    """Bytes that are not those of the manifest."""


class NotPublishedError(InputError):
    """A checkpoint that the manifest describes, but that nobody has published or converted yet."""


class FetchError(RunError):
    """A published checkpoint that no source delivered; the text says what each of them answered."""
