"""The subcommand ``average``: the mean of several checkpoints."""

import argparse
from pathlib import Path
from typing import Any


def add_commands(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add this module's subcommands."""
    parser = subparsers.add_parser('average', parents=parents, help='the mean of several checkpoints of one network')
    parser.add_argument(
        'checkpoints', nargs='+', type=Path, metavar='CHECKPOINT', help='files, a folder of them, or that of a run'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='FILE', help='safetensors file to write')
    parser.add_argument('-n', type=_positive, metavar='N', dest='best', help='the N best of a run (default: all)')
    parser.add_argument('--use-ema', action='store_true', help="averaged weights in other scripts' checkpoints")
    parser.set_defaults(run=_run)


def _positive(text: str) -> int:
    value = int(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f'must be at least 2, not {value}')
    return value


def _run(args: argparse.Namespace) -> int:
    from eca_zoo.training.record.average import average_checkpoints

    result = average_checkpoints(args.checkpoints, args.out, args.best, args.use_ema)
    for file, sha256 in result.inputs:
        print(f'  {file}  {sha256}')
    print(f'{result.path}: the mean of {len(result.inputs)} checkpoints, SHA-256 {result.sha256}')
    return 0
