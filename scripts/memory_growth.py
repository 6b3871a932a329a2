"""Memory of every process of a training over many steps: none may grow by more than 5 % after the first 200 (Linux).

python scripts/memory_growth.py [--steps 2000]
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from digits import write_digits

_WARM, _ALLOWED = 200, 1.05


def memory_kb(process: int) -> int:
    """Memory of a process that it does not share, in 2^10 bytes, so that what a fork copies on writing counts."""
    lines = Path(f'/proc/{process}/smaps_rollup').read_text(encoding='ascii').splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(('Private_', 'Shared_Dirty')))


def children(process: int) -> list[int]:
    """Processes that a process started."""
    text = Path(f'/proc/{process}/task/{process}/children').read_text(encoding='ascii')
    return [int(child) for child in text.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--steps', type=int, default=2000, help='(default: 2000)')
    parser.add_argument('--workers', type=int, default=2, help='processes that decode (default: 2)')
    args = parser.parse_args()
    from eca_zoo.cli import run_process
    from eca_zoo.training.step import Stepper

    readings: list[dict[str, int]] = []
    step = Stepper.step

    def noted(self: Any, number: int, *arguments: Any) -> Any:
        result = step(self, number, *arguments)
        if (number + 1) % _WARM == 0:
            own = os.getpid()
            readings.append({'main': memory_kb(own), **{str(child): memory_kb(child) for child in children(own)}})
        return result

    Stepper.step = noted  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        steps_per_epoch = -(-write_digits(folder / 'digits')['train'] // 64)
        epochs = -(-args.steps // steps_per_epoch)
        code = run_process(
            [
                'train', 'digits', '--data-dir', str(folder / 'digits'), '--run-dir', str(folder / 'run'), '--epochs',
                str(epochs), '-j', str(args.workers), '--device', 'cpu', '--val-interval', str(epochs),
            ]
        )  # fmt: skip
    if code:
        sys.exit(code)
    first, worst = readings[0], 0.0
    for name, size in first.items():
        sizes = [reading[name] for reading in readings if name in reading]
        worst = max(worst, max(sizes) / size)
        whose, growth = 'main process' if name == 'main' else 'worker', 100 * (max(sizes) / size - 1)
        print(
            f'{whose}: {size // 1024} MiB after {_WARM} steps, {max(sizes) // 1024} MiB at most up to step '
            f'{len(readings) * _WARM} ({growth:+.1f} %)'
        )
    sys.exit(worst > _ALLOWED)


if __name__ == '__main__':
    main()
