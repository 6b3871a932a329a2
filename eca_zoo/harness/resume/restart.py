"""Which models of a run are measured anew."""

import fnmatch
from collections.abc import Sequence

from eca_zoo.errors import InputError


def restarted(restart: bool | Sequence[str], titles: Sequence[str]) -> bool | list[str]:
    """Whether a run is begun anew, or the titles of the models that are.

    Args:
        restart: True for the whole run, or titles and shell patterns of titles.
        titles: of the models of the run.

    Raises:
        InputError: a pattern stands for no model of the run.
    """
    if isinstance(restart, bool):
        return restart
    chosen: list[str] = []
    for pattern in restart:
        found = [title for title in titles if title == pattern] or fnmatch.filter(titles, pattern)
        if not found:
            raise InputError(f'--restart {pattern}: no such model in this run; it has {", ".join(titles)}')
        chosen += found
    return list(dict.fromkeys(chosen))
