"""The errors that users see: one line that names the input, the problem and the remedy."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from eca_zoo.vocabulary import name_of


class EcaZooError(Exception):
    """Base of every error that the package raises on purpose; its text is a single line for the user.

    ``exit_code`` is what the command line returns for it. ``is_said_elsewhere`` is set where another process of the run
    prints the line. ``measured`` is the table of what had been measured before, where the function that raised it
    returns a table; else None.
    """

    exit_code = 1
    is_said_elsewhere = False
    measured: Any = None


class InputError(EcaZooError, ValueError):
    """Wrong usage or input: an argument, a file or a data set that cannot be used as it is (exit code 2)."""

    exit_code = 2


class RunError(EcaZooError, RuntimeError):
    """A run that was asked for correctly and failed on the way (exit code 1)."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, in a command that asks for it to be raised where Ctrl-C raises ``KeyboardInterrupt``."""


def one_line(error: BaseException) -> str:
    """The text of an exception in one line; its type's name if it has none."""
    return ' '.join(str(error).split()) or type(error).__name__


def with_names(text: str, names: Mapping[str, str]) -> str:
    """``text``, whose settings are flags (``--class-map``), with the ``names`` that they have where it is read.

    Args:
        text: a message.
        names: by the setting (``class_map``); what is not among them stays a flag.
    """
    return re.sub(r'--([a-z][a-z-]+)', lambda flag: names.get(name_of(flag[1].replace('-', '_')), flag[0]), text)


@contextmanager
def settings_named(names: Mapping[str, str]) -> Iterator[None]:
    """Errors of this package that leave it name settings by ``names``, see ``with_names``."""
    try:
        yield
    except EcaZooError as error:
        error.args = (with_names(str(error), names),)
        raise
