"""Results are never lost or misnamed: what was measured is written first, in the format that the file's name says."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file

import eca_zoo
from eca_zoo.cli import main
from eca_zoo.errors import RunError
from eca_zoo.files import StorageError
from eca_zoo.harness.accuracy.run import AccuracyRun
from eca_zoo.harness.table.results_file import ResultsFile
from tests.harness.image_sets import MODEL, write_folder

QUICK = {'device': 'cpu', 'img_size': 32, 'batch_size': 1, 'rounds': 2, 'round_seconds': 0, 'warmup_steps': 0}
NEEDS_FULL = pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs a device that is always full')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp('data') / 'digits')


def validate(*arguments: object) -> int:
    return main(['validate', '--device', 'cpu', '-j', '0', '-b', '16', '-m', MODEL, *map(str, arguments)])


def local_model(place: Path, **cfg: object) -> str:
    """The digits' model as timm saves it into a folder, with another ``cfg``; what timm builds it by."""
    model = timm.create_model(MODEL, pretrained=True)
    place.mkdir(parents=True)
    save_file(model.state_dict(), place / 'model.safetensors')
    keys = ('input_size', 'mean', 'std', 'interpolation', 'crop_pct')
    cfg = {**{key: model.pretrained_cfg[key] for key in keys}, 'num_classes': 10, **cfg}
    config = {'architecture': 'test_eca_resnet', 'num_classes': 10, 'pretrained_cfg': cfg}
    (place / 'config.json').write_text(json.dumps(config))
    return f'local-dir:{place}'


def benchmark(*arguments: object) -> int:
    quick = ['--img-size', '32', '-b', '1', '--rounds', '2', '--round-seconds', '0', '--num-warm-iter', '0']
    return main(['benchmark', '--device', 'cpu', *quick, '--model', *map(str, arguments)])


@pytest.mark.parametrize('record_every', [0, 1000])
def test_predictions_need_no_run_directory_whenever_a_record_falls(record_every, folder, tmp_path):
    table, predictions = tmp_path / 't.csv', tmp_path / 'p.parquet'
    arguments = ['--results-file', table, '--save-predictions', predictions, '--record-every', record_every]
    assert validate(folder, *arguments) == 0
    assert table.read_text().splitlines()[1].startswith(f'{MODEL},100.0,')
    rows = pd.read_parquet(predictions)
    assert (len(rows), (rows['target'] == rows['top5_classes'].str[0]).mean()) == (60, 1.0)


@NEEDS_FULL
def test_table_and_file_are_there_when_the_predictions_cannot_be_written(folder, tmp_path, capsys):
    table = tmp_path / 't.csv'
    assert validate(folder, '--results-file', table, '--save-predictions', '/dev/full') == 1
    out = capsys.readouterr()
    assert out.err == (
        'eca-zoo validate: error: /dev/full: no space left to write it; free some, or choose a --predictions on '
        'another disk\n'
    )
    assert '100.0000' in out.out
    assert table.read_text().splitlines()[1].startswith(f'{MODEL},100.0,')


@NEEDS_FULL
def test_table_and_predictions_are_there_when_the_results_file_cannot_be_written(folder, tmp_path, capsys):
    predictions = tmp_path / 'p.parquet'
    assert validate(folder, '--results-file', '/dev/full', '--save-predictions', predictions) == 1
    out = capsys.readouterr()
    assert out.err.startswith('eca-zoo validate: error: /dev/full: no space left to write it')
    assert '100.0000' in out.out
    assert len(pd.read_parquet(predictions)) == 60


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize('harm', [Path.unlink, change_a_byte])
def test_predictions_that_are_gone_or_damaged_take_nothing_with_them(folder, tmp_path, capsys, harm):
    common = [folder, '--run-dir', tmp_path / 'run', '--save-predictions', tmp_path / 'p.parquet']
    assert validate(*common) == 0
    for part in (tmp_path / 'run' / 'predictions').iterdir():
        harm(part)
    assert validate(*common, '--results-file', tmp_path / 't.csv') == 1
    assert 'it lacks predictions that cannot be read back' in capsys.readouterr().err
    assert (tmp_path / 't.csv').exists()


def fail_in_the_second_pass(monkeypatch, error: Exception) -> None:
    run_pass = AccuracyRun._run_pass

    def run(self, waiting):
        if self.results:
            raise error
        return run_pass(self, waiting)

    monkeypatch.setattr(AccuracyRun, '_run_pass', run)


