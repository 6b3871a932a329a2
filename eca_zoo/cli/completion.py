"""Completion of the command in a shell, as ``shtab`` writes it from the parser."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHELLS = ('bash', 'zsh', 'tcsh')


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script that completes commands, flags, choices, files, and the names of this package's networks.

    Args:
        parser: of the whole command.
        shell: one of ``SHELLS``.

    Raises:
        InputError: shtab is not installed.
    """
    from eca_zoo.errors import InputError

    try:
        import shtab
    except ImportError:
        raise InputError('--print-completion needs shtab: pip install shtab') from None
    names = ' '.join(_names())
    for action in _actions(parser):
        if action.dest in ('names', 'model', 'baseline'):
            action.complete = {'bash': '_eca_zoo_names', 'zsh': f'({names})', 'tcsh': f'({names})'}
        elif action.type is Path:
            action.complete = shtab.DIRECTORY if action.metavar == 'DIR' else shtab.FILE
    preamble: Any = {'bash': f'_eca_zoo_names() {{ compgen -W "{names}" -- "$1"; }}\n', 'zsh': '', 'tcsh': ''}
    return shtab.complete(parser, shell, root_prefix='eca_zoo', preamble=preamble)


def _names() -> list[str]:
    from eca_zoo.weights.manifest import usable_manifest

    checkpoints = list(usable_manifest().models)
    return ['zoo', 'plain', 'all', *dict.fromkeys(name.partition('.')[0] for name in checkpoints), *checkpoints]


def _actions(parser: argparse.ArgumentParser) -> Iterator[Any]:
    for action in parser._actions:  # argparse has no public way to them
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
