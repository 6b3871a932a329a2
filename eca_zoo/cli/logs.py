"""What a command says on stderr while it works."""

import contextlib
import logging
import sys
from collections.abc import Iterator


def complain(line: str) -> None:
    """Say one line on standard error in one piece, so that those of several processes do not run into each other."""
    if sys.stderr is not None:
        sys.stderr.write(f'{line}\n')


@contextlib.contextmanager
def logs(quiet: bool, verbose: bool) -> Iterator[None]:
    """While the body runs, warnings are shown; where nobody sees a bar, also what begins and what is done, with times.

    Args:
        quiet: warnings alone.
        verbose: also what other libraries say of their work.
    """
    terminal = sys.stderr is not None and sys.stderr.isatty()
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format='%(levelname)s: %(message)s' if terminal else '%(asctime)s %(levelname)s: %(message)s',
        datefmt='%Y-%m-%d %H:%M:%S',
        stream=sys.stderr,
    )
    own = logging.getLogger('eca_zoo')
    before = own.level
    own.setLevel(logging.INFO if verbose or not (terminal or quiet) else logging.WARNING)
    try:
        yield
    finally:
        own.setLevel(before)
