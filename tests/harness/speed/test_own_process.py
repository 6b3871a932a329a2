"""A network that is timed on the CPU has a process of its own, which ends with the measurement."""

import contextlib
import dataclasses
import os
import signal

import pytest
import timm
import torch

from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.speed import rounds
from eca_zoo.harness.speed.own_process import OwnProcess, launcher_of, runs_apart
from eca_zoo.harness.speed.rounds import measure_throughput
from eca_zoo.harness.speed.runners import Runner
from eca_zoo.harness.speed.settings import ThroughputSettings

QUICK = ThroughputSettings(
    device='cpu', batch_size=1, img_size=32, rounds=2, round_seconds=0, warmup_steps=0, threads=1
)
ECA = ModelSpec('test_eca_resnet')
PLAIN = ModelSpec('test_resnet')

pytestmark = pytest.mark.usefixtures('own_processes')


@pytest.fixture
def processes(monkeypatch):
    """Those that are started."""
    started = []
    start = OwnProcess.__init__

    def init(self, *arguments):
        start(self, *arguments)
        started.append(self)

    monkeypatch.setattr(OwnProcess, '__init__', init)
    return started


@pytest.fixture(scope='module')
def launcher():
    with launcher_of(QUICK) as launcher:
        yield launcher


@pytest.fixture
def _one_launcher(launcher, monkeypatch):
    """All processes are forked from one that has imported what they need once."""
    monkeypatch.setattr(rounds, 'launcher_of', lambda settings: contextlib.nullcontext(launcher))


one_launcher = pytest.mark.usefixtures('_one_launcher')


def test_networks_are_built_and_run_elsewhere_and_nothing_stays(processes, monkeypatch):
    def not_here(*_):
        raise AssertionError('it was built in this process')

    monkeypatch.setattr(Runner, '__init__', not_here)
    results = measure_throughput([ECA], QUICK, baseline=PLAIN)
    assert [(result.model, result.error, result.steps, result.img_size) for result in results] == [
        ('test_eca_resnet', None, 2, 32), ('test_resnet', None, 2, 32),
    ]  # fmt: skip
    assert results[0].relative > 0
    assert [process._process.wait() for process in processes] == [0, 0]


@one_launcher
def test_what_goes_wrong_there_is_said_here(processes):
    broken = ModelSpec('eca_resnet18', model_kwargs={'kernel_sizes': (2,)})
    first, second = measure_throughput([broken, PLAIN], dataclasses.replace(QUICK, train=True))
    assert 'kernel' in first.error
    assert second.error.startswith('a batch norm has one value a channel to train on')
    assert [process._process.wait() for process in processes] == [0, 0]


@one_launcher
def test_a_process_that_is_killed_is_an_error_of_its_network_alone(processes, monkeypatch):
    time_round = OwnProcess.time_round

    def killed(self):
        if self is processes[0]:
            os.kill(self.pid, signal.SIGKILL)
        return time_round(self)

    monkeypatch.setattr(OwnProcess, 'time_round', killed)
    first, second = measure_throughput([ECA, PLAIN], dataclasses.replace(QUICK, rounds=3, rounds_per_process=2))
    assert first.error == (
        'the process that timed it was killed by SIGKILL; memory may be short: try a smaller batch size'
    )
    # It has no part in what follows, and the other goes on.
    assert (second.error, second.steps, len(processes)) == (None, 3, 3)


@one_launcher
def test_it_does_not_heed_signals_to_all_processes_of_the_run(processes, monkeypatch):
    time_round = OwnProcess.time_round

    def told_to_stop(self):
        for name in (signal.SIGINT, signal.SIGTERM):
            os.kill(self.pid, name)
        return time_round(self)

    monkeypatch.setattr(OwnProcess, 'time_round', told_to_stop)
    (result,) = measure_throughput([PLAIN], QUICK)
    assert result.error is None
    assert processes[0]._process.wait() == 0


@pytest.fixture
def registered_here():
    def only_in_this_test(pretrained=False, **kwargs):
        return timm.create_model('test_resnet', **kwargs)

    timm.models.register_model(only_in_this_test)
    yield ModelSpec('only_in_this_test')
    del timm.models._registry._model_entrypoints['only_in_this_test']


def test_modules_and_networks_that_only_this_process_knows_are_timed_here(registered_here, processes):
    module = ModelSpec('mine', module=timm.create_model('test_resnet'))
    results = measure_throughput([registered_here, module], QUICK)
    assert [result.error for result in results] == [None, None]
    assert not processes


def test_with_freed_memory_kept_they_are_not_measured_otherwise(registered_here):
    class Local(torch.nn.Module):
        pass

    settings = dataclasses.replace(QUICK, keep_freed_memory=True)
    known_here, local = measure_throughput([registered_here, ModelSpec('mine', module=Local())], settings)
    remedy = 'start your own process with MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=-1'
    assert known_here.error.startswith('only this process knows it; leave out keep_freed_memory, or')
    assert known_here.error.endswith(remedy)
    assert local.error.startswith('it cannot be sent to a process of its own (')
    assert local.error.endswith(remedy)


@pytest.mark.parametrize(
    ('changes', 'spans'),
    [
        ({}, [2, 2, 1]),
        ({'train': True}, [2, 2, 1]),
        ({'rounds_per_process': 3}, [3, 2]),
        ({'rounds_per_process': 0}, [5]),
        # Tensors take no new pages, or are not PyTorch's, or it would be compiled again.
        ({'keep_freed_memory': True}, [5]),
        ({'backend': 'onnxruntime'}, [5]),
        ({'compile': 'inductor'}, [5]),
        ({'device': 'cuda:0'}, [5]),
    ],
)
def test_rounds_are_spread_over_processes_where_memory_moves_the_speed(changes, spans):
    settings = dataclasses.replace(QUICK, rounds=5, **changes)
    assert [len(span) for span in settings.spans] == spans
    assert [index for span in settings.spans for index in span] == list(range(5))
    assert settings.turns == 5 + len(spans)


@one_launcher
def test_a_network_goes_on_in_new_processes_with_what_it_found_out_in_the_first(processes):
    settings = dataclasses.replace(QUICK, rounds=3, rounds_per_process=2)
    eca, plain = measure_throughput([ECA], settings, baseline=PLAIN)
    assert (eca.error, eca.steps, plain.steps) == (None, 3, 3)
    assert eca.relative > 0
    assert len({process.pid for process in processes}) == 4
    assert [process._process.wait() for process in processes] == [0] * 4


@one_launcher
def test_the_batch_size_of_the_first_process_is_that_of_all(processes, monkeypatch):
    warm_up = OwnProcess.warm_up
    fits = iter([2, 2, 1])

    def with_less_memory(self):
        asked = self._request[1].batch_size
        warm_up(self)
        self.batch_size = next(fits)
        sizes.append((asked, self.batch_size))

    sizes = []
    monkeypatch.setattr(OwnProcess, 'warm_up', with_less_memory)
    (result,) = measure_throughput([ECA], dataclasses.replace(QUICK, batch_size=4, rounds=3, rounds_per_process=1))
    assert sizes == [(4, 2), (2, 2), (2, 1)]
    assert result.error == 'batch size 2 fitted into memory once, and later only 1'
    assert result.samples_per_sec is None


def test_other_devices_have_the_networks_here():
    assert runs_apart(PLAIN, QUICK)
    assert not runs_apart(PLAIN, dataclasses.replace(QUICK, device='cuda:0'))
