"""The subcommand of ``eca-zoo`` that says which differences of two runs are real."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

_EPILOG = """\
Exit code 1 if something got worse by more than the tolerance, or newly failed. Accuracies of the same weights and data
have to be equal; others are compared by their intervals. Throughputs are compared on one machine alone, beyond the
noise of both runs.
"""


def add_commands(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add this module's subcommands."""
    parser = subparsers.add_parser(
        'compare',
        parents=parents,
        help='which differences of two runs are real',
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'runs', nargs='+', type=Path, metavar='RUN', help='the older run and the newer: --out of leaderboard, or a CSV'
    )
    parser.add_argument(
        '--against',
        choices=('published',),
        metavar='OLD',
        help='published: compare the one run with the figures that the authors reported',
    )
    parser.add_argument(
        '--tolerance', type=float, default=0.1, metavar='P', help='percentage points of accuracy (default: 0.1)'
    )
    parser.add_argument(
        '--speed-tolerance', type=float, default=5.0, metavar='P', help='percent of throughput (default: 5)'
    )
    parser.add_argument('--format', choices=('text', 'json', 'markdown'), default='text')
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from eca_zoo.api import compare
    from eca_zoo.errors import InputError
    from eca_zoo.harness.comparison.text import to_markdown, to_text

    if len(args.runs) != (1 if args.against else 2):
        wanted = 'one run' if args.against else 'two runs'
        raise InputError(
            f'{len(args.runs)} runs were named; name {wanted}: eca-zoo compare OLD NEW, '
            'or eca-zoo compare RUN --against published'
        )
    old = None if args.against else args.runs[0]
    comparison = compare(old, args.runs[-1], tolerance=args.tolerance, speed_tolerance=args.speed_tolerance)
    if args.format == 'json':
        print(json.dumps(comparison.to_json(), indent=2))
    else:
        print(to_markdown(comparison) if args.format == 'markdown' else to_text(comparison))
    for line in comparison.regressions:
        print(f'eca-zoo compare: regression: {line}', file=sys.stderr)
    return 1 if comparison.regressions else 0
