"""Random corruptions of a real checkpoint, of originals and of a manifest: no wrong bytes load, and nothing crashes."""

import hashlib
import io
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eca_zoo.resources import packaged_path
from eca_zoo.weights.convert.untrusted_file import read_untrusted
from eca_zoo.weights.errors import CheckpointError, HashMismatchError
from eca_zoo.weights.load import load_file
from eca_zoo.weights.manifest import Manifest, ManifestError, parse_manifest

SCALE = int(os.environ.get('ECA_ZOO_FUZZ_SCALE', '1'))  # how many times longer to search, and then by chance
CHECKPOINTS, ORIGINALS, MANIFESTS = 600 * SCALE, 300 * SCALE, 600 * SCALE
KINDS = ['flip', 'overwrite', 'truncate', 'append', 'insert', 'delete', 'swap', 'zero']


def limits(examples: int) -> settings:
    slow = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=examples, derandomize=SCALE == 1, suppress_health_check=slow)


@st.composite
def corruptions(draw: st.DrawFn, content: bytes, header: int) -> bytes:
    """``content`` with one to three things wrong, half of them among its first ``header`` bytes."""
    result = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        end = draw(st.sampled_from([min(header, len(result)), len(result)]))
        at = draw(st.integers(0, max(0, end - 1)))
        count = draw(st.integers(1, 64))
        noise = draw(st.binary(min_size=1, max_size=64))
        kind = draw(st.sampled_from(KINDS))
        if kind == 'flip' and result:
            result[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == 'overwrite':
            result[at : at + len(noise)] = noise
        elif kind == 'truncate':
            del result[at:]
        elif kind == 'append':
            result += noise
        elif kind == 'insert':
            result[at:at] = noise
        elif kind == 'delete':
            del result[at : at + count]
        elif kind == 'swap':
            first, second = result[:count], result[at : at + count]
            result[:count], result[at : at + count] = second, first
        elif kind == 'zero':
            result[at : at + count] = bytes(len(result[at : at + count]))
    return bytes(result)


def test_no_corrupted_checkpoint_is_loaded(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / 'model.safetensors'
    sha256 = hashlib.sha256(content).hexdigest()
    tried = loaded = 0

    @limits(CHECKPOINTS)
    @given(corruptions(content, header=8192))
    def check(corrupted: bytes) -> None:
        nonlocal tried, loaded
        if corrupted == content:
            return
        path.write_bytes(corrupted)
        tried += 1
        said = ''
        try:
            load_file(path, len(content), sha256, 'a.b', 'fetch it')
            loaded += 1
        except HashMismatchError as error:
            said = str(error)
        assert '\n' not in said
        assert sha256 in said
        assert hashlib.sha256(corrupted).hexdigest() in said

    check()
    print(f'corruptions of a checkpoint: {tried} tried, {loaded} loaded')
    assert tried >= 500
    assert loaded == 0


def test_reader_refuses_or_reads_whatever_a_right_hash_covers(content: bytes, tmp_path: Path) -> None:
    """A manifest may hold the hash of a malformed file: the reader meets such bytes and must never crash on them."""
    path = tmp_path / 'model.safetensors'

    @limits(CHECKPOINTS)
    @given(corruptions(content, header=8192))
    def check(corrupted: bytes) -> None:
        path.write_bytes(corrupted)
        said = ''
        try:
            tensors = load_file(path, len(corrupted), hashlib.sha256(corrupted).hexdigest(), 'a.b', 'fetch it')
        except CheckpointError as error:
            tensors, said = {}, str(error)
        assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
        assert said.startswith(f'{path}: ') or tensors
        assert said.isprintable()

    check()


@pytest.mark.parametrize('legacy', [False, True])
def test_corrupted_original_is_refused_or_read_but_never_crashes(legacy: bool, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    state = {'module.conv.weight': torch.randn(8, 4, 3, 3), 'module.bn.num_batches_tracked': torch.tensor(3)}
    torch.save({'epoch': 1, 'state_dict': state}, buffer, _use_new_zipfile_serialization=not legacy)
    content, path = buffer.getvalue(), tmp_path / 'a.pth.tar'

    @limits(ORIGINALS)
    @given(corruptions(content, header=512))
    def check(corrupted: bytes) -> None:
        path.write_bytes(corrupted)
        said, original = '', None
        try:
            original = read_untrusted(path)
        except CheckpointError as error:
            said = str(error)
        if original is None:
            assert said.startswith(f'{path}: ')
            assert '\n' not in said
        else:
            assert all(isinstance(tensor, torch.Tensor) for tensor in original.state.values())
            assert original.sha256 == hashlib.sha256(corrupted).hexdigest()

    check()


def test_no_corrupted_manifest_makes_wrong_bytes_load(content: bytes, tmp_path: Path) -> None:
    text = packaged_path('weights_manifest.yaml').read_bytes()
    name, sha256 = 'test_eca_resnet.digits', hashlib.sha256(content).hexdigest()
    path = tmp_path / 'model.safetensors'
    wrong = content[:-1] + bytes([content[-1] ^ 1])
    path.write_bytes(wrong)
    begin = text.index(b'test_eca_resnet.digits')
    tried = refused = 0

    @limits(MANIFESTS)
    @given(corruptions(text[begin:], header=400), st.booleans())
    def check(tail: bytes, whole: bool) -> None:
        nonlocal tried, refused
        tried += 1
        corrupted = (text[:begin] if whole else b'version: 1\nmodels:\n  ') + tail
        said = ''
        try:
            manifest = parse_manifest(corrupted.decode('utf-8', errors='replace'), 'm.yaml')
        except ManifestError as error:
            refused, said = refused + 1, str(error)
            manifest = Manifest(models={})
        assert said.startswith('m.yaml: ') or not said
        assert '\n' not in said
        entry = manifest.models.get(name)
        if entry is not None and entry.checkpoint is not None:
            with pytest.raises(HashMismatchError):
                load_file(path, entry.checkpoint.size, entry.checkpoint.sha256, name, 'fetch it')

    check()
    print(f'corruptions of a manifest: {tried} tried, {refused} refused, 0 loads of wrong bytes')
    assert tried >= 500
    assert hashlib.sha256(wrong).hexdigest() != sha256
