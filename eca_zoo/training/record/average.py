"""The mean of several checkpoints of one network, and a record of what went into it."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from eca_zoo.errors import InputError
from eca_zoo.files import write_atomically
from eca_zoo.harness.networks.user_checkpoint import checkpoint_files, read_checkpoint
from eca_zoo.training.record.log import DECIDING, LOG_FILE
from eca_zoo.training.record.state import write_weights


@dataclass(frozen=True)
class Average:
    """What was averaged.

    Attributes:
        path: of the mean, as safetensors; ``NAME.json`` beside it holds the rest.
        sha256: of its bytes.
        inputs: path and SHA-256 of each checkpoint.
    """

    path: Path
    sha256: str
    inputs: tuple[tuple[Path, str], ...]


def average_checkpoints(
    checkpoints: Sequence[Path], out: Path, best: int | None = None, use_ema: bool = False
) -> Average:
    """Write the mean of checkpoints, computed in float64; whole numbers are those of the last one.

    Args:
        checkpoints: files, or folders of them; of a run's folder those that stay (``--checkpoint-every``) count.
        out: file to write.
        best: take so many of a run's checkpoints, those with the best top-1 or box AP in its log; all by default.
        use_ema: take the averaged weights of other scripts' training checkpoints.

    Raises:
        InputError: there are fewer than two, or they are not of one network.
        StorageError: the mean cannot be written.
    """
    files = [file for given in checkpoints for file in _files_of(given, best)]
    if len(files) < 2:
        raise InputError(f'there is nothing to average in {len(files)} checkpoint; name two at least, or their folder')
    total: dict[str, torch.Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    inputs = []
    for file in files:
        found = read_checkpoint(file, use_ema)
        shapes = {key: (tensor.shape, tensor.dtype) for key, tensor in found.state.items()}
        if total and shapes != {key: (tensor.shape, kinds[key]) for key, tensor in total.items()}:
            raise InputError(f'{file}: its tensors are not those of {files[0]}; average checkpoints of one network')
        inputs.append((file, found.sha256))
        for key, tensor in found.state.items():
            kinds[key] = tensor.dtype
            if tensor.is_floating_point():
                total[key] = total[key] + tensor.double() if key in total else tensor.double()
            else:
                total[key] = tensor
    mean = {
        key: (tensor / len(files)).to(kinds[key]) if kinds[key].is_floating_point else tensor
        for key, tensor in total.items()
    }
    sha256 = write_weights(out, mean, '--out')
    record = {'sha256': sha256, 'mean_of': [{'file': str(file), 'sha256': value} for file, value in inputs]}
    write_atomically(out.with_name(f'{out.name}.json'), json.dumps(record, indent=2).encode() + b'\n', '--out')
    return Average(out, sha256, tuple(inputs))


def _files_of(given: Path, best: int | None) -> list[Path]:
    if not (given / 'run.json').is_file():
        return checkpoint_files(given)
    kept = sorted(given.glob('epoch-*.safetensors'))
    if not kept:
        raise InputError(f'{given}: the run kept no checkpoints to average; train with --checkpoint-every N')
    return kept if best is None else sorted(sorted(kept, key=lambda file: -_figure(given, file))[:best])


def _figure(run: Path, checkpoint: Path) -> float:
    """What decided over a run's checkpoint: top-1 or box AP; below all others where its epoch was not validated."""
    epoch = str(int(checkpoint.stem.partition('-')[2]))
    with (run / LOG_FILE).open(newline='', encoding='utf-8') as file:
        for row in csv.DictReader(file):
            if row['kind'] == 'epoch' and row['epoch'] == epoch:
                return float(next((row[name] for name in DECIDING if row.get(name)), -1))
    return -1.0
