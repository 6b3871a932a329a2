"""Reading others' checkpoint files, most of them pickles: only tensors come out, and nothing in them is executed."""

import hashlib
import io
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from eca_zoo.weights.errors import CheckpointError
from eca_zoo.weights.tensor_file import LENGTH_BYTES, header_length, parse_header, tensors_from_buffer

_MAX_MEMBERS = 100_000
_MOST_EXPANSION = 20  # that a compressed copy of weights may have; zeros shrink to a thousandth
_WRAPPERS = ('module.', '_orig_mod.', 'model.')  # of DataParallel, torch.compile and Lightning's modules
# Where training scripts keep a state dict in their checkpoint, and the averaged one.
_STATES = ('state_dict', 'model', 'model_state_dict', 'net')
_AVERAGED = ('state_dict_ema', 'model_ema')
_LIGHTNING = 'pytorch-lightning_version'
_AGAIN = 'get an intact copy of it from where it came from'


class UntrustedFile(NamedTuple):
    """A checkpoint as it was found: its tensors, and the SHA-256 and size of the bytes that they were read from."""

    state: dict[str, torch.Tensor]
    sha256: str
    size: int


def read_untrusted(path: Path, averaged: bool = False) -> UntrustedFile:
    """The state dict in a checkpoint as training scripts save it, on the CPU.

    Reads PyTorch's zip container and the one from before 1.6, with the state dict as ``state_dict``, ``model``,
    ``model_state_dict`` or ``net`` inside or bare, with or without a prefix ``module.``, ``_orig_mod.`` or ``model.``
    of all keys; Lightning's checkpoints, of which what lies beside ``model.`` is left out; and safetensors files.
    Pickles are opened with ``weights_only=True`` alone.

    Args:
        path: the file.
        averaged: take the averaged weights of a training checkpoint.

    Raises:
        CheckpointError: the file is none of these, is damaged, would run code, expands to more than its own size, or
            holds no averaged weights.
    """
    if path.is_dir():
        raise CheckpointError(f'{path}: this is a folder; name the checkpoint file in it')
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f'{path}: cannot read the checkpoint: {error.strerror}') from None
    size = len(content)
    try:
        _check_kind(content)
        if path.suffix == '.safetensors':
            loaded: Any = _read_safetensors(content)
        else:
            if content.startswith(b'PK'):
                size = _check_zip(content)
            loaded = _unpickle(content)
        state = _tensors_of(_state_in(loaded, averaged), size)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from None
    return UntrustedFile(state, hashlib.sha256(content).hexdigest(), len(content))


def _check_kind(content: bytes) -> None:
    """Refuse what is certainly no checkpoint, each with its own reason."""
    if not content:
        raise CheckpointError(f'the file is empty; {_AGAIN}')
    if content[:512].lstrip()[:1] == b'<':
        raise CheckpointError(f'this is a web page, not a checkpoint (the link asks for a click); {_AGAIN}')
    packed = content.startswith((b'\x1f\x8b', b'BZh', b'\xfd7zXZ\x00'))
    if packed or content[257:262] == b'ustar':
        kind = 'a compressed file' if packed else 'a real tar archive'
        raise CheckpointError(f'this is {kind}, not a PyTorch checkpoint; unpack it and convert the file in it')


