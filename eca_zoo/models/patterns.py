"""What names of networks can stand for, in every command: shell patterns over timm's registry, lists in files."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

import timm

from eca_zoo.errors import InputError
from eca_zoo.files import read_text
from eca_zoo.models.registry import list_architectures

_SHOWN = 3
_logger = logging.getLogger(__name__)


def is_pattern(name: str) -> bool:
    """Whether ``name`` is a shell pattern."""
    return any(sign in name for sign in '*?[')


def match_networks(pattern: str) -> list[str]:
    """The networks of timm's registry that a shell pattern stands for; with a dot in it, their tags.

    A pattern that catches networks of this package and others besides says so, once in a process.
    """
    matches = timm.list_models(pattern, include_tags='.' in pattern)
    own = {architecture.name for architecture in list_architectures()}
    others = [name for name in matches if name.partition('.')[0] not in own]
    if others and len(others) < len(matches):
        _say_others(pattern, len(matches), tuple(others))
    return matches


@functools.cache
def _say_others(pattern: str, count: int, others: Sequence[str]) -> None:
    _logger.warning(
        "%r stands for %d networks, %d of them timm's own (%s); zoo stands for the six of the ECA-Net authors alone",
        pattern, count, len(others), shortened(others),
    )  # fmt: skip


def shortened(names: Sequence[str]) -> str:
    """The first of ``names``, and how many more there are."""
    more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return ', '.join(names[:_SHOWN]) + more


def read_names(path: Path) -> list[str]:
    """The names and patterns in a text file, one a line; empty lines and those that start with ``#`` do not count.

    Raises:
        InputError: it cannot be read.
    """
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'{path}: cannot read the list of models: {error}') from None
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith('#')]
