"""Throughput: rounds in turn, paired ratios, settings that are checked, and torch left as it was."""

import dataclasses

import pytest
import timm
import torch

from eca_zoo.errors import InputError
from eca_zoo.harness.machine.devices import resolve_device, visible_devices
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.speed import rounds as throughput
from eca_zoo.harness.speed import timer
from eca_zoo.harness.speed.failures import reason
from eca_zoo.harness.speed.rounds import measure_throughput, throughput_groups
from eca_zoo.harness.speed.runners import Runner
from eca_zoo.harness.speed.settings import ThroughputSettings

QUICK = ThroughputSettings(
    device='cpu', batch_size=2, img_size=32, rounds=3, round_seconds=0, warmup_steps=0, threads=1
)
ECA = ModelSpec('test_eca_resnet')
PLAIN = ModelSpec('test_resnet')
BROKEN = ModelSpec('eca_resnet18', model_kwargs={'kernel_sizes': (2,)})


def test_a_result_holds_figures_that_agree_with_each_other():
    (result,) = measure_throughput([ECA], dataclasses.replace(QUICK, rounds=5))
    assert (result.model, result.error, result.batch_size, result.img_size, result.steps) == (
        'test_eca_resnet', None, 2, 32, 5,
    )  # fmt: skip
    assert result.step_time_ms == pytest.approx(1e3 * 2 / result.samples_per_sec)
    assert result.step_time_p95_ms > 0
    assert result.spread_percent >= 0
    assert result.relative is None
    assert result.peak_memory_mb is None


def test_a_single_round_has_no_spread():
    (result,) = measure_throughput([PLAIN], dataclasses.replace(QUICK, rounds=1))
    assert result.samples_per_sec > 0
    assert result.spread_percent is None
    assert throughput.spread_percent([10.0, 20.0, 30.0]) == 50


def test_the_baseline_is_measured_too_and_is_one_relative_to_itself():
    results = {result.model: result for result in measure_throughput([ECA], QUICK, baseline=PLAIN)}
    assert list(results) == ['test_eca_resnet', 'test_resnet']
    assert results['test_resnet'].relative == 1.0
    assert results['test_eca_resnet'].relative > 0


def test_relative_throughput_is_the_median_of_ratios_paired_by_round(monkeypatch):
    # The clock says that the machine slows down ten times from round to round; the ratio does not move. The first step
    # of a round, before which the other network ran, takes longest and does not count.
    clock = {
        'test_eca_resnet': iter([2, 2, 999, 2, 999, 20, 999, 200]),
        'test_resnet': iter([1, 1, 999, 1, 999, 10, 999, 100]),
    }

    def time_steps(step, count, device):
        return [next(clock[step()]) for _ in range(count)]

    def prepare(self, batch_size):
        self.batch_size = batch_size
        name = (
            'test_eca_resnet' if any('se.conv' in key for key, _ in self._model.named_parameters()) else 'test_resnet'
        )
        self.step = lambda: name

    monkeypatch.setattr(timer, 'time_steps', time_steps)
    monkeypatch.setattr(Runner, 'prepare', prepare)
    eca, plain = measure_throughput([ECA], QUICK, baseline=PLAIN)
    assert eca.relative == 0.5
    assert (eca.samples_per_sec, plain.samples_per_sec) == (0.1, 0.2)


def test_each_round_starts_with_another_network(monkeypatch):
    order = []
    time_round = throughput._time_round
    monkeypatch.setattr(throughput, '_time_round', lambda c: (order.append(c.spec.name), time_round(c)))
    measure_throughput([ECA], QUICK, baseline=PLAIN)
    assert order == [
        'test_eca_resnet',
        'test_resnet',
        'test_resnet',
        'test_eca_resnet',
        'test_eca_resnet',
        'test_resnet',
    ]


def test_a_network_that_fails_is_a_result_with_an_error_and_the_others_are_measured():
    results = measure_throughput([BROKEN, ECA], QUICK, baseline=PLAIN)
    assert [result.model for result in results] == ['eca_resnet18', 'test_eca_resnet', 'test_resnet']
    assert results[0].error.startswith('kernel_sizes must be 4 odd, positive integers')
    assert results[0].samples_per_sec is None
    assert results[1].relative > 0


