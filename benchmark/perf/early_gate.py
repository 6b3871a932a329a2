"""Up to how many channels an early gate pays on a device: bottlenecks of ECA-ResNet-50 with it and without, in turn.

python benchmark/perf/early_gate.py --device cuda -b 1 256 [--amp float16] [--compile]

The ratio is of images a second, early to late, median and minimum over the rounds. The widest bottleneck whose ratio is
above 1 at your batch size is the ``widest_early_gate`` of ``eca_zoo.optimize_for_inference``.
"""

import argparse
import contextlib
import statistics

import timm
import torch
from torch import nn
from torch.utils.benchmark import Timer

import eca_zoo.models  # noqa: F401  (registers the networks)
from eca_zoo.harness.machine.devices import hardware_name
from eca_zoo.harness.machine.environment import processor_name
from eca_zoo.models.fast_blocks import FastBottleneck


def bottlenecks() -> dict[int, tuple[nn.Module, int]]:
    """The last block of each stage and the side of its input at 224 pixels, by channels before its last convolution."""
    network = timm.create_model('eca_resnet50', pretrained=False).eval()
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    return {stage[-1].conv3.in_channels: (stage[-1], 56 >> number) for number, stage in enumerate(stages)}


def ratios(block: nn.Module, side: int, batch_size: int, args: argparse.Namespace) -> list[float]:
    """Images a second with the early gate to those without it, of each round."""
    device = torch.device(args.device)
    images = torch.randn(batch_size, block.conv1.in_channels, side, side, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    timers = []
    for widest in (block.conv3.in_channels, 0):
        form: nn.Module = FastBottleneck(block, widest).eval().to(device, memory_format=torch.channels_last)
        run = torch.compile(form, dynamic=False) if args.compile else form
        # It writes over what it is given.
        timers.append(Timer('run(images.clone())', globals={'run': run, 'images': images}, num_threads=args.threads))
    dtype = getattr(torch, args.amp or 'float16')
    context = torch.autocast(device.type, dtype=dtype) if args.amp else contextlib.nullcontext()
    found = []
    with torch.inference_mode(), context:
        steps = max(1, int(args.round_seconds / timers[1].blocked_autorange(min_run_time=0.05).median))
        for _ in range(args.rounds):
            early, late = (timer.timeit(steps).mean for timer in timers)
            found.append(late / early)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--batch-size', '-b', type=int, nargs='+', default=[1, 16])
    parser.add_argument('--amp', choices=['float16', 'bfloat16'], help='autocast to this dtype')
    parser.add_argument('--compile', action='store_true')
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--round-seconds', type=float, default=0.1)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    print(hardware_name(torch.device(args.device)) or processor_name())
    print(f'{"batch":>6}{"channels":>10}{"median":>9}{"minimum":>9}')
    for batch_size in args.batch_size:
        for channels, (block, side) in bottlenecks().items():
            found = ratios(block, side, batch_size, args)
            print(f'{batch_size:>6}{channels:>10}{statistics.median(found):>9.3f}{min(found):>9.3f}', flush=True)


if __name__ == '__main__':
    main()
