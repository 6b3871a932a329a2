"""How nearly free is the ECA block: networks timed in turn against ResNet-50, as ratios of images a second.

python benchmark/perf/block.py --batch-size 16 --channels-last --compile --rounds 20 [--train] [--device cuda]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import timm
import torch
from timm.models.resnet import Bottleneck

import eca_zoo  # noqa: F401 (registers the networks)

Step = Callable[[], None]


def networks() -> dict[str, torch.nn.Module]:
    """The baseline first; the plain network has timm's block, which reads its output once to pool and once to scale."""
    return {
        'resnet50': timm.create_model('resnet50'),
        'eca_resnet50': timm.create_model('eca_resnet50'),
        'eca_resnet50, plain block': timm.create_model('eca_resnet50', block=Bottleneck),
        'seresnet50': timm.create_model('seresnet50'),
    }


def make_step(network: torch.nn.Module, images: torch.Tensor, train: bool, amp: str | None) -> Step:
    """One inference, or one forward and backward pass with its update, of ``images``."""
    network.train(train)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.9) if train else None
    dtype = {'float16': torch.float16, 'bfloat16': torch.bfloat16, None: torch.float32}[amp]

    def step() -> None:
        with torch.set_grad_enabled(train), torch.autocast(images.device.type, dtype, enabled=amp is not None):
            out = network(images)
            if optimizer is not None:
                loss = out.float().square().mean()
        if optimizer is not None:
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return step


def seconds_of(step: Step, device: torch.device, clock: Callable[[], float]) -> float:
    """Time of one step by ``clock``; on CUDA between events."""
    if device.type == 'cuda':
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        step()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3
    start = clock()
    step()
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch-size', '-b', type=int, default=16)
    parser.add_argument('--img-size', type=int, default=224)
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--channels-last', action='store_true')
    parser.add_argument('--compile', action='store_true')
    parser.add_argument('--train', action='store_true', help='a training step instead of an inference')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--amp', choices=['float16', 'bfloat16'], help='autocast to this dtype')
    parser.add_argument(
        '--processor-time',
        action='store_true',
        help='of the process instead of wall time: with one thread it bears other work on the machine',
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    images = torch.randn(args.batch_size, 3, args.img_size, args.img_size, device=device).to(memory_format=layout)
    steps = {}
    for name, network in networks().items():
        network = network.to(device, memory_format=layout)
        if args.compile:
            torch._dynamo.config.recompile_limit = 64  # the networks share one forward
            network = torch.compile(network)
        steps[name] = make_step(network, images, args.train, args.amp)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(args.rounds + 2):
        for name, step in steps.items():
            duration = seconds_of(step, device, time.process_time if args.processor_time else time.perf_counter)
            if number >= 2:  # the first two warm up
                seconds[name].append(duration)
    print(f'torch {torch.__version__}, {device}, {args.threads} threads: {vars(args)}')
    print(f'{"network":28}{"median ms":>12}{"minimum ms":>12}{"median ratio":>14}{"ratio of minimums":>19}')
    base = seconds['resnet50']
    for name, own in seconds.items():
        ratio = statistics.median(b / s for b, s in zip(base, own, strict=True))
        times = f'{1e3 * statistics.median(own):12.1f}{1e3 * min(own):12.1f}'
        print(f'{name:28}{times}{ratio:14.3f}{min(base) / min(own):19.3f}')


if __name__ == '__main__':
    main()