def test_models_that_are_done_are_in_the_table_of_a_run_that_fails(folder, tmp_path, capsys, monkeypatch):
    fail_in_the_second_pass(monkeypatch, RunError('the disk is gone'))
    other = local_model(tmp_path / 'm', crop_pct=0.9)
    arguments = [other, '--data-dir', folder, '--results-file', tmp_path / 't.json']
    assert validate(*arguments) == 1
    out = capsys.readouterr()
    assert '100.0000' in out.out
    assert out.err.splitlines()[-1] == 'eca-zoo validate: error: the disk is gone'
    assert json.loads((tmp_path / 't.json').read_text())['model'] == MODEL


def test_an_error_has_the_table_of_the_models_that_are_done(folder, tmp_path, monkeypatch):
    fail_in_the_second_pass(monkeypatch, RunError('the disk is gone'))
    models = [MODEL, local_model(tmp_path / 'm', crop_pct=0.9)]
    with pytest.raises(RunError, match='the disk is gone') as caught:
        eca_zoo.evaluate(models, folder, device='cpu', workers=0)
    assert caught.value.measured['top1'].tolist() == [100.0]


@NEEDS_FULL
@pytest.mark.parametrize('format', [None, 'json'])
def test_a_benchmark_is_printed_when_its_file_cannot_be_written(format, capsys):
    assert (
        benchmark('test_resnet', '--results-file', '/dev/full', *(['--results-format', format] if format else [])) == 1
    )
    out = capsys.readouterr()
    assert out.out.splitlines()[2].startswith('test_resnet')
    assert out.err.startswith('eca-zoo benchmark: error: /dev/full: no space left to write it')


def test_a_disk_that_is_full_for_a_while_does_not_end_a_benchmark(tmp_path, monkeypatch, caplog):
    write, calls = ResultsFile.write, []

    def sometimes(self, *arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise StorageError(f'{self.path}: no space left')
        write(self, *arguments)

    monkeypatch.setattr(ResultsFile, 'write', sometimes)
    table = eca_zoo.benchmark('test_resnet', results_file=tmp_path / 't.csv', **QUICK)
    assert 'no space left' in caplog.text
    assert eca_zoo.read_table(tmp_path / 't.csv')['infer_samples_per_sec'].notna().all()
    assert len(calls) == 3
    assert table['infer_samples_per_sec'].notna().all()


def test_a_benchmark_that_is_interrupted_gives_what_it_has(tmp_path, monkeypatch, capsys):
    def interrupted(self, progress=None):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr('eca_zoo.harness.table.measurements.Measurements.run', interrupted)
    assert benchmark('test_resnet', '--results-file', tmp_path / 't.csv') == 130
    out = capsys.readouterr()
    assert out.out.splitlines()[2].startswith('test_resnet')
    assert out.err == (
        'eca-zoo benchmark: error: stopped by SIGINT; networks whose rounds were not done have no throughput\n'
    )


def test_the_results_file_is_written_although_nobody_reads_what_is_printed(folder, tmp_path):
    command = [
        sys.executable,
        '-m',
        'eca_zoo',
        'validate',
        '-q',
        '--device',
        'cpu',
        '-j',
        '0',
        '-m',
        MODEL,
        str(folder),
    ]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*command, '--results-file', str(tmp_path / 't.csv')], stdout=writer, stderr=subprocess.PIPE, text=True,
            cwd=Path(eca_zoo.__file__).parents[1],
        )  # fmt: skip
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) in [(1, ''), (-signal.SIGPIPE, '')]
    assert (tmp_path / 't.csv').read_text().splitlines()[1].startswith(f'{MODEL},100.0,')


def test_the_end_of_the_name_is_the_format(folder, tmp_path):
    files = {end: tmp_path / f'table.{end}' for end in ('csv', 'json', 'md', 'parquet')}
    for path in files.values():
        assert validate(folder, '--results-file', path) == 0
    (row,) = csv.DictReader(files['csv'].read_text().splitlines())
    assert list(row.values()) == [MODEL, '100.0', '0.0', '100.0', '0.0', '0.37', '32', '1.0', 'bilinear', '60']
    values = [MODEL, 100.0, 0.0, 100.0, 0.0, 0.37, 32, 1.0, 'bilinear', 60]
    assert list(json.loads(files['json'].read_text()).values()) == values
    assert pd.read_parquet(files['parquet']).iloc[0].tolist() == values
    assert files['md'].read_text().splitlines()[1:] == [
        '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |',
        f'| {MODEL} | 100.0 | 0.0 | 100.0 | 0.0 | 0.37 | 32 | 1.0 | bilinear | 60 |',
    ]
    assert all(b'\r' not in path.read_bytes() for end, path in files.items() if end != 'parquet')


