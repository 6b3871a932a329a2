"""Reads timm's published accuracies into our table, writes them again, and lets timm's own reader run on our files.

python scripts/compare_timm_files.py CHECKOUT_OF_TIMM [--python PYTHON_WITH_PANDAS_2.2]

Printed for each file: its rows, how many of ours have the same model and size in the same place, how many have the same
cells, and how many of timm's differences are other ones (timm's own are wrong among ties). Then timm's
results/generate_csv_results.py, which needs numpy 1.26 and pandas 2.2, runs on a copy of our files: it must find them
and leave every cell as it is. The exit code is 1 if anything differs but timm's differences.
"""

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

import eca_zoo

_DIFFERENCES = ('top1_diff', 'top5_diff', 'rank_diff')


def rows_of(path: Path) -> list[dict[str, str]]:
    """Its rows; commas between thousands, which timm writes, are left out."""
    with path.open(newline='', encoding='utf-8') as file:
        return [{name: cell.replace(',', '') for name, cell in row.items()} for row in csv.DictReader(file)]


def without_differences(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The cells that are measured."""
    return [{name: cell for name, cell in row.items() if name not in _DIFFERENCES} for row in rows]


def compare(theirs: Path, ours: Path) -> bool:
    """Print how a file of ours compares; returns whether all but the differences is equal."""
    rows, again = rows_of(theirs), rows_of(ours)
    pairs = list(zip(rows, again, strict=False))
    in_place = sum((one['model'], one['img_size']) == (other['model'], other['img_size']) for one, other in pairs)
    cells = sum(map(dict.__eq__, without_differences(rows), without_differences(again)))
    others = {name: sum(one[name] != other[name] for one, other in pairs) for name in _DIFFERENCES if name in rows[0]}
    print(
        f'{theirs.name}: {len(rows)} rows, {in_place} in place, {cells} with the same cells; other differences {others}'
    )
    return len(rows) == len(again) == in_place == cells


def read_by_timm(folder: Path, script: Path, python: str) -> bool:
    """Run timm's script on the files in ``folder``; returns whether every cell is as it was."""
    before = {path.name: rows_of(path) for path in folder.iterdir()}
    subprocess.run([python, '-W', 'ignore', str(script.resolve())], check=True, cwd=folder)
    changed = {
        name: sum(one != other for one, other in zip(rows, rows_of(folder / name), strict=True))
        for name, rows in before.items()
    }
    print(f'{script.name}: {len(changed)} files, {sum(changed.values())} rows changed')
    return not any(changed.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkout', type=Path, help='of timm')
    parser.add_argument('--python', default=sys.executable, help='with the numpy and pandas of timm (default: this)')
    args = parser.parse_args()
    published = sorted((args.checkout / 'results').glob('results-*.csv'))
    table = pd.concat([eca_zoo.read_table(path) for path in published], ignore_index=True)
    with tempfile.TemporaryDirectory() as folder:
        ours, copy = Path(folder) / 'ours', Path(folder) / 'copy'
        eca_zoo.write_timm_files(table, ours)
        shutil.copytree(ours, copy)
        equal = [compare(path, ours / path.name) for path in published]
        equal.append(read_by_timm(copy, args.checkout / 'results' / 'generate_csv_results.py', args.python))
    return int(not all(equal))


if __name__ == '__main__':
    sys.exit(main())
