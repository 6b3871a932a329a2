"""Kills leaderboard runs with SIGKILL at chosen steps, continues them, and compares the tables with undisturbed ones.

The kills hit one process, or two under torchrun (sometimes one of them, sometimes all), at a step of its work that is
drawn by ``--seed`` from those of an undisturbed run (see ``end_at.py``). A killed run is continued with the same
command; when it ends before the next kill, its table is compared and a new run begins.
"""

import argparse
import csv
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from digits import write_digits

_ROOT = Path(__file__).resolve().parent.parent
_TIMINGS = ('infer_samples_per_sec', 'infer_step_time', 'infer_spread', 'relative_throughput', 'peak_memory_mb')
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


class Run:
    """The command of one leaderboard run, with one process or several."""

    def __init__(self, suite: Path, data: Path, processes: int) -> None:
        launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes)]
        self._start = [sys.executable, *(launcher if processes > 1 else []), str(_ROOT / 'scripts' / 'end_at.py')]
        self._command = ['--', 'leaderboard', str(suite), '--data-dir', str(data)]
        self.processes = processes

    def until(self, out: Path, step: int = 0, rank: int = 0, all_at_once: bool = False) -> int | None:
        """Run until the process ``rank`` has come to ``step``, or to the end, and stop the script if that fails.

        Returns:
            The number of steps of that process, or None if it was killed.
        """
        log = out.with_name(f'{out.name}.log')
        ended = out.with_name(f'{out.name}.steps')
        ended.unlink(missing_ok=True)
        where = ['--step', str(step), '--rank', str(rank), '--report', str(ended), *(['--all'] if all_at_once else [])]
        environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(_ROOT)}
        command = [*self._start, *where, *self._command, '--run-dir', str(out)]
        with log.open('ab') as file:
            done = subprocess.run(command, stdout=file, stderr=file, env=environment, cwd=_ROOT, check=False)
        text = ended.read_text(encoding='ascii') if ended.exists() else ''
        if text == 'ended':
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


def stress(run: Run, folder: Path, kills: int, generator: random.Random) -> bool:
    """Kill ``kills`` times; returns whether all tables equal the undisturbed one."""
    steps = [run.until(folder / f'undisturbed{rank}', rank=rank) or 0 for rank in range(run.processes)]
    expected = table(folder / 'undisturbed0')
    print(f'  undisturbed: {" and ".join(map(str, steps))} steps, {len(expected)} rows', flush=True)
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
            print(f'  kill {done} of {kills}: run {runs}, {whom} at step {step}', flush=True)
            continue
        equal = table(out) == expected
        survived += since if equal else 0
        print(f'  run {runs} after {since} kills: {"equal" if equal else f"DIFFERENT, see {out}"}', flush=True)
        runs, since = runs + 1, 0
    print(f'  {survived} of {kills} kills survived', flush=True)
    return survived == kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=20, help='for each number of processes (default: 20)')
    parser.add_argument('--processes', type=int, nargs='+', default=[1, 2], help='(default: 1 2)')
    parser.add_argument(
        '--img-size', type=int, default=160, help='larger takes longer, and records more often (default: 160)'
    )
    parser.add_argument('--seed', type=int, help='of the steps (default: another each time)')
    parser.add_argument('--folder', type=Path, help='keep everything here')
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if args.seed is None else args.seed
    folder = args.folder or Path(tempfile.mkdtemp(prefix='eca-zoo-stress-'))
    write_digits(folder / 'digits')
    suite = folder / 'stress.yaml'
    suite.write_text(_SUITE.format(img_size=args.img_size), encoding='utf-8')
    good = True
    for processes in args.processes:
        print(f'{processes} process{"es" if processes > 1 else ""}, seed {seed}:', flush=True)
        (folder / str(processes)).mkdir(parents=True)
        run = Run(suite, folder / 'digits', processes)
        good &= stress(run, folder / str(processes), args.kills, random.Random(seed + processes))
    if good and args.folder is None:
        shutil.rmtree(folder)
    sys.exit(not good)


if __name__ == '__main__':
    main()
