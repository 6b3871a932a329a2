"""timm's train.py beside ``eca-zoo train``: the losses of the first steps, and the time of an epoch, in turn.

Same network, first weights, order of the images, settings; no augmentation. timm's own script runs unchanged but for
the order of its sampler, which here is ours, and a note of each loss. It comes from timm's repository, not its wheel.

python benchmark/perf/training/beside_timm.py --timm-script .../pytorch-image-models/train.py
"""

import argparse
import itertools
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_SETTINGS = {'model': 'test_eca_resnet', 'img': 32, 'batch': 64, 'lr': 0.05, 'decay': 1e-4, 'seed': 42}


def note(loss: float) -> tuple[float, float, float]:
    """A loss, and when it was known: by the clock, and in seconds of the processor, which others leave alone."""
    return loss, time.perf_counter(), time.process_time()


def write_notes(path: Path, notes: list[tuple[float, float, float]]) -> None:
    path.write_text(json.dumps(dict(zip(('losses', 'clock', 'processor'), zip(*notes, strict=True), strict=True))))


def run_timm(script: Path, data: Path, epochs: int, notes_to: Path) -> None:
    """Run timm's script in this process."""
    from timm.task import ClassificationTask
    from torch.utils.data import RandomSampler

    import eca_zoo.models  # noqa: F401 (registers the networks)
    from eca_zoo.training.data.order import epoch_order

    epoch = 0
    notes: list[tuple[float, float, float]] = []

    def iterate(sampler: Any) -> Any:
        nonlocal epoch
        order = epoch_order(_SETTINGS['seed'], epoch, len(sampler.data_source))
        epoch += 1
        return iter(order.tolist())

    forward = ClassificationTask.forward

    def noted(self: Any, *arguments: Any, **options: Any) -> Any:
        result = forward(self, *arguments, **options)
        notes.append(note(result['loss'].item()))
        return result

    RandomSampler.__iter__ = iterate  # type: ignore[method-assign]
    ClassificationTask.forward = noted  # type: ignore[method-assign]
    s = _SETTINGS
    sys.argv = [
        str(script), '--data-dir', str(data), '--val-split', '', '--model', s['model'], '--num-classes', '10',
        '--img-size', str(s['img']), '-b', str(s['batch']), '--opt', 'momentum', '--lr', str(s['lr']),
        '--weight-decay', str(s['decay']), '--sched', 'constant', '--epochs', str(epochs), '--no-aug',
        '--smoothing', '0', '--workers', '0', '--device', 'cpu',
        '--channels-last', '--seed', str(s['seed']), '--mean', '0.5', '0.5', '0.5', '--std', '0.5', '0.5', '0.5',
        '--interpolation', 'bilinear', '--output', str(notes_to.parent / 'timm'), '--warmup-epochs', '0',
        '--eval-metric', 'loss', '--log-interval', '1000',
    ]  # fmt: skip
    runpy.run_path(str(script), run_name='__main__')
    write_notes(notes_to, notes)


def run_ours(data: Path, epochs: int, notes_to: Path) -> None:
    """Run ``eca-zoo train`` in this process."""
    from eca_zoo.cli import run_process
    from eca_zoo.training.step import Stepper

    notes: list[tuple[float, float, float]] = []
    step = Stepper.step

    def noted(self: Any, *arguments: Any) -> Any:
        loss = step(self, *arguments)
        notes.append(note(float(loss)))
        return loss

    Stepper.step = noted  # type: ignore[method-assign]
    s = _SETTINGS
    recipe = notes_to.parent / 'beside.yaml'
    recipe.write_text('version: 1\n')
    code = run_process(
        [
            'train', str(recipe), '--data-dir', str(data), '--val-split', '', '--model', s['model'], '--img-size',
            str(s['img']), '-b', str(s['batch']), '--opt', 'momentum', '--lr', str(s['lr']), '--weight-decay',
            str(s['decay']), '--sched', 'constant', '--epochs', str(epochs), '--no-aug', '--workers', '0', '--device',
            'cpu', '--seed', str(s['seed']), '--mean', '0.5', '0.5', '0.5', '--std', '0.5', '0.5', '0.5', '--drop-last',
            '--run-dir', str(notes_to.parent / 'ours'),
        ]
    )  # fmt: skip
    if code:
        sys.exit(code)
    write_notes(notes_to, notes)


def epoch_seconds(times: list[float], steps: int) -> list[float]:
    """Seconds of each epoch but the first, from the first loss of it to that of the next one."""
    starts = times[::steps]
    return [after - before for before, after in itertools.pairwise(starts[1:])]


def measure(side: str, script: Path, data: Path, folder: Path, epochs: int) -> dict[str, list[float]]:
    notes = folder / 'notes.json'
    command = [sys.executable, __file__, '--side', side, '--timm-script', str(script), '--data', str(data)]
    command += ['--epochs', str(epochs), '--notes', str(notes)]
    # Both with as many threads: without a number, with one.
    environment = {'OMP_NUM_THREADS': '1', **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode or not notes.exists():
        sys.exit(f'{side} failed:\n{done.stderr[-3000:]}')
    return json.loads(notes.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--timm-script', type=Path, required=True, help="timm's train.py")
    parser.add_argument('--rounds', type=int, default=5, help='(default: 5)')
    parser.add_argument('--epochs', type=int, default=5, help='of each run (default: 5)')
    parser.add_argument('--side', choices=('ours', 'timm'), help=argparse.SUPPRESS)
    parser.add_argument('--data', type=Path, help=argparse.SUPPRESS)
    parser.add_argument('--notes', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side == 'timm':
        return run_timm(args.timm_script, args.data, args.epochs, args.notes)
    if args.side == 'ours':
        return run_ours(args.data, args.epochs, args.notes)
    from eca_zoo.training.data.digits import write_digits

    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / 'digits'
        steps = write_digits(data)['train'] // _SETTINGS['batch']
        kinds = ('clock', 'processor')
        times: dict[str, dict[str, list[float]]] = {kind: {'ours': [], 'timm': []} for kind in kinds}
        for number in range(args.rounds):
            found = {}
            for side in ('ours', 'timm') if number % 2 else ('timm', 'ours'):
                folder = Path(temporary) / f'{number}-{side}'
                folder.mkdir()
                found[side] = measure(side, args.timm_script, data, folder, args.epochs)
                for kind in kinds:
                    times[kind][side].append(statistics.median(epoch_seconds(found[side][kind], steps)))
            if not number:
                pairs = zip(found['ours']['losses'][:20], found['timm']['losses'][:20], strict=True)
                worst = max(abs(one - two) / two for one, two in pairs)
    print(f'largest relative difference of the first 20 losses: {worst:.1e}')
    for kind, sides in times.items():
        ours, timms = sides['ours'], sides['timm']
        ratios = [one / two for one, two in zip(ours, timms, strict=True)]
        print(
            f'{kind}, seconds an epoch of {steps} steps, median of {args.rounds} runs: '
            f'ours {statistics.median(ours):.3f}, timm {statistics.median(timms):.3f}; '
            f'ours / timm {statistics.median(ratios):.3f} (least {min(ratios):.3f}, most {max(ratios):.3f})'
        )
    return None


if __name__ == '__main__':
    main()
