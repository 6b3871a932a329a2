"""The networks as they stand in the documentation, from their records and the packaged manifest."""

import timm
import torch

from eca_zoo.models.registry import Architecture, list_architectures
from eca_zoo.weights.checkpoint_names import expand_checkpoint_names
from eca_zoo.weights.manifest import Entry, packaged_manifest

_HEADER = (
    '| model | default tag | kernel sizes | parameters | plain counterpart | reported top-1 / top-5 | weights |\n'
    '|---|---|---|---|---|---|---|'
)


def networks_as_markdown() -> str:
    """The table of the networks in README.md; what this machine has fetched or converted does not count."""
    return '\n'.join([_HEADER, *(_row(architecture) for architecture in list_architectures())])


def _row(architecture: Architecture) -> str:
    manifest = packaged_manifest()
    has_entry = bool(manifest.tags(architecture.name))
    name = expand_checkpoint_names([architecture.name], manifest)[0] if has_entry else architecture.name
    entry = manifest.models.get(name)
    with torch.device('meta'):
        network = timm.create_model(name)
    cells = [
        f'`{architecture.name}`',
        f'`{name.partition(".")[2]}`' if entry else '-',
        ', '.join(map(str, architecture.kernel_sizes)),
        f'{sum(parameter.numel() for parameter in network.parameters()):,}',
        f'`{architecture.plain}`' if architecture.plain else '-',
        _reported(entry),
        _weights(entry),
    ]
    return f'| {" | ".join(cells)} |'


def _reported(entry: Entry | None) -> str:
    if entry is None or entry.reported is None or entry.reported.top1 is None:
        return '-'
    return f'{entry.reported.top1:.2f} / {entry.reported.top5:.2f}'


def _weights(entry: Entry | None) -> str:
    if entry is None:
        return 'none'
    if entry.checkpoint is None:
        return 'convert needed'
    return 'in the package' if any(source.package for source in entry.checkpoint.sources) else 'fetchable'
