"""Which models a user means: names, patterns and lists of names, expanded to timm model names."""

import difflib
from collections.abc import Iterable
from pathlib import Path

import timm

from eca_zoo.errors import InputError
from eca_zoo.models import list_zoo
from eca_zoo.models.patterns import is_pattern, match_networks, read_names

_LOADED_BY_SCHEMA = ('hf-hub:', 'hf_hub:', 'local-dir:')
_NEAREST = 3


def expand_model_names(patterns: Iterable[str]) -> list[str]:
    """The timm model names that ``patterns`` stand for, in the order given and without repetition.

    A name means the same in all commands; those for checkpoints take of it what this package has. Each pattern is one
    of: a model (``resnet50``, ``eca_resnet50.k3557_in1k``), a shell pattern over timm's registry (``eca_resnet*``; with
    a dot it also matches tags, ``resnet50.*_in1k``), which says so where it catches networks of this package and of
    timm's own, ``zoo`` (the authors' networks), ``plain`` (timm's counterparts of these, without ECA layers), ``all``
    (every model that has pretrained weights), a text file with one of these per line (``models.txt``), or what timm
    loads by schema (``hf-hub:ORG/NAME``, ``local-dir:DIR``), which is passed on as it is.

    Raises:
        InputError: a name is not registered (the text lists the nearest ones), a pattern matches nothing, a file
            cannot be read, or there is no name at all.
    """
    names = list(dict.fromkeys(name for pattern in patterns for name in _expand(pattern.strip())))
    if not names:
        raise InputError('no model is named; give at least one, such as eca_resnet50')
    return names


def expand_one(pattern: str) -> str:
    """The one timm model name that ``pattern`` stands for.

    Raises:
        InputError: it stands for none or for several.
    """
    names = expand_model_names([pattern])
    if len(names) > 1:
        raise InputError(f'{pattern!r} stands for {len(names)} networks; name one')
    return names[0]


def nearest_model_names(name: str) -> list[str]:
    """Up to three registered names that look like ``name``, best first; tags of a known architecture if it has one."""
    architecture = name.partition('.')[0]
    known = timm.list_models(f'{architecture}.*', include_tags=True) if timm.is_model(architecture) else []
    return difflib.get_close_matches(name, known or timm.list_models(), n=_NEAREST, cutoff=0.5)


def _expand(pattern: str) -> list[str]:
    if pattern.startswith('local-dir:'):
        _check_local_dir(Path(pattern.removeprefix('local-dir:')))
    if pattern.startswith(_LOADED_BY_SCHEMA):
        return [pattern]
    if pattern == 'zoo':
        return [architecture.name for architecture in list_zoo()]
    if pattern == 'plain':
        return [architecture.plain for architecture in list_zoo() if architecture.plain]
    if pattern == 'all':
        return timm.list_models(pretrained=True)
    if pattern.endswith('.txt'):
        return [name for line in read_names(Path(pattern)) for name in _expand(line)]
    if is_pattern(pattern):
        matches = match_networks(pattern)
        if not matches:
            raise InputError(f'no model matches the pattern {pattern!r}; timm.list_models() lists what there is')
        return matches
    _check_registered(pattern)
    return [pattern]


def _check_local_dir(folder: Path) -> None:
    if not (folder / 'config.json').is_file():
        raise InputError(
            f'{folder}: not a folder that timm can load: it has no config.json; eca-zoo convert writes one'
        )


def _check_registered(name: str) -> None:
    architecture, dot, _ = name.partition('.')
    if timm.is_model(architecture) and (not dot or timm.list_models(name, include_tags=True)):
        return
    what = f'tag of {architecture}' if timm.is_model(architecture) else 'model'
    nearest = nearest_model_names(name)
    remedy = f'the nearest names are {", ".join(nearest)}' if nearest else 'timm.list_models() lists what there is'
    raise InputError(f'{name!r} is no {what} that timm knows; {remedy}')
