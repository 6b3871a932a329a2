"""The log of a command whose stderr is no terminal, as cron, systemd and schedulers keep it."""

import re

import pytest

from tests.harness.image_sets import MODEL, write_folder
from tests.spawning import run_python

SUITE = """
version: 1
models: [test_eca_resnet.digits]
data: {{name: digits, split: '', root: {root}}}
accuracy: {{batch_size: 16, workers: 0, device: cpu}}
throughput: [{{device: cpu, img_size: 32, batch_size: 1, rounds: 1, round_seconds: 0, warmup_steps: 1, threads: 1}}]
"""


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / 'digits', count=40)


def log(*arguments: object) -> list[str]:
    """The lines of stderr without the time that each begins with."""
    done = run_python('-m', 'eca_zoo', *arguments, check=True)
    timed = re.compile(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ')
    assert all(timed.match(line) for line in done.stderr.splitlines())
    return [timed.sub('', line) for line in done.stderr.splitlines()]


def test_validate_says_what_it_begins_and_what_is_done_and_is_quiet_if_asked(folder, tmp_path):
    command = ['validate', '-m', MODEL, '--data-dir', folder, '--device', 'cpu', '-j', '0', '-b', '16']
    command += ['--run-dir', tmp_path / 'run']
    begins = [
        f'INFO: validation of {MODEL}',
        f'INFO: 40 images of digits in {folder}; cpu, fp32, batch size 16, 0 workers',
    ]
    assert log(*command) == [*begins, f'INFO: {MODEL}: top-1 100.000 %, top-5 100.000 % of 40 images']
    assert log(*command) == [*begins, 'INFO: 1 of 1 models are done already']
    assert log(*command, '--quiet') == []


def test_leaderboard_says_each_row_that_is_finished(folder, tmp_path):
    (tmp_path / 'mine.yaml').write_text(SUITE.format(root=folder))
    [_, images, top1, size, throughput, rate] = log('leaderboard', tmp_path / 'mine.yaml', '--out', tmp_path / 'run')
    assert images.startswith('INFO: 40 images of digits')
    assert top1.startswith(f'INFO: {MODEL}: top-1 100.000 %')
    assert size == f'INFO: {MODEL}: 0.37 M parameters, 0.0041 GMACs at 32 pixels'
    assert throughput == 'INFO: throughput: inference of 1 networks on cpu, torch, fp32; 1 rounds of 0 s'
    assert re.fullmatch(rf'INFO: {re.escape(MODEL)}: [\d.]+ img/s \(one round\) at batch size 1', rate)
