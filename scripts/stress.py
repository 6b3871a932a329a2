"""Kills leaderboard and training runs with SIGKILL at chosen steps, continues them, and compares what they end in.

Compared with undisturbed runs are the table of a leaderboard; weights, averages, optimiser and log of a training, bit
for bit. The kills hit one process, or two under torchrun (sometimes one of them, sometimes all), at a step of its work
that is drawn by ``--seed`` from those of an undisturbed run (see ``end_at.py``). A killed run is continued with the
same command; when it ends before the next kill, it is compared and a new run begins.
"""

import argparse
import csv
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from canvases.digit_canvases import write_canvases
from digits import write_digits

from eca_zoo.training.record.log import TIMINGS
from eca_zoo.training.record.state import StateFolder

_ROOT = Path(__file__).resolve().parent.parent
_TIMINGS = (
    'infer_samples_per_sec',
    'infer_step_time',
    'infer_spread',
    'relative_throughput',
    'peak_memory_mb',
    'peak_reserved_mb',
)
_SUITE = """\
version: 1
models:
- test_eca_resnet.digits
- {{name: test_eca_resnet.digits, label: again}}
- {{name: test_eca_resnet.digits, label: shifted, model_kwargs: {{pretrained_cfg_overlay: {{mean: [0.3, 0.3, 0.3]}}}}}}
- {{name: test_eca_resnet, label: unpublished, num_classes: 1000, pretrained: false}}
data: {{name: digits, split: train, models: [test_eca_resnet.digits, again, shifted]}}
accuracy: {{img_size: {img_size}, batch_size: 16, device: cpu, workers: 1}}
throughput:
- {{img_size: 32, batch_size: 4, device: cpu, rounds: 2, round_seconds: 0.05, warmup_steps: 1}}
"""


# Everything that is random, and an average; a state after each second step.
_RECIPE = """\
version: 1
model: test_eca_resnet
epochs: 3
batch_size: 128
img_size: 32
lr: 0.05
scale: [0.5, 1.0]
aa: rand-m3-mstd0.5
reprob: 0.3
mixup: 0.2
cutmix: 1.0
drop: 0.2
drop_path: 0.1
model_ema: true
model_ema_decay: 0.9
"""
_DETECTION = ['--epochs', '2', '-b', '4', '--hflip', '0.5', '--model-ema', '--model-ema-decay', '0.9']
# Within a step and within a validation.
_POINTS = ('torch.autograd:backward', 'eca_zoo.harness.accuracy.passes:Pass._step')
_DETECTION_POINTS = ('torch.autograd:backward', 'eca_zoo.detection.networks.detectors:Detector.detect')
_CANVASES = {'train': 40, 'validation': 8}


class Run:
    """A command that goes on when it is given again, with one process or several; its folder is the last argument."""

    def __init__(self, command: list[str], processes: int, points: tuple[str, ...] = ()) -> None:
        launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes)]
        self._start = [sys.executable, *(launcher if processes > 1 else []), str(_ROOT / 'scripts' / 'end_at.py')]
        self._command, self._points = ['--', *command], list(points)
        self.processes = processes
        self.ended_at = ''

    def until(self, out: Path, step: int = 0, rank: int = 0, all_at_once: bool = False) -> int | None:
        """Run until the process ``rank`` has come to ``step``, or to the end, and stop the script if that fails.

        Returns:
            The number of steps of that process, or None if it was killed.
        """
        log = out.with_name(f'{out.name}.log')
        ended = out.with_name(f'{out.name}.steps')
        ended.unlink(missing_ok=True)
        where = ['--step', str(step), '--rank', str(rank), '--report', str(ended), *(['--all'] if all_at_once else [])]
        where += ['--point', *self._points] if self._points else []
        environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(_ROOT)}
        command = [*self._start, *where, *self._command, str(out)]
        with log.open('ab') as file:
            done = subprocess.run(command, stdout=file, stderr=file, env=environment, cwd=_ROOT, check=False)
        text = ended.read_text(encoding='ascii') if ended.exists() else ''
        if text.startswith('ended'):
            self.ended_at = text.removeprefix('ended ')
            return None
        if done.returncode != 0 or not text:
            said = log.read_text(encoding='utf-8', errors='replace')[-4000:]
            sys.exit(f'the run in {out} failed with exit code {done.returncode}:\n{said}')
        return int(text)


def table(out: Path) -> list[dict[str, str]]:
    """The rows of a finished run without what depends on the clock."""
    with (out / 'leaderboard.csv').open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if not key.startswith(_TIMINGS)} for row in rows]


