"""The classifier and the channels of what is evaluated are those of its weights: no random one, no wrong count."""

import shutil
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

import eca_zoo
from eca_zoo.cli import main
from eca_zoo.errors import InputError
from eca_zoo.harness.accuracy.evaluation import evaluate
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.leaderboard import run_leaderboard
from eca_zoo.harness.networks.export import export_network
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.networks.pretrained import weights_sha256
from eca_zoo.harness.suites import parse_suite
from tests.harness.image_sets import MODEL, write_folder, write_named

QUICK = EvalSettings(batch_size=20, workers=0, device='cpu')


@pytest.fixture(scope='module')
def parity(tmp_path_factory):
    """Two classes, even and odd."""
    return write_named(
        tmp_path_factory.mktemp('parity'), lambda index, label: f'{"odd" if label % 2 else "even"}/{index:04d}.png'
    )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp('data') / 'digits')


@pytest.fixture(scope='module')
def parity_weights(tmp_path_factory):
    """The network of the digits with a head of two classes."""
    state = timm.create_model(MODEL, pretrained=True).state_dict()
    for key in ('fc.weight', 'fc.bias'):
        state[key] = torch.stack([state[key][0::2].mean(0), state[key][1::2].mean(0)])
    path = tmp_path_factory.mktemp('weights') / 'parity.safetensors'
    save_file(state, path)
    return path


def validate(*arguments: object) -> int:
    return main(['validate', '--device', 'cpu', '-j', '0', '-b', '20', *map(str, arguments)])


def board(text: str, folder: Path, data: Path | None = None):
    """The table of a suite."""
    done = run_leaderboard(parse_suite(text, folder / 'suite.yaml'), folder / 'run', data)
    assert done is not None
    return done


REFUSAL = (
    f'{MODEL}: its weights have 10 classes, not 2, so that its classifier would be random; name the --checkpoint of a '
    'network with 2 classes, or leave out --num-classes'
)


def test_weights_of_other_classes_are_no_accuracy_of_a_random_classifier(parity, tmp_path, capsys):
    results = tmp_path / 'results.csv'
    assert validate('-m', MODEL, '--num-classes', 2, parity, '--results-file', results) == 2
    assert capsys.readouterr().err == f'eca-zoo validate: error: {REFUSAL}\n'
    assert not results.exists()
    [result] = evaluate([ModelSpec(MODEL, num_classes=2)], DataSpec(root=parity), QUICK)
    assert (result.weights_sha256, result.error, result.exit_code) == (None, REFUSAL, 2)


def test_the_same_is_refused_among_the_arguments_of_the_entry_point(parity, capsys):
    assert validate('-m', MODEL, '--model-kwargs', 'num_classes=2', '--data-dir', parity) == 2
    assert capsys.readouterr().err == f'eca-zoo validate: error: {REFUSAL}\n'
    with pytest.raises(InputError, match='--num-classes 10 and --model-kwargs num_classes=2 differ; give one of them'):
        ModelSpec(MODEL, num_classes=10, model_kwargs={'num_classes': 2})


def test_weights_without_a_classifier_do_not_get_a_random_one(parity):
    [result] = evaluate([ModelSpec('vit_small_patch14_dinov2.lvd142m', num_classes=2)], DataSpec(root=parity), QUICK)
    assert 'its weights have no classifier, so that its classifier would be random' in result.error


def test_random_weights_that_are_asked_for_are_evaluated_without_a_hash(parity):
    [result] = evaluate([ModelSpec(MODEL, pretrained=False, num_classes=2)], DataSpec(root=parity), QUICK)
    assert (result.error, result.num_images, result.weights_sha256) == (None, 60, None)


def test_the_class_error_does_not_advise_a_random_classifier(parity, capsys):
    assert validate('-m', MODEL, parity) == 2
    message = capsys.readouterr().err
    assert 'the --checkpoint of a network with 2 classes' in message
    assert '--num-classes' not in message


def test_a_network_is_not_exported_with_a_random_classifier(tmp_path):
    with pytest.raises(InputError, match='its weights have 10 classes, not 2'):
        export_network(MODEL, tmp_path / 'x.onnx', model_kwargs={'num_classes': 2})
    assert not (tmp_path / 'x.onnx').exists()


def test_the_number_of_classes_is_that_of_the_checkpoints_head(parity, parity_weights, tmp_path, capsys):
    results = tmp_path / 'results.csv'
    assert validate('-m', 'test_eca_resnet', '--checkpoint', parity_weights, parity, '--results-file', results) == 0
    assert results.read_text().splitlines()[1].endswith(',60')
    [result] = evaluate([ModelSpec('test_eca_resnet', checkpoint=parity_weights)], DataSpec(root=parity), QUICK)
    assert len(result.per_class) == 2
    [result] = evaluate([ModelSpec(MODEL, checkpoint=parity_weights)], DataSpec(root=parity), QUICK)
    assert (len(result.per_class), result.num_images) == (2, 60)


def test_a_head_that_does_not_fit_the_data_is_named_by_its_classes(folder, parity_weights, capsys):
    assert validate('-m', 'test_eca_resnet', '--checkpoint', parity_weights, folder) == 2
    assert 'it has 10 classes (0, 1, 2, ...) and test_eca_resnet has 2 classes; ' in capsys.readouterr().err


