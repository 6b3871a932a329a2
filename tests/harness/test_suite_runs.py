"""Suites as users run them: image sizes, baselines, flags and files, to the table."""

import csv

import pytest

from eca_zoo.cli import main
from eca_zoo.resources import packaged_path
from tests.harness.image_sets import write_folder

# A network that its config evaluates at 288 pixels, and whose weights were trained at 32.
SMALL = """{name: test_eca_resnet, label: small, checkpoint: weights.safetensors, num_classes: 10,
  model_kwargs: {pretrained_cfg_overlay: {input_size: [3, 288, 288], test_input_size: [3, 288, 288]}}%s}"""
QUICK = '{rounds: 1, round_seconds: 0, warmup_steps: 0, batch_size: 1, threads: 1%s}'


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / 'digits')
    weights = packaged_path('checkpoints/test_eca_resnet.digits.safetensors')
    (tmp_path / 'weights.safetensors').write_bytes(weights.read_bytes())
    return tmp_path


def run(folder, text, *flags):
    (folder / 'mine.yaml').write_text(f'version: 1\n{text}')
    code = main(['leaderboard', str(folder / 'mine.yaml'), '--run-dir', str(folder / 'run'), '--device', 'cpu', *flags])
    table = folder / 'run/leaderboard.csv'
    return code, list(csv.DictReader(table.open())) if table.exists() else []


DATA = 'data: {name: digits, data_dir: digits}\naccuracy: {workers: 0}'


@pytest.mark.parametrize(
    'text', [f'models: [{SMALL % ""}]\nimg_size: 32', f'models: [{SMALL % ", img_size: 32"}]\nimg_size: 288']
)
def test_the_image_size_of_a_suite_or_a_model_is_that_of_its_validation_and_its_complexity(text, folder, capsys):
    code, (row,) = run(folder, f'{text}\n{DATA}')
    assert code == 0
    assert (row['img_size'], row['infer_img_size'], row['top1']) == ('32', '32', '100.000')
    heading, _, line = capsys.readouterr().out.splitlines()[:3]
    assert dict(zip(heading.split(), line.split(), strict=False))['img_size'] == '32'


def test_mean_and_std_of_a_model_are_its_own(folder):
    grey = SMALL.replace('small', 'grey') % ', mean: [0, 0, 0], std: [9, 9, 9]'
    code, (row, other) = run(folder, f'models: [{SMALL % ""}, {grey}]\nimg_size: 32\n{DATA}')
    assert (code, row['top1']) == (0, '100.000')
    assert float(other['top1']) < 50


def test_a_plain_baseline_gives_what_the_layers_cost_and_says_who_has_none(folder, capsys):
    text = 'models: [{name: eca_resnet18, img_size: 64}, resnet18, test_resnet]\nbaseline: plain\nimg_size: 32\n'
    code, rows = run(folder, f'{text}throughput: [{QUICK % ""}]')
    assert code == 0
    of = {row['model']: (row['baseline'], row['infer_img_size'], row['relative_throughput']) for row in rows}
    assert of['eca_resnet18'][:2] == ('resnet18 beside eca_resnet18', '64')
    assert float(of['eca_resnet18'][2]) > 0
    assert of['resnet18'] == ('resnet18', '32', '1.000')
    assert of['test_resnet'] == ('', '32', '')
    assert of['resnet18 beside eca_resnet18'] == ('resnet18 beside eca_resnet18', '64', '1.000')
    assert 'relative_throughput is empty: there is no plain counterpart (test_resnet)\n' in capsys.readouterr().out


def test_there_is_no_ratio_of_unlike_image_sizes(folder, capsys):
    text = 'models: [{name: test_resnet, img_size: 64}, test_eca_resnet]\nbaseline: test_resnet\n'
    code, (_, eca) = run(folder, f'{text}throughput: [{QUICK % ", img_size: 32"}]')
    assert (code, eca['relative_throughput'], eca['baseline']) == (0, '', 'test_resnet')
    assert 'the baseline failed, or has another image size (test_eca_resnet)\n' in capsys.readouterr().out


def test_flags_of_the_command_are_those_of_validation_and_throughput(folder):
    text = f'models: [test_eca_resnet.digits]\n{DATA}\nthroughput: [{QUICK % ", device: cuda, precision: fp16"}]'
    code, (row,) = run(folder, text, '--batch-size', '4', '--precision', 'bf16', '-j', '0')
    assert code == 0
    assert (row['device'], row['precision'], row['infer_batch_size'], row['top1']) == ('cpu', 'bf16', '4', '100.000')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            'models: [{name: resnet18, checkpoint: no.pth}]\ndata: {name: a, data_dir: digits, class_map: map.txt}',
            'models[0].checkpoint: there is no {folder}/no.pth; data.class_map: there is no {folder}/map.txt '
            '(paths are relative to the folder of the suite)',
        ),
        (
            'models: [{name: resnet18, checkpoint: digits}]',
            'models[0].checkpoint: {folder}/digits is a folder; name a file in it (paths are relative to the folder of '
            'the suite)',
        ),
    ],
)
def test_files_that_are_not_there_are_one_line_before_anything_is_written(text, message, folder, capsys):
    code, rows = run(folder, text)
    assert (code, rows) == (2, [])
    assert capsys.readouterr().err == (
        f'eca-zoo leaderboard: error: {folder}/mine.yaml: {message.format(folder=folder)}\n'
    )
    assert not (folder / 'run').exists()


def test_a_setting_of_a_throughput_is_named_by_its_key_and_a_flag_by_its_name(folder, capsys):
    text = 'models: [resnet18]\nthroughput: [{}, {backend: onnxruntime, channels_last: true}]'
    assert run(folder, text)[0] == 2
    assert capsys.readouterr().err.endswith(
        'use --device cpu and leave out --precision, throughput[1].compile and throughput[1].channels_last\n'
    )


def test_a_setting_that_is_out_of_range_says_of_which_throughput(folder, capsys):
    assert run(folder, 'models: [resnet18]\nthroughput: [{}, {rounds: 0}]')[0] == 2
    assert capsys.readouterr().err == 'eca-zoo leaderboard: error: throughput[1]: rounds must be at least 1, not 0\n'


def test_the_run_directory_has_its_earlier_name_and_is_needed(folder, capsys):
    (folder / 'mine.yaml').write_text('version: 1\nmodels: [test_resnet]')
    assert main(['leaderboard', str(folder / 'mine.yaml'), '--out', str(folder / 'run')]) == 0
    assert (folder / 'run/leaderboard.csv').exists()
    assert main(['leaderboard', str(folder / 'mine.yaml')]) == 2
    assert 'name one with --run-dir DIR' in capsys.readouterr().err