def bits(out: Path) -> dict[str, str]:
    """Hashes of what a finished training left behind, without what depends on the clock."""
    state = StateFolder(out).load()
    assert state is not None
    loop = state['loop']
    loop['log'] = [{key: value for key, value in row.items() if key not in TIMINGS} for row in loop['log']]
    hashes = {path.name: _sha256(path.read_bytes()) for path in sorted(out.glob('*.safetensors'))}
    known = {name: value for name, value in hashes.items() if not name.startswith('state-')}
    return {**known, 'state': _sha256(''.join(_leaves(loop)).encode())}


def _leaves(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, entry in value.items() for text in [str(key), *_leaves(entry)]]
    if isinstance(value, list | tuple):
        return [text for entry in value for text in _leaves(entry)]
    if isinstance(value, torch.Tensor):
        return [_sha256(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())] if value.numel() else ['']
    return [repr(value)]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def stress(run: Run, folder: Path, kills: int, generator: random.Random, result: Callable[[Path], Any] = table) -> bool:
    """Kill ``kills`` times; returns whether what all end in equals what an undisturbed run does."""
    steps = [run.until(folder / f'undisturbed{rank}', rank=rank) or 0 for rank in range(run.processes)]
    expected = result(folder / 'undisturbed0')
    print(f'  undisturbed: {" and ".join(map(str, steps))} steps, {_shown(expected)}', flush=True)
    done = survived = runs = 0
    since = 0
    while done < kills or since:
        out = folder / f'run{runs}'
        rank = generator.randrange(run.processes)
        step = generator.randint(1, steps[rank]) if done < kills else 0
        all_at_once = run.processes > 1 and generator.random() < 0.5
        if run.until(out, step, rank, all_at_once) is None:
            done, since = done + 1, since + 1
            whom = 'all processes' if all_at_once else f'process {rank}'
            print(f'  kill {done} of {kills}: run {runs}, {whom} at step {step} ({run.ended_at})', flush=True)
            continue
        found = result(out)
        equal = found == expected
        survived += since if equal else 0
        verdict = 'equal' if equal else f'DIFFERENT, see {out}'
        print(f'  run {runs} after {since} kills: {verdict}, {_shown(found)}', flush=True)
        runs, since = runs + 1, 0
    print(f'  {survived} of {kills} kills survived', flush=True)
    return survived == kills


def _shown(found: Any) -> str:
    return f'{len(found)} rows' if isinstance(found, list) else f'last {found["last.safetensors"][:16]}'


def _training(recipe: object, data: Path, *flags: str) -> list[str]:
    running = ['--device', 'cpu', '-j', '1', '--save-every', '2steps']
    return ['train', str(recipe), '--data-dir', str(data), *flags, *running, '--run-dir']


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=20, help='for each number of processes (default: 20)')
    parser.add_argument('--processes', type=int, nargs='+', default=[1, 2], help='(default: 1 2)')
    parser.add_argument(
        '--img-size', type=int, default=160, help='larger takes longer, and records more often (default: 160)'
    )
    whats = ('leaderboard', 'training', 'detection')
    parser.add_argument('--what', nargs='+', choices=whats, default=whats, help='(default: all)')
    parser.add_argument('--seed', type=int, help='of the steps (default: another each time)')
    parser.add_argument('--folder', type=Path, help='keep everything here')
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if args.seed is None else args.seed
    folder = args.folder or Path(tempfile.mkdtemp(prefix='eca-zoo-stress-'))
    write_digits(folder / 'digits')
    suite = folder / 'stress.yaml'
    suite.write_text(_SUITE.format(img_size=args.img_size), encoding='utf-8')
    recipe = folder / 'stress_recipe.yaml'
    recipe.write_text(_RECIPE, encoding='utf-8')
    for split, count in _CANVASES.items():
        write_canvases(folder / 'canvases', split, count)
    data = ['--data-dir', str(folder / 'digits')]
    kinds = {
        'leaderboard': (['leaderboard', str(suite), *data, '--run-dir'], (), table),
        'training': (_training(recipe, folder / 'digits'), _POINTS, bits),
        'detection': (_training('canvases', folder / 'canvases', *_DETECTION), _DETECTION_POINTS, bits),
    }
    good = True
    for what in args.what:
        command, points, result = kinds[what]
        for processes in args.processes:
            print(f'{what}, {processes} process{"es" if processes > 1 else ""}, seed {seed}:', flush=True)
            place = folder / what / str(processes)
            place.mkdir(parents=True)
            generator = random.Random(seed + processes)
            good &= stress(Run(command, processes, points), place, args.kills, generator, result)
    if good and args.folder is None:
        shutil.rmtree(folder)
    sys.exit(not good)


if __name__ == '__main__':
    main()