def test_a_benchmark_knows_the_same_formats(tmp_path):
    for end in ('csv', 'json', 'md', 'parquet'):
        assert benchmark('test_resnet', '--bench', 'profile', '--results-file', tmp_path / f't.{end}') == 0
    assert pd.read_parquet(tmp_path / 't.parquet')['params'].dtype == 'Int64'
    assert (
        json.loads((tmp_path / 't.json').read_text())[0]['params']
        == pd.read_parquet(tmp_path / 't.parquet')['params'][0]
    )
    assert (tmp_path / 't.md').read_text().startswith('| model |')
    assert (tmp_path / 't.csv').read_text().startswith('model,')


@pytest.mark.parametrize('command', [validate, lambda *given: benchmark('test_resnet', *given[1:])])
@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--results-file', 't.txt'], 't.txt: its name does not say a format; name --results-file .csv, .json, .md or'),
        (['--results-file', 't'], 't: its name does not say a format'),
        (
            ['--results-file', 't.csv', '--results-format', 'json'],
            't.csv: its name says csv, and the results format json; leave one of them out',
        ),
        (['--results-file', 'file/t.csv'], 'file/t.csv: {}/file is a file where a folder is needed; choose another'),
        (['--results-file', 'folder.csv'], 'folder.csv: is a folder; name a file with --results-file'),
    ],
)
def test_a_file_that_cannot_be_is_refused_before_anything_is_measured(
    command, arguments, message, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path('file').touch()
    Path('folder.csv').mkdir()
    assert command(folder, *arguments) == 2
    out = capsys.readouterr()
    assert f'error: {message.format(tmp_path)}' in out.err
    assert (out.out, out.err.count('\n')) == ('', 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'folder.csv']


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('p.csv', 'p.csv: predictions are Parquet; name a file .parquet'),
        ('', ': is a folder; name a file with --predictions'),
    ],
)
def test_predictions_have_a_name_that_is_true(name, message, folder, tmp_path, capsys):
    assert validate(folder, '--save-predictions', tmp_path / name) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(os.name != 'posix', reason='needs pipes with names')
@pytest.mark.parametrize('command', [validate, lambda *given: benchmark('test_resnet', *given[1:])])
def test_a_pipe_and_a_link_take_the_table_and_stay(command, folder, tmp_path):
    pipe, link, read = tmp_path / 'pipe', tmp_path / 'link.csv', []
    link.symlink_to('t.csv')
    assert command(folder, '--results-file', link) == 0
    assert link.is_symlink()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    assert command(folder, '--results-file', pipe) == 0
    reader.join()
    assert pipe.is_fifo()
    (given,), (written,) = (list(csv.DictReader(text.splitlines())) for text in (read[0], link.read_text()))
    same = [name for name in given if not name.startswith('infer_s')]
    assert [given[name] for name in same] == [written[name] for name in same]


@pytest.mark.parametrize('name', ['me@host', 'm@v1'])
def test_a_model_has_its_whole_name_in_the_file(name, folder, tmp_path):
    model = local_model(tmp_path / name / 'model')
    arguments = [model, '--data-dir', folder, '--results-file', tmp_path / 't.csv']
    assert validate(*arguments) == 0
    models = {row['model'] for row in csv.DictReader((tmp_path / 't.csv').read_text().splitlines())}
    assert models == {MODEL, model}


def test_a_checkpoint_in_a_folder_with_an_at_sign_has_the_name_of_its_model(folder, tmp_path):
    torch.manual_seed(0)
    (tmp_path / 'me@host').mkdir()
    for name in ('a@1', 'b'):
        save_file(
            timm.create_model('test_resnet', num_classes=10).state_dict(), tmp_path / 'me@host' / f'{name}.safetensors'
        )
    quick = ['--device', 'cpu', '-j', '0', '--num-classes', '10', '-m', 'test_resnet', '--data-dir', str(folder)]
    files = ['--checkpoint', str(tmp_path / 'me@host'), '--results-file', str(tmp_path / 't.csv')]
    assert main(['validate', *quick, *files]) == 0
    rows = list(csv.DictReader((tmp_path / 't.csv').read_text().splitlines()))
    assert [row['model'] for row in rows] == ['test_resnet'] * 2
    assert {Path(row['checkpoint']).name for row in rows} == {'a@1.safetensors', 'b.safetensors'}
