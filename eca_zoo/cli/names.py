"""Names on the command line: every command takes them with ``--model`` and without."""

import argparse
from typing import Any


def add_names(parser: Any, help: str, metavar: str = 'NAME') -> None:
    """Add ``NAME ...`` and ``--model NAME ...`` (``-m``); ``names_in`` gives both."""
    parser.add_argument('names', nargs='*', metavar=metavar, help=help)
    parser.add_argument(
        '--model', '-m', nargs='+', action='extend', default=[], metavar=metavar, help='the same with a flag'
    )


def names_in(args: argparse.Namespace) -> list[str]:
    """The names that were given, with and without ``--model``."""
    return [*args.names, *args.model]


def one_name_in(args: argparse.Namespace, what: str) -> str:
    """The one name that was given; ``what`` it is of, for messages.

    Raises:
        InputError: there is none, or there are several.
    """
    from eca_zoo.errors import InputError

    names = names_in(args)
    if len(names) != 1:
        said = f'{", ".join(names)} are {len(names)} names' if names else 'no name is given'
        raise InputError(f'{said}; {args.command} takes one {what}, such as eca_resnet50')
    return names[0]
