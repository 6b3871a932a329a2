"""Converting the authors' checkpoints: recognised from tensors, strict, equal bytes, recorded with both hashes."""

import hashlib
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import timm
import torch

from eca_zoo.errors import InputError
from eca_zoo.files import StorageError
from eca_zoo.weights.convert.conversion import ConvertResult, convert
from eca_zoo.weights.errors import CheckpointError, ConvertNeededError, HashMismatchError
from eca_zoo.weights.local_manifest import local_manifest, record_entry
from eca_zoo.weights.manifest import load_manifest, packaged_manifest
from tests.reference_checkpoints import checkpoint, golden_input, layouts, reference_state_dict
from tests.spawning import run_python

GOLDEN = np.load(Path(__file__).parents[2] / 'data' / 'golden_logits.npz')
SMALL = 'eca_mobilenetv2'  # 14 MB, and the one whose keys all change


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def original(name: str, folder: Path, **options: bool) -> Path:
    """A stand-in for the authors' file."""
    legacy = options.pop('legacy', False)
    path = folder / f'{layouts()[name]["file"]}.pth.tar'
    torch.save(checkpoint(name, **options), path, _use_new_zipfile_serialization=not legacy)
    return path


def save(state: dict[str, torch.Tensor], folder: Path) -> Path:
    torch.save(state, folder / 'changed.pth')
    return folder / 'changed.pth'


@pytest.fixture
def converted(home: Path, tmp_path: Path) -> ConvertResult:
    return convert(original(SMALL, tmp_path))


@pytest.mark.parametrize('name', ['eca_resnet18', SMALL])
def test_logits_of_the_converted_folder_are_those_of_the_authors_code(name: str, home: Path, tmp_path: Path) -> None:
    result = convert(original(name, tmp_path), out=tmp_path / 'out')
    for model in (f'local-dir:{result.folder}', f'local-dir:{tmp_path / "out"}', result.name, name):
        network = timm.create_model(model, pretrained=True).eval()
        with torch.no_grad():
            logits = network(golden_input()).double().numpy()
        error = np.linalg.norm(logits - GOLDEN[name]) / np.linalg.norm(GOLDEN[name])
        assert error <= 1e-5, model


@pytest.mark.parametrize(
    'options', [{'data_parallel': True}, {'bare': True}, {'legacy': True}, {'bare': True, 'data_parallel': True}]
)
def test_every_container_gives_equal_bytes(options: dict, converted: ConvertResult, tmp_path: Path) -> None:
    (tmp_path / 'other').mkdir()
    other = convert(original(SMALL, tmp_path / 'other', **options))
    assert (other.name, other.sha256, other.size) == (converted.name, converted.sha256, converted.size)
    assert other.source_sha256 != converted.source_sha256


def test_converting_twice_gives_equal_bytes(home: Path, tmp_path: Path) -> None:
    path = original(SMALL, tmp_path)
    first, second = convert(path, out=tmp_path / 'one'), convert(path, out=tmp_path / 'two')
    assert sha256(tmp_path / 'one' / 'model.safetensors') == sha256(tmp_path / 'two' / 'model.safetensors')
    assert (tmp_path / 'one' / 'config.json').read_bytes() == (tmp_path / 'two' / 'config.json').read_bytes()
    assert msgspec.structs.asdict(local_manifest().models[first.name].checkpoint)['sha256'] == second.sha256


def test_both_hashes_are_recorded_in_the_local_manifest(converted: ConvertResult, home: Path, tmp_path: Path) -> None:
    path = tmp_path / 'eca_mobilenetv2_k13.pth.tar'
    entry = local_manifest().models['eca_mobilenetv2.k13_in1k']
    assert entry.authors_file.sha256 == sha256(path) == converted.source_sha256
    assert entry.authors_file.size == path.stat().st_size
    assert entry.checkpoint.sha256 == sha256(converted.folder / 'model.safetensors') == converted.sha256
    assert entry.checkpoint.size == converted.size
    assert entry.checkpoint.sources[0].file == f'{converted.folder.relative_to(home)}/model.safetensors'
    assert load_manifest().models[converted.name].reported.top1 == 72.56


def test_folder_can_be_published_as_it_is(converted: ConvertResult) -> None:
    config = json.loads((converted.folder / 'config.json').read_text())
    assert config['architecture'] == SMALL
    assert config['num_classes'] == 1000
    assert config['model_args']['kernel_sizes'] == [1, 3]
    assert config['pretrained_cfg']['tag'] == 'k13_in1k'
    assert config['pretrained_cfg']['crop_pct'] == 0.875
    assert not {'url', 'file', 'hf_hub_id'} & config['pretrained_cfg'].keys()
    assert sorted(path.name for path in converted.folder.iterdir()) == ['config.json', 'model.safetensors']


