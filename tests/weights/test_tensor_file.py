"""The strict reader and the deterministic writer of safetensors files."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from eca_zoo.weights.errors import CheckpointError
from eca_zoo.weights.tensor_file import header_length, parse_header, serialize, tensors_from_buffer
from tests.reference_checkpoints import reference_state_dict


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        'conv.weight': torch.randn(4, 3, 3, 3, generator=generator),
        'gate.weight': torch.randn(1, 1, 3, generator=generator),
        'half': torch.randn(5, generator=generator).to(torch.bfloat16),
        'bytes': torch.arange(7, dtype=torch.uint8),
        'counter': torch.tensor(100),
        'empty': torch.empty(0, 4),
    }


def read(content: bytes) -> dict[str, torch.Tensor]:
    data = 8 + header_length(content, len(content))
    return tensors_from_buffer(bytearray(content), parse_header(content[8:data], len(content) - data), data)


def file_with(header: object, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, 'little') + text + data


def record(shape: object = (2,), offsets: object = (0, 8), dtype: object = 'F32') -> dict[str, object]:
    return {'dtype': dtype, 'shape': shape, 'data_offsets': offsets}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype
        assert found[key].shape == tensor.shape
        assert torch.equal(found[key], tensor)


def test_written_files_read_back_equal_here_and_with_the_format_s_own_library() -> None:
    content = bytes(serialize(state()))
    assert_equal(read(content), state())
    assert_equal(safetensors.torch.load(content), state())


def test_files_of_the_format_s_own_library_read_back_equal(tmp_path: Path) -> None:
    safetensors.torch.save_file(state(), tmp_path / 'a.safetensors', {'format': 'pt'})
    assert_equal(read((tmp_path / 'a.safetensors').read_bytes()), state())


def test_bytes_depend_on_names_and_values_and_not_on_their_order_or_memory() -> None:
    reordered = dict(reversed(list(state().items())))
    reordered['conv.weight'] = reordered['conv.weight'].to(memory_format=torch.channels_last)
    assert serialize(reordered) == serialize(state())


def test_large_tensors_begin_on_64_byte_boundaries() -> None:
    content = bytes(serialize(reference_state_dict('eca_resnet18')))
    length = header_length(content, len(content))
    assert (8 + length) % 64 == 0
    records = parse_header(content[8 : 8 + length], len(content) - 8 - length)
    assert {r.begin % 64 for r in records if len(r.shape) == 4} == {0}


def test_each_tensor_has_a_storage_of_its_own_size() -> None:
    tensors = read(bytes(serialize(state())))
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors.values())


def test_tensors_are_aligned_as_pytorch_aligns_its_own(tmp_path: Path) -> None:
    safetensors.torch.save_file(state(), tmp_path / 'a.safetensors')
    for content in (bytes(serialize(state())), (tmp_path / 'a.safetensors').read_bytes()):
        assert all(tensor.data_ptr() % 64 == 0 for tensor in read(content).values())


def test_misaligned_tensor_is_read_right() -> None:
    values = torch.tensor([1.5, -2.0])
    header = {'a': record((1,), (0, 1), 'U8'), 'b': record((2,), (1, 9))}
    assert torch.equal(read(file_with(header, b'\x07' + values.numpy().tobytes()))['b'], values)


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        (b'', 'too short for safetensors: 0 bytes'),
        (b'\0' * 7, 'too short for safetensors: 7 bytes'),
        (
            (2**60).to_bytes(8, 'little') + b'{}',
            f'no safetensors file: it claims a header of {2**60} bytes and has 10 in all',
        ),
        (file_with(b'[]'), 'no safetensors file: its header is no JSON object'),
        (file_with(b'{"a": '), 'malformed safetensors header: Expecting value: line 1 column 7 (char 6)'),
        (file_with(b'{"\xff": 1}'), "malformed safetensors header: 'utf-8' codec can't decode byte 0xff in position 2"),
        (file_with(b'{"a":' + b'[' * 100_000), 'malformed safetensors header: maximum recursion depth exceeded'),
        (
            file_with(b'{"a": 1, "a": 2}'),
            "malformed safetensors header: key 'a' occurs twice",
        ),
        (
            file_with(b'{"a": {"dtype": "F32", "dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'),
            "malformed safetensors header: key 'dtype' occurs twice",
        ),
        (file_with({'a': 1}), "malformed safetensors header: tensor 'a' needs dtype, shape and data_offsets"),
        (file_with({'a': {**record(), 'x': 1}}), "malformed safetensors header: tensor 'a' needs dtype, shape and"),
        (file_with({'a': record(dtype='F4')}), "tensor 'a' has the dtype 'F4', which is not supported"),
        (file_with({'a': record(dtype=4)}), "tensor 'a' has the dtype '4', which is not supported"),
        (file_with({'a': record((-2,))}), "malformed safetensors header: shape or data_offsets of tensor 'a'"),
        (file_with({'a': record((True, 2))}), "malformed safetensors header: shape or data_offsets of tensor 'a'"),
        (file_with({'a': record((2.0,))}), "malformed safetensors header: shape or data_offsets of tensor 'a'"),
        (file_with({'a': record([1] * 9)}), "malformed safetensors header: shape or data_offsets of tensor 'a'"),
        (file_with({'a': record((3,))}), "tensor 'a': 8 bytes of data do not fit its dtype and shape"),
        (file_with({'a': record((2**40, 2**40))}), "tensor 'a': 8 bytes of data do not fit its dtype and shape"),
        (file_with({'a': record(offsets=(8, 0))}), "tensor 'a': -8 bytes of data do not fit its dtype and shape"),
        (
            file_with({'a': record(), 'b': record()}),
            "malformed safetensors header: tensor 'b' overlaps the one before",
        ),
        (
            file_with({'a': record(offsets=(8, 16))}, bytes(16)),
            "malformed safetensors header: tensor 'a' leaves a hole before it",
        ),
        (file_with({'a': record()}, bytes(9)), 'the header describes 8 bytes of tensors, but the file holds 9'),
        (file_with({'a': record()}, bytes(7)), 'the header describes 8 bytes of tensors, but the file holds 7'),
        (file_with({}), 'the header describes 0 bytes of tensors, but the file holds 8'),
    ],
)
def test_malformed_file_is_refused_with_the_reason(content: bytes, said: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(content)
    assert str(caught.value).startswith(said)


def test_dtype_that_the_format_has_no_code_for_is_refused() -> None:
    with pytest.raises(
        CheckpointError, match=r"tensor 'z' has the dtype torch.complex64, which safetensors files cannot"
    ):
        serialize({'z': torch.zeros(2, dtype=torch.complex64)})
