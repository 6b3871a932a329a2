"""Verifying the checkpoints on this machine against the manifest."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from eca_zoo.weights.errors import CheckpointError
from eca_zoo.weights.load import load_file, remedy_of, unreadable
from eca_zoo.weights.manifest import Entry
from eca_zoo.weights.sources.copies import copies_on_disk, hidden_copy


@dataclass(frozen=True)
class VerifiedFile:
    """One file of a checkpoint; ``error`` is None if its bytes are those of the manifest and make tensors."""

    name: str
    path: Path
    error: CheckpointError | None = None


def verify(name: str, entry: Entry) -> list[VerifiedFile]:
    """Check every file on this machine that holds the checkpoint: size, SHA-256, format, and that values are finite.

    Returns:
        A result for each file, or one for the place that this user may not look at; none where the hash is not known or
        there is no file on this machine.

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
    hidden = hidden_copy(name, entry.checkpoint)
    if hidden is not None and not results:
        results.append(VerifiedFile(name, hidden, unreadable(hidden, name, os.strerror(errno.EACCES))))
    return results
