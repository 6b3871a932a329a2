"""The first hour on a GPU: what cannot be known without one, in one command with a report.

PYTHONPATH=scripts python -m gpu_hour [--report gpu_report.md] [--timm CHECKOUT_OF_TIMM] [--part NAME ...]

Without a GPU it says so and runs what needs none. A part that needs two GPUs, or timm's scripts, says that it was
skipped. The report is written after each part. The exit code is 1 if a part failed.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from gpu_hour import counting, decoding, speed, training
from gpu_hour.hour import Hour, Skipped, fenced

from eca_zoo.harness.machine.environment import describe_environment
from eca_zoo.harness.table.files import write_text

# Of the paths of a GPU; they need none.
_TESTS = (
    'tests/harness/accuracy/test_no_synchronisation.py', 'tests/harness/speed/test_timer.py',
    'tests/harness/machine/test_gpus.py', 'tests/harness/machine/test_devices.py',
    'tests/harness/machine/test_flags.py', 'tests/harness/data/test_gpu_decoding.py',
)  # fmt: skip

Part = Callable[[Hour], str]


def tests(hour: Hour) -> str:
    """Tests of the paths of a GPU that need none, and those marked gpu where there is one."""
    out = hour.command('-m', 'pytest', '-q', '-p', 'no:cacheprovider', *_TESTS)
    lines = [out.strip().splitlines()[-1]]
    if hour.gpus:
        out = hour.command('-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-m', 'gpu', 'tests')
        lines.append(f'marked gpu: {out.strip().splitlines()[-1]}')
    return '\n\n'.join(lines)


PARTS: tuple[Part, ...] = (
    tests, counting.counts, counting.beside_timm, counting.memory, speed.killed_child, speed.fan_out,
    counting.torchrun, counting.compiled, counting.synchronisation, decoding.decoding, speed.block, speed.layouts,
    speed.beside_timms_benchmark, speed.forms, speed.early_gate, speed.export, training.training, training.detection,
)  # fmt: skip


def run_parts(hour: Hour, report: Path, parts: Sequence[Part]) -> bool:
    """Run the parts and write the report after each; returns whether none failed."""
    environment = describe_environment(sys.argv)
    names = ', '.join(gpu['name'] for gpu in environment['gpus'])
    head = f'# The first hour on a GPU\n\nGPUs: {names or "none; what needs one was skipped"}\n'
    head += ''.join(f'\n{line}\n' for line in environment['busy'])
    outcomes, text, is_good = '', '', True
    for part in parts:
        print(f'{part.__name__}: {part.__doc__}', flush=True)
        start = time.monotonic()
        try:
            outcome, content = 'passed', part(hour)
        except Skipped as error:
            outcome, content = 'skipped', str(error)
        except Exception as error:  # a part that fails is an outcome
            outcome, content, is_good = 'FAILED', fenced(f'{type(error).__name__}: {error}'), False
        print(f'  {outcome}: {content.splitlines()[0] if content else ""}', flush=True)
        outcomes += f'| {part.__name__} | {outcome} | {time.monotonic() - start:.0f} s |\n'
        text += f'\n## {part.__name__}: {outcome}\n\n{part.__doc__}\n\n{content}\n'
        table = f'\n| part | outcome | time |\n|---|---|---|\n{outcomes}'
        described = f'\n## Environment\n\n```json\n{json.dumps(environment, indent=2, default=str)}\n```\n'
        write_text(report, head + table + text + described)
    return is_good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--report', type=Path, default=Path('gpu_report.md'))
    parser.add_argument('--timm', type=Path, help='checkout of timm, for the comparisons with its scripts')
    names = {part.__name__: part for part in PARTS}
    parser.add_argument('--part', nargs='+', choices=list(names), default=list(names), help='default: all')
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print('There is no GPU here: what needs none is run, and the rest is skipped.', flush=True)
    with tempfile.TemporaryDirectory(prefix='eca-zoo-gpu-') as folder:
        is_good = run_parts(Hour(Path(folder), args.timm), args.report, [names[name] for name in args.part])
    print(f'written: {args.report}')
    sys.exit(not is_good)


if __name__ == '__main__':
    main()
