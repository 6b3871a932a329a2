"""timm's eight result files: one run of ours beside timm's validate.py once a set: images decoded, time, counts.

python benchmark/perf/data_sets/robustness_beside_timm.py CHECKOUT_OF_TIMM [--images 60] [--rounds 1] [--workers 1]

The folders are made like those of the sets, from the photographs and with the classifier of scripts/photographs.py
(EfficientNet-Lite0). Of three images of a set one has its true class where the set has it, and the others what the
classifier takes them for among the classes of a set: accuracies are no figures of the network, but the counts have to
be the same on both sides. Every call of Pillow's open is counted in all processes. The time is that of the commands as
a user gives them, with imports, loading and, on our side, complexity; both have --workers and as many threads.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo, create_transform, resolve_data_config

from eca_zoo.harness.data.labels import read_class_list

_ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(_ROOT / 'scripts'))

from photographs import MODEL, write_classifier, write_photographs  # noqa: E402

# Loaded by every Python process with this folder on its path.
_COUNTER = """
import os
from PIL import Image
_open = Image.open
def counted(*arguments, **options):
    with open(os.environ['DECODED'], 'ab') as file:
        file.write(b'.')
    return _open(*arguments, **options)
Image.open = counted
"""


@dataclass(frozen=True)
class TestSet:
    """A set of timm's: its file, the folder of its images, the part of the classes, and whether it has ReaL labels."""

    file: str
    folder: str
    part: str = ''
    real: bool = False


SETS = (
    TestSet('imagenet', 'imagenet-1k'),
    TestSet('imagenet-real', 'imagenet-1k', real=True),
    TestSet('imagenet-a-clean', 'imagenet-1k', 'imagenet-a'),
    TestSet('imagenet-r-clean', 'imagenet-1k', 'imagenet-r'),
    TestSet('imagenetv2-matched-frequency', 'imagenetv2-matched-frequency'),
    TestSet('sketch', 'imagenet-sketch'),
    TestSet('imagenet-a', 'imagenet-a', 'imagenet-a'),
    TestSet('imagenet-r', 'imagenet-r', 'imagenet-r'),
)
SYNSETS = ImageNetInfo('imagenet-1k').label_names()
EVERY = tuple(range(len(SYNSETS)))


def make_sets(home: Path, count: int) -> dict[str, int]:
    """Write the folders of all sets, class maps and ReaL labels; returns the images of each folder."""
    write_photographs(home / 'photographs', count)
    write_classifier(home / 'classifier.safetensors')
    photographs = sorted((home / 'photographs').rglob('*.JPEG'))
    logits = guesses(home / 'classifier.safetensors', photographs)
    parts = {part: read_class_list(part) for part in ('imagenet-a', 'imagenet-r')}
    for name, classes in {'all': EVERY, **parts}.items():
        (home / f'{name}.txt').write_text('\n'.join(SYNSETS[index] for index in classes))
        (home / f'{name}-indices.txt').write_text('\n'.join(map(str, classes)))
    (home / 'numbers.txt').write_text('\n'.join(map(str, EVERY)))
    classes_of = {'imagenet-1k': (EVERY, *parts.values()), 'imagenetv2-matched-frequency': (EVERY,)}
    classes_of |= {'imagenet-sketch': (EVERY,)} | {part: (classes,) for part, classes in parts.items()}
    real = []
    for name, choices in classes_of.items():
        for number, path in enumerate(photographs):
            own, classes = SYNSETS.index(path.parent.name), choices[number % len(choices)]
            guess = classes[int(logits[number][list(classes)].argmax())]
            label = (
                own if number % 3 == 0 and own in classes else guess if number % 3 else classes[number % len(classes)]
            )
            folder = str(label) if name.startswith('imagenetv2') else SYNSETS[label]
            target = home / 'sets' / name / folder / f'ILSVRC2012_val_{number + 1:08d}.JPEG'
            target.parent.mkdir(parents=True, exist_ok=True)
            if name == 'imagenet-sketch':
                Image.open(path).convert('L').save(target, quality=90)
            else:
                shutil.copyfile(path, target)
            if name == 'imagenet-1k':
                real.append([[label], [label, own], []][number % 3])
    (home / 'real.json').write_text(json.dumps(real))
    return dict.fromkeys(classes_of, len(photographs))


@torch.inference_mode()
def guesses(checkpoint: Path, paths: list[Path]) -> torch.Tensor:
    """(N, 1000) logits of the classifier."""
    network = timm.create_model(MODEL, checkpoint_path=str(checkpoint)).eval()
    transform = create_transform(**resolve_data_config({}, model=network))
    return torch.cat([network(transform(Image.open(path).convert('RGB'))[None]) for path in paths])


