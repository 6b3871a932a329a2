"""Does verification cost time? A verified load against timm's unverified load of the same file.

    python benchmark/perf/load_time.py [--model eca_resnet152] [--rounds 20] [--threads N]

The checkpoint is a random network of the architecture, converted like the authors' file. Both loads run in turn, round
by round, in one process with a warm cache; then each runs in processes of its own for the peak of resident memory.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='eca_resnet152')
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--threads', type=int, help='of torch (default: as many as it chooses)')
    parser.add_argument('--load', choices=('verified', 'timm'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        load_once(args.model, args.load)
        return
    with tempfile.TemporaryDirectory(prefix='eca_zoo_load_time_') as home:
        os.environ['ECA_ZOO_HOME'] = home
        measure(args.model, args.rounds, args.threads)


def measure(model: str, rounds: int, threads: int | None) -> None:
    """Print median and minimum of both loads, their ratio, and their peaks of memory."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    path = make_checkpoint(model)
    loads = {kind: loader(model, kind, path) for kind in ('verified', 'timm')}
    for first, second in zip(*(load().state_dict().values() for load in loads.values()), strict=True):
        assert torch.equal(first, second)
    seconds: dict[str, list[float]] = {kind: [] for kind in loads}
    for _ in range(rounds):
        for kind, load in loads.items():
            start = time.perf_counter()
            load()
            seconds[kind].append(time.perf_counter() - start)
    size = path.stat().st_size / _MIB
    settings = f'{rounds} rounds in turn, {torch.get_num_threads()} threads, torch {torch.__version__}'
    print(f'{model}, {size:.0f} MiB, {settings}')
    for kind, times in seconds.items():
        print(f'{kind:>9}: median {statistics.median(times):.3f} s, minimum {min(times):.3f} s')
    ratios = [ours / theirs for ours, theirs in zip(seconds['verified'], seconds['timm'], strict=True)]
    of_minimums = min(seconds['verified']) / min(seconds['timm'])
    print(f'    ratio: median {statistics.median(ratios):.2f}, of minimums {of_minimums:.2f}')
    peaks = {kind: [peak_memory(model, kind, path, threads) for _ in range(3)] for kind in loads}
    for kind, values in peaks.items():
        total, growth = (statistics.median(value) / _MIB for value in zip(*values, strict=True))
        print(f'{kind:>9}: peak {total:.0f} MiB of resident memory, {growth:.0f} MiB of it for the load')
    ours, theirs = (statistics.median(total for total, _ in peaks[kind]) for kind in loads)
    print(f'    ratio: {ours / theirs:.2f}')


def make_checkpoint(model: str) -> Path:
    """Convert a random network of the architecture; returns a file for timm with the same bytes."""
    import timm
    import torch

    import eca_zoo  # noqa: F401
    from eca_zoo.weights.convert.conversion import convert

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'original.pth'
        torch.save(timm.create_model(model).state_dict(), path)
        converted = convert(path).folder
    # Under another name: eca_zoo verifies the file that its manifest names, also where timm is told to load it.
    plain = converted.parent / 'plain.safetensors'
    plain.write_bytes((converted / 'model.safetensors').read_bytes())
    return plain


def loader(model: str, kind: str, path: Path) -> Callable[[], Any]:
    """A function that loads the network: verified, or as timm loads a file that it is given."""
    import timm

    import eca_zoo  # noqa: F401

    overlay = {} if kind == 'verified' else {'pretrained_cfg_overlay': {'file': str(path)}}
    return lambda: timm.create_model(model, pretrained=True, **overlay)


def load_once(model: str, kind: str) -> None:
    """Print the peak of resident memory in bytes, and how much of it came with the load."""
    import torch

    torch.set_num_threads(int(os.environ['LOAD_TIME_THREADS']) or torch.get_num_threads())
    load = loader(model, kind, Path(os.environ['LOAD_TIME_FILE']))
    before = resident('VmRSS')
    network = load()
    peak = resident('VmHWM')
    assert not any(parameter.is_meta for parameter in network.parameters())
    print(peak, peak - before)


def resident(key: str) -> int:
    """VmRSS or VmHWM of this process in bytes (Linux)."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{key}:'):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f'no {key} in /proc/self/status')


def peak_memory(model: str, kind: str, path: Path, threads: int | None) -> tuple[int, int]:
    """Peak of resident memory in bytes of a process that loads the network, and how much of it came with the load."""
    environment = {**os.environ, 'LOAD_TIME_FILE': str(path), 'LOAD_TIME_THREADS': str(threads or 0)}
    command = [sys.executable, __file__, '--model', model, '--load', kind]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    peak, growth = done.stdout.split()
    return int(peak), int(growth)


if __name__ == '__main__':
    main()