def _check_zip(content: bytes) -> int:
    """Bytes of tensors that a zip container can hold at most.

    One that PyTorch did not write, or that is damaged, is refused before anything in it is unpickled.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise CheckpointError(f'truncated or damaged: {error} ({len(content)} bytes); {_AGAIN}') from None
    members = archive.infolist()
    names = [member.filename for member in members]
    if any(name.endswith('/constants.pkl') for name in names):
        raise CheckpointError('this is a TorchScript archive; save model.state_dict() instead')
    if not any(name.endswith('/data.pkl') for name in names):
        raise CheckpointError('this is a zip archive, not a PyTorch checkpoint; unpack it and convert the file in it')
    if len(set(names)) != len(names):
        raise CheckpointError(f'refused: the zip container lists a member twice; {_AGAIN}')
    unpacked = sum(member.file_size for member in members)
    # PyTorch compresses nothing, but people do who pack the same container again.
    compressed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if unpacked > len(content) * (_MOST_EXPANSION if compressed else 1) or len(members) > _MAX_MEMBERS:
        raise CheckpointError(
            f'refused as a zip bomb: {len(content)} bytes unpack to {unpacked} in {len(members)} members; {_AGAIN}'
        )
    try:
        damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError, RuntimeError) as error:
        raise CheckpointError(f'truncated or damaged: {error} ({len(content)} bytes); {_AGAIN}') from None
    if damaged is not None:
        raise CheckpointError(f'damaged: the checksum of its member {damaged} is wrong; {_AGAIN}')
    return unpacked if compressed else len(content)


def _unpickle(content: bytes) -> Any:
    try:
        with warnings.catch_warnings():  # about the pickle's protocol, which a refusal makes irrelevant
            warnings.simplefilter('ignore')
            return torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)
    except Exception as error:  # untrusted input for a large parser: whatever goes wrong, the file is refused
        text = ' '.join(str(error).split()) or type(error).__name__
    forbidden = re.search(r'GLOBAL ([\w.]+)', text)
    if forbidden:
        raise CheckpointError(
            f'refused, and nothing was executed: opening it would call {forbidden.group(1)}; a checkpoint holds '
            'tensors alone (save model.state_dict())'
        )
    if any(sign in text for sign in ('EOF', 'truncated', 'Ran out of input', 'IndexError', 'index out of range')):
        raise CheckpointError(f'truncated after {len(content)} bytes; {_AGAIN}')
    reason = re.search(r'WeightsUnpickler error: (.{1,100}?)(?: Check the documentation|$)', text)
    raise CheckpointError(f'not a PyTorch checkpoint, or damaged ({reason[1] if reason else "no pickle"}); {_AGAIN}')


def _read_safetensors(content: bytes) -> dict[str, torch.Tensor]:
    buffer = bytearray(content)
    data = LENGTH_BYTES + header_length(buffer, len(buffer))
    records = parse_header(content[LENGTH_BYTES:data], len(buffer) - data)
    return tensors_from_buffer(buffer, records, data)


def _state_in(loaded: Any, averaged: bool) -> Any:
    """What should be the state dict in what was loaded."""
    parts = loaded if isinstance(loaded, Mapping) else {}
    found = next(
        (parts[key] for key in (_AVERAGED if averaged else _STATES) if isinstance(parts.get(key), Mapping)), None
    )
    if found is None and averaged:
        raise CheckpointError(f'it holds no averaged weights ({" or ".join(_AVERAGED)}); leave out --use-ema')
    if found is not None and _LIGHTNING in parts:
        found = {key: value for key, value in found.items() if str(key).startswith('model.')} or found
    return loaded if found is None else found


def _tensors_of(state: Any, size: int) -> dict[str, torch.Tensor]:
    """The tensors of a state dict that came from ``size`` bytes, without the prefixes that wrappers add to all keys."""
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f'no state dict: it holds {_described(state)}; save model.state_dict()')
    for key, value in state.items():
        if not isinstance(key, str):
            what = f'one of its keys is the {type(key).__name__} {str(key)[:60]}, not a name'
            raise CheckpointError(f'no state dict: {what}; save model.state_dict()')
        if not isinstance(value, torch.Tensor):
            what = f'its entry {key[:60]!r} is {_described(value)}, not a tensor'
            raise CheckpointError(f'no state dict: {what}; save model.state_dict()')
        if value.layout != torch.strided or value.is_quantized:
            raise CheckpointError(f'the tensor {key!r} is sparse or quantized; save the float32 model')
    # A view can claim any shape over a few bytes, and its copy must not exhaust the memory.
    claimed = sum(value.nbytes for value in state.values())
    if claimed > size:
        raise CheckpointError(f'refused: a file of {size} bytes claims to hold {claimed} bytes of tensors; {_AGAIN}')
    result = dict(state)
    while prefix := next((prefix for prefix in _WRAPPERS if all(key.startswith(prefix) for key in result)), None):
        result = {key.removeprefix(prefix): value for key, value in result.items()}
    return {key: value.detach().contiguous() for key, value in result.items()}


def _described(value: Any) -> str:
    return f'an empty {type(value).__name__}' if value in ({}, [], ()) else f'a {type(value).__name__}'
