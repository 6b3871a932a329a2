"""The command ``eca-zoo``: arguments in, one call of the library, text out.

Each module of this package adds its subcommands with ``add_commands(subparsers)``; a subcommand sets ``run``, a
function from the parsed arguments to the exit code. torch is imported inside it, so that ``--help`` answers at once.
"""

import argparse
import gc
import logging
import os
import sys
from collections.abc import Sequence

from eca_zoo.cli import benchmark, detect, export, leaderboard, predict, validate, weights
from eca_zoo.errors import EcaZooError

_INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog='eca-zoo',
        description='ECA-Net for timm: verified weights, validation and benchmarks.',
    )
    parser.add_argument('--version', action='store_true', help='print the version and exit')
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument('--debug', action='store_true', help='show the traceback of an error')
    common.add_argument('--verbose', '-v', action='store_true', help='log what is done')
    subparsers = parser.add_subparsers(title='commands', dest='command', metavar='COMMAND')
    for module in (weights, validate, predict, detect, benchmark, leaderboard, export):
        module.add_commands(subparsers, parents=[common])
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's) and return its exit code: 0, 1 (failed) or 2 (wrong)."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.version:
        from importlib.metadata import version

        print(f'eca-zoo {version("eca-zoo")}')
        return 0
    if args.command is None:
        parser.print_help()
        return 2
    level = logging.INFO if args.verbose else logging.WARNING
    logging.basicConfig(level=level, format='%(levelname)s: %(message)s', stream=sys.stderr)
    return run_command(args)


def run_process(argv: Sequence[str] | None = None) -> int:
    """``main`` for a process that does nothing else, which begins and ends sooner.

    Importing torch and timm makes some hundred thousand objects that live until the process ends: the garbage collector
    looks at them less often meanwhile, and not again when they end.
    """
    gc.set_threshold(10_000)
    try:
        return main(argv)
    finally:
        gc.freeze()


def run_command(args: argparse.Namespace) -> int:
    """Call ``args.run(args)`` and turn its errors into one line and an exit code."""
    try:
        return args.run(args)
    except EcaZooError as error:
        if args.debug:
            raise
        if not error.is_said_elsewhere:
            print(f'eca-zoo {args.command}: error: {error}', file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f'eca-zoo {args.command}: interrupted', file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: point stdout elsewhere so that closing it raises nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if args.debug:
            raise
        reason = ' '.join(str(error).split()) or type(error).__name__
        print(f'eca-zoo {args.command}: failed: {reason} (--debug shows the traceback)', file=sys.stderr)
        return 1