def run(command: list[str], home: Path) -> tuple[float, int]:
    """Wall seconds of a command, and the images that it decoded."""
    counter, decoded = home / 'counter', home / 'decoded'
    counter.mkdir(exist_ok=True)
    (counter / 'sitecustomize.py').write_text(_COUNTER)
    decoded.write_bytes(b'')
    environment = os.environ | {'PYTHONPATH': f'{counter}{os.pathsep}{_ROOT}', 'DECODED': str(decoded)}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f'{" ".join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}')
    return seconds, decoded.stat().st_size


def ours(home: Path, workers: int) -> tuple[float, int, dict[str, tuple[str, str]]]:
    """Seconds, images decoded, and (top-1, top-5) by set of one run of the packaged suite's data sets."""
    lines = (_ROOT / 'benchmark/suites/robustness.yaml').read_text(encoding='utf-8').splitlines()
    data = '\n'.join(lines[lines.index('data:') :]).replace('real_labels: default', f'real_labels: {home}/real.json')
    model = f'{{name: {MODEL}, checkpoint: {home}/classifier.safetensors, label: {MODEL}}}'
    settings = f'accuracy: {{batch_size: 16, workers: {workers}, device: cpu}}'
    (home / 'mine.yaml').write_text(f'version: 1\nmodels: [{model}]\n{settings}\n{data}\n')
    out = home / 'run'
    shutil.rmtree(out, ignore_errors=True)
    command = ['-m', 'eca_zoo', 'leaderboard', str(home / 'mine.yaml'), '--data-dir', str(home / 'sets')]
    seconds, decoded = run([*command, '--run-dir', str(out), '--format', 'timm'], home)
    found = {}
    for one in SETS:
        with (out / f'results-{one.file}.csv').open(newline='', encoding='utf-8') as file:
            [row] = csv.DictReader(file)
            found[one.file] = (row['top1'], row['top5'])
    return seconds, decoded, found


def timms(script: Path, home: Path, one: TestSet, workers: int) -> tuple[float, int, tuple[str, str]]:
    """The same of timm's script on one set."""
    results = home / 'timm.json'
    command = [
        str(script),
        '--data-dir',
        str(home / 'sets' / one.folder),
        '--model',
        MODEL,
        '--device',
        'cpu',
        '-b',
        '16',
    ]
    command += [
        '--checkpoint',
        str(home / 'classifier.safetensors'),
        '-j',
        str(workers),
        '--results-file',
        str(results),
    ]
    names = 'numbers' if one.folder.startswith('imagenetv2') else one.part or 'all'
    command += ['--class-map', str(home / f'{names}.txt'), '--results-format', 'json']
    command += ['--valid-labels', str(home / f'{one.part}-indices.txt')] if one.part else []
    command += ['--real-labels', str(home / 'real.json')] if one.real else []
    seconds, decoded = run(command, home)
    row = json.loads(results.read_text())
    row = row[0] if isinstance(row, list) else row
    return seconds, decoded, (f'{row["top1"]:.3f}', f'{row["top5"]:.3f}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkout', type=Path, help='of timm, with validate.py')
    parser.add_argument('--images', type=int, default=60, help='about how many each folder has (default: 60)')
    parser.add_argument('--rounds', type=int, default=1)
    parser.add_argument('--workers', type=int, default=1, help='processes that decode, on both sides (default: 1)')
    args = parser.parse_args()
    print(f'{os.cpu_count()} processors, load {" ".join(f"{load:.2f}" for load in os.getloadavg())}')
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        sizes = make_sets(home, args.images)
        print(f'{len(sizes)} folders with {", ".join(f"{name} {size}" for name, size in sizes.items())} images')
        times: list[tuple[float, float]] = []
        for number in range(args.rounds):
            first = ours(home, args.workers) if number % 2 == 0 else None
            theirs = {one.file: timms(args.checkout / 'validate.py', home, one, args.workers) for one in SETS}
            seconds, decoded, found = first or ours(home, args.workers)
            times.append((seconds, sum(theirs_seconds for theirs_seconds, _, _ in theirs.values())))
            if number == 0:
                for name, (_, images, figures) in theirs.items():
                    same = 'same' if figures == found[name] else f'OTHER: {figures}'
                    print(f'{name:30} timm decodes {images:5}; ours top-1, top-5 {" ".join(found[name]):18} {same}')
                print(f'decoded: ours {decoded}, timm {sum(images for _, images, _ in theirs.values())}')
            print(f'seconds: ours {times[-1][0]:.1f}, timm {times[-1][1]:.1f}', flush=True)
    ratios = [theirs / own for own, theirs in times]
    print(f'timm / ours: median {statistics.median(ratios):.2f}, smallest {min(ratios):.2f}, largest {max(ratios):.2f}')
    print(f'load {" ".join(f"{load:.2f}" for load in os.getloadavg())}')


if __name__ == '__main__':
    main()
