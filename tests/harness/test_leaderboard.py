"""Leaderboards: the table from a journal, kills, refusals, failing models, many processes."""

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from eca_zoo.cli import main
from eca_zoo.errors import InputError, RunError
from eca_zoo.harness import leaderboard
from eca_zoo.harness.accuracy.run import AccuracyRun
from eca_zoo.harness.leaderboard import check_reported, run_leaderboard
from eca_zoo.harness.resume.signals import InterruptedRunError, StopRequest
from eca_zoo.harness.suites import parse_suite
from eca_zoo.harness.table import measurements
from eca_zoo.harness.table.columns import BY_NAME
from eca_zoo.harness.table.frames import NAMES, to_frame
from tests.harness.processes import ROOT, complaints, run_program
from tests.spawning import run_python

IMAGES = 60
SUITE = """
version: 1
models: [test_eca_resnet.digits, test_resnet]
baseline: test_resnet
data: {name: digits, split: '', models: [test_eca_resnet.digits]}
accuracy: {batch_size: 16, workers: 0}
throughput: [{device: cpu, img_size: 32, batch_size: 1, rounds: 2, round_seconds: 0, warmup_steps: 1, threads: 1}]
"""
TIMED = {name for name, column in BY_NAME.items() if column.source.startswith('benchmark')}


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp('digits')
    data = load_digits()
    for index in range(IMAGES):
        (folder / str(data.target[index])).mkdir(exist_ok=True)
        pixels = np.round(data.images[index] * 255 / 16).astype(np.uint8)
        Image.fromarray(pixels).save(folder / str(data.target[index]) / f'{index:03d}.png')
    return folder


