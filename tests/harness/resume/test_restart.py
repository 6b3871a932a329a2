"""Measuring a model of a run anew, such as one that was trained for another night; the others are kept."""

import csv
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from eca_zoo.cli import main
from eca_zoo.errors import InputError
from eca_zoo.harness.accuracy.evaluation import evaluate
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.leaderboard import run_leaderboard
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.resume.journal import RunDirectory
from eca_zoo.harness.resume.restart import restarted
from eca_zoo.harness.suites import parse_suite
from tests.harness.image_sets import MODEL, write_folder

QUICK = EvalSettings(batch_size=16, workers=0, device='cpu')
SUITE = """
version: 1
models: [test_eca_resnet.digits, {{name: test_resnet, label: mine, checkpoint: {weights}}}]
data: {{name: digits, split: '', root: {root}}}
accuracy: {{batch_size: 16, workers: 0, device: cpu}}
throughput: [{{device: cpu, img_size: 32, batch_size: 1, rounds: 1, round_seconds: 0, warmup_steps: 1, threads: 1}}]
"""


def trained(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    save_file(timm.create_model('test_resnet', num_classes=10).state_dict(), path)
    return path


def test_the_records_of_one_model_go_in_the_journals_of_all_processes(tmp_path):
    with RunDirectory(tmp_path, {}) as journal, RunDirectory(tmp_path, {}, rank=1) as other:
        for title in ('a', 'hf-hub:x/a'):
            journal.require(f'accuracy/{title}', {'weights': title})
            journal.record_row(title, {'model': title}, 'accuracy')
            journal.record_row(f'{title}@32', {'title': title, 'img_size': 32}, 'complexity')
            journal.record_row(f'0/infer/{title}', {'model': title}, 'throughput')
            journal.record_partial(f'accuracy/{title}', {'blocks': [0]})
            other.record_partial(f'accuracy/{title}', {'blocks': [1]})
    for _ in range(2):
        with RunDirectory(tmp_path, {}, restart=['hf-hub:x/a']) as journal:
            assert journal.identity('accuracy/hf-hub:x/a') is None
            assert journal.partials('accuracy/hf-hub:x/a') == []
            assert len(journal.partials('accuracy/a')) == 2
            rows = [*journal.finished_rows('accuracy'), *journal.finished_rows('complexity')]
            assert [*rows, *journal.finished_rows('throughput')] == ['a', 'a@32', '0/infer/a']
    with RunDirectory(tmp_path, {}) as journal:
        assert len(journal.partials('accuracy/a')) == 2
        assert journal.partials('accuracy/hf-hub:x/a') == []


def test_throughputs_of_another_number_of_processes_are_not_mixed(tmp_path):
    """A run of an earlier version, which had one process, has no such key, as one that asks for one process."""
    write_folder(tmp_path / 'digits', count=10)
    text = SUITE.format(weights=trained(tmp_path / 'mine.safetensors', 1), root=tmp_path / 'digits')
    one_process = text.replace('rounds: 1', 'rounds: 1, rounds_per_process: 0')
    run_leaderboard(parse_suite(one_process, tmp_path / 'mine.yaml'), tmp_path / 'run')
    with pytest.raises(InputError, match=r'it holds a run with throughput\.0\.rounds_per_process null, not 2; '):
        run_leaderboard(parse_suite(text, tmp_path / 'mine.yaml'), tmp_path / 'run')


def test_models_are_chosen_by_name_or_pattern():
    titles = ['eca_resnet18.k3577_in1k', 'mine', 'my[1]']
    assert restarted(['eca_*', 'my[1]'], titles) == ['eca_resnet18.k3577_in1k', 'my[1]']
    assert restarted(True, titles) is True
    assert restarted(False, titles) is False
    with pytest.raises(InputError) as error:
        restarted(['mime'], titles)
    assert str(error.value) == f'--restart mime: no such model in this run; it has {", ".join(titles)}'


def test_new_weights_of_a_model_are_measured_and_the_rest_of_the_table_is_kept(tmp_path):
    def run(**options):
        text = SUITE.format(weights=tmp_path / 'mine.safetensors', root=tmp_path / 'digits')
        run_leaderboard(parse_suite(text, tmp_path / 'mine.yaml'), tmp_path / 'run', **options)
        with (tmp_path / 'run' / 'leaderboard.csv').open(newline='') as file:
            return list(csv.DictReader(file))

    write_folder(tmp_path / 'digits', count=40)
    trained(tmp_path / 'mine.safetensors', 1)
    first, mine = run()
    trained(tmp_path / 'mine.safetensors', 2)
    with pytest.raises(
        InputError, match=r'; use another folder, --restart mine to measure that model alone, or --rest'
    ):
        run()
    kept, measured = run(restart=['mine'])
    # Its throughput, a new one, would differ.
    assert kept == first
    assert measured['weights_sha256'] != mine['weights_sha256']
    assert measured['num_images'] == '40'
    expected = evaluate(
        [ModelSpec('test_resnet', checkpoint=tmp_path / 'mine.safetensors', num_classes=10)],
        DataSpec(root=tmp_path / 'digits'),
        QUICK,
    )
    assert float(measured['top1']) == expected[0].top1


def test_a_list_of_models_leaves_the_folder_that_follows_it_alone(tmp_path, capsys):
    folder = write_folder(tmp_path / 'digits', count=40)
    command = ['validate', '-m', MODEL, '--device', 'cpu', '-j', '0', '-b', '16', '--run-dir', str(tmp_path / 'run')]
    assert main([*command, '--restart', str(folder)]) == 0
    assert main([*command, '--restart', MODEL, str(folder)]) == 0
    assert main([*command, '--restart', 'other', str(folder)]) == 2
    assert capsys.readouterr().err == (
        f'eca-zoo validate: error: --restart other: no such model in this run; it has {MODEL}\n'
    )
    assert main(['leaderboard', '--run-dir', str(tmp_path / 'run'), '--restart']) == 2
    assert 'name a suite' in capsys.readouterr().err
