"""Parts of the first hour that measure speed, or run what is timed: fan-out, the ECA layer, timm's script, forms."""

import os
import signal

import timm
import torch
from gpu_hour.hour import DIGITS, Hour, fenced
from torch.export.passes import move_to_device_pass

import eca_zoo.models  # noqa: F401  (registers the networks)
from eca_zoo.harness.machine.devices import visible_devices
from eca_zoo.harness.networks.export import export_network
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.speed.rounds import throughput_groups
from eca_zoo.harness.speed.settings import ThroughputSettings


class Network(torch.nn.Module):
    """A small network; one that is killed ends its process at its second step."""

    pretrained_cfg = {'input_size': (3, 32, 32)}  # noqa: RUF012

    def __init__(self, is_killed: bool = False) -> None:
        super().__init__()
        self.is_killed, self.steps, self.weight = is_killed, 0, torch.nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        if self.is_killed and self.steps == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return x.mean((2, 3)) * self.weight


def killed_child(hour: Hour) -> str:
    """(c) Two processes on one device, the CPU without a GPU: a killed one takes no other network with it."""
    # Two names of one device.
    device, alias = ('cuda:0', 'cuda') if hour.gpus else ('cpu', 'cpu:0')
    titles = ('a', 'killed', 'b', 'c')
    specs = [ModelSpec('network', module=Network(title == 'killed'), label=title) for title in titles]
    settings = ThroughputSettings(device=device, batch_size=8, rounds=2, round_seconds=0.01, warmup_steps=1)
    groups = throughput_groups(specs, settings, None, [device, alias])
    results = {result.model: result.error for group in groups for result in group}
    text = f'on {device}: ' + ', '.join(f'{title} {error or "measured"}' for title, error in sorted(results.items()))
    if [title for title, error in results.items() if error] != ['killed'] or len(results) != len(specs):
        raise AssertionError(text)
    return text


def fan_out(hour: Hour) -> str:
    """(c) Networks on all GPUs of one kind at once."""
    hour.need_gpus(2)
    devices = visible_devices(torch.device('cuda:0'))
    if len(devices) < 2:
        return f'{hour.gpus} GPUs of different kinds: networks are timed on one'
    return fenced(hour.command('-m', 'eca_zoo', 'benchmark', '--model', 'zoo', '--baseline', 'resnet50'))


def block(hour: Hour) -> str:
    """(g) What ECA costs in a ResNet-50, in each precision, eager and compiled."""
    hour.need_gpus(1)
    texts = []
    for flags in ([], ['--amp', 'float16'], ['--amp', 'bfloat16'], ['--compile', '--amp', 'float16']):
        arguments = ['benchmark/perf/block.py', '--device', 'cuda', '-b', '256', '--channels-last', *flags]
        texts.append(f'`{" ".join(arguments)}`\n\n{fenced(hour.command(*arguments))}')
    return '\n\n'.join(texts)


def layouts(hour: Hour) -> str:
    """(g) Whether channels-last is the faster format, in each precision."""
    hour.need_gpus(1)
    texts = []
    for precision in ('fp32', 'tf32', 'amp'):
        for flags in ([], ['--channels-last']):
            arguments = ['--model', 'resnet50', 'eca_resnet50', '-b', '256', '--precision', precision, *flags]
            texts.append(f'`{" ".join(arguments)}`\n\n{fenced(hour.command("-m", "eca_zoo", "benchmark", *arguments))}')
    return '\n\n'.join(texts)


def beside_timms_benchmark(hour: Hour) -> str:
    """(h) Images a second beside timm's benchmark.py; the ratio should be 0.97 to 1.03."""
    hour.need_gpus(1)
    script, lines = hour.need_timm() / 'benchmark.py', []
    for model in ('resnet18', 'resnet50', 'mobilenetv2_100'):
        ratios = []
        for _ in range(3):
            rates = []
            for number, start in enumerate((['-m', 'eca_zoo', 'benchmark'], [str(script), '--bench', 'inference'])):
                file = hour.folder / f'rate-{number}.csv'
                flags = ['--model', model, '--batch-size', '256', '--amp', '--channels-last']
                hour.command(*start, *flags, '--results-file', str(file))
                header, row = file.read_text(encoding='utf-8').splitlines()[:2]
                rates.append(float(row.split(',')[header.split(',').index('infer_samples_per_sec')]))
            ratios.append(rates[0] / rates[1])
        median = sorted(ratios)[1]
        is_near = 'within' if 0.97 <= median <= 1.03 else 'OUTSIDE'
        lines.append(
            f'- {model}: {median:.3f}, {is_near} 0.97 to 1.03 ({", ".join(f"{ratio:.3f}" for ratio in ratios)})'
        )
    return '\n'.join(lines)


def forms(hour: Hour) -> str:
    """(i) The form for inference on the GPU, beside the plain network, at batch 1 and 256."""
    hour.need_gpus(1)
    texts = []
    for batch_size in ('1', '256'):
        arguments = ['--model', 'eca_resnet50', '--baseline', 'resnet50', '-b', batch_size, '--amp', '--channels-last']
        for fuse in ([], ['--fuse'], ['--compile', '--compile-mode', 'reduce-overhead']):
            out = hour.command('-m', 'eca_zoo', 'benchmark', *arguments, *fuse)
            texts.append(f'batch {batch_size} {" ".join(fuse) or "plain"}\n\n{fenced(out)}')
    return '\n\n'.join(texts)


def early_gate(hour: Hour) -> str:
    """(i) Up to how many channels the form's early gate pays on this device: its threshold comes from CPUs."""
    hour.need_gpus(1)
    texts = []
    for flags in ([], ['--amp', 'float16'], ['--amp', 'float16', '--compile']):
        arguments = ['benchmark/perf/early_gate.py', '--device', 'cuda', '-b', '1', '256', *flags]
        texts.append(f'`{" ".join(arguments)}`\n\n{fenced(hour.command(*arguments))}')
    return '\n\n'.join(texts)


def export(hour: Hour) -> str:
    """(i) An exported network gives the logits of the eager one, on the GPU where there is one."""
    device = torch.device('cuda:0' if hour.gpus else 'cpu')
    path = hour.folder / 'exported.pt2'
    export_network(DIGITS, path, 'torch-export')
    network = timm.create_model(DIGITS, pretrained=True).eval().to(device)
    images = torch.randn(5, *network.pretrained_cfg['input_size'], generator=torch.Generator().manual_seed(0))
    program = move_to_device_pass(torch.export.load(path), device)
    with torch.inference_mode():
        difference = (program.module()(images.to(device)) - network(images.to(device))).abs().max().item()
    if difference > 1e-3:
        raise AssertionError(f'logits differ by {difference:.1e} on {device}')
    return f'on {device}: logits differ by {difference:.1e} at most'
