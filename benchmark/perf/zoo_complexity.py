"""What the complexity of the whole zoo costs: seconds and memory, beside a forward pass of real networks.

python benchmark/perf/zoo_complexity.py [--rounds 5]

The peer is what timm's benchmark.py does for the same figures: the network with its weights in memory runs one image
under an operator counter (here torch's own, since fvcore and deepspeed are not installed).
"""

import argparse
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

COMMAND = ('benchmark', '--model', 'zoo', '--bench', 'profile')


def peak_mib() -> float:
    """Peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == 'darwin' else 2**10)


def count_on_meta() -> None:
    """Ours: no weights."""
    from eca_zoo.harness.networks.complexity import complexity
    from eca_zoo.models import list_zoo

    for record in list_zoo():
        complexity(record.name)


def count_with_weights() -> None:
    """The peer: networks with weights, a real image, torch's FLOP counter."""
    import timm
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from eca_zoo.models import list_zoo

    for record in list_zoo():
        network = timm.create_model(record.name).eval()
        with torch.no_grad(), FlopCounterMode(display=False):
            network(torch.ones(1, 3, 224, 224))


def private_mib() -> float:
    """Memory of this process that no file backs, in MiB; nan where the system does not tell (Linux does)."""
    try:
        lines = Path('/proc/self/status').read_text().splitlines()
    except OSError:
        return math.nan
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith('RssAnon'))


def measure_here(work: Callable[[], None]) -> tuple[float, ...]:
    """Seconds of ``work`` without the imports; MiB: peak after the imports, peak and private in the end."""
    import eca_zoo.harness.networks.complexity  # noqa: F401

    imported = peak_mib()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start, imported, peak_mib(), private_mib()


def measure(kind: str) -> list[float]:
    """Run ``kind`` in a process of its own: its seconds, with and without imports, and the memory."""
    start = time.perf_counter()
    text = subprocess.run([sys.executable, __file__, '--only', kind], check=True, capture_output=True, text=True).stdout
    return [time.perf_counter() - start, *map(float, text.split())]


def seconds_of_command() -> float:
    """Seconds of the command that prints the table."""
    start = time.perf_counter()
    subprocess.run([sys.executable, '-m', 'eca_zoo', *COMMAND], check=True, capture_output=True)
    return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=5, help='all are measured in turn this often')
    parser.add_argument('--only', choices=('meta', 'weights'), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.only:
        print(*measure_here(count_on_meta if args.only == 'meta' else count_with_weights))
        return
    rounds = [(measure('meta'), measure('weights'), seconds_of_command()) for _ in range(args.rounds)]
    titles = ('process s', 'counting s', 'imports MiB', 'added MiB', 'private MiB')
    print(f'median of {args.rounds} rounds{"":14}' + ''.join(f'{title:>13}' for title in titles))
    for index, name in enumerate(('ours, meta device', 'with weights, FlopCounterMode')):
        process, counting, imported, peak, private = (
            statistics.median(values) for values in zip(*(r[index] for r in rounds), strict=True)
        )
        print(f'{name:30}{process:13.2f}{counting:13.2f}{imported:13.0f}{peak - imported:13.0f}{private:13.0f}')
    ratios = [statistics.median(ours[column] / peer[column] for ours, peer, _ in rounds) for column in (0, 1)]
    print(f'ours / peer, median of the ratios: process {ratios[0]:.2f}, counting {ratios[1]:.2f}')
    command = statistics.median(seconds for _, _, seconds in rounds)
    ratio = statistics.median(seconds / peer[0] for _, peer, seconds in rounds)
    print(f"eca-zoo {' '.join(COMMAND)}: {command:.2f} s, {ratio:.2f} of the peer's process")


if __name__ == '__main__':
    main()
