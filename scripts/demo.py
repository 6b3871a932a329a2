"""The main jobs on real input without a download: digits as an image folder, verified weights, table, a training."""

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MODEL = 'test_eca_resnet.digits'
_EPOCHS = 30
_END_AT = Path(__file__).with_name('end_at.py')
# Points of an epoch, half of them: each step counts twice, and so does all that is saved.
_HALF_AN_EPOCH, _POINT = 33, 'torch.autograd:backward'


def run(*arguments: str) -> None:
    """Show a command as a user would type it, run it, and stop the demo when it fails."""
    from eca_zoo.cli import main as eca_zoo_command

    print(f'\n$ eca-zoo {shlex.join(arguments)}', flush=True)
    code = eca_zoo_command(arguments)
    if code:
        sys.exit(code)


def train(out: Path, epochs: int | None) -> None:
    """Train on the digits, killed in the middle and continued, beside a run that nobody disturbs; compare the bits."""
    print('\nA training that is killed in the middle of a step, and the same one undisturbed, at the same time:')
    folders = {name: out / name for name in ('training', 'undisturbed')}
    commands = {
        name: ['train', 'digits', '--run-dir', str(folder), '--workers', '0'] for name, folder in folders.items()
    }
    if epochs is not None:
        for command in commands.values():
            command += ['--epochs', str(epochs)]
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
    # The number of threads is a part of a run's identity; with one, both have a core of their own.
    environment = os.environ | {'OMP_NUM_THREADS': '1'}
    program = [sys.executable, '-m', 'eca_zoo']
    quiet: dict[str, Any] = {'env': environment, 'stderr': subprocess.DEVNULL}
    undisturbed = subprocess.Popen([*program, *commands['undisturbed']], stdout=subprocess.PIPE, text=True, **quiet)
    print(f'\n$ eca-zoo {shlex.join(commands["training"])}', flush=True)
    step = _HALF_AN_EPOCH * (epochs or _EPOCHS)
    where = ['--step', str(step), '--point', _POINT, '--report', str(out / 'killed.txt')]
    killed = subprocess.run([sys.executable, str(_END_AT), *where, '--', *commands['training']], **quiet)
    states = sorted(folders['training'].glob('state-*.safetensors'))
    print(f'killed by signal {-killed.returncode}; the last state is {states[-1].name}; the same command goes on:')
    again = subprocess.run([*program, *commands['training']], **quiet)
    said, _ = undisturbed.communicate()
    if again.returncode or undisturbed.returncode:
        sys.exit('a training failed; run its command to see why')
    hashes = {name: _sha256(folder / 'last.safetensors') for name, folder in folders.items()}
    print(f'undisturbed: {said.splitlines()[0]}')
    for name, sha256 in hashes.items():
        print(f'  {sha256}  {folders[name] / "last.safetensors"}')
    if len(set(hashes.values())) > 1:
        sys.exit('the two differ')
    print('The killed run ends in the same bits.')


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=Path('demo_output'), help='folder for the digits and the table')
    parser.add_argument('--epochs', type=int, help=f'of the training (default: {_EPOCHS}, its recipe)')
    args = parser.parse_args()
    out = args.out
    start = time.perf_counter()  # before torch and scikit-learn are imported, which is most of it
    from digits import write_digits

    digits, table = out / 'digits', out / 'leaderboard'
    counts = write_digits(digits)
    print(f'{counts["validation"]} held-out handwritten digits of scikit-learn are in {digits / "validation"}')
    run('fetch', MODEL)
    run('verify', MODEL)
    run('validate', '--model', MODEL, '--data-dir', str(digits), '--results-file', str(out / 'validate.csv'))
    run('leaderboard', 'digits', '--data-dir', str(digits), '--run-dir', str(table), '--report', '--restart')
    train(out, args.epochs)
    print(f'\nThe demo took {time.perf_counter() - start:.0f} s. The table is in {table / "leaderboard.csv"}')
    print(f'A page of it, for a browser, is in {table / "report.html"}')


if __name__ == '__main__':
    main()
