"""What start-up costs: importing eca_zoo on top of timm, and help texts, each in processes of their own, in turn.

python benchmark/perf/startup.py [--rounds 15] [--timm CHECKOUT]
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# Seconds of processor and wall time of the second import, where the first has happened.
_ON_TOP = """
import time, {first}
cpu, wall = time.process_time(), time.perf_counter()
import {second}
print(time.process_time() - cpu, time.perf_counter() - wall)
"""
_IMPORTS = (('timm', 'eca_zoo'), ('torch', 'timm'), ('timm', 'pandas'))


def seconds_of_import(first: str, second: str) -> tuple[float, float]:
    """Processor and wall seconds of importing ``second`` after ``first``, in a new process."""
    command = [sys.executable, '-c', _ON_TOP.format(first=first, second=second)]
    cpu, wall = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(cpu), float(wall)


def seconds_of_command(command: Sequence[str]) -> tuple[float, float]:
    """Processor seconds (with those of the system) and wall seconds of a command."""
    before, wall = _children(), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return _children() - before, time.perf_counter() - wall


def _children() -> float:
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def help_commands(timm_checkout: Path | None) -> dict[str, list[str]]:
    """Help texts of ours and of peers."""
    scripts = Path(sys.executable).parent
    commands = {
        'eca-zoo --help': [str(scripts / 'eca-zoo'), '--help'],
        'eca-zoo leaderboard --help': [str(scripts / 'eca-zoo'), 'leaderboard', '--help'],
        'python -m eca_zoo --help': [sys.executable, '-m', 'eca_zoo', '--help'],
        'python -c pass': [sys.executable, '-c', 'pass'],
        'hf --help': [str(scripts / 'hf'), '--help'],
        'torchrun --help': [str(scripts / 'torchrun'), '--help'],
    }
    if timm_checkout is not None:
        commands['timm: validate.py --help'] = [sys.executable, str(timm_checkout / 'validate.py'), '--help']
    return {name: command for name, command in commands.items() if Path(command[0]).exists()}


def print_times(title: str, times: dict[str, list[tuple[float, float]]], peer: str) -> None:
    print(f'\n{title:34}{"wall ms":>9}{"best":>8}{"processor ms":>14}{"best":>8}   ratio to {peer}')
    reference = [wall for _, wall in times[peer]]
    for name, rounds in times.items():
        cpu, wall = zip(*rounds, strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in zip(wall, reference, strict=True))
        print(
            f'{name:34}{1e3 * statistics.median(wall):9.1f}{1e3 * min(wall):8.1f}'
            f'{1e3 * statistics.median(cpu):14.1f}{1e3 * min(cpu):8.1f}   {ratio:.3f}'
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--timm', type=Path, help='checkout of timm, for its scripts')
    args = parser.parse_args()
    imports: dict[str, list[tuple[float, float]]] = {f'{second} on top of {first}': [] for first, second in _IMPORTS}
    commands = help_commands(args.timm)
    helps: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    # One round to bring files into the page cache.
    for index in range(args.rounds + 1):
        for first, second in _IMPORTS:
            seconds = seconds_of_import(first, second)
            if index:
                imports[f'{second} on top of {first}'].append(seconds)
        for name, command in commands.items():
            seconds = seconds_of_command(command)
            if index:
                helps[name].append(seconds)
    print(f'Python {sys.version.split()[0]}, {args.rounds} rounds in turn')
    print_times('import', imports, 'timm on top of torch')
    peer = 'timm: validate.py --help' if args.timm is not None else 'python -c pass'
    print_times('help', helps, peer)


if __name__ == '__main__':
    main()
