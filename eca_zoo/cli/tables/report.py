"""The subcommand of ``eca-zoo`` that makes a page of a table."""

import argparse
from pathlib import Path
from typing import Any


def add_commands(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add this module's subcommands."""
    parser = subparsers.add_parser(
        'report',
        parents=parents,
        help='a page of a table: one HTML file to look at and to send, and figures for papers',
    )
    parser.add_argument('dir', type=Path, metavar='DIR', help='the --out of eca-zoo leaderboard, or a table as CSV')
    parser.add_argument(
        '--out', type=Path, metavar='FILE', help='file of the page (default: report.html beside the table)'
    )
    parser.add_argument(
        '--figures', type=Path, metavar='DIR', help='write figures as SVG, PDF and PNG with their points (matplotlib)'
    )
    parser.add_argument(
        '--space', type=Path, metavar='DIR', help='write a folder that is a static Space of the Hugging Face Hub'
    )
    parser.add_argument(
        '--against', type=Path, metavar='OLD', help='an earlier run, likewise; the page says what changed since'
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from eca_zoo.api import report

    files = report(args.dir, args.out, figures=args.figures, space=args.space, against=args.against)
    print(f'written: {", ".join(map(str, files))}')
    return 0