@pytest.fixture
def suite_file(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text(SUITE)
    return path


@pytest.fixture(scope='module')
def first(digits, tmp_path_factory):
    """The folder of a run of the suite from beginning to end, and what the run returned."""
    out = tmp_path_factory.mktemp('first') / 'run'
    return out, run_leaderboard(suite(), out, digits, command_line=['eca-zoo', 'x'])


@pytest.fixture
def finished(first, tmp_path):
    """The folder of a finished run."""
    return shutil.copytree(first[0], tmp_path / 'finished')


def suite(text=SUITE):
    return parse_suite(text, Path('mine.yaml'))


def table(out):
    with (out / 'leaderboard.csv').open() as file:
        return list(csv.DictReader(file))


def untimed(out):
    return [{name: cell for name, cell in row.items() if name not in TIMED} for row in table(out)]


def test_a_run_writes_the_table_and_its_environment(first):
    out, result = first
    eca, plain = table(out)
    assert list(eca) == NAMES
    assert (eca['model'], eca['dataset'], eca['num_images'], eca['img_size']) == (
        'test_eca_resnet.digits', 'digits', str(IMAGES), '32',
    )  # fmt: skip
    assert float(eca['top1']) > 90
    assert len(eca['weights_sha256']) == 64
    assert (eca['params'], eca['infer_img_size'], eca['infer_batch_size']) == ('373674', '32', '1')
    assert float(eca['infer_samples_per_sec']) > 0
    assert float(eca['relative_throughput']) > 0
    assert (plain['model'], plain['top1'], plain['relative_throughput'], plain['error']) == (
        'test_resnet', '', '1.000', '',
    )  # fmt: skip
    environment = json.loads((out / 'environment.json').read_text())
    in_force = environment['flags_in_force']
    assert set(in_force) == {'accuracy', 'throughput[0]'}
    assert [in_force[part]['cudnn.benchmark'] for part in ('accuracy', 'throughput[0]')] == [False, True]
    assert environment['command_line'] == ['eca-zoo', 'x']
    assert environment['data']['images'] == IMAGES
    assert len(environment['data']['fingerprint']) == 64
    assert result.errors == []
    assert result.notes == ['accuracy is empty: not validated on digits in the suite mine (test_resnet)']


def test_a_finished_run_is_not_measured_again(digits, finished, monkeypatch):
    before = (finished / 'leaderboard.csv').read_bytes()
    (finished / 'leaderboard.csv').unlink()

    def measure(*arguments):
        raise AssertionError('it was measured again')

    monkeypatch.setattr(measurements, 'cells_of', measure)
    monkeypatch.setattr('eca_zoo.harness.speed.rounds._measure_group', measure)
    monkeypatch.setattr('eca_zoo.harness.accuracy.run.load_network', measure)
    run_leaderboard(suite(), finished, digits)
    assert (finished / 'leaderboard.csv').read_bytes() == before


def test_a_network_can_be_added_to_a_finished_run(digits, finished):
    before = table(finished)
    more = SUITE.replace('[test_eca_resnet.digits, test_resnet]', '[test_eca_resnet.digits, test_efficientnet]')
    run_leaderboard(suite(more), finished, digits)
    rows = {row['model']: row for row in table(finished)}
    assert rows['test_eca_resnet.digits'] == before[0]
    assert float(rows['test_efficientnet']['relative_throughput']) > 0


# Runs the command undisturbed, then again with a kill at each of the given steps of its work, then to its end.
KILLED = """
sys.path.insert(0, {root!r})
from scripts.end_at import end_at

def run(out, step):
    def work(rank):
        end_at(step)
        return main([*{arguments!r}, out])
    return launch(1, work)[0]

print('CODES', run({whole!r}, 0), *[run({killed!r}, step) for step in {steps!r}], run({killed!r}, 0))
"""


def test_a_run_that_is_killed_at_any_step_ends_in_the_same_table(digits, tmp_path, suite_file):
    arguments = ['leaderboard', str(suite_file), '--data-dir', str(digits), '--run-dir']
    whole, killed = tmp_path / 'undisturbed', tmp_path / 'killed'
    # After the run's identity, after counts, before the environment's name, after a complexity and each throughput.
    steps = [4, 6, 11, 8, 16, 14]
    program = KILLED.format(root=str(ROOT), arguments=arguments, whole=str(whole), killed=str(killed), steps=steps)
    done = run_program(tmp_path / 'program.py', program)
    [line] = [line for line in done.stdout.splitlines() if line.startswith('CODES')]
    assert [int(code) for code in line.split()[1:]] == [0, *[-signal.SIGKILL] * len(steps), 0], done.stderr
    assert untimed(killed) == untimed(whole)
    assert all(float(row['infer_samples_per_sec']) > 0 for row in table(killed))
    names = ['.lock', 'environment.json', 'journal-00000.jsonl', 'leaderboard.csv']
    assert sorted(file.name for file in killed.iterdir() if file.suffix != '.tmp') == names


def test_a_signal_ends_the_run_with_what_was_measured_saved(digits, tmp_path):
    stop = StopRequest()

    def report(part, done, total, text):
        if part == 'throughput':
            stop.signal_name = 'SIGTERM'

    with pytest.raises(InterruptedRunError) as error:
        run_leaderboard(suite(), tmp_path, digits, report=report, stop=stop)
    assert str(error.value) == f'stopped by SIGTERM; what was done is in {tmp_path}; the same command continues'
    (eca, _) = table(tmp_path)
    assert float(eca['top1']) > 90
    assert eca['infer_samples_per_sec'] == ''
    run_leaderboard(suite(), tmp_path, digits)
    assert table(tmp_path)[0]['infer_samples_per_sec'] != ''


@pytest.mark.parametrize(
    ('old', 'new', 'difference'),
    [
        ('rounds: 2', 'rounds: 3', 'throughput.0.rounds 2, not 3'),
        ('threads: 1}]', 'threads: 1}, {device: cpu, fuse: true}]', 'throughput.1 null, not {'),
        ('batch_size: 16', 'batch_size: 8', 'settings.batch_size 16, not 8'),
        ('baseline: test_resnet', 'baseline: test_efficientnet', 'baseline "test_resnet", not "test_efficientnet"'),
    ],
)
def test_other_settings_in_the_same_folder_are_refused_with_the_difference(old, new, difference, digits, finished):
    before = (finished / 'leaderboard.csv').read_bytes()
    with pytest.raises(InputError) as error:
        run_leaderboard(suite(SUITE.replace(old, new)), finished, digits)
    assert difference in str(error.value)
    assert str(error.value).endswith('use another folder, or --restart to begin anew')
    assert (finished / 'leaderboard.csv').read_bytes() == before


def test_other_data_is_refused_and_restart_begins_anew(digits, finished, tmp_path):
    other = tmp_path / 'other'
    for file in sorted(digits.glob('*/*.png'))[:-1]:
        (other / file.parent.name).mkdir(parents=True, exist_ok=True)
        os.link(file, other / file.parent.name / file.name)
    with pytest.raises(InputError, match=f'data.images {IMAGES}, not {IMAGES - 1}'):
        run_leaderboard(suite(), finished, other)
    run_leaderboard(suite(), finished, other, restart=True)
    assert table(finished)[0]['num_images'] == str(IMAGES - 1)


def test_another_machine_is_refused(digits, finished, monkeypatch):
    monkeypatch.setattr('eca_zoo.harness.machine.environment.processor_name', lambda: 'Abacus 3000')
    with pytest.raises(InputError, match='not "Abacus 3000"'):
        run_leaderboard(suite(), finished, digits)


def test_a_run_is_continued_on_more_gpus_of_its_kind_and_on_no_other_kind(tmp_path, monkeypatch):
    timing = '{device: cpu, batch_size: 1, img_size: 32, rounds: 1, round_seconds: 0, warmup_steps: 0}'
    one = suite(f'version: 1\nmodels: [test_resnet]\nthroughput: [{timing}]')

    def run(*gpus):
        gpus = [{'name': gpu, 'state': {}} for gpu in gpus]
        monkeypatch.setattr('eca_zoo.harness.machine.environment.describe_gpus', lambda: gpus)
        run_leaderboard(one, tmp_path)

    run('A100')
    run('A100', 'A100')
    with pytest.raises(InputError, match=r'gpus.*H100'):
        run('A100', 'H100')


def test_without_a_folder_the_accuracy_is_empty_and_the_reason_is_given(tmp_path):
    result = run_leaderboard(suite(), tmp_path)
    assert table(tmp_path)[0]['top1'] == ''
    assert result.notes == [
        'accuracy is empty: no folder of digits was given; add --data-dir DIR (test_eca_resnet.digits, test_resnet)'
    ]


def test_a_file_in_the_place_of_the_run_directory_is_refused(tmp_path):
    (tmp_path / 'run').write_text('')
    with pytest.raises(InputError, match=r'run: is a file; name a folder with --run-dir'):
        run_leaderboard(suite(), tmp_path / 'run')


@pytest.mark.parametrize(
    ('folder', 'message'),
    [('nowhere', 'there is no such folder or file'), ('empty', 'there are no images'), ('flat', 'class folders')],
)
def test_data_that_cannot_be_used_is_refused_before_anything_is_written(folder, message, digits, tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'flat').mkdir()
    os.link(next(digits.glob('*/*.png')), tmp_path / 'flat' / 'a.png')
    with pytest.raises(InputError, match=message):
        run_leaderboard(suite(), tmp_path / 'run', tmp_path / folder)
    assert not (tmp_path / 'run').exists()


def test_a_failing_network_is_a_row_with_an_error_and_the_exit_code_is_1(digits, tmp_path, suite_file, capsys):
    text = SUITE.replace('models: [test_eca_resnet.digits]', 'models: [eca_resnet18]')
    broken = '[{name: eca_resnet18, model_kwargs: {kernel_sizes: [2]}}]'
    suite_file.write_text(text.replace('[test_eca_resnet.digits, test_resnet]', broken))
    arguments = ['leaderboard', str(suite_file), '--run-dir', str(tmp_path / 'run'), '--data-dir', str(digits)]
    assert main(arguments) == 1
    broken, plain = table(tmp_path / 'run')
    assert broken['model'] == 'eca_resnet18'
    assert 'kernel_sizes must be 4 odd, positive integers' in broken['error']
    assert broken['params'] == broken['infer_samples_per_sec'] == ''
    assert float(plain['infer_samples_per_sec']) > 0
    assert plain['error'] == ''
    assert 'eca-zoo leaderboard: failed: eca_resnet18: ' in capsys.readouterr().err


def test_timms_format_is_written_beside_the_table(digits, finished, suite_file, capsys):
    out = finished
    arguments = ['leaderboard', str(suite_file), '--run-dir', str(out), '--data-dir', str(digits), '--format', 'timm']
    assert main(arguments) == 0
    assert (out / 'results-digits.csv').read_text().startswith('model,img_size,top1,top1_err,top5,top5_err,')
    timed = (out / 'benchmark-infer-fp32-nchw-cpu.csv').read_text().splitlines()
    assert {line.split(',')[0] for line in timed} == {'model', 'test_eca_resnet', 'test_resnet'}
    assert f'written: {out}/leaderboard.csv, {out}/results-digits.csv' in capsys.readouterr().out


def test_timms_files_hold_rows_stay_up_to_date_and_go_with_what_they_show(digits, tmp_path):
    out = tmp_path / 'run'
    names = ['benchmark-infer-fp32-nchw-cpu.csv', 'results-digits.csv']
    (tmp_path / 'run').mkdir()
    (out / 'results-mine.csv').write_text('mine')
    result = run_leaderboard(suite(), out, digits, timm_format=True)
    assert sorted(path.name for path in out.glob('*-*.csv')) == [*names, 'results-mine.csv']
    assert sorted(path.name for path in result.files if '-' in path.name) == names
    more = SUITE.replace('[test_eca_resnet.digits, test_resnet]', '[test_eca_resnet.digits, test_efficientnet]')
    run_leaderboard(suite(more), out, digits)
    assert 'test_efficientnet' in (out / names[0]).read_text()
    other = SUITE.split('throughput')[0].replace('name: digits', 'name: imagenet')
    run_leaderboard(suite(other), out, digits, timm_format=True, restart=True)
    assert sorted(path.name for path in out.glob('*-*.csv')) == ['results-imagenet.csv', 'results-mine.csv']


def test_a_run_that_is_begun_anew_leaves_no_table_of_the_earlier_one(finished, monkeypatch):
    def fail(*arguments, **options):
        raise RunError('the disk is gone')

    monkeypatch.setattr(leaderboard, 'describe_environment', fail)
    with pytest.raises(RunError):
        run_leaderboard(suite(), finished, restart=True)
    assert sorted(path.name for path in finished.iterdir()) == ['.lock', 'journal-00000.jsonl']


def test_models_that_are_validated_are_in_the_table_of_a_run_that_fails(digits, tmp_path, monkeypatch):
    run_pass = AccuracyRun._run_pass

    def fail_in_the_second(self, waiting):
        if self.results:
            raise RunError('the disk is gone')
        return run_pass(self, waiting)

    monkeypatch.setattr(AccuracyRun, '_run_pass', fail_in_the_second)
    both = '[test_eca_resnet.digits, {name: test_resnet, num_classes: 10, pretrained: false, label: other}]'
    text = f'version: 1\nmodels: {both}\ndata: {{name: digits}}\naccuracy: {{batch_size: 16, workers: 0}}'
    with pytest.raises(RunError, match='the disk is gone'):
        run_leaderboard(suite(text), tmp_path, digits)
    assert [row['top1'] != '' for row in table(tmp_path)] == [True, False]


def test_the_check_names_rows_beyond_the_tolerance():
    def row(model, top1, reported):
        return {'model': model, 'top1': top1, 'reported_top1': reported, 'delta_top1': top1 - reported}

    good, bad = row('a', 77.32, 77.42), row('b', 77.0, 77.42)
    assert check_reported(to_frame([good]), 0.1) == []
    assert check_reported(to_frame([good, bad, {'model': 'c', 'reported_top1': 70.0}]), 0.1) == [
        'b: top-1 is 77.000 %, 0.420 percentage points below the reported 77.42 % (tolerance 0.1)'
    ]
    assert check_reported(to_frame([{'model': 'c', 'reported_top1': 70.0}]), 0.1) == [
        'no row has both a reported top-1 and one that was measured on the reported data'
    ]


def test_a_check_that_fails_exits_with_1(digits, finished, suite_file, capsys):
    arguments = ['leaderboard', str(suite_file), '--run-dir', str(finished), '--data-dir', str(digits)]
    assert main([*arguments, '--check']) == 1
    assert 'check: no row has both a reported top-1' in capsys.readouterr().err
    assert main(arguments) == 0


TWO = 'print(*launch(2, lambda rank: main({arguments!r})), flush=True)'


def test_two_processes_give_the_table_of_one(digits, first, tmp_path, suite_file):
    arguments = ['leaderboard', str(suite_file), '--data-dir', str(digits), '--run-dir', str(tmp_path / 'two')]
    done = run_program(tmp_path / 'program.py', TWO.format(arguments=arguments))
    assert done.stdout.splitlines()[-1] == '0 0', done.stderr
    assert untimed(tmp_path / 'two') == untimed(first[0])
    assert done.stdout.count('written: ') == 1


def test_wrong_input_of_two_processes_is_one_line(tmp_path, suite_file):
    arguments = [
        'leaderboard',
        str(suite_file),
        '--data-dir',
        str(tmp_path / 'missing'),
        '--run-dir',
        str(tmp_path / 'run'),
    ]
    done = run_program(tmp_path / 'program.py', TWO.format(arguments=arguments))
    assert done.stdout == '2 2\n'
    assert complaints(done.stderr) == [
        f'eca-zoo leaderboard: error: {tmp_path}/missing: there is no such folder or file; check --data-dir'
    ]
    assert not (tmp_path / 'run').exists()


def test_the_launcher_of_a_clone_runs_a_suite(tmp_path):
    root = Path(leaderboard.__file__).parents[2]
    (tmp_path / 'mine.yaml').write_text('version: 1\nmodels: [eca_resnet18]\n')
    done = run_python('-m', 'benchmark', tmp_path / 'mine.yaml', f'--run-dir={tmp_path / "run"}', cwd=root)
    assert done.returncode == 0, done.stderr
    assert [row['params'] for row in table(tmp_path / 'run')] == ['11689556']
