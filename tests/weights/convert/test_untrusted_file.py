"""Reading the authors' containers, and refusing everything else without executing it."""

import gzip
import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eca_zoo.weights.convert.untrusted_file import read_untrusted
from eca_zoo.weights.errors import CheckpointError

STATE = {'a.weight': torch.arange(6.0).reshape(2, 3), 'a.count': torch.tensor(3)}
AGAIN = 'get an intact copy of it from where it came from'


def saved(value: Any, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def refusal(path: Path, content: bytes | None = None) -> str:
    """What is said about ``path`` after its name."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_untrusted(path)
    text = str(caught.value)
    assert '\n' not in text
    assert text.startswith(f'{path}: ')
    return text.removeprefix(f'{path}: ')


class RunsCode:
    """A pickle of it makes a folder when it is opened without care."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize(
    'wrap',
    [
        lambda state: state,
        OrderedDict,
        lambda state: {
            'epoch': 3,
            'arch': 'x',
            'state_dict': state,
            'best_prec1': torch.tensor([77.0]),
            'optimizer': {},
        },
        lambda state: {'model': state},
        lambda state: {f'module.{key}': value for key, value in state.items()},
        lambda state: {'state_dict': {f'module.{key}': value for key, value in state.items()}},
        lambda state: {f'module._orig_mod.{key}': value for key, value in state.items()},
    ],
)
def test_every_container_gives_the_same_tensors(wrap, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / 'a.pth.tar'
    path.write_bytes(saved(wrap(STATE), legacy))
    original = read_untrusted(path)
    assert original.size == path.stat().st_size
    assert original.state.keys() == STATE.keys()
    assert all(torch.equal(original.state[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize('legacy', [False, True])
def test_pickle_that_would_run_code_is_refused_and_runs_nothing(legacy: bool, tmp_path: Path) -> None:
    marker = tmp_path / 'executed'
    for value in ({'state_dict': STATE, 'extra': RunsCode(marker)}, RunsCode(marker)):
        text = refusal(tmp_path / 'evil.pth', saved(value, legacy))
        assert text == (
            f'refused, and nothing was executed: opening it would call {os.mkdir.__module__}.mkdir; a checkpoint holds '
            'tensors alone (save model.state_dict())'
        )
    refusal(tmp_path / 'evil.pth', pickle.dumps(RunsCode(marker)))
    assert not marker.exists()


def test_whole_pickled_model_is_refused_with_its_class(tmp_path: Path) -> None:
    text = refusal(tmp_path / 'model.pth', saved(torch.nn.Linear(2, 2)))
    assert 'opening it would call torch.nn.modules.linear.Linear;' in text


@pytest.mark.parametrize('share', [0.01, 0.3, 0.7, 0.999])
@pytest.mark.parametrize('legacy', [False, True])
def test_truncated_file_is_refused(share: float, legacy: bool, tmp_path: Path) -> None:
    content = saved({'state_dict': {**STATE, 'b': torch.randn(1000)}}, legacy)
    text = refusal(tmp_path / 'a.pth', content[: int(len(content) * share)])
    assert 'truncated' in text or 'damaged' in text or 'refused' in text


def test_damaged_zip_is_refused_by_its_checksum(tmp_path: Path) -> None:
    content = bytearray(saved({'b': torch.zeros(1000)}))
    content[content.find(bytes(4000)) + 2000] = 1
    text = refusal(tmp_path / 'a.pth', bytes(content))
    assert text.startswith('damaged: the checksum of its member ')
    assert text.endswith(f'/data/0 is wrong; {AGAIN}')


def test_zip_bomb_is_refused_without_being_unpacked(tmp_path: Path) -> None:
    path = tmp_path / 'bomb.pth'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/data.pkl', b'\x80\x02}.')
        with archive.open('archive/data/0', 'w') as member:
            for _ in range(100):
                member.write(bytes(1 << 20))
    unpacked = f'{path.stat().st_size} bytes unpack to {100 * 2**20 + 4}'
    assert refusal(path) == f'refused as a zip bomb: {unpacked} in 2 members; {AGAIN}'


@pytest.mark.parametrize('method', [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_copy_of_a_checkpoint_that_was_packed_again_gives_its_tensors(method: int, tmp_path: Path) -> None:
    state = STATE | {'zeros': torch.zeros(10_000), 'noise': torch.randn(5000)}
    content, path = saved({'state_dict': state}), tmp_path / 'again.pth'
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(path, 'w', method) as again:
        for name in archive.namelist():
            again.writestr(name, archive.read(name))
    assert path.stat().st_size != len(content)
    read = read_untrusted(path)
    assert read.size == path.stat().st_size
    assert all(torch.equal(read.state[key], state[key]) for key in state)


def test_zip_whose_members_overlap_is_refused(tmp_path: Path) -> None:
    content = saved({'b': torch.zeros(1000), 'c': torch.ones(1000)})
    names = [info.filename for info in zipfile.ZipFile(io.BytesIO(content)).infolist()]
    entry = content.index(b'PK\x01\x02')
    end = content.index(b'PK\x05\x06') if b'PK\x06\x06' not in content else content.index(b'PK\x06\x06')
    doubled = content[:end] + content[entry:end] + content[end:]
    assert len(names) > 2
    text = refusal(tmp_path / 'a.pth', doubled)
    assert 'refused' in text or 'damaged' in text


def test_view_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    content = saved({'a': torch.zeros(1).expand(1 << 20, 1 << 20)})
    assert refusal(tmp_path / 'a.pth', content) == (
        f'refused: a file of {len(content)} bytes claims to hold {4 * 2**40} bytes of tensors; {AGAIN}'
    )


def test_legacy_storage_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    content = saved({'a': torch.zeros(1000)}, legacy=True)
    spoiled = content.replace(struct.pack('<H', 1000), struct.pack('<H', 65535))
    assert spoiled != content
    refusal(tmp_path / 'a.pth', spoiled)


def test_real_tar_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as archive:
        archive.addfile(tarfile.TarInfo('x'), io.BytesIO())
    remedy = 'not a PyTorch checkpoint; unpack it and convert the file in it'
    assert refusal(tmp_path / 'a.pth.tar', buffer.getvalue()) == f'this is a real tar archive, {remedy}'
    assert refusal(tmp_path / 'a.tar.gz', gzip.compress(buffer.getvalue())) == f'this is a compressed file, {remedy}'


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        (b'', f'the file is empty; {AGAIN}'),
        (b'\n<!DOCTYPE html><html>', f'this is a web page, not a checkpoint (the link asks for a click); {AGAIN}'),
        (
            gzip.compress(b'x', mtime=0),
            'this is a compressed file, not a PyTorch checkpoint; unpack it and convert the file in it',
        ),
        (b'hello', 'not a PyTorch checkpoint, or damaged ('),
        (bytes(1000), 'not a PyTorch checkpoint, or damaged ('),
        (saved({}), 'no state dict: it holds an empty dict; save model.state_dict()'),
        (saved([1, 2]), 'no state dict: it holds a list; save model.state_dict()'),
        (saved(torch.zeros(3)), 'no state dict: it holds a Tensor; save model.state_dict()'),
        (saved({'lr': 0.1}), "no state dict: its entry 'lr' is a float, not a tensor; save model.state_dict()"),
        (
            saved({1: torch.zeros(1)}),
            'no state dict: one of its keys is the int 1, not a name; save model.state_dict()',
        ),
        (
            saved({'a': torch.eye(3).to_sparse()}),
            "the tensor 'a' is sparse or quantized; save the float32 model",
        ),
    ],
)
def test_file_that_is_no_checkpoint_is_refused_with_the_reason(content: bytes, said: str, tmp_path: Path) -> None:
    assert refusal(tmp_path / 'a.pth', content).startswith(said)


def test_numpy_archive_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / 'a.npz', a=np.zeros(3))
    said = 'this is a zip archive, not a PyTorch checkpoint; unpack it and convert the file in it'
    assert refusal(tmp_path / 'a.npz') == said


def test_torchscript_archive_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / 'a.pt')
    assert refusal(tmp_path / 'a.pt') == 'this is a TorchScript archive; save model.state_dict() instead'


def test_folder_and_missing_file_are_named(tmp_path: Path) -> None:
    assert refusal(tmp_path) == 'this is a folder; name the checkpoint file in it'
    assert refusal(tmp_path / 'absent.pth') == 'cannot read the checkpoint: No such file or directory'
