"""The command ``eca-zoo benchmark``: rows, files, bad input, exit codes."""

import csv
import json

import pytest

from eca_zoo.cli import main
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.speed.settings import ThroughputSettings
from eca_zoo.harness.table.measurements import Measurements

QUICK = [
    '--device', 'cpu', '--img-size', '32', '-b', '1', '--rounds', '2', '--round-seconds', '0', '--num-warm-iter', '0',
    '--threads', '1',
]  # fmt: skip


def run(*arguments):
    return main(['benchmark', '--model', *arguments])


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_models_and_their_baseline_are_counted_timed_and_written(tmp_path, capsys):
    path = tmp_path / 'table.csv'
    assert run('test_eca_resnet', *QUICK, '--baseline', 'test_resnet', '--results-file', str(path)) == 0
    eca, plain = read(path)
    assert (eca['model'], plain['model']) == ('test_eca_resnet', 'test_resnet')
    assert eca['params'] == '373674'
    assert float(eca['infer_samples_per_sec']) > 0
    assert (eca['infer_batch_size'], eca['infer_img_size'], plain['relative_throughput']) == ('1', '32', '1.000')
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith('model')
    assert f'The table is in {path}' in out


def test_precisions_are_rows_of_their_own(tmp_path):
    path = tmp_path / 'table.csv'
    assert run('test_eca_resnet', *QUICK, '--precision', 'fp32', 'bfloat16', '--results-file', str(path)) == 0
    assert [row['precision'] for row in read(path)] == ['fp32', 'bf16']


def test_names_come_from_a_list_too(tmp_path, capsys):
    (tmp_path / 'names').write_text('# mine\ntest_resnet\n')
    assert run('test_eca_resnet', '--model-list', str(tmp_path / 'names'), '--bench', 'profile') == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:4]] == ['test_eca_resnet', 'test_resnet']


def test_amp_is_understood_as_timm_does(tmp_path):
    path = tmp_path / 'table.csv'
    assert run('test_resnet', *QUICK, '--amp', '--amp-dtype', 'bfloat16', '--results-file', str(path)) == 0
    assert read(path)[0]['precision'] == 'amp_bf16'


def test_training_steps_have_columns_of_their_own(tmp_path):
    path = tmp_path / 'table.csv'
    arguments = ['test_eca_resnet', *QUICK, '-b', '2', '--results-file', str(path)]
    assert run(*arguments, '--bench', 'both', '--img-size', '64') == 0
    (row,) = read(path)
    assert min(float(row[f'{mode}_samples_per_sec']) for mode in ('infer', 'train')) > 0
    assert run(*arguments, '--train', '--img-size', '64') == 0
    (row,) = read(path)
    assert row['infer_samples_per_sec'] == ''
    assert row['train_batch_size'] == '2'


def test_profile_counts_and_times_nothing(tmp_path, capsys):
    path = tmp_path / 'table.json'
    arguments = ['--bench', 'profile', '--img-size', '224', '--results-file', str(path), '--results-format', 'json']
    assert run('zoo', 'resnet50', *arguments) == 0
    rows = {row['model']: row for row in json.loads(path.read_text())}
    assert len(rows) == 7
    assert rows['eca_resnet50']['params'] - rows['resnet50']['params'] == 80
    assert rows['eca_resnet152']['infer_gmacs'] == pytest.approx(11.5139, abs=5e-5)
    assert 'images/s' not in capsys.readouterr().out


def test_with_a_baseline_all_run_at_the_first_networks_size():
    benchmark = Measurements(
        [ModelSpec('eca_resnet18')], [ThroughputSettings(device='cpu')], baseline=ModelSpec('resnet50')
    )
    assert benchmark.measured[0][0].img_size == 224
    assert [spec.title for spec in benchmark.specs] == ['eca_resnet18', 'resnet50']


def test_a_network_that_fails_is_a_row_with_an_error_and_the_exit_code_is_1(tmp_path, capsys):
    path = tmp_path / 'table.csv'
    arguments = [*QUICK, '--model-kwargs', 'kernel_sizes=(2,)', '--baseline', 'test_resnet']
    assert run('eca_resnet18', *arguments, '--results-file', str(path)) == 1
    broken, plain = read(path)
    assert 'kernel_sizes must be 4 odd, positive integers' in broken['error']
    assert float(plain['infer_samples_per_sec']) > 0
    assert 'failed: eca_resnet18: its complexity cannot be counted: ' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['eca_resent50'], "'eca_resent50' is no model that timm knows; the nearest names are eca_resnet50"),
        (['resnet18', '--device', 'cuda:99'], "device 'cuda:99' is not there: this machine has "),
        (['resnet18', '--precision', 'fp9'], "precision 'fp9' is unknown; use one of fp32"),
        (['resnet18', '--device', 'cpu', '--precision', 'fp32', 'float32'], 'a throughput setting occurs twice: fp32'),
        (['resnet18', '--baseline', 'zoo'], "'zoo' stands for 6 networks; name one"),
        (['resnet18', '-b', '0', '--device', 'cpu'], 'batch_size must be at least 1, not 0'),
        (['resnet18', '--img-size', '0', '--bench', 'profile'], 'resnet18: an image is at least 1 pixel high and wide'),
        (['resnet18', '--bench', 'both', '--fuse', '--device', 'cpu'], 'training steps run in torch and with their'),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f'eca-zoo benchmark: error: {message}')
    assert error.count('\n') == 1


def test_branches_are_folded_in_the_counts_and_the_table_says_so(tmp_path):
    tables = {name: tmp_path / f'{name}.csv' for name in ('plain', 'folded')}
    common = ['repghostnet_050', '--bench', 'profile', '--img-size', '224', '--results-file']
    assert run(*common, str(tables['plain'])) == run(*common, str(tables['folded']), '--reparam') == 0
    (plain,), (folded,) = map(read, tables.values())
    assert (plain['reparameterized'], folded['reparameterized']) == ('', 'yes')
    assert int(folded['params']) < int(plain['params'])


def test_a_folder_in_the_place_of_the_results_file_is_refused_before_anything_is_timed(tmp_path, capsys):
    assert run('test_eca_resnet', *QUICK, '--results-file', str(tmp_path)) == 2
    assert f'{tmp_path}: is a folder; name a file' in capsys.readouterr().err
