"""Which checkpoints a user means: names, architectures, patterns and ``all``, expanded to names of the manifest."""

import difflib
import fnmatch
from collections.abc import Iterable
from pathlib import Path

from eca_zoo.errors import InputError
from eca_zoo.weights.manifest import Manifest

_NEAREST = 3


def expand_checkpoint_names(patterns: Iterable[str], manifest: Manifest) -> list[str]:
    """The names ``architecture.tag`` that ``patterns`` stand for, in the order given and without repetition.

    Names mean what they mean where networks are measured, see ``harness.networks.model_names``; of the networks that
    one stands for, these are the checkpoints of this package. Each is a checkpoint, an architecture (its default tag,
    as timm chooses it: the first whose hash is known), ``zoo`` (the authors' networks), ``all`` (every checkpoint whose
    hash is known), a shell pattern (all tags of its networks), or a text file with one of these a line. A pattern that
    catches networks of timm's own besides says so.

    Raises:
        InputError: a name is unknown (the text lists the nearest ones), a pattern matches nothing, or what it stands
            for is timm's own.
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
    if pattern == 'plain':
        raise InputError("'plain' stands for networks of timm's own, whose weights timm fetches by itself")
    return _expand_by_registry(pattern, manifest)


def _expand_by_registry(pattern: str, manifest: Manifest) -> list[str]:
    """What needs the networks, and with them torch: seconds that a checkpoint's own name does not take."""
    import timm

    from eca_zoo.models import list_architectures, list_zoo
    from eca_zoo.models.patterns import is_pattern, match_networks, read_names, shortened

    if pattern == 'zoo':
        return [name for network in list_zoo() for name in _expand(network.name, manifest)]
    if pattern.endswith('.txt'):
        return [name for line in read_names(Path(pattern)) for name in _expand(line, manifest)]
    own = {architecture.name for architecture in list_architectures()}
    if is_pattern(pattern):
        # What is every checkpoint here is meant so.
        others = match_networks(pattern) if pattern != '*' else []
        matches = [
            name for name in manifest.models
            if fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name.split('.', 1)[0], pattern)
        ]  # fmt: skip
        if matches:
            return matches
        if others:
            raise InputError(
                f"{pattern!r} stands for networks of timm's own alone ({shortened(others)}), whose weights timm "
                'fetches by itself'
            )
    if timm.is_model(pattern.partition('.')[0]) and pattern.partition('.')[0] not in own:
        raise InputError(f"{pattern!r} is timm's own, whose weights timm fetches by itself; eca-zoo list shows ours")
    known = [*manifest.models, *dict.fromkeys(name.split('.', 1)[0] for name in manifest.models)]
    nearest = difflib.get_close_matches(pattern, known, n=_NEAREST, cutoff=0.4)
    remedy = f'the nearest names are {", ".join(nearest)}' if nearest else 'eca-zoo list shows what there is'
    raise InputError(f'no checkpoint is called {pattern!r}; {remedy}')
