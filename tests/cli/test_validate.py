"""The command validate: timm's flags and columns, and one line with a remedy for everything that is wrong."""

import csv
import json
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file

from eca_zoo.cli import main
from tests.harness.image_sets import MODEL, write_folder
from tests.spawning import run_python

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp('data') / 'digits')


def weights(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    save_file(timm.create_model('test_resnet', num_classes=10).state_dict(), path)
    return path


def validate(*arguments: object) -> int:
    return main(['validate', '--device', 'cpu', '-j', '0', '-b', '16', *map(str, arguments)])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def test_the_results_file_has_timms_columns_and_digits(folder, tmp_path, capsys):
    results = tmp_path / 'results.csv'
    assert validate('--model', MODEL, '--data-dir', folder, '--results-file', results) == 0
    [row] = rows(results)
    assert list(row) == [
        'model', 'top1', 'top1_err', 'top5', 'top5_err', 'param_count', 'img_size', 'crop_pct', 'interpolation',
        'num_images',
    ]  # fmt: skip
    assert row['model'] == MODEL
    assert (row['top1'], row['top1_err'], row['param_count'], row['img_size']) == ('100.0', '0.0', '0.37', '32')
    out = capsys.readouterr()
    assert MODEL in out.out
    assert out.err == ''


@pytest.mark.parametrize('order', ['DIR -m M', '-m M DIR', '-m M --data-dir DIR', 'M DIR', 'M --data-dir DIR'])
def test_the_folder_and_the_model_are_understood_wherever_users_type_them(folder, order, capsys):
    assert validate(*[{'DIR': folder, 'M': MODEL}.get(word, word) for word in order.split()]) == 0
    assert '100.0000' in capsys.readouterr().out


def test_one_result_as_json_is_an_object_and_several_are_a_list_best_first(folder, tmp_path):
    results = tmp_path / 'results.json'
    common = ['--data-dir', folder, '--results-file', results, '--results-format', 'json']
    validate('-m', MODEL, *common)
    assert json.loads(results.read_text())['top1'] == 100.0
    (tmp_path / 'models').mkdir()
    for seed in (0, 1):
        weights(tmp_path / 'models' / f'{seed}.safetensors', seed)
    validate('-m', 'test_resnet', '--num-classes', 10, '--checkpoint', tmp_path / 'models', *common)
    both = json.loads(results.read_text())
    assert sorted(row['checkpoint'] for row in both) == [str(tmp_path / 'models' / f'{n}.safetensors') for n in (0, 1)]
    assert {row['model'] for row in both} == {'test_resnet'}
    assert both[0]['top1'] >= both[1]['top1']


@pytest.mark.parametrize(
    'words', [['A', 'B', '--data-dir', 'DIR'], ['A', 'B', 'DIR'], ['A', '--checkpoint', 'B', 'DIR']]
)
def test_several_checkpoints_give_a_row_each(folder, tmp_path, words):
    files = {}
    for seed, run in enumerate('AB'):
        (tmp_path / run).mkdir()
        files[run] = weights(tmp_path / run / 'best.safetensors', seed)
    results = tmp_path / 'results.csv'
    common = ['-m', 'test_resnet', '--num-classes', 10, '--results-file', results]
    assert validate(*common, '--checkpoint', *[{**files, 'DIR': folder}.get(word, word) for word in words]) == 0
    assert {row['checkpoint'] for row in rows(results)} == {str(file) for file in files.values()}


def test_a_second_data_folder_is_refused_wherever_it_stands(folder, tmp_path, capsys):
    more = tmp_path / 'more'
    more.mkdir()
    for words in (
        ['-m', MODEL, '--data-dir', folder, more], [more, '-m', MODEL, '--data-dir', folder],
        [folder, more, '-m', MODEL], ['-m', MODEL, '--data-dir', more, '--data-dir', folder],
    ):  # fmt: skip
        assert validate(*words) == 2
        error = capsys.readouterr().err
        assert error.startswith('eca-zoo validate: error: ')
        assert str(folder) in error
        assert str(more) in error


def test_precision_recall_and_f1_are_columns_on_request(folder, tmp_path):
    results = tmp_path / 'results.csv'
    validate('-m', MODEL, '--data-dir', folder, '--results-file', results, '--metrics-avg', 'macro')
    [row] = rows(results)
    assert (row['macro_precision'], row['macro_recall'], row['macro_f1_score']) == ('100.0', '100.0', '100.0')


def test_what_was_counted_of_each_class_and_which_were_taken_for_which_are_tables_with_names(folder, tmp_path):
    path = weights(tmp_path / 'weights.safetensors')
    root = write_folder(tmp_path / 'named', names=[f'digit {value}' for value in range(10)])
    files = {name: tmp_path / name for name in ('classes.csv', 'confusion.json', 'predictions.parquet')}
    common = ['-m', 'test_resnet', '--num-classes', 10, '--checkpoint', path, '--data-dir', root]
    flags = ['--run-dir', tmp_path / 'run', '--save-predictions', files['predictions.parquet']]
    for more in ([], flags, flags):  # counted, counted with predictions, and taken from the journal
        tables = ['--per-class', files['classes.csv'], '--confusion', files['confusion.json']]
        assert validate(*common, *more, *tables, '--results-file', tmp_path / 'results.csv') == 0
        [result], classes = rows(tmp_path / 'results.csv'), rows(files['classes.csv'])
        pairs = json.loads(files['confusion.json'].read_text())
        assert [row['name'] for row in classes] == [f'digit {value}' for value in range(10)]
        assert sum(int(row['images']) for row in classes) == sum(int(row['guesses']) for row in classes) == 60
        assert sum(pair['images'] for pair in pairs) == 60
        right = {pair['class']: pair['images'] for pair in pairs if pair['class'] == pair['guess']}
        assert abs(float(result['top1']) - 100 * sum(right.values()) / 60) < 1e-3
        for row in classes:
            assert abs(float(row['top1']) - 100 * right.get(int(row['class']), 0) / int(row['images'])) < 1e-3
        assert all(pair['guess_name'] == f'digit {pair["guess"]}' for pair in pairs)
    predictions = pd.read_parquet(files['predictions.parquet'])
    assert [f'digit {target}' for target in predictions['target']] == predictions['target_name'].tolist()
    assert predictions['top5_names'][0][0] == f'digit {predictions["top5_classes"][0][0]}'


def test_a_table_of_classes_that_cannot_be_written_is_refused_before_anything_runs(folder, tmp_path, capsys):
    for flag, name in (('--per-class', 'x.txt'), ('--confusion', '.')):
        assert validate('-m', MODEL, folder, flag, tmp_path / name) == 2
        assert f'{tmp_path / name}: ' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_all_flags_of_timms_script_are_known_or_refused_with_a_reason(folder, capsys):
    arguments = [
        '--split', 'validation', '--pretrained', '--retry', '--log-freq', 10, '--img-size', 48, '--crop-pct', 0.9,
        '--crop-mode', 'squash', '--mean', 0.5, '--std', 0.5, 0.5, 0.5, '--interpolation', 'bicubic', '--gp', 'avg',
        '--amp', '--amp-dtype', 'bfloat16', '--channels-last', '--torchcompile', 'eager', '--test-pool', '--pin-mem',
        '--no-prefetcher', '--seed', 7, '--use-train-size', '--input-img-mode', 'RGB', '--reparam', '--num-classes', 10,
        '--model-kwargs', 'drop_rate=0.1',
    ]  # fmt: skip
    assert validate('-m', MODEL, '--data-dir', folder, *arguments) == 0
    capsys.readouterr()
    for flag in ('--num-gpu=2', '--tf-preprocessing', '--fuser=te', '--aot-autograd', '--fast-norm', '--naflex-loader'):
        assert validate('-m', MODEL, '--data-dir', folder, flag) == 2
        error = capsys.readouterr().err
        assert error.startswith(f'eca-zoo validate: error: {flag.partition("=")[0]}: ')
        assert error.count('\n') == 1


def test_the_help_names_the_flags_without_counterpart(capsys):
    with pytest.raises(SystemExit):
        main(['validate', '--help'])
    text = ' '.join(capsys.readouterr().out.split())
    assert "Flags of timm's validate.py that have no counterpart: --num-gpu (start one process for each GPU" in text
    assert '--checkpoint FILE' in text


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['-m', 'eca_resnet5', 'DIR'],
            "'eca_resnet5' is no model that timm knows; the nearest names are eca_resnet50, ",
        ),
        (['-m', MODEL], 'no data is named; give a folder or a tar file with --data-dir, or a --dataset'),
        (['-m', MODEL, '/nowhere/at/all'], '/nowhere/at/all: there is no such folder or file; check --data-dir'),
        (
            ['-m', 'resnet18', 'DIR'],
            'DIR: it has 10 classes (0, 1, 2, ...) and resnet18 has 1000 classes; name another ',
        ),
        (
            ['-m', MODEL, 'DIR', '--device', 'cuda'],
            "device 'cuda' is not there: this machine has 1 cpu; choose",
        ),
        (['-m', MODEL, 'DIR', '--checkpoint', '/no.pth'], '/no.pth: there is no such checkpoint; check --checkpoint'),
        (['-m', MODEL, 'resnet18', '--data-dir', 'DIR', '--checkpoint', 'x'], '--checkpoint goes with one model, not'),
        (['-m', MODEL, 'DIR', '--amp', '--precision', 'bf16'], '--precision and --amp exclude each other; give one'),
        (['-m', MODEL, 'DIR', '--restart'], '--restart is about a --run-dir; name one'),
        (['-m', MODEL, 'DIR', '--class-map', '/no.txt'], '/no.txt: cannot read the class map: No such file or'),
        (['-m', MODEL, 'DIR', '--real-labels'], '0/0000.png: not an ImageNet validation image'),
        (['-m', MODEL, 'DIR', '--valid-labels', '/no.txt'], '/no.txt: cannot read the list of class indices'),
        (
            ['-m', 'eca_resnet18', '--num-classes', '10', 'DIR'],
            'eca_resnet18: its weights have 1000 classes, not 10, so',
        ),
    ],
)
def test_wrong_input_is_one_line_with_a_remedy(folder, capsys, arguments, message):
    words = [str(folder) if word == 'DIR' else word for word in arguments]
    if '--device' in words and torch.cuda.is_available():
        pytest.skip('there is a GPU')
    assert main(['validate', '-j', '0', *words]) == 2
    out = capsys.readouterr()
    assert out.out == ''
    assert out.err.startswith('eca-zoo validate: error: ' + message.replace('DIR', str(folder)))
    assert out.err.count('\n') == 1


