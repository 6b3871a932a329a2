"""Fetching a published checkpoint from its sources."""

from pathlib import Path

from eca_zoo.weights.errors import FetchError
from eca_zoo.weights.manifest import Entry


def fetch(name: str, entry: Entry) -> Path:
    """Path of the verified file of a published checkpoint."""
    sources = ', '.join(str(source) for source in entry.checkpoint.sources) if entry.checkpoint else 'none'
    raise FetchError(f'{name} is not on this machine and was not fetched (sources: {sources})')