def test_before_conversion_there_is_one_error_and_after_it_a_new_process_lists_and_loads(
    home: Path, tmp_path: Path
) -> None:
    script = (
        'import eca_zoo, timm, sys\n'
        "print(timm.list_pretrained('eca_mobilenet*'))\n"
        'try:\n'
        "    network = timm.create_model('eca_mobilenetv2', pretrained=True, num_classes=7, in_chans=1)\n"
        '    print(network.classifier.weight.shape)\n'
        'except eca_zoo.errors.InputError as error:\n'
        '    print(type(error).__name__)\n'
    )

    def listed() -> list[str]:
        return run_python('-c', script, check=True).stdout.splitlines()

    assert listed() == ['[]', 'ConvertNeededError']
    assert timm.list_pretrained('eca_mobilenet*') == []
    convert(original(SMALL, tmp_path))
    assert timm.list_pretrained('eca_mobilenet*') == ['eca_mobilenetv2.k13_in1k']  # in this process
    assert timm.is_model_pretrained('eca_mobilenetv2')
    assert listed() == ["['eca_mobilenetv2.k13_in1k']", 'torch.Size([7, 1280])']


def test_kernel_sizes_that_the_manifest_does_not_list_get_a_tag_of_their_own(home: Path, tmp_path: Path) -> None:
    state = reference_state_dict('eca_resnet18')
    for key, tensor in state.items():
        if '.eca.' in key:
            stage = int(key[5])
            state[key] = torch.nn.functional.pad(tensor[:, :, :3], (4, 4) if stage == 4 else (0, 0))
    result = convert(save(state, tmp_path))
    assert result.name == 'eca_resnet18.k3-3-3-11'
    assert result.kernel_sizes == (3, 3, 3, 11)
    network = timm.create_model(f'local-dir:{result.folder}', pretrained=True)
    assert network.layer4[0].se.conv.kernel_size == (11,)
    entry = local_manifest().models[result.name]
    assert (entry.dataset, entry.license, entry.reported) == ('unknown', 'unknown', None)


def test_other_class_count_gets_a_tag_of_its_own(home: Path, tmp_path: Path) -> None:
    state = reference_state_dict(SMALL)
    state['classifier.1.weight'], state['classifier.1.bias'] = torch.randn(10, 1280), torch.zeros(10)
    result = convert(save(state, tmp_path))
    assert (result.name, result.num_classes) == ('eca_mobilenetv2.k13_c10', 10)
    assert timm.create_model(f'local-dir:{result.folder}', pretrained=True).num_classes == 10


def test_tag_can_be_chosen(home: Path, tmp_path: Path) -> None:
    assert convert(original(SMALL, tmp_path), 'eca_mobilenetv2.mine').name == 'eca_mobilenetv2.mine'


def test_second_generation_under_the_same_name_is_refused_and_can_be_kept_under_another(
    converted: ConvertResult, home: Path, tmp_path: Path
) -> None:
    before = (home / 'weights_manifest.yaml').read_bytes()
    state = reference_state_dict(SMALL)
    state['features.0.0.weight'] += 1
    path = save(state, tmp_path)
    with pytest.raises(HashMismatchError) as caught:
        convert(path)
    said = f'{path}: these are not the weights of eca_mobilenetv2.k13_in1k that the manifest knows: '
    assert str(caught.value).startswith(f'{said}SHA-256 after conversion ')
    remedy = 'to keep both, give this one a tag: --model eca_mobilenetv2.TAG'
    assert str(caught.value).endswith(f', expected {converted.sha256}; nothing was recorded; {remedy}')
    assert (home / 'weights_manifest.yaml').read_bytes() == before
    convert(path, 'eca_mobilenetv2.second')
    assert list(local_manifest().models) == ['eca_mobilenetv2.k13_in1k', 'eca_mobilenetv2.second']


