"""Expected duration of an evaluation on GPUs, from images/s of each model; docs/planning.md explains the arithmetic.

A CSV file has the columns model and infer_samples_per_sec (our leaderboard.csv, or timm's benchmark-infer files), and
optionally infer_img_size, crop_pct and interpolation, whose combinations are the transforms.
"""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

Passes = list[list[float]]


@dataclass(frozen=True)
class Machine:
    """What evaluates: GPUs, cores for each, images/s that a core decodes, and seconds to load a model."""

    gpus: int
    cores_per_gpu: int
    decode_rate: float
    load_seconds: float


@dataclass(frozen=True)
class Plan:
    """Minutes of each kind of work, of which decoding and models overlap, and the total."""

    models: float
    decoding: float
    loading: float
    total: float


def plan(passes: Sequence[Sequence[float]], images: int, batch_size: int, machine: Machine) -> Plan:
    """Minutes for ``passes``, each with the images/s of its models on one GPU.

    The GPU with the most blocks of ``batch_size`` images sets the time.
    """
    blocks = -(-images // batch_size)
    share = min(-(-blocks // machine.gpus) * batch_size, images)
    models = [share * sum(1 / rate for rate in rates) for rates in passes]
    decoding = share / (machine.cores_per_gpu * machine.decode_rate)
    loading = machine.load_seconds * sum(map(len, passes))
    total = sum(max(seconds, decoding) for seconds in models) + loading
    return Plan(*(seconds / 60 for seconds in (sum(models), decoding * len(passes), loading, total)))


def read_passes(path: Path, models: Sequence[str], img_size: int | None, at_once: int, jobs: int) -> list[Passes]:
    """Images/s of the models of each pass (one transform, ``at_once`` models at most) of each job."""
    groups: list[dict[tuple[str, ...], list[float]]] = [{} for _ in range(jobs)]
    number = 0
    with path.open(newline='', encoding='utf-8') as file:
        for row in csv.DictReader(file):
            wanted = not models or row['model'] in models
            right_size = img_size is None or int(row['infer_img_size']) == img_size
            if wanted and right_size and row['infer_samples_per_sec']:
                key = tuple(row.get(name, '') for name in ('infer_img_size', 'crop_pct', 'interpolation'))
                groups[number % jobs].setdefault(key, []).append(float(row['infer_samples_per_sec']))
                number += 1
    return [
        [rates[start : start + at_once] for rates in job.values() for start in range(0, len(rates), at_once)]
        for job in groups
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('rates', type=Path, help='CSV file')
    parser.add_argument('--models', nargs='+', default=[], help='of the file (default: all)')
    parser.add_argument('--img-size', type=int, help='rows of this size alone')
    parser.add_argument('--images', type=int, default=50_000)
    parser.add_argument('--batch-size', type=int, default=256)
    parser.add_argument('--gpus', type=int, nargs='+', default=[1, 8, 64])
    parser.add_argument('--cores-per-gpu', type=int, default=16)
    parser.add_argument('--decode-rate', type=float, required=True, help='images/s that one core reads and decodes')
    parser.add_argument('--load-seconds', type=float, default=1.0, help='of one model')
    parser.add_argument('--at-once', type=int, default=50, help='models that fit into the memory of a GPU')
    parser.add_argument('--jobs', type=int, default=1, help='the models are split between, and the GPUs')
    args = parser.parse_args()
    jobs = read_passes(args.rates, args.models, args.img_size, args.at_once, args.jobs)
    count = sum(len(rates) for passes in jobs for rates in passes)
    print(f'{count} models, {args.images} images, {args.jobs} jobs; minutes of the longest job:')
    print('GPUs     models  decoding   loading     total')
    for gpus in args.gpus:
        machine = Machine(max(1, gpus // args.jobs), args.cores_per_gpu, args.decode_rate, args.load_seconds)
        result = max((plan(passes, args.images, args.batch_size, machine) for passes in jobs), key=lambda p: p.total)
        print(f'{gpus:4}  {result.models:9.2f} {result.decoding:9.2f} {result.loading:9.2f} {result.total:9.2f}')


if __name__ == '__main__':
    main()
