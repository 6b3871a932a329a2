"""The main job on real input without a download: digits as an image folder, verified weights, table as CSV.

Then the same for detection: digits on canvases in COCO's format, average precision, and pictures of what is found.
"""

import argparse
import shlex
import sys
import time
from pathlib import Path

MODEL, DETECTOR = 'test_eca_resnet.digits', 'test_maskrcnn.digits'
# Canvases that are drawn.
_DRAWN = 3


def run(*arguments: str) -> None:
    """Show a command as a user would type it, run it, and stop the demo when it fails."""
    from eca_zoo.cli import main as eca_zoo_command

    print(f'\n$ eca-zoo {shlex.join(arguments)}', flush=True)
    code = eca_zoo_command(arguments)
    if code:
        sys.exit(code)


def find_digits(out: Path, count: int) -> None:
    """Evaluate the packaged detector on ``count`` canvases, beside the complexity of the six, and draw some."""
    from canvases.digit_canvases import write_canvases

    folder = out / 'canvases'
    digits = write_canvases(folder, 'validation', count)
    print(f'\n{count} canvases with {digits} held-out digits are in {folder / "validation"}')
    run('leaderboard', 'canvases', '--data-dir', str(folder), '--run-dir', str(out / 'detection'), '--restart')
    drawn = [str(path) for path in sorted((folder / 'validation').iterdir())[:_DRAWN]]
    run('detect', '--model', DETECTOR, '--out', str(out / 'pictures'), *drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=Path('demo_output'), help='folder for the digits and the table')
    parser.add_argument('--canvases', type=int, default=300, metavar='N', help='for detection (default: 300)')
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
    run('leaderboard', 'digits', '--data-dir', str(digits), '--run-dir', str(table), '--restart')
    find_digits(out, args.canvases)
    print(f'\nThe demo took {time.perf_counter() - start:.0f} s. The table is in {table / "leaderboard.csv"}')


if __name__ == '__main__':
    main()