def test_a_checkpoint_of_another_network_is_refused_and_nothing_is_written(folder, tmp_path, capsys):
    path = weights(tmp_path / 'weights.safetensors')
    results = tmp_path / 'results.csv'
    code = validate('-m', 'test_vit', '--num-classes', 10, '--checkpoint', path, folder, '--results-file', results)
    assert code == 2
    assert f'{path}: these are not the weights of test_vit: missing cls_token' in capsys.readouterr().err
    assert not results.exists()


def test_one_model_that_fails_among_others_gives_exit_code_1_and_the_others_rows(folder, tmp_path, capsys):
    results = tmp_path / 'results.csv'
    assert validate('-m', MODEL, 'eca_resnet18', '--data-dir', folder, '--results-file', results) == 1
    assert [row['model'] for row in rows(results)] == [MODEL]
    assert 'eca-zoo validate: error: ' in capsys.readouterr().err


def test_a_bad_image_is_named_and_can_be_skipped(tmp_path, capsys):
    root = write_folder(tmp_path / 'digits')
    bad = root / 'validation' / '3' / 'bad.jpg'
    bad.write_bytes(b'')
    assert validate('-m', MODEL, root) == 2
    assert capsys.readouterr().err == (
        f'eca-zoo validate: error: {bad}: cannot be decoded: the file is empty; repair or remove it, or pass '
        '--skip-bad-images\n'
    )
    assert validate('-m', MODEL, root, '--skip-bad-images') == 0
    out = capsys.readouterr()
    assert out.err == f'eca-zoo validate: skipped {bad}: the file is empty\n'
    assert '  60  ' in out.out


