"""Verified loading: only bytes with the manifest's hash become tensors."""

import gc
import hashlib
import logging
import os
from pathlib import Path

import msgspec
import pytest
import timm
import torch

from eca_zoo.weights.convert.key_maps import mobilenetv2_key, rename_keys
from eca_zoo.weights.errors import CheckpointError, ConvertNeededError, HashMismatchError
from eca_zoo.weights.load import check_tensors, load_verified
from eca_zoo.weights.local_manifest import record_entry
from eca_zoo.weights.manifest import AuthorsFile, Entry, ManifestError, Source, packaged_manifest
from eca_zoo.weights.tensor_file import serialize
from tests.reference_checkpoints import reference_state_dict
from tests.spawning import run_python
from tests.weights.helpers import NAME, entry_with


def stored(home: Path, content: bytes, *, keep_entry: bytes | None = None) -> tuple[Path, Entry]:
    """A file under ECA_ZOO_HOME with ``content``, and its entry (for ``keep_entry`` where the file differs from it)."""
    home.mkdir(exist_ok=True)
    path = home / 'model.safetensors'
    path.write_bytes(content)
    return path, entry_with(keep_entry or content, Source(file='model.safetensors'))


def test_every_one_of_many_flipped_bits_is_noticed(home: Path, content: bytes) -> None:
    path, entry = stored(home, content)
    load_verified(NAME, entry)
    step = len(content) * 8 // 50
    for bit in range(0, len(content) * 8, step):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(HashMismatchError) as caught:
            load_verified(NAME, entry)
        assert str(caught.value) == (
            f'{path}: these are not the weights of {NAME}: SHA-256 {hashlib.sha256(changed).hexdigest()} '
            f'({len(content)} bytes), expected {hashlib.sha256(content).hexdigest()} ({len(content)} bytes); '
            'nothing was loaded; to replace the file run: eca-zoo convert FILE'
        )


@pytest.mark.parametrize('change', [lambda c: c[:-1], lambda c: c + b'x', lambda c: b'', lambda c: c[:4]])
def test_file_of_another_length_is_refused_with_both_hashes(change, home: Path, content: bytes) -> None:
    changed = change(content)
    _, entry = stored(home, changed, keep_entry=content)
    with pytest.raises(HashMismatchError) as caught:
        load_verified(NAME, entry)
    assert f'SHA-256 {hashlib.sha256(changed).hexdigest()} ({len(changed)} bytes)' in str(caught.value)


def test_tensors_do_not_follow_a_file_that_changes_later(home: Path, content: bytes) -> None:
    path, entry = stored(home, content)
    tensors = load_verified(NAME, entry)
    before = {key: tensor.clone() for key, tensor in tensors.items()}
    with path.open('r+b') as file:
        file.write(bytes(len(content)))
    assert all(torch.equal(tensors[key], before[key]) for key in before)


def test_tensors_keep_their_memory_alive_and_can_be_written(home: Path, content: bytes) -> None:
    _, entry = stored(home, content)
    weight = load_verified(NAME, entry)['fc.weight']
    expected = load_verified(NAME, entry)['fc.weight'].clone()
    gc.collect()
    weight += 1
    assert torch.equal(weight, expected + 1)
    assert weight.untyped_storage().nbytes() == weight.nbytes


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_forked_process_that_changes_weights_changes_its_own_alone(home: Path, content: bytes) -> None:
    stored(home, content)
    # In a process without other threads: a fork of one that has some may wait for their locks without end.
    script = (
        'import os\n'
        'from eca_zoo.weights.load import load_verified\n'
        'from eca_zoo.weights.manifest import Source\n'
        'from tests.weights.helpers import NAME, entry_with\n'
        f'content = open({str(home / "model.safetensors")!r}, "rb").read()\n'
        'weight = load_verified(NAME, entry_with(content, Source(file="model.safetensors")))["fc.bias"]\n'
        'before = weight.clone()\n'
        'child = os.fork()\n'
        'if child == 0:\n'
        '    weight[:] = 0\n'
        '    os._exit(7)\n'
        'print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), weight.equal(before), bool(before.any()))\n'
    )
    done = run_python('-c', script, check=True)
    assert done.stdout == '7 True True\n'


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_value_that_is_not_finite_is_refused(value: float, dtype: torch.dtype, home: Path) -> None:
    bad = torch.ones(1000, dtype=dtype)
    bad[777] = value
    path, entry = stored(home, bytes(serialize({'a': torch.ones(64, dtype=dtype), 'b': bad, 'c': torch.ones(3)})))
    with pytest.raises(CheckpointError) as caught:
        load_verified(NAME, entry)
    said = f"{path}: tensor 'b' holds NaN or infinite values; {NAME} needs another file"
    assert str(caught.value) == said


def test_finite_values_whose_sum_overflows_are_accepted(home: Path) -> None:
    large = {'a': torch.full((1000,), 6e4, dtype=torch.float16), 'b': torch.full((64,), 3e38)}
    _, entry = stored(home, bytes(serialize(large)))
    assert torch.equal(load_verified(NAME, entry)['a'], large['a'])


def test_right_hash_of_a_file_that_is_no_safetensors_is_refused_with_the_reason(home: Path) -> None:
    path, entry = stored(home, (2**60).to_bytes(8, 'little') + bytes(100))
    with pytest.raises(CheckpointError) as caught:
        load_verified(NAME, entry)
    said = f'no safetensors file: it claims a header of {2**60} bytes and has 108 in all'
    assert str(caught.value) == f'{path}: {said}; {NAME} needs another file'


