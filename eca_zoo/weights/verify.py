"""Verifying the checkpoints on this machine against the manifest."""

from dataclasses import dataclass
from pathlib import Path

from eca_zoo.weights.errors import CheckpointError
from eca_zoo.weights.load import load_file, remedy_of
from eca_zoo.weights.manifest import Entry
from eca_zoo.weights.sources.copies import copies_on_disk


@dataclass(frozen=True)
class VerifiedFile:
    """One file of a checkpoint; ``error`` is None if its bytes are those of the manifest and make tensors."""

    name: str
    path: Path
    error: CheckpointError | None = None


def verify(name: str, entry: Entry) -> list[VerifiedFile]:
    """Check every file on this machine that holds the checkpoint: size, SHA-256, format, and that values are finite.

    Returns:
        A result for each file; none where its hash is not known or it is not on this machine.

    Raises:
        ManifestError: a path of the manifest leads out of its folder.
    """
    if entry.checkpoint is None:
        return []
    results = []
    for path in copies_on_disk(name, entry.checkpoint):
        error = None
        try:
            load_file(path, entry.checkpoint.size, entry.checkpoint.sha256, name, remedy_of(name, entry))
        except CheckpointError as found:
            error = found
        results.append(VerifiedFile(name, path, error))
    return results