def test_a_run_directory_of_other_settings_is_refused_unless_it_is_begun_anew(folder, tmp_path, capsys):
    common = ['-m', MODEL, '--data-dir', folder, '--run-dir', tmp_path / 'run']
    assert validate(*common) == 0
    assert validate(*common) == 0
    capsys.readouterr()
    assert validate(*common, '--crop-pct', 0.5) == 2
    assert capsys.readouterr().err == (
        f'eca-zoo validate: error: {tmp_path / "run"}: it holds a run with settings.crop_pct null, not 0.5; use '
        'another folder, or --restart to begin anew\n'
    )
    assert validate(*common, '--crop-pct', 0.5, '--restart') == 0


def test_the_form_for_inference_is_validated_on_request_and_is_another_run(folder, tmp_path, capsys):
    common = ['-m', MODEL, '--data-dir', folder, '--run-dir', tmp_path / 'run']
    assert validate(*common, '--fuse', '--results-file', tmp_path / 'fused.csv') == 0
    [row] = rows(tmp_path / 'fused.csv')
    assert (row['top1'], row['param_count']) == ('100.0', '0.37')  # of the network, not of its form
    capsys.readouterr()
    assert validate(*common) == 2
    assert 'it holds a run with settings.fuse true, not false;' in capsys.readouterr().err


def test_a_network_without_a_form_for_inference_is_refused_with_the_remedy(folder, tmp_path, capsys):
    path = tmp_path / 'mine.safetensors'
    save_file(timm.create_model('test_convnext', num_classes=10).state_dict(), path)
    arguments = ['-m', 'test_convnext', '--num-classes', 10, '--checkpoint', path, '--data-dir', folder]
    assert validate(*arguments, '--fuse') == 2
    assert capsys.readouterr().err == (
        'eca-zoo validate: error: test_convnext: there is no convolution followed by a batch norm to fold; use the '
        'network as it is (leave out fuse)\n'
    )


@pytest.mark.parametrize(
    'more', [['--torchscript'], ['--torchcompile', 'eager'], ['--model-dtype', 'bfloat16']], ids=lambda more: more[0]
)
def test_the_form_is_made_before_what_else_is_asked_for(folder, more, capsys):
    assert validate('-m', MODEL, '--data-dir', folder, '--fuse', *more) == 0
    assert '100.0000' in capsys.readouterr().out


def test_the_script_in_the_root_is_the_command(folder):
    done = run_python(ROOT / 'validate.py', '-m', MODEL, folder, '-j', '1', '--device', 'cpu', cwd=folder)
    assert done.returncode == 0, done.stderr
    assert '100.0000' in done.stdout