def test_entry_without_a_hash_says_how_to_get_the_weights(home: Path) -> None:
    name = 'eca_resnet50.k3557_in1k'
    with pytest.raises(ConvertNeededError) as caught:
        load_verified(name, packaged_manifest().models[name])
    assert str(caught.value) == (
        "eca_resnet50.k3557_in1k needs conversion: no hash of its weights is known; download the authors' file "
        'eca_resnet50_k3557.pth.tar from https://drive.google.com/file/d/1670rce333c_lyMWFzBlNZoVUvtxbCF_U '
        'and run: eca-zoo convert eca_resnet50_k3557.pth.tar'
    )


def test_changed_copy_gives_way_to_a_right_one_and_the_log_says_so(
    home: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path, _ = stored(home, content[:-1])
    (home / 'second').write_bytes(content)
    entry = entry_with(content, Source(file='model.safetensors'), Source(file='second'))
    with caplog.at_level(logging.WARNING):
        assert len(load_verified(NAME, entry)) == 96
    assert f'{path}: these are not the weights of {NAME}' in caplog.text
    assert f'loaded {home / "second"} instead' in caplog.text


def test_remedy_follows_from_where_the_file_comes_from(home: Path, content: bytes) -> None:
    home.mkdir()
    (home / 'model.safetensors').write_bytes(b'x')
    here = Source(file='model.safetensors')
    entry = entry_with(content, here)
    remedies = {
        'eca-zoo convert FILE': entry,
        'eca-zoo convert mine.pth': Entry(**{**fields(entry), 'authors_file': AuthorsFile(file='mine.pth')}),
        f'eca-zoo fetch {NAME}': entry_with(content, here, Source(url='https://mirror.invalid/x')),
        'reinstall eca-zoo': entry_with(content, here, Source(package='checkpoints/x')),
    }
    for remedy, entry in remedies.items():
        with pytest.raises(HashMismatchError, match=f'{remedy}$'):
            load_verified(NAME, entry)


def fields(entry: Entry) -> dict:
    return {key: getattr(entry, key) for key in entry.__struct_fields__}


@pytest.mark.skipif(os.name != 'posix', reason='needs symbolic links')
def test_symbolic_link_out_of_the_home_is_refused(home: Path, content: bytes, tmp_path: Path) -> None:
    home.mkdir()
    (tmp_path / 'outside').write_bytes(content)
    (home / 'link').symlink_to(tmp_path / 'outside')
    with pytest.raises(ManifestError) as caught:
        load_verified(NAME, entry_with(content, Source(file='link')))
    assert str(caught.value) == (
        f'{home / "weights_manifest.yaml"}: models.{NAME}.checkpoint.sources.file: link is a symbolic link that leads '
        f'out of {home}; copy the file there, or list it as url: file://...'
    )


def test_differences_from_the_network_are_named_before_it_changes() -> None:
    network = timm.create_model('test_eca_resnet')
    expected = network.state_dict()
    cases = {
        'missing fc.bias': {key: tensor for key, tensor in expected.items() if key != 'fc.bias'},
        'unexpected more': {**expected, 'more': torch.zeros(1)},
        'fc.bias has shape [7] instead of [10]': {**expected, 'fc.bias': torch.zeros(7)},
        'fc.bias has dtype torch.float16 instead of torch.float32': {**expected, 'fc.bias': expected['fc.bias'].half()},
    }
    for said, state in cases.items():
        with pytest.raises(CheckpointError) as caught:
            check_tensors(state, expected, NAME)
        assert str(caught.value) == f'the checkpoint of {NAME} does not fit the network: {said}'
    check_tensors(expected, expected, NAME)


def test_many_differences_are_counted() -> None:
    expected = {f'layer{i}': torch.zeros(1) for i in range(9)}
    with pytest.raises(CheckpointError) as caught:
        check_tensors({}, expected, NAME)
    assert str(caught.value).endswith('missing layer0; missing layer1; missing layer2; and 6 more')


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda s: s.pop('bn1.bias'), 'missing bn1.bias'),
        (lambda s: s.update(more=torch.zeros(1)), 'unexpected more'),
        (lambda s: s.update({'bn1.bias': torch.zeros(7)}), 'bn1.bias has shape [7] instead of [32]'),
        (
            lambda s: s.update({'bn1.bias': torch.zeros(32).half()}),
            'bn1.bias has dtype torch.float16 instead of torch.float32',
        ),
        (lambda s: s['bn1.bias'].fill_(float('nan')), "tensor 'bn1.bias' holds NaN or infinite values"),
    ],
)
def test_file_that_does_not_fit_the_network_is_refused_by_the_factory(change, said: str, home: Path) -> None:
    name = 'eca_mobilenetv2.k13_in1k'
    state = rename_keys(reference_state_dict('eca_mobilenetv2'), mobilenetv2_key)
    change(state)
    content = bytes(serialize(state))
    path = home / 'model.safetensors'
    home.mkdir()
    path.write_bytes(content)
    entry = packaged_manifest().models[name]
    checkpoint = entry_with(content, Source(file='model.safetensors')).checkpoint
    record_entry(name, msgspec.structs.replace(entry, checkpoint=checkpoint))
    with pytest.raises(CheckpointError) as caught:
        timm.create_model(name, pretrained=True)
    assert said in str(caught.value)
    assert name in str(caught.value)
