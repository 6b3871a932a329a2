"""The main job on real input without a download: digits as an image folder, verified weights, table as CSV."""

import argparse
import shlex
import sys
import time
from pathlib import Path

MODEL = 'test_eca_resnet.digits'


def run(*arguments: str) -> None:
    """Show a command as a user would type it, run it, and stop the demo when it fails."""
    from eca_zoo.cli import main as eca_zoo_command

    print(f'\n$ eca-zoo {shlex.join(arguments)}', flush=True)
    code = eca_zoo_command(arguments)
    if code:
        sys.exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=Path('demo_output'), help='folder for the digits and the table')
    out = parser.parse_args().out
    start = time.perf_counter()  # before torch and scikit-learn are imported, which is most of it
    from digits import write_digits

    digits, table = out / 'digits', out / 'leaderboard'
    counts = write_digits(digits)
    print(f'{counts["validation"]} held-out handwritten digits of scikit-learn are in {digits / "validation"}')
    run('fetch', MODEL)
    run('verify', MODEL)
    run('validate', '--model', MODEL, '--data-dir', str(digits), '--results-file', str(out / 'validate.csv'))
    run('leaderboard', 'digits', '--data-dir', str(digits), '--run-dir', str(table), '--restart')
    print(f'\nThe demo took {time.perf_counter() - start:.0f} s. The table is in {table / "leaderboard.csv"}')


if __name__ == '__main__':
    main()