def test_without_its_baseline_a_result_has_no_ratio():
    (result, baseline) = measure_throughput([ECA], QUICK, baseline=BROKEN)
    assert result.samples_per_sec > 0
    assert result.relative is None
    assert baseline.error


def test_the_batch_size_is_halved_until_it_fits(monkeypatch):
    prepare = Runner.prepare

    def prepare_small(self, batch_size):
        if batch_size > 3:
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB')
        prepare(self, batch_size)

    monkeypatch.setattr(Runner, 'prepare', prepare_small)
    (result,) = measure_throughput([ECA], dataclasses.replace(QUICK, batch_size=16))
    assert result.batch_size == 2
    assert result.settings.batch_size == 16


@pytest.mark.parametrize(
    'changes',
    [
        {'channels_last': True},
        {'precision': 'bfloat16'},
        {'precision': 'amp_bf16'},
        {'fuse': True},
        {'reparameterize': True},
        {'train': True},
        {'train': True, 'precision': 'amp_bf16', 'channels_last': True},
        {'compile': 'eager'},
        {'backend': 'onnxruntime'},
    ],
)
def test_every_setting_runs(changes):
    (result,) = measure_throughput([ECA], dataclasses.replace(QUICK, rounds=1, **changes))
    assert result.error is None
    assert result.samples_per_sec > 0


def test_branches_are_folded_before_a_network_is_timed():
    folded, plain = (
        Runner(ModelSpec('repghostnet_050'), dataclasses.replace(QUICK, reparameterize=fold).checked())._model
        for fold in (True, False)
    )
    assert sum(map(torch.numel, folded.parameters())) < sum(map(torch.numel, plain.parameters()))


@pytest.mark.parametrize(
    ('changes', 'text', 'line'),
    [
        ({'train': True}, 'Expected more than 1 value per channel when training, got input size [1, 9]',
         'give a batch size of more than 1, or a larger image size'),
        ({}, 'CUDA out of memory', 'give a smaller image size, or another device'),
        ({'precision': 'fp16'}, '"conv2d" not implemented for "Half"', 'fp16 is not implemented on cpu for it'),
        ({}, "Kernel size can't be greater than actual input size", 'give a larger image size'),
        ({'compile': 'inductor'}, 'no compiler', 'with compile inductor; see whether it runs without'),
    ],
)  # fmt: skip
def test_why_a_network_cannot_be_timed_comes_with_a_remedy(changes, text, line):
    assert line in reason(RuntimeError(text), dataclasses.replace(QUICK, **changes), 1)


def test_a_training_benchmark_that_cannot_run_says_what_to_change():
    (result,) = measure_throughput([PLAIN], dataclasses.replace(QUICK, train=True, batch_size=1))
    assert result.error.startswith('a batch norm has one value a channel to train on')
    assert result.error.endswith('give a batch size of more than 1, or a larger image size')


def test_openvino_runs_where_it_is_installed():
    pytest.importorskip('openvino')
    (result,) = measure_throughput([ECA], dataclasses.replace(QUICK, rounds=1, backend='openvino'))
    assert result.error is None


def test_torchs_flags_threads_and_random_state_are_as_before():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    flags = (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, torch.get_num_threads(), torch.is_grad_enabled())
    state = torch.get_rng_state()
    measure_throughput([ECA], dataclasses.replace(QUICK, rounds=1, train=True))
    assert flags == (
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, torch.get_num_threads(), torch.is_grad_enabled(),
    )  # fmt: skip
    assert torch.equal(state, torch.get_rng_state())


