"""``python -m benchmark`` from a clone is ``eca-zoo leaderboard`` with the default suite, into benchmark/results."""

import sys
from pathlib import Path

from eca_zoo.cli import run_process

_SUITE = 'imagenet'
_RESULTS = Path(__file__).parent / 'results'


def _arguments(given: list[str]) -> list[str]:
    """The arguments of ``eca-zoo leaderboard``: the default suite and folder where ``given`` names none."""
    arguments = given if given and not given[0].startswith('-') else [_SUITE, *given]
    if not any(argument.partition('=')[0] in ('--run-dir', '--out') for argument in given):
        arguments = [*arguments, '--run-dir', str(_RESULTS / Path(arguments[0]).stem)]
    return ['leaderboard', *arguments]


if __name__ == '__main__':
    sys.exit(run_process(_arguments(sys.argv[1:])))
