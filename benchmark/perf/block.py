"""How nearly free is the ECA block: networks timed in turn against ResNet-50, as ratios of images a second.

python benchmark/perf/block.py --batch-size 16 --channels-last --compile --rounds 20 [--train] [--device cuda]
"""

import argparse
import itertools
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import timm
import torch
from timm.models.resnet import Bottleneck

import eca_zoo  # noqa: F401 (registers the networks)

Step = Callable[[], None]


# The baseline first; the plain block is timm's, which reads its output once to pool and once to scale.
NETWORKS: dict[str, Callable[[], torch.nn.Module]] = {
    'resnet50': lambda: timm.create_model('resnet50'),
    'eca_resnet50': lambda: timm.create_model('eca_resnet50'),
    'eca_resnet50, plain block': lambda: timm.create_model('eca_resnet50', block=Bottleneck),
    'seresnet50': lambda: timm.create_model('seresnet50'),
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


def seconds_of_rounds(args: argparse.Namespace, seed: int) -> dict[str, list[float]]:
    """Seconds of each network's steps, all networks in turn in each round.

    ``seed`` shuffles the networks and moves them in memory: where the tensors of a network come to lie changes its
    time by some per cent, the same in each round of a process.
    """
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    images = torch.randn(args.batch_size, 3, args.img_size, args.img_size, device=device).to(memory_format=layout)
    steps: dict[str, Step] = {}
    chance, fillers = random.Random(seed), []
    for name in chance.sample(list(NETWORKS), len(NETWORKS)):
        fillers.append(torch.zeros(chance.randrange(1, 200_000)))
        network = NETWORKS[name]().to(device, memory_format=layout)
        if args.compile:
            torch._dynamo.config.recompile_limit = 64  # the networks share one forward
            network = torch.compile(network)
        steps[name] = make_step(network, images, args.train, args.amp)
    seconds: dict[str, list[float]] = {name: [] for name in NETWORKS}
    for number in range(args.rounds + 2):
        for name, step in steps.items():
            duration = seconds_of(step, device, time.process_time if args.processor_time else time.perf_counter)
            if number >= 2:  # the first two warm up
                seconds[name].append(duration)
    return seconds


def report(of_processes: list[dict[str, list[float]]]) -> None:
    """Print times, the median of the ratios of all rounds, the median and range of what the processes found."""
    print(f'{"network":28}{"median ms":>12}{"minimum ms":>12}{"median ratio":>14}{"ratio of minimums":>19}   medians')
    for name in NETWORKS:
        own = [seconds[name] for seconds in of_processes]
        base = [seconds['resnet50'] for seconds in of_processes]
        ratios = [[b / s for b, s in zip(bs, ss, strict=True)] for bs, ss in zip(base, own, strict=True)]
        times = list(itertools.chain(*own))
        minimums = statistics.median(min(b) / min(s) for b, s in zip(base, own, strict=True))
        medians = [statistics.median(process) for process in ratios]
        median = statistics.median(itertools.chain(*ratios))
        print(
            f'{name:28}{1e3 * statistics.median(times):12.1f}{1e3 * min(times):12.1f}'
            f'{median:14.3f}{minimums:19.3f}   {min(medians):.3f} to {max(medians):.3f}'
        )


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
    parser.add_argument('--processes', type=int, default=1, help='repeat all of it in so many, one after the other')
    args = parser.parse_args()
    of_processes = []
    for seed in range(args.processes):  # a fresh one each time, so that memory is laid out anew
        with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as executor:
            of_processes.append(executor.submit(seconds_of_rounds, args, seed).result())
    print(f'torch {torch.__version__}: {vars(args)}')
    report(of_processes)


if __name__ == '__main__':
    main()
