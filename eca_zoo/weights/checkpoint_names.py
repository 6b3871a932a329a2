"""Which checkpoints a user means: names, architectures, patterns and ``all``, expanded to names of the manifest."""

import difflib
import fnmatch
from collections.abc import Iterable

from eca_zoo.errors import InputError
from eca_zoo.weights.manifest import Manifest

_NEAREST = 3


def expand_checkpoint_names(patterns: Iterable[str], manifest: Manifest) -> list[str]:
    """The names ``architecture.tag`` that ``patterns`` stand for, in the order given and without repetition.

    Each pattern is a name, an architecture (its default tag, as timm chooses it: the first whose hash is known), a
    shell pattern over names (``eca_*``), or ``all`` for every checkpoint whose hash is known.

    Raises:
        InputError: a name is unknown (the text lists the nearest ones), or a pattern matches nothing.
    """
    return list(dict.fromkeys(name for pattern in patterns for name in _expand(pattern, manifest)))


def _expand(pattern: str, manifest: Manifest) -> list[str]:
    if pattern == 'all':
        return [name for name, entry in manifest.models.items() if entry.checkpoint is not None]
    if pattern in manifest.models:
        return [pattern]
    tags = manifest.tags(pattern)
    if tags:
        return [next((name for name in tags if manifest.models[name].checkpoint is not None), tags[0])]
    if any(sign in pattern for sign in '*?['):
        matches = [
            name for name in manifest.models
            if fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name.split('.', 1)[0], pattern)
        ]  # fmt: skip
        if matches:
            return matches
    known = [*manifest.models, *dict.fromkeys(name.split('.', 1)[0] for name in manifest.models)]
    nearest = difflib.get_close_matches(pattern, known, n=_NEAREST, cutoff=0.4)
    remedy = f'the nearest names are {", ".join(nearest)}' if nearest else 'eca-zoo list shows what there is'
    raise InputError(f'no checkpoint is called {pattern!r}; {remedy}')