def test_a_number_of_classes_that_is_not_the_heads_is_named_with_the_flag_of_the_command(
    parity, parity_weights, tmp_path, capsys
):
    arguments = ['-m', 'test_eca_resnet', '--checkpoint', parity_weights, '--num-classes', 10, write_folder(tmp_path)]
    assert validate(*arguments) == 2
    assert 'or its number of classes with --num-classes 2\n' in capsys.readouterr().err


SUITE = """
version: 1
models: [{{name: test_eca_resnet, label: mine, checkpoint: {checkpoint}, {more}}}]
data: {{name: digits, split: ''}}
accuracy: {{device: cpu, workers: 0}}
"""


def test_a_suite_takes_the_classes_from_the_head_and_its_messages_name_keys(parity, folder, parity_weights, tmp_path):
    text = SUITE.format(checkpoint=parity_weights, more='')
    [row] = board(text, tmp_path, parity).table.to_dict('records')
    assert row['num_images'] == 60
    two = timm.create_model('test_eca_resnet', num_classes=2)
    assert row['params'] == sum(parameter.numel() for parameter in two.parameters())
    shutil.rmtree(tmp_path / 'run')
    [error] = board(SUITE.format(checkpoint=parity_weights, more='num_classes: 10'), tmp_path, folder).errors
    assert error.endswith('or its number of classes with models[].num_classes 2')
    shutil.rmtree(tmp_path / 'run')
    [error] = board(text, tmp_path, folder).errors
    assert 'the models[].checkpoint of a network with 10 classes, or say which is which with data.class_map' in error
    with pytest.raises(InputError, match=r'no class folders.*or give data.ground_truth FILE'):
        board(text, tmp_path, folder / 'validation' / '3')


def test_messages_in_python_name_keywords(parity, folder):
    table = eca_zoo.evaluate(MODEL, parity, num_classes=2, workers=0, device='cpu')
    assert table['error'][0].endswith('name the checkpoint of a network with 2 classes, or leave out num_classes')
    with pytest.raises(InputError, match=r'no class folders.*or give ground_truth FILE'):
        eca_zoo.evaluate(MODEL, folder / 'validation' / '3', workers=0, device='cpu')


@pytest.mark.parametrize('channels', [['--in-chans', 1], ['--model-kwargs', 'in_chans=1'], ['--input-size', 1, 32, 32]])
def test_channels_are_those_of_the_network_however_they_are_asked_for(folder, channels, tmp_path):
    results = tmp_path / 'results.csv'
    assert validate('-m', MODEL, '--data-dir', folder, *channels, '--results-file', results) == 0
    assert results.read_text().splitlines()[1].split(',')[1] == '100.0'


def test_four_channels_need_a_mode_of_pillow_and_take_it(folder, capsys):
    arguments = ['-m', MODEL, '--data-dir', folder, '--model-kwargs', 'in_chans=4']
    assert validate(*arguments) == 2
    assert "images have 1 (L) or 3 (RGB); --input-img-mode names another of Pillow's modes" in capsys.readouterr().err
    assert validate(*arguments, '--input-img-mode', 'RGBA') == 0


def test_channels_that_contradict_each_other_are_an_error(folder, capsys):
    assert validate('-m', MODEL, '--data-dir', folder, '--in-chans', 1, '--input-size', 3, 32, 32) == 2
    assert f'{MODEL}: it takes 1 channels and --input-size has 3; make them one number' in capsys.readouterr().err


def test_a_network_that_was_built_for_grey_images_gets_them(folder):
    model = timm.create_model(MODEL, pretrained=True, in_chans=1)
    [result] = evaluate([ModelSpec(MODEL, module=model)], DataSpec(root=folder), QUICK)
    assert (result.error, result.top1) == (None, 100)
    assert eca_zoo.complexity(model)['params'][0] == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize('channels', [1, 4])
@pytest.mark.parametrize('size', [[], ['--img-size', 48]])
def test_benchmark_takes_the_channels_of_the_network(channels, size, tmp_path):
    results = tmp_path / 'results.csv'
    assert main([
        'benchmark', '--model', 'test_eca_resnet', '--model-kwargs', f'in_chans={channels}', '--device', 'cpu',
        '-b', '1', '--rounds', '1', '--round-seconds', '0', '--num-warm-iter', '1', *map(str, size),
        '--results-file', str(results),
    ]) == 0  # fmt: skip
    [row] = eca_zoo.read_table(results).to_dict('records')
    assert row['infer_samples_per_sec'] > 0


def test_a_hash_is_that_of_the_file_that_is_loaded(tmp_path, parity_weights):
    entry = weights_sha256(ModelSpec(MODEL))
    assert entry is not None
    elsewhere = ModelSpec(MODEL, model_kwargs={'pretrained_cfg_overlay': {'file': str(parity_weights)}})
    assert weights_sha256(elsewhere) not in (None, entry)
    address = ModelSpec(MODEL, model_kwargs={'pretrained_cfg_overlay': {'url': 'https://example.org/x.safetensors'}})
    assert weights_sha256(address) is None
    assert weights_sha256(ModelSpec('test_eca_resnet', model_kwargs={'pretrained_cfg': 'digits'})) == entry


@pytest.mark.parametrize(
    'pair',
    [
        {'in_chans': 'abc'},
        {'in_chans': 1.5},
        {'in_chans': 0},
        {'in_chans': True},
        {'num_classes': 'ten'},
        {'num_classes': -3},
    ],
)
def test_a_number_that_is_none_is_named(pair):
    [(name, value)] = pair.items()
    with pytest.raises(InputError, match=rf'resnet18: {name} must be an integer.*, not {value!r}'):
        ModelSpec('resnet18', model_kwargs=pair)
