"""The accuracies of a six-model table on the CPU: one run of ours beside six runs of timm's validate.py, in turn.

python benchmark/perf/whole_table.py CHECKOUT_OF_TIMM PHOTOGRAPHS/validation [--counts 128 512] [--rounds 3]
    [--ours defaults compile=inductor batch_size=32,workers=2]

PHOTOGRAPHS is written by scripts/photographs.py. Weights are random: what is compared is time, and whether both count
the same. Each side is run with two numbers of images, since what a run costs besides its images (imports, loading, and
timm's first batch of random numbers) would hide what counts for the 50,000 of ImageNet: the ratio of the time that
each further image takes.
"""

import argparse
import csv
import itertools
import os
import resource
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
from safetensors.torch import save_file

import eca_zoo.models

DEFAULTS = 'defaults'
MODELS = tuple(record.name for record in eca_zoo.models.list_zoo())
# timm's script does not know of our networks.
_TIMM = 'import runpy, sys, eca_zoo; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__")'


@dataclass(frozen=True)
class Setup:
    """What both sides are given.

    Attributes:
        timm_script: timm's validate.py.
        folder: where data, weights and results are.
        class_map: names of ImageNet's classes, in order.
        threads: of torch, for both.
        timm_flags: further flags of timm's script.
    """

    timm_script: Path
    folder: Path
    class_map: Path
    threads: int
    timm_flags: list[str]


@dataclass(frozen=True)
class Run:
    """One side's run: wall and processor seconds, and (top-1, top-5) in percent for each network."""

    wall: float
    cpu: float
    accuracies: dict[str, tuple[float, float]]


def timed(command: list[str], threads: int) -> tuple[float, float]:
    """Wall and processor seconds of a command, its children's included."""
    environment = os.environ | {'OMP_NUM_THREADS': str(threads)}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f'{" ".join(command)} failed:\n{done.stdout}\n{done.stderr}')
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def accuracies(results: Path) -> dict[str, tuple[float, float]]:
    """(top-1, top-5) by network, of a result file of either side."""
    with results.open(newline='', encoding='utf-8') as file:
        return {row['model']: (float(row['top1']), float(row['top5'])) for row in csv.DictReader(file)}


def run_timm(setup: Setup, data: Path) -> Run:
    """Six runs of validate.py."""
    wall, cpu, found = 0.0, 0.0, {}
    for name in MODELS:
        results = setup.folder / 'timm.csv'
        command = [sys.executable, '-c', _TIMM, str(setup.timm_script), '--model', name]
        command += ['--checkpoint', str(setup.folder / f'{name}.safetensors'), '--data-dir', str(data)]
        command += ['--class-map', str(setup.class_map), '--device', 'cpu', '--results-file', str(results)]
        command += setup.timm_flags
        seconds = timed(command, setup.threads)
        wall, cpu = wall + seconds[0], cpu + seconds[1]
        found |= accuracies(results)
    return Run(wall, cpu, found)


def run_ours(setup: Setup, data: Path, variant: str) -> Run:
    """One leaderboard with the settings of ``variant``; it has the complexity of the networks too."""
    models = ', '.join(
        f'{{name: {name}, label: {name}, checkpoint: "{setup.folder}/{name}.safetensors"}}' for name in MODELS
    )
    chosen = [] if variant == DEFAULTS else variant.split(',')
    settings = ['device: cpu', *(text.replace('=', ': ') for text in chosen)]
    suite = setup.folder / 'six.yaml'
    suite.write_text(
        f'version: 1\nmodels: [{models}]\ndata: {{name: photographs}}\naccuracy: {{{", ".join(settings)}}}\n'
    )
    out = setup.folder / 'ours'
    command = [
        sys.executable,
        '-m',
        'eca_zoo',
        'leaderboard',
        str(suite),
        '--data-dir',
        str(data),
        '--run-dir',
        str(out),
    ]
    wall, cpu = timed([*command, '--restart'], setup.threads)
    return Run(wall, cpu, accuracies(out / 'leaderboard.csv'))


def make_setup(args: argparse.Namespace, folder: Path) -> Setup:
    """Write the weights and the class map; guesses are the data's classes or one of five others, so some are right."""
    synsets = timm.data.ImageNetInfo('imagenet-1k').label_names()
    shown = [*range(5), *(synsets.index(path.name) for path in args.data.iterdir() if path.is_dir())]
    for seed, name in enumerate(MODELS):
        torch.manual_seed(seed)
        model = timm.create_model(name)
        with torch.no_grad():
            model.get_classifier().bias[shown] += 100
        save_file(model.state_dict(), folder / f'{name}.safetensors')
    class_map = folder / 'classes.txt'
    class_map.write_text('\n'.join(synsets) + '\n')
    script = args.timm / 'validate.py'
    return Setup(script, folder, class_map, args.threads, args.timm_flags.split())


