"""How nearly free is the ECA block, plain and in the form for inference: ratios of images a second, timed in turn.

python benchmark/perf/block.py --batch-size 16 --channels-last --rounds 20 --processes 3 [--compile] [--device cuda]
python benchmark/perf/block.py --networks resnet50 eca_resnet50 --train

A network is a name of timm's, with ``+form`` for the form for inference and ``+compile`` for torch.compile. Ratios are
given to each network that is not an ECA network (``--baselines`` for others).
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

import eca_zoo

Step = Callable[[], None]


RESNETS = ('resnet50', 'eca_resnet50', 'resnet50+form', 'eca_resnet50+form')
MOBILENETS = ('mobilenetv2_100', 'eca_mobilenetv2', 'mobilenetv2_100+form', 'eca_mobilenetv2+form')


def make_network(name: str, device: torch.device, layout: torch.memory_format, train: bool) -> torch.nn.Module:
    """The network, in the form and compiled if its name says so."""
    model, *changes = name.split('+')
    network = timm.create_model(model).train(train).to(device, memory_format=layout)
    if 'form' in changes:
        network = eca_zoo.optimize_for_inference(network)
    return torch.compile(network) if 'compile' in changes else network


def make_step(network: torch.nn.Module, images: torch.Tensor, train: bool, amp: str | None) -> Step:
    """One inference, or one forward and backward pass with its update, of ``images``."""
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
    torch._dynamo.config.recompile_limit = 64  # the networks share one forward
    for name in chance.sample(args.networks, len(args.networks)):
        fillers.append(torch.zeros(chance.randrange(1, 200_000)))
        steps[name] = make_step(make_network(name, device, layout, args.train), images, args.train, args.amp)
    seconds: dict[str, list[float]] = {name: [] for name in args.networks}
    for number in range(args.rounds + 2):
        for name, step in steps.items():
            duration = seconds_of(step, device, time.process_time if args.processor_time else time.perf_counter)
            if number >= 2:  # the first two warm up
                seconds[name].append(duration)
    return seconds


def report(args: argparse.Namespace, of_processes: list[dict[str, list[float]]]) -> None:
    """Print times, and for each baseline the median of all rounds' ratios, the ratio of minimums, and the range."""
    for name in args.networks:
        times = [second for seconds in of_processes for second in seconds[name]]
        print(f'{name:34} median {1e3 * statistics.median(times):8.1f} ms, minimum {1e3 * min(times):8.1f} ms')
    for baseline, name in itertools.product(args.baselines, args.networks):
        # What is compared: with the plain network as it is, and with it in the same form.
        if name == baseline or baseline.partition('+')[2] not in ('', name.partition('+')[2]):
            continue
        pairs = [(seconds[baseline], seconds[name]) for seconds in of_processes]
        ratios = [[b / s for b, s in zip(bs, ss, strict=True)] for bs, ss in pairs]
        minimums = statistics.median(min(bs) / min(ss) for bs, ss in pairs)
        medians = [statistics.median(process) for process in ratios]
        median = statistics.median(itertools.chain(*ratios))
        print(
            f'{name:34} / {baseline:26} median {median:.3f} (processes {min(medians):.3f} to {max(medians):.3f}), '
            f'minimums {minimums:.3f}'
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch-size', '-b', type=int, default=16)
    parser.add_argument('--img-size', type=int, default=224)
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--channels-last', action='store_true')
    parser.add_argument('--networks', nargs='+', default=list(RESNETS), help='mobilenets for those of MobileNetV2')
    parser.add_argument('--baselines', nargs='+', help='default: all networks without ECA')
    parser.add_argument('--compile', action='store_true', help='each network compiled too')
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
    if args.networks == ['mobilenets']:
        args.networks = list(MOBILENETS)
    if args.compile:
        args.networks += [f'{name}+compile' for name in args.networks]
    args.baselines = args.baselines or [name for name in args.networks if 'eca_' not in name]
    of_processes = []
    for seed in range(args.processes):  # a fresh one each time, so that memory is laid out anew
        with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as executor:
            of_processes.append(executor.submit(seconds_of_rounds, args, seed).result())
    print(f'torch {torch.__version__}: {vars(args)}')
    report(args, of_processes)


if __name__ == '__main__':
    main()