def test_groups_are_spread_over_devices_with_the_baseline_in_each():
    # Modules have no process of their own beside that of their device.
    names = ('test_eca_resnet', 'test_resnet', 'test_efficientnet')
    specs = [ModelSpec(name, module=timm.create_model(name)) for name in names]
    progress = []
    groups = list(
        throughput_groups(
            specs,
            dataclasses.replace(QUICK, rounds=1),
            specs[1],
            ['cpu', 'cpu:0'],
            lambda *state: progress.append(state),
        )
    )
    assert len(groups) == 2
    results = [result for group in groups for result in group]
    assert sorted(result.model for result in results) == sorted(spec.name for spec in specs)
    assert all(result.error is None and result.relative > 0 for result in results)
    assert {total for _, total, _ in progress} == {8}
    steps = [done for done, _, _ in progress]
    # In each group two networks are warmed up, and then have their round.
    assert (steps, steps[-1], len(set(steps) - {0})) == (sorted(steps), 8, 6)


def test_progress_counts_every_round_of_every_network():
    progress = []
    measure_throughput([ECA], QUICK, PLAIN, lambda done, total, text: progress.append((done, total, text)))
    # Two networks have three rounds, and a warm-up before the first and the third one, when they may move.
    assert progress[0] == (1, 10, 'warmed up test_eca_resnet')
    assert progress[-1] == (10, 10, 'round 3 of 3')


def test_the_cpu_is_one_device():
    assert visible_devices(torch.device('cpu')) == [torch.device('cpu')]


@pytest.mark.skipif(torch.cuda.is_available(), reason='says what happens without a GPU')
def test_a_device_that_is_not_there_is_one_clear_line():
    with pytest.raises(InputError) as error:
        resolve_device('cuda')
    assert str(error.value) == "device 'cuda' is not there: this machine has 1 cpu; choose another --device"


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'device': 'abacus'}, "device 'abacus': there is no such kind; use one of auto, cuda, mps, xpu, cpu"),
        ({'device': 'meta'}, "device 'meta': cannot be measured here; use one of auto, cuda, mps, xpu, cpu"),
        ({'device': 'cpu:7'}, "device 'cpu:7' is not there: this machine has"),
        ({'precision': 'fp8'}, "precision 'fp8' is unknown; use one of fp32, tf32, fp16, bf16, amp, amp_bf16"),
        ({'precision': 'tf32'}, 'precision tf32 exists on CUDA alone, not on cpu; use fp32 or bf16'),
        ({'batch_size': 0}, 'batch_size must be at least 1, not 0'),
        ({'rounds': 0}, 'rounds must be at least 1, not 0'),
        ({'rounds_per_process': -1}, 'rounds_per_process must be at least 1 (0: one process), not -1'),
        ({'round_seconds': float('nan')}, 'warmup_steps and round_seconds must not be negative'),
        ({'backend': 'tvm'}, "backend 'tvm' is unknown; use one of torch, onnxruntime, openvino"),
        ({'train': True, 'fuse': True}, 'training steps run in torch and with their batch norms and branches'),
        ({'train': True, 'reparameterize': True}, 'training steps run in torch and with their'),
        ({'backend': 'onnxruntime', 'channels_last': True}, 'backend onnxruntime is measured on the CPU in fp32'),
        ({'compile': 'nothing'}, "compile backend 'nothing' is unknown; use one of "),
    ],
)
def test_settings_that_are_not_possible_are_refused_before_anything_runs(changes, message):
    with pytest.raises(InputError) as error:
        measure_throughput([ECA], dataclasses.replace(QUICK, **changes))
    assert str(error.value).startswith(message)


def test_a_network_named_twice_is_refused():
    with pytest.raises(InputError, match='a network is named twice: test_resnet, test_resnet'):
        measure_throughput([PLAIN, PLAIN], QUICK)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_on_cuda_steps_are_timed_with_events_and_memory_is_reported():
    settings = dataclasses.replace(QUICK, device='cuda', img_size=224, precision='amp', channels_last=True, rounds=3)
    result, _ = measure_throughput([ECA], settings, baseline=PLAIN)
    assert result.error is None
    assert result.peak_memory_mb > 0
    assert result.step_time_p95_ms > 0
    assert not torch.backends.cuda.matmul.allow_tf32