def link_images(data: Path, folder: Path, count: int) -> Path:
    """A folder with ``count`` images of ``data``, in turn from its classes; images come again where there are fewer."""
    classes = [sorted(path.iterdir()) for path in sorted(data.iterdir()) if path.is_dir()]
    sources = itertools.cycle([path for group in itertools.zip_longest(*classes) for path in group if path is not None])
    target = folder / f'images_{count}'
    for number, source in zip(range(count), sources, strict=False):
        path = target / source.parent.name / f'{number:06d}{source.suffix}'
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)
    return target


def print_counts(runs: dict[int, list[tuple[Run, Run]]]) -> None:
    """Whether both sides guessed as many of the largest number of images, for each network."""
    count = max(runs)
    theirs, ours = (as_counts(run.accuracies, count) for run in runs[count][-1])
    for model in MODELS:
        same = 'equal' if theirs[model] == ours[model] else 'DIFFERENT'
        print(f'  {model:16} top-1 and top-5 of {count}: timm {theirs[model]}, ours {ours[model]}: {same}')


def print_ratios(runs: dict[int, list[tuple[Run, Run]]]) -> None:
    """Seconds of both sides for each number of images, and for each further image."""
    columns = f'{"timm s":>9}{"ours s":>9}{"ours/timm":>11}'
    print(f'{"":12}{"wall":>29}{"processor":>29}')
    print(f'{"images":>12}{columns}{columns}')
    for count, pairs in runs.items():
        print_row(str(count), pairs)
    counts = sorted(runs)
    if len(counts) > 1:
        pairs = [
            (minus(many[0], few[0]), minus(many[1], few[1]))
            for few, many in zip(runs[counts[0]], runs[counts[-1]], strict=True)
        ]
        print_row(f'{counts[-1] - counts[0]} further', pairs)


def as_counts(found: dict[str, tuple[float, float]], count: int) -> dict[str, tuple[int, ...]]:
    """Right guesses by network; the sides round percentages to different digits."""
    return {name: tuple(round(percent * count / 100) for percent in percents) for name, percents in found.items()}


def minus(run: Run, other: Run) -> Run:
    return Run(run.wall - other.wall, run.cpu - other.cpu, {})


def print_row(title: str, pairs: list[tuple[Run, Run]]) -> None:
    text = f'{title:>12}'
    for kind in ('wall', 'cpu'):
        seconds = [(getattr(theirs, kind), getattr(ours, kind)) for theirs, ours in pairs]
        timms, ours = (statistics.median(values) for values in zip(*seconds, strict=True))
        ratio = statistics.median(mine / theirs for theirs, mine in seconds)
        text += f'{timms:9.1f}{ours:9.1f}{ratio:11.2f}'
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('timm', type=Path, help='checkout of timm')
    parser.add_argument('data', type=Path, help='class folders of photographs, named by WordNet id')
    parser.add_argument('--counts', type=int, nargs='+', default=[128, 512], help='numbers of images')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--threads', type=int, default=os.cpu_count() or 1)
    parser.add_argument('--timm-flags', default='', help="further flags of timm's script, such as '-b 64'")
    parser.add_argument(
        '--ours', nargs='+', default=[DEFAULTS], metavar='KEY=VALUE,...', help='runs of ours, each with its settings'
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        setup = make_setup(args, Path(name))
        images = {count: link_images(args.data, setup.folder, count) for count in sorted(args.counts)}
        runs: dict[str, dict[int, list[tuple[Run, Run]]]] = {one: {count: [] for count in images} for one in args.ours}
        for _, (count, data) in itertools.product(range(args.rounds), images.items()):
            theirs = run_timm(setup, data)
            for variant in args.ours:
                ours = run_ours(setup, data, variant)
                runs[variant][count].append((theirs, ours))
                print(f'{count} images: timm {theirs.wall:.1f} s, {variant} {ours.wall:.1f} s', file=sys.stderr)
    print(
        f'torch {torch.__version__}, timm {timm.__version__}, {args.threads} threads, {args.rounds} rounds in turn; '
        f'timm: {args.timm_flags or DEFAULTS}'
    )
    for variant in args.ours:
        print(f'ours: {variant}')
        print_counts(runs[variant])
        print_ratios(runs[variant])


if __name__ == '__main__':
    main()
