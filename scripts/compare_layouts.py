"""Compares top-1 of sixty digits in many layouts: timm's validate.py, ours, and our leaderboard.

python scripts/compare_layouts.py CHECKOUT_OF_TIMM

Each runs in a process of its own on the CPU. Layouts that timm reads otherwise (a link that loops, a tar with each
member twice) have the same accuracy and another number of images; docs/datasets.md has those that it cannot read.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from eca_zoo.harness.data.data_spec import DataSpec  # noqa: E402
from tests.harness.image_sets import MODEL  # noqa: E402
from tests.harness.layouts import LAYOUTS, laid_out  # noqa: E402

# timm's script, with our networks registered.
_TIMM = 'import runpy, sys, eca_zoo.models; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__")'
_KEYS = ('dataset', 'split', 'input_key', 'class_map')


def run(command: list[str], results: Path) -> dict[str, str]:
    """The one row of the table that a command writes."""
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )  # fmt: skip
    if done.returncode:
        sys.exit(f'{" ".join(command)} failed:\n{done.stdout}\n{done.stderr}')
    with results.open(newline='', encoding='utf-8') as file:
        return next(csv.DictReader(file))


def compare(timm_script: Path, spec: DataSpec, folder: Path) -> list[str]:
    """Top-1 of timm's script, of ours and of our leaderboard, and the number of images of ours."""
    asked = {key: str(getattr(spec, key)) for key in _KEYS if getattr(spec, key)}
    flags = [word for key, value in asked.items() for word in (f'--{key.replace("_", "-")}', value)]
    common = ['--model', MODEL, '--data-dir', str(spec.root), '--device', 'cpu', '-b', '20', '-j', '1', *flags]
    rows = []
    for name, command in (
        ('timm', ['-c', _TIMM, str(timm_script), '--pretrained']),
        ('ours', ['-m', 'eca_zoo', 'validate']),
    ):
        results = folder / f'{name}.csv'
        rows.append(run([*command, *common, '--results-file', str(results)], results))
    suite = folder / 'suite.yaml'
    data = {'name': 'digits', **asked}
    accuracy = {'device': 'cpu', 'batch_size': 20, 'workers': 1}
    suite.write_text(
        json.dumps({'version': 1, 'models': [MODEL], 'data': data, 'accuracy': accuracy}), encoding='utf-8'
    )
    board = ['-m', 'eca_zoo', 'leaderboard', str(suite), '--run-dir', str(folder / 'run'), '--data-dir', str(spec.root)]
    rows.append(run(board, folder / 'run' / 'leaderboard.csv'))
    return [*(f'{float(row["top1"]):.3f}' for row in rows), rows[1]['num_images']]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('timm', type=Path, help='checkout of timm')
    args = parser.parse_args()
    equal = True
    print(f'{"layout":26}{"timm":>10}{"validate":>10}{"leaderboard":>13}{"images":>8}')
    for name, layout in LAYOUTS.items():
        with tempfile.TemporaryDirectory() as folder:
            *figures, images = compare(args.timm / 'validate.py', laid_out(layout, Path(folder)), Path(folder))
        equal &= len(set(figures)) == 1
        print(f'{name:26}{figures[0]:>10}{figures[1]:>10}{figures[2]:>13}{images:>8}', flush=True)
    return 0 if equal else 1


if __name__ == '__main__':
    sys.exit(main())
