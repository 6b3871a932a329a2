"""Kills leaderboard runs with SIGKILL at random moments, continues them, and compares the tables with undisturbed ones.

The kills hit one process, or two under torchrun (sometimes one of them, sometimes all). A killed run is continued with
the same command; when it ends before the next kill, its table is compared and a new run begins.
"""

import argparse
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
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
        self._command = [
            sys.executable, *(launcher if processes > 1 else []), '-m', 'eca_zoo', 'leaderboard', str(suite),
            '--data-dir', str(data),
        ]  # fmt: skip
        self._processes = processes

    def start(self, out: Path) -> subprocess.Popen:
        """Start the run in a session of its own."""
        environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(_ROOT)}
        with (out.parent / f'{out.name}.log').open('ab') as log:
            return subprocess.Popen(
                [*self._command, '--out', str(out)], stdout=log, stderr=log, env=environment, cwd=_ROOT,
                start_new_session=True,
            )  # fmt: skip

    def kill(self, process: subprocess.Popen, generator: random.Random) -> None:
        """SIGKILL: the only process; or, of several, a random one or all at once."""
        victims = [process.pid]
        ranks = _children(process.pid) if self._processes > 1 else []
        if ranks and generator.random() < 0.5:
            victims = [generator.choice(ranks)]
        elif self._processes > 1:
            victims += ranks
        for victim in victims:
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.wait()
        # torchrun has ended the other ranks; those of a killed torchrun are dead as well.


def _children(pid: int) -> list[int]:
    """Processes that ``pid`` started."""
    try:
        text = Path(f'/proc/{pid}/task/{pid}/children').read_text(encoding='ascii')
    except OSError:
        text = subprocess.run(['pgrep', '-P', str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(child) for child in text.split()]


def table(out: Path) -> list[dict[str, str]]:
    """The rows of a finished run without what depends on the clock."""
    with (out / 'leaderboard.csv').open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if not key.startswith(_TIMINGS)} for row in rows]


def finish(process: subprocess.Popen, out: Path) -> None:
    """Wait for a run that nobody disturbs; stop the script if it fails."""
    if process.wait() != 0:
        sys.exit(f'the run in {out} failed with exit code {process.returncode}:\n{_log_of(out)}')


def _log_of(out: Path) -> str:
    return (out.parent / f'{out.name}.log').read_text(encoding='utf-8', errors='replace')[-4000:]


def stress(run: Run, folder: Path, kills: int, generator: random.Random) -> bool:
    """Kill ``kills`` times; returns whether all tables equal the undisturbed one."""
    start = time.monotonic()
    undisturbed = folder / 'undisturbed'
    finish(run.start(undisturbed), undisturbed)
    duration = time.monotonic() - start
    expected = table(undisturbed)
    print(f'  undisturbed: {duration:.0f} s, {len(expected)} rows', flush=True)
    done = survived = runs = 0
    since = 0
    while done < kills or since:
        out = folder / f'run{runs}'
        process = run.start(out)
        if done < kills:
            try:
                process.wait(generator.uniform(0, duration))
            except subprocess.TimeoutExpired:
                run.kill(process, generator)
                done, since = done + 1, since + 1
                print(f'  kill {done} of {kills} in run {runs}', flush=True)
                continue
        finish(process, out)
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
    parser.add_argument('--img-size', type=int, default=160, help='larger takes longer (default: 160)')
    parser.add_argument('--seed', type=int, help='of the moments (default: another each time)')
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
