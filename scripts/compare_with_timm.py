"""Compares top-1 and top-5 with those of timm's validate.py, to the last digit of its results file, and the time.

Runs timm's script from a checkout of timm and ours in turn, each in a process of its own on the CPU, on the same images
and weights. timm numbers folders in their order; where they are a part of ImageNet's classes it gets a class map.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import timm
from timm.data import ImageNetInfo

_COLUMNS = ('top1', 'top1_err', 'top5', 'top5_err', 'param_count', 'img_size', 'crop_pct', 'interpolation')
_ROOT = Path(__file__).resolve().parent.parent
# timm's script, with our networks registered.
_TIMM = 'import runpy, sys, eca_zoo.models; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__")'


def class_map(data: Path, folder: Path) -> list[str]:
    """timm's flags where the classes of ``data`` are a part of ImageNet's."""
    names = {path.name for path in data.iterdir() if path.is_dir()}
    synsets = ImageNetInfo('imagenet-1k').label_names()
    if not names < set(synsets):
        return []
    path = folder / 'class_map.txt'
    path.write_text('\n'.join(synsets) + '\n', encoding='utf-8')
    return ['--class-map', str(path)]


def run(command: list[str]) -> tuple[dict[str, str], float]:
    """Run a validate script; its row of results, and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / 'results.csv'
        environment = {**os.environ, 'PYTHONPATH': str(_ROOT)}
        command = [sys.executable, *command, '--results-file', str(results)]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        seconds = time.perf_counter() - start
        if done.returncode:
            sys.exit(f'{" ".join(command)} failed:\n{done.stdout}\n{done.stderr}')
        with results.open(newline='', encoding='utf-8') as file:
            return next(csv.DictReader(file)), seconds


def compare(timm_script: Path, data: Path, model: str, checkpoint: Path | None, extra: list[str]) -> bool:
    """Print both rows and whether they are equal, in both memory formats."""
    equal = True
    for memory_format in ('contiguous', 'channels-last'):
        common = ['--model', model, '--device', 'cpu', '--data-dir', str(data), *extra]
        common += ['--checkpoint', str(checkpoint)] if checkpoint else ['--pretrained']
        with tempfile.TemporaryDirectory() as folder:
            flags = ['--channels-last'] if memory_format == 'channels-last' else []
            theirs, their_time = run(['-c', _TIMM, str(timm_script), *common, *flags, *class_map(data, Path(folder))])
        ours, our_time = run([str(_ROOT / 'validate.py'), *common, *(flags or ['--no-channels-last'])])
        same = all(theirs[name] == ours[name] for name in _COLUMNS)
        equal &= same
        print(f'{model}, {memory_format}: {"equal" if same else "DIFFERENT"}')
        for title, row, seconds in (('timm', theirs, their_time), ('ours', ours, our_time)):
            print(f'  {title}: {seconds:.1f} s, ' + ', '.join(f'{name} {row[name]}' for name in _COLUMNS), flush=True)
    return equal


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='Other flags (-b 64 -j 1) go to both scripts.',
    )  # fmt: skip
    parser.add_argument('timm', type=Path, help='checkout of timm')
    parser.add_argument('data', type=Path, help='image folder')
    parser.add_argument('--model', required=True)
    parser.add_argument('--checkpoint', type=Path, help="(default: the model's own weights)")
    args, extra = parser.parse_known_args()
    print(f'timm {timm.__version__}, {sum(path.is_file() for path in args.data.rglob("*"))} images in {args.data}')
    sys.exit(not compare(args.timm / 'validate.py', args.data, args.model, args.checkpoint, extra))


if __name__ == '__main__':
    main()
