"""Names and helpers that the tests of checkpoints share."""

import hashlib
from pathlib import Path

from eca_zoo.weights.manifest import Checkpoint, Entry, Source, Transform
from eca_zoo.weights.sources.download import RetryPolicy

QUICK = RetryPolicy(attempts=3, first_delay=0.01, max_delay=0.02, timeout=3600)
REPO = 'eca-zoo/test_eca_resnet.remote'
NAME = 'test_eca_resnet.remote'


def entry_with(content: bytes, *sources: Source) -> Entry:
    """A manifest entry for ``content``."""
    checkpoint = Checkpoint(len(content), hashlib.sha256(content).hexdigest(), sources) if sources else None
    transform = Transform((3, 32, 32), 1.0, 'bilinear', (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return Entry(
        num_classes=10, dataset='digits', transform=transform, license='mit', kernel_sizes=(3, 3, 5, 5),
        checkpoint=checkpoint,
    )  # fmt: skip


def broken_files(folder: Path, content: bytes) -> list[Path]:
    """Files under ``folder`` that have a final name and other bytes than ``content``."""
    files = [path for path in folder.rglob('*.safetensors') if path.is_file() and not path.name.startswith('.')]
    files += [path for path in folder.rglob('blobs/*') if path.suffix != '.incomplete']
    return [path for path in files if path.read_bytes() != content]
