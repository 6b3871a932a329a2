"""The command ``eca-zoo``: arguments in, one call of the library, text out.

Each module of this package adds its subcommands with ``add_commands(subparsers)``; a subcommand sets ``run``, a
function from the parsed arguments to the exit code. torch is imported inside it, so that ``--help`` answers at once.
"""

import argparse
import difflib
import gc
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from eca_zoo.cli import benchmark, export, leaderboard, publish, validate, weights
from eca_zoo.cli.collector import collect_seldom
from eca_zoo.cli.completion import SHELLS
from eca_zoo.cli.images import detect, predict
from eca_zoo.cli.logs import complain, logs
from eca_zoo.cli.reports import compare, report
from eca_zoo.cli.training import average, train
from eca_zoo.errors import EcaZooError, Terminated

COMMANDS = (
    'convert', 'fetch', 'verify', 'list', 'publish', 'validate', 'predict', 'detect', 'benchmark', 'leaderboard',
    'compare', 'report', 'train', 'average', 'export',
)  # fmt: skip


class OneLineParser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong with its arguments; the usage is in the help."""

    def error(self, message: str) -> NoReturn:
        """Print the message and the remedy, and end with 2."""
        self.exit(2, f'{self.prog}: error: {message}; {self.prog} --help shows what there is\n')


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    parser = OneLineParser(
        prog='eca-zoo',
        description='ECA-Net for timm: verified weights, training, validation and benchmarks.',
    )
    parser.add_argument('--version', '-V', action='store_true', help='print the version and exit')
    parser.add_argument('--print-completion', choices=SHELLS, help='print what completes the command in a shell')
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument('--debug', action='store_true', help='show the traceback of an error')
    loudness = common.add_mutually_exclusive_group()
    loudness.add_argument('--verbose', '-v', action='store_true', help='log what is done, by libraries too')
    loudness.add_argument(
        '--quiet', '-q', action='store_true',
        help='no progress: no bar on a terminal, and elsewhere no lines on what is begun and done',
    )  # fmt: skip
    subparsers = parser.add_subparsers(title='commands', dest='command', metavar='COMMAND')
    for module in (
        weights, publish, validate, predict, detect, benchmark, leaderboard, compare, report, train, average, export,
    ):  # fmt: skip
        module.add_commands(subparsers, parents=[common])
    return parser


def main(argv: Sequence[str] | None = None, owns_process: bool = False) -> int:
    """Run the command line ``argv`` (default: the process's) and return its exit code: 0, 1 (failed) or 2 (wrong).

    Args:
        argv: the arguments.
        owns_process: the process does nothing else, so that what it is set to need not be put back.
    """
    parser = build_parser()
    argv = sys.argv[1:] if argv is None else argv
    _check_command(parser, argv[0] if argv else '')
    args = parser.parse_args(argv)
    args.owns_process = owns_process
    if args.print_completion:
        args.command, args.run, args.debug = '--print-completion', _print_completion, False
        return run_command(args)
    if args.version:
        from importlib.metadata import version

        print(f'eca-zoo {version("eca-zoo")}')
        return 0
    if args.command is None:
        parser.print_help()
        return 2
    with logs(args.quiet, args.verbose):
        return run_command(args)


def _check_command(parser: argparse.ArgumentParser, word: str) -> None:
    """End with the nearest names where ``word``, the first one, is no command."""
    if word and not word.startswith('-') and word not in COMMANDS:
        nearest = difflib.get_close_matches(word, COMMANDS, n=2, cutoff=0.5)
        remedy = f'the nearest is {" or ".join(nearest)}' if nearest else f'there are {", ".join(COMMANDS)}'
        parser.error(f'there is no command {word!r}; {remedy}')


def _print_completion(args: argparse.Namespace) -> int:
    from eca_zoo.cli.completion import completion

    print(completion(build_parser(), args.print_completion))
    return 0


def run_process(argv: Sequence[str] | None = None) -> int:
    """``main`` for a process that does nothing else, which begins and ends sooner.

    The garbage collector looks less often at the objects that importing torch and timm makes, and not again when the
    process ends.
    """
    collect_seldom()
    _print_any_text()
    try:
        return main(argv, owns_process=True)
    finally:
        gc.freeze()


def _print_any_text() -> None:
    """Let standard output, like standard error, show what its encoding lacks as an escape in the place of an error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')


def run_command(args: argparse.Namespace) -> int:
    """Call ``args.run(args)`` and turn its errors into one line and an exit code."""
    try:
        return args.run(args)
    except EcaZooError as error:
        if args.debug:
            raise
        if not error.is_said_elsewhere:
            complain(f'eca-zoo {args.command}: error: {error}')
        return error.exit_code
    except KeyboardInterrupt as wish:
        number = signal.SIGTERM if isinstance(wish, Terminated) else signal.SIGINT
        complain(f'eca-zoo {args.command}: stopped by {number.name}')
        return 128 + number
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: point stdout elsewhere so that closing it raises nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if args.debug:
            raise
        reason = ' '.join(str(error).split()) or type(error).__name__
        complain(f'eca-zoo {args.command}: failed: {reason} (--debug shows the traceback)')
        return 1
