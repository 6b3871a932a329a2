"""Writes scikit-learn's 1,797 handwritten digits as an image folder: train/0..9 and validation/0..9."""

import argparse
from pathlib import Path

from eca_zoo.training.data.digits import write_digits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path)
    args = parser.parse_args()
    counts = write_digits(args.folder)
    print(f'{args.folder}: {counts["train"]} training and {counts["validation"]} validation images')


if __name__ == '__main__':
    main()
