"""State files: everything that a run needs to go on, in one file that is whole or not there, its SHA-256 beside it."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from eca_zoo.errors import InputError
from eca_zoo.files import replacing, write_atomically
from eca_zoo.weights.errors import CheckpointError
from eca_zoo.weights.tensor_file import LENGTH_BYTES, header_length, parse_header, serialize, tensors_from_buffer

_FACTS = 'facts'
_KEPT = 2
_PLAIN = (str, int, float, bool, type(None))


def write_with_hash(path: Path, content: bytes | bytearray, setting: str = '--run-dir') -> str:
    """Write a file with ``NAME.sha256`` beside it, which ``sha256sum --check`` understands; returns the hash.

    Args:
        path: of the file.
        content: its bytes.
        setting: what moves it elsewhere, for messages.

    Raises:
        StorageError: it cannot be written; the file is as it was before.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    with replacing(path, setting) as temporary:
        temporary.write_bytes(content)
        # The hash comes first: a state without one is none.
        write_atomically(hash_path(path), f'{sha256}  {path.name}\n'.encode(), setting)
    return sha256


def hash_path(path: Path) -> Path:
    """Where the SHA-256 of a file is."""
    return path.with_name(f'{path.name}.sha256')


def write_weights(path: Path, state: Mapping[str, torch.Tensor], setting: str = '--run-dir') -> str:
    """Write the tensors of a network as safetensors, see ``write_with_hash``; equal tensors give equal bytes."""
    return write_with_hash(path, serialize(state), setting)


class StateFolder:
    """The states of a run, ``state-STEP-EPOCHS.safetensors``: the last one and the one before it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, step: int, epochs: int, facts: Mapping[str, Any]) -> None:
        """Write the state after ``step`` steps; older ones but the last go when it is on disk.

        A state that is there already stays: another one after the same steps differs in its timings alone.

        Args:
            step: number of steps that are done.
            epochs: number of epochs that are done, with their validation.
            facts: dictionaries, lists, numbers, texts and tensors, nested at will.

        Raises:
            StorageError: it cannot be written; the others are as they were.
        """
        path = self._folder / f'state-{step:09d}-{epochs:05d}.safetensors'
        if path.exists():
            return
        tensors: dict[str, torch.Tensor] = {}
        text = json.dumps(_packed(facts, tensors), separators=(',', ':')).encode()
        tensors[_FACTS] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        write_with_hash(path, serialize(tensors))
        for older in self._states()[:-_KEPT]:
            older.unlink(missing_ok=True)
            hash_path(older).unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """The last state; None where there is none.

        Raises:
            InputError: its bytes are not those that were written; the text offers the one before.
        """
        states = self._states()
        if not states:
            return None
        try:
            return _read(states[-1])
        except (CheckpointError, OSError, ValueError, KeyError) as error:
            before = states[-2] if len(states) > 1 else None
            remedy = (
                f'remove it, and the same command goes on at step {_step_of(before)}, which {before.name} holds'
                if before is not None
                else 'there is no earlier one: begin anew with --restart'
            )
            raise InputError(f'{states[-1]}: {error}; {remedy}') from None

    def clear(self) -> None:
        """Remove all states."""
        for path in self._states():
            path.unlink()
            hash_path(path).unlink(missing_ok=True)

    def _states(self) -> list[Path]:
        return sorted(self._folder.glob('state-*.safetensors'))


def _step_of(path: Path) -> int:
    return int(re.findall(r'\d+', path.name)[0])


def _read(path: Path) -> dict[str, Any]:
    content = bytearray(path.read_bytes())
    expected = hash_path(path).read_text(encoding='ascii').partition(' ')[0]
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise CheckpointError(f'its bytes are not those that were written: SHA-256 {found}, expected {expected}')
    data = LENGTH_BYTES + header_length(content, len(content))
    tensors = tensors_from_buffer(content, parse_header(bytes(content[LENGTH_BYTES:data]), len(content) - data), data)
    return _unpacked(json.loads(tensors[_FACTS].numpy().tobytes()), tensors)


def _packed(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """``value`` as JSON; its tensors go to ``tensors``, and their names stand for them."""
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return {'tensor': name}
    if isinstance(value, Mapping):
        return {'map': [[_packed(key, tensors), _packed(entry, tensors)] for key, entry in value.items()]}
    if isinstance(value, list | tuple):
        kind = 'list' if isinstance(value, list) else 'tuple'
        return {kind: [_packed(entry, tensors) for entry in value]}
    if isinstance(value, _PLAIN):
        return value
    raise TypeError(f'a state holds numbers, texts and tensors, not {type(value).__name__}')


def _unpacked(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    [(kind, content)] = value.items()
    if kind == 'tensor':
        return tensors[content]
    if kind == 'map':
        return {_unpacked(key, tensors): _unpacked(entry, tensors) for key, entry in content}
    entries = [_unpacked(entry, tensors) for entry in content]
    return entries if kind == 'list' else tuple(entries)
