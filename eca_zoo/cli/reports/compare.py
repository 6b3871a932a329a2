"""The subcommand of ``eca-zoo`` that says which differences of two runs are real."""

import argparse
import json
from pathlib import Path
from typing import Any

from eca_zoo.cli.logs import complain

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
        'runs',
        nargs='+',
        type=Path,
        metavar='RUN',
        help='older and newer run: --run-dir of leaderboard, or a CSV',
    )
    parser.add_argument(
        '--against', metavar='RUN', help='the older run, or published: the figures that the authors reported'
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
    comparison = compare(
        args.against or args.runs[0], args.runs[-1], tolerance=args.tolerance, speed_tolerance=args.speed_tolerance
    )
    if args.format == 'json':
        print(json.dumps(comparison.to_json(), indent=2))
    else:
        print(to_markdown(comparison) if args.format == 'markdown' else to_text(comparison))
    for line in comparison.regressions:
        complain(f'eca-zoo compare: regression: {line}')
    return 1 if comparison.regressions else 0
