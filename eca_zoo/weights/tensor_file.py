"""A strict reader and a deterministic writer of the safetensors format, over bytes in memory.

Format: https://github.com/huggingface/safetensors#format. The reader refuses whatever the format leaves ambiguous
(repeated keys, holes, overlaps, sizes that do not follow from dtype and shape) and makes tensors that use the buffer's
memory. The writer gives equal bytes for equal tensors, with large tensors on 64-byte boundaries.
"""

import json
import math
from collections.abc import Mapping
from itertools import groupby
from typing import Any, NamedTuple

import torch

from eca_zoo.weights.errors import CheckpointError

LENGTH_BYTES = 8
ALIGNMENT = 64
MAX_HEADER = 100_000_000  # bytes; the format's own limit
_MAX_DIMENSIONS = 8
_DTYPES = {
    'F64': torch.float64,
    'F32': torch.float32,
    'F16': torch.float16,
    'BF16': torch.bfloat16,
    'I64': torch.int64,
    'I32': torch.int32,
    'I16': torch.int16,
    'I8': torch.int8,
    'U8': torch.uint8,
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


class TensorRecord(NamedTuple):
    """One tensor of a file; ``begin`` and ``end`` are byte offsets into the data section."""

    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def header_length(first: bytes | bytearray | memoryview, file_size: int) -> int:
    """Length of the JSON header in bytes, from the file's first 8 bytes.

    Raises:
        CheckpointError: it is no length that a file of ``file_size`` bytes can have.
    """
    if len(first) < LENGTH_BYTES or file_size < LENGTH_BYTES:
        raise CheckpointError(f'too short for safetensors: {file_size} bytes')
    length = int.from_bytes(first[:LENGTH_BYTES], 'little')
    if length > MAX_HEADER or length > file_size - LENGTH_BYTES:
        raise CheckpointError(f'no safetensors file: it claims a header of {length} bytes and has {file_size} in all')
    return length


def parse_header(header: bytes, data_size: int) -> list[TensorRecord]:
    """The records of ``header`` in the order of their data, checked against a data section of ``data_size`` bytes.

    Raises:
        CheckpointError: the header is malformed or does not describe the data section exactly.
    """
    if not header.startswith(b'{'):
        raise CheckpointError('no safetensors file: its header is no JSON object')
    try:
        raw = json.loads(header.decode('utf-8'), object_pairs_hook=_unique_keys)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f'malformed safetensors header: {" ".join(str(error).split())}') from None
    records = [_parse_record(key, value) for key, value in raw.items() if key != '__metadata__']
    records.sort(key=lambda record: (record.begin, record.end))
    position = 0
    for record in records:
        if record.begin != position:
            what = 'overlaps the one before' if record.begin < position else 'leaves a hole before it'
            raise CheckpointError(f'malformed safetensors header: tensor {record.key!r} {what}')
        position = record.end
    if position != data_size:
        raise CheckpointError(f'the header describes {position} bytes of tensors, but the file holds {data_size}')
    return records


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise CheckpointError(f'malformed safetensors header: key {repeated!r} occurs twice')
    return result


def _parse_record(key: str, raw: Any) -> TensorRecord:
    if not isinstance(raw, dict) or raw.keys() != {'dtype', 'shape', 'data_offsets'}:
        raise CheckpointError(f'malformed safetensors header: tensor {key!r} needs dtype, shape and data_offsets')
    dtype = _DTYPES.get(raw['dtype']) if isinstance(raw['dtype'], str) else None
    if dtype is None:
        raise CheckpointError(f'tensor {key!r} has the dtype {str(raw["dtype"])[:20]!r}, which is not supported')
    shape, offsets = raw['shape'], raw['data_offsets']
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2 or len(shape) > _MAX_DIMENSIONS:
        raise CheckpointError(f'malformed safetensors header: shape or data_offsets of tensor {key!r}')
    begin, end = offsets
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise CheckpointError(f'tensor {key!r}: {end - begin} bytes of data do not fit its dtype and shape')
    return TensorRecord(key, dtype, tuple(shape), begin, end)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def tensors_from_buffer(buffer: Any, records: list[TensorRecord], data_start: int) -> dict[str, torch.Tensor]:
    """Tensors that use the memory of the writable ``buffer``, each with a storage of exactly its own size.

    Those that do not begin on a 64-byte boundary are copied; in a file from ``serialize`` these are small.

    Args:
        buffer: an object with the buffer protocol; the tensors keep it alive.
        records: what ``parse_header`` returned for it.
        data_start: offset of the data section in the buffer.
    """
    return {record.key: _tensor(buffer, record, data_start) for record in records}


