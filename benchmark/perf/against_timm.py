"""Throughputs on the CPU beside those of timm's benchmark.py, in turn, and those of the same networks in other orders.

python benchmark/perf/against_timm.py CHECKOUT_OF_TIMM [--models ...] [--batch-sizes 1 4 16] [--rounds 5]
python benchmark/perf/against_timm.py CHECKOUT_OF_TIMM --close [--models ...] [--batch-sizes 1 4 16] [--rounds 20]
python benchmark/perf/against_timm.py --orders [--models ...] [--batch-sizes 4] [--rounds 5]

Both scripts are run as a user runs them, with their defaults, each time in a process of its own. `ratio` is the median
of ours / timm's of the same round, `means` the ratio of the means. A machine whose own speed moves more than the two
differ needs --close: each round has a new process of each side, ours as the command makes it and one with the runner of
timm's script, which are timed for --turn-seconds in turn, as many steps on both sides. The processes are new each time,
because tensors fall into the memory of each in another way, which moves a figure by more than the two sides differ;
on Linux a second line has the rounds whose processes both met as many new pages of memory a step.
With --orders all networks are measured by one command, in each rotation of their order, beside a command for each
network alone: `ratio` is the median of a figure in company / alone. --threads sets those of the CPU, for both. The load
of the machine is printed: figures of a machine that does other work are worth nothing.
"""

import argparse
import csv
import importlib.util
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.speed.own_process import OwnProcess, launcher_of
from eca_zoo.harness.speed.settings import ThroughputSettings

_ROOT = Path(__file__).resolve().parents[2]
_MODELS = ('resnet18', 'resnet50', 'mobilenetv2_100')
# Of each side in a round of --close.
_TURNS = 2
# Two processes meet as many new pages a step if their numbers differ by less than this part.
_SAME_PAGES = 0.05