def test_packaged_hash_of_the_original_is_compared(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = packaged_manifest()
    name = 'eca_mobilenetv2.k13_in1k'
    published = msgspec.structs.replace(manifest.models[name].authors_file, sha256='0' * 64)
    entry = msgspec.structs.replace(manifest.models[name], authors_file=published)
    changed = msgspec.structs.replace(manifest, models={**manifest.models, name: entry})
    monkeypatch.setattr('eca_zoo.weights.convert.conversion.packaged_manifest', lambda: changed)
    path = original(SMALL, tmp_path)
    with pytest.raises(HashMismatchError) as caught:
        convert(path)
    assert f'{name} that the manifest knows: SHA-256 {sha256(path)}, expected {"0" * 64}' in str(caught.value)
    assert not home.exists()


def refusal(path: Path, model: str | None = None, error: type[Exception] = CheckpointError) -> str:
    with pytest.raises(error) as caught:
        convert(path, model)
    assert '\n' not in str(caught.value)
    return str(caught.value).removeprefix(f'{path}: ')


def test_checkpoint_of_another_network_is_refused(home: Path, tmp_path: Path) -> None:
    path = original('eca_resnet18', tmp_path)
    said = 'it holds eca_resnet18, not eca_resnet50; name that, or leave --model out'
    assert refusal(path, 'eca_resnet50') == said
    plain = save(timm.create_model('resnet18').state_dict(), tmp_path)
    assert refusal(plain) == (
        'no network here has these 122 tensors; the nearest is eca_resnet18: missing layer1.0.se.conv.weight; '
        'missing layer1.1.se.conv.weight; missing layer2.0.se.conv.weight; and 5 more'
    )
    assert refusal(plain, 'eca_resnet34').startswith('it does not hold eca_resnet34: missing layer1.0.se.conv.weight; ')
    assert not home.exists()


def test_unknown_network_is_named_with_the_nearest(home: Path, tmp_path: Path) -> None:
    said = refusal(original(SMALL, tmp_path), 'eca_resnet51', InputError)
    assert said.startswith('--model eca_resnet51: no network of this package; the nearest names are eca_resnet50')


@pytest.mark.parametrize('tag', ['../x', 'a b', 'a/b'])
def test_tag_that_is_no_name_is_refused(tag: str, home: Path, tmp_path: Path) -> None:
    said = f'--model {SMALL}.{tag}: a tag has letters, digits, _ and - alone'
    assert refusal(original(SMALL, tmp_path), f'{SMALL}.{tag}', InputError) == said


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (
            lambda s: s.pop('bn1.bias'),
            'no network here has these 129 tensors; the nearest is eca_resnet18: missing bn1.bias',
        ),
        (
            lambda s: s.update(more=torch.zeros(1)),
            'no network here has these 131 tensors; the nearest is eca_resnet18: unexpected more',
        ),
        (
            lambda s: s.update({'conv1.weight': torch.zeros(64, 1, 7, 7)}),
            'the checkpoint of eca_resnet18.k3577_in1k does not fit the network: '
            'conv1.weight has shape [64, 1, 7, 7] instead of [64, 3, 7, 7]',
        ),
        (
            lambda s: s.update({'bn1.bias': torch.zeros(64).double()}),
            'the checkpoint of eca_resnet18.k3577_in1k does not fit the network: '
            'bn1.bias has dtype torch.float64 instead of torch.float32',
        ),
        (
            lambda s: s['bn1.bias'].fill_(float('inf')),
            "its tensor 'bn1.bias' holds NaN or infinite values; use another checkpoint",
        ),
        (
            lambda s: s.update({'layer1.0.eca.conv.weight': torch.zeros(1, 1, 4)}),
            'no network here has these 130 tensors; the nearest is eca_resnet18: '
            'layer1.0.se.conv.weight has shape [1, 1, 4] instead of [1, 1, 3]',
        ),
        (
            lambda s: s.update({'layer1.0.eca.conv.weight': torch.zeros(1, 1, 9)}),
            'no network here has these 130 tensors; the nearest is eca_resnet18: '
            'layer1.1.se.conv.weight has shape [1, 1, 3] instead of [1, 1, 9]',
        ),
        (
            lambda s: [s.pop(key) for key in list(s) if key.startswith('layer4.1.')],
            'no network here has these 117 tensors; the nearest is eca_resnet18: missing layer4.1.conv1.weight; '
            'missing layer4.1.bn1.weight; missing layer4.1.bn1.bias; and 10 more',
        ),
        (
            lambda s: s.pop('fc.weight'),
            'no network here has these 129 tensors; the nearest is eca_resnet18: missing fc.weight',
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused_and_nothing_is_written(
    change, said: str, home: Path, tmp_path: Path
) -> None:
    state = reference_state_dict('eca_resnet18')
    change(state)
    assert refusal(save(state, tmp_path)) == said
    assert not home.exists()


def test_folder_that_holds_another_checkpoint_is_not_overwritten(home: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'model.safetensors').write_bytes(b'precious')
    with pytest.raises(InputError) as caught:
        convert(original(SMALL, tmp_path), out=out)
    assert str(caught.value) == f'{out}: it holds another checkpoint already; choose another --folder, or remove it'
    assert (out / 'model.safetensors').read_bytes() == b'precious'


def test_out_that_is_a_file_is_named(home: Path, tmp_path: Path) -> None:
    (tmp_path / 'out').write_text('x')
    with pytest.raises(
        StorageError, match=f'^{tmp_path / "out"}: a file stands where a folder is needed; move it away'
    ):
        convert(original(SMALL, tmp_path), out=tmp_path / 'out')


def test_local_manifest_that_is_broken_is_not_overwritten(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    (home / 'weights_manifest.yaml').write_text('version: 1\nmodels: [')
    with pytest.raises(InputError, match='not a readable manifest'):
        convert(original(SMALL, tmp_path))
    assert (home / 'weights_manifest.yaml').read_text() == 'version: 1\nmodels: ['


def test_other_entries_of_the_local_manifest_stay(converted: ConvertResult) -> None:
    entry = local_manifest().models[converted.name]
    record_entry('eca_resnet18.mine', entry)
    assert list(local_manifest().models) == [converted.name, 'eca_resnet18.mine']


def test_timm_s_own_key_names_are_read_too(home: Path, tmp_path: Path) -> None:
    network = timm.create_model('test_eca_resnet', num_classes=10)
    result = convert(save(network.state_dict(), tmp_path), 'test_eca_resnet.mine')
    assert (result.kernel_sizes, result.num_classes) == ((3, 3, 5, 5), 10)


def test_name_raises_before_conversion(home: Path) -> None:
    with pytest.raises(ConvertNeededError):
        timm.create_model(SMALL, pretrained=True)