def _tensor(buffer: Any, record: TensorRecord, data_start: int) -> torch.Tensor:
    tensor = _view(buffer, record, data_start)
    # As PyTorch's own allocations: elsewhere kernels are slower, and the last bit of a result may differ.
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor


def _view(buffer: Any, record: TensorRecord, data_start: int) -> torch.Tensor:
    if record.begin == record.end:
        return torch.empty(record.shape, dtype=record.dtype)
    offset, size = data_start + record.begin, record.end - record.begin
    if offset % record.dtype.itemsize:
        # Arithmetic on such an address is undefined, and the format allows it: copy the tensor.
        view = torch.frombuffer(buffer, dtype=torch.uint8, count=size, offset=offset)
        return view.clone().view(record.dtype).reshape(record.shape)
    count = size // record.dtype.itemsize
    return torch.frombuffer(buffer, dtype=record.dtype, count=count, offset=offset).reshape(record.shape)


def first_not_finite(buffer: Any, records: list[TensorRecord], data_start: int) -> str | None:
    """Key of the first floating-point tensor that holds NaN or an infinity, or None; arguments as above."""
    for dtype, group in groupby(records, key=lambda record: record.dtype):
        run = list(group)
        # Tensors of one dtype lie side by side; a sum needs no temporary, and a NaN or an infinity shows
        # in it. So does an overflow, hence the second, exact look.
        if dtype.is_floating_point and not _view(buffer, _joined(run), data_start).sum().isfinite():
            for record in run:
                if not _view(buffer, record, data_start).isfinite().all():
                    return record.key
    return None


def _joined(run: list[TensorRecord]) -> TensorRecord:
    begin, end, dtype = run[0].begin, run[-1].end, run[0].dtype
    return TensorRecord('', dtype, ((end - begin) // dtype.itemsize,), begin, end)


def serialize(state: Mapping[str, torch.Tensor]) -> bytearray:
    """The bytes of a safetensors file with the tensors of ``state``; they depend on names and values alone.

    Raises:
        CheckpointError: a tensor's dtype has no code in the format.
    """
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    for key, tensor in tensors.items():
        if tensor.dtype not in _CODES:
            raise CheckpointError(f'tensor {key!r} has the dtype {tensor.dtype}, which safetensors files cannot hold')
    header: dict[str, Any] = {'__metadata__': {'format': 'pt'}}
    position = 0
    order = sorted(tensors, key=lambda key: _layout_order(key, tensors[key]))
    for key in order:
        end = position + tensors[key].nbytes
        header[key] = {
            'dtype': _CODES[tensors[key].dtype],
            'shape': list(tensors[key].shape),
            'data_offsets': [position, end],
        }
        position = end
    text = json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode()
    text += b' ' * (-(LENGTH_BYTES + len(text)) % ALIGNMENT)
    result = bytearray(len(text).to_bytes(LENGTH_BYTES, 'little') + text)
    for key in order:
        result += tensors[key].reshape(-1).view(torch.uint8).numpy().data if tensors[key].nbytes else b''
    return result


def _layout_order(key: str, tensor: torch.Tensor) -> tuple[bool, int, str]:
    """Whole multiples of 64 bytes come first, so that all of them are aligned; the rest by falling item size."""
    return tensor.nbytes % ALIGNMENT != 0, -tensor.dtype.itemsize, key