def rates(command: Sequence[str], threads: int | None) -> dict[str, float]:
    """Images a second by network that a benchmark writes into its results file."""
    environment = os.environ | {'PYTHONPATH': str(_ROOT)} | ({'OMP_NUM_THREADS': str(threads)} if threads else {})
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / 'results.csv'
        command = [sys.executable, *command, '--device', 'cpu', '--bench', 'inference', '--results-file', str(results)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            sys.exit(f'{" ".join(command)} failed:\n{done.stdout}\n{done.stderr}')
        with results.open(newline='', encoding='utf-8') as file:
            return {row['model']: float(row['infer_samples_per_sec']) for row in csv.DictReader(file)}


def ours(models: Sequence[str], batch_size: int, threads: int | None) -> dict[str, float]:
    """What our command says."""
    return rates(['-m', 'eca_zoo', 'benchmark', '--model', *models, '-b', str(batch_size)], threads)


def timms(script: Path, model: str, batch_size: int, threads: int | None) -> float:
    """What timm's script says."""
    return rates([str(script), '--model', model, '-b', str(batch_size)], threads)[model]


def show(title: str, first: Sequence[float], second: Sequence[float]) -> None:
    """Print medians, the median, smallest and largest ratio of ``first`` / ``second``, and that of their means."""
    ratios = [one / other for one, other in zip(first, second, strict=True)]
    print(
        f'{title:32}{statistics.median(first):12.2f}{statistics.median(second):12.2f}{statistics.median(ratios):10.3f}'
        f'{min(ratios):10.3f}{max(ratios):10.3f}{statistics.mean(first) / statistics.mean(second):10.3f}',
        flush=True,
    )


def heading(first: str, second: str) -> str:
    return f'{"images/s":32}{first:>12}{second:>12}{"ratio":>10}{"min":>10}{"max":>10}{"means":>10}'


def measure(side: int, args: argparse.Namespace, model: str, batch_size: int) -> float:
    """Images a second of our side (0) or timm's (1)."""
    if side == 0:
        return ours([model], batch_size, args.threads)[model]
    return timms(args.checkout / 'benchmark.py', model, batch_size, args.threads)


def compare(args: argparse.Namespace) -> None:
    """Ours and timm's in turn."""
    print(heading('ours', 'timm'))
    for model in args.models:
        for batch_size in args.batch_sizes:
            figures: list[list[float]] = [[], []]
            for index in range(args.rounds):
                # Each side is the first one in turn.
                for side in (0, 1) if index % 2 == 0 else (1, 0):
                    figures[side].append(measure(side, args, model, batch_size))
            show(f'{model}, batch size {batch_size}', *figures)


def serve_timms(connection: Any, script: Path, model: str, batch_size: int) -> None:
    """Answer each number of steps with the seconds that timm's runner takes for them, in a process of its own."""
    spec = importlib.util.spec_from_file_location('timms_benchmark', script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    runner = module.InferenceBenchmarkRunner(model_name=model, device='cpu', batch_size=batch_size)
    runner.log_freq = sys.maxsize
    runner.num_warm_iter = 1  # as before a round of ours
    with torch.inference_mode():
        runner._init_input()
    # One run of the script has the same images from its first step to its last.
    runner._init_input = lambda: None
    connection.send(None)
    for steps in iter(connection.recv, None):
        runner.num_bench_iter = steps
        connection.send(steps * batch_size / runner.run()['samples_per_sec'])


def new_pages(pid: int) -> int | None:
    """Pages of memory that a process has had mapped anew so far (minor page faults); None where the system is silent.

    Field 10 of ``/proc/PID/stat``, see proc_pid_stat(5); the second is a name, which may hold blanks.
    """
    path = Path(f'/proc/{pid}/stat')
    return int(path.read_text(encoding='utf-8').rpartition(')')[2].split()[7]) if path.is_file() else None


class Figures(NamedTuple):
    """Of our process and timm's; pages are empty where they are not known."""

    images_per_second: tuple[float, float]
    pages_per_step: tuple[float, ...]

    def have_same_pages(self) -> bool:
        return max(self.pages_per_step) <= (1 + _SAME_PAGES) * min(self.pages_per_step)


def time_pair(args: argparse.Namespace, model: str, batch_size: int, ours_first: bool) -> Figures:
    """Our side and timm's, in a new process each."""
    settings = ThroughputSettings(
        device='cpu', batch_size=batch_size, threads=args.threads, round_seconds=args.turn_seconds
    ).checked()
    connection, other = multiprocessing.get_context('spawn').Pipe()
    script = args.checkout / 'benchmark.py'
    process = multiprocessing.get_context('spawn').Process(target=serve_timms, args=(other, script, model, batch_size))
    process.start()
    other.close()  # its end is then noticed
    seconds = [0.0, 0.0]
    with launcher_of(settings) as launcher:
        own = OwnProcess(ModelSpec(model), settings, launcher)
        own.start()
        connection.recv()
        own.warm_up()
        steps = len(own.time_round())
        connection.send(steps)  # its warm-up
        connection.recv()
        pids = own.pid, process.pid or 0
        before = [new_pages(pid) for pid in pids]
        for turn in range(_TURNS):
            for side in (0, 1) if ours_first == (turn % 2 == 0) else (1, 0):
                if side:
                    connection.send(steps)
                    seconds[1] += connection.recv()
                else:
                    seconds[0] += sum(own.time_round())
        counts = [(new_pages(pid), first) for pid, first in zip(pids, before, strict=True)]
        own.close()
    connection.send(None)
    process.join()
    images = _TURNS * steps * batch_size
    # A turn begins with a step that is not timed.
    all_steps = _TURNS * (1 + steps)
    pages = [(last - first) / all_steps for last, first in counts if last is not None and first is not None]
    return Figures((images / seconds[0], images / seconds[1]), tuple(pages))


def compare_closely(args: argparse.Namespace) -> None:
    """Ours and timm's in turn, some steps each, in new processes each round."""
    if args.threads:
        os.environ['OMP_NUM_THREADS'] = str(args.threads)
    print(heading('ours', 'timm'))
    for model in args.models:
        for batch_size in args.batch_sizes:
            pairs = [time_pair(args, model, batch_size, index % 2 == 0) for index in range(args.rounds)]
            show_pairs(f'{model}, batch size {batch_size}', pairs)
            if not all(pair.pages_per_step for pair in pairs):
                continue
            same = [pair for pair in pairs if pair.have_same_pages()]
            if 0 < len(same) < len(pairs):
                show_pairs(f'  {len(same)} rounds of as many pages', same)
            pages = [statistics.mean(side) for side in zip(*(pair.pages_per_step for pair in pairs), strict=True)]
            print(f'  new pages a step, mean {pages[0]:14.0f}{pages[1]:12.0f}', flush=True)


def show_pairs(title: str, pairs: Sequence[Figures]) -> None:
    show(title, *zip(*(pair.images_per_second for pair in pairs), strict=True))


def compare_orders(args: argparse.Namespace) -> None:
    """Networks in company, in all rotations of their order, and alone."""
    print(heading('company', 'alone'))
    for batch_size in args.batch_sizes:
        company: dict[tuple[str, int], list[float]] = {}
        alone: dict[str, list[float]] = {model: [] for model in args.models}
        for _ in range(args.rounds):
            for model in args.models:
                alone[model].append(ours([model], batch_size, args.threads)[model])
            for start in range(len(args.models)):
                order = [*args.models[start:], *args.models[:start]]
                found = ours(order, batch_size, args.threads)
                for place, model in enumerate(order):
                    company.setdefault((model, place), []).append(found[model])
        for (model, place), figures in sorted(company.items()):
            show(f'{model}, batch size {batch_size}, as no. {place + 1}', figures, alone[model])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkout', type=Path, nargs='?', help='of timm, with benchmark.py')
    parser.add_argument('--close', action='store_true', help='a few steps of each in turn, in new processes each round')
    parser.add_argument('--orders', action='store_true', help='compare orders of our networks instead')
    parser.add_argument('--models', nargs='+', default=list(_MODELS))
    parser.add_argument('--batch-sizes', nargs='+', type=int, default=[1, 4, 16])
    parser.add_argument('--rounds', type=int, help='default: 20 of --close, else 5')
    parser.add_argument(
        '--turn-seconds', type=float, default=0.5, help='of --close (default: 0.5); take several times that of a step'
    )
    parser.add_argument('--threads', type=int, help="of the CPU, for both (default: PyTorch's choice)")
    args = parser.parse_args()
    if not args.orders and args.checkout is None:
        parser.error('name a checkout of timm, or --orders')
    if not args.orders and not (args.checkout / 'benchmark.py').is_file():
        parser.error(f'{args.checkout} is no checkout of timm: it has no benchmark.py')
    args.rounds = args.rounds or (20 if args.close else 5)
    print(f'{os.cpu_count()} processors, load {" ".join(f"{load:.2f}" for load in os.getloadavg())}')
    (compare_orders if args.orders else compare_closely if args.close else compare)(args)
    print(f'load {" ".join(f"{load:.2f}" for load in os.getloadavg())}')


if __name__ == '__main__':
    main()
