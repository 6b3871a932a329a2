"""The environment of a run, for the file beside its table."""

import json

import timm
import torch

from eca_zoo.harness.machine.environment import describe_environment, processor_name


def test_versions_processor_threads_and_flags_are_described():
    environment = json.loads(json.dumps(describe_environment(['eca-zoo', 'leaderboard'])))
    assert environment['command_line'] == ['eca-zoo', 'leaderboard']
    assert environment['versions']['torch'] == torch.__version__
    assert environment['versions']['timm'] == timm.__version__
    assert environment['versions']['eca-zoo']
    assert environment['processor'] == processor_name() != ''
    assert environment['threads']['intra_op'] == torch.get_num_threads()
    assert environment['flags']['cudnn.allow_tf32'] == torch.backends.cudnn.allow_tf32
    assert len(environment['gpus']) == (torch.cuda.device_count() if torch.cuda.is_available() else 0)


def test_variables_that_move_a_figure_are_listed(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    monkeypatch.setenv('MALLOC_TOP_PAD_', '4096')
    monkeypatch.setenv('SECRET', 'no')
    assert describe_environment([])['variables']['MALLOC_TOP_PAD_'] == '4096'
    assert describe_environment([])['variables']['OMP_NUM_THREADS'] == '3'
    assert 'SECRET' not in str(describe_environment([]))
