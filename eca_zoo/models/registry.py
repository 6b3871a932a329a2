"""One record a network: how it is built, and what timm's registry, recognition and the tables derive from it.

A new network is one ``Architecture`` for ``register_architecture``; a new kind of network is a ``Family`` besides.
"""

import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import timm
from timm.models import register_model
from torch import nn

from eca_zoo.models.pretrained_cfgs import AUTHORS_TRANSFORM, default_cfg_of
from eca_zoo.weights.manifest import Manifest, Transform, usable_manifest


@dataclass(frozen=True, eq=False)
class Family:
    """What networks of one kind share.

    Attributes:
        module: name of the module with ``default_cfgs``, under which timm lists the networks.
        build: makes a network from its record, timm's ``pretrained`` and keyword arguments.
        rename_key: a key of the authors' state dicts in the terms of the network; any other stays as it is.
        first_conv: of the network.
        classifier: of the network.
    """

    module: str
    build: Callable[..., nn.Module]
    rename_key: Callable[[str], str]
    first_conv: str
    classifier: str


@dataclass(frozen=True, eq=False)
class Architecture:
    """One network.

    Its checkpoints are recognised by the keys and shapes of the network itself.

    Attributes:
        name: in timm's registry.
        description: a line without its full stop; kernel sizes are added to it.
        family: how it is built.
        arguments: what makes it this member of its family, such as block and layers; a caller may replace each.
        kernel_sizes: of its ECA layers, where neither the caller nor a checkpoint names any.
        plain: timm's network that lacks nothing but the ECA layers; None where there is none.
        is_in_zoo: whether it is one of the networks that the authors published.
        first_conv: where it is not the family's.
        transform: for evaluation, where no manifest lists a checkpoint.
    """

    name: str
    description: str
    family: Family
    arguments: Mapping[str, Any]
    kernel_sizes: tuple[int, ...]
    plain: str | None
    is_in_zoo: bool = False
    first_conv: str | None = None
    transform: Transform = AUTHORS_TRANSFORM

    @property
    def cfg_fields(self) -> dict[str, Any]:
        """The fields of timm's cfg that belong to the network and not to a checkpoint."""
        return {'first_conv': self.first_conv or self.family.first_conv, 'classifier': self.family.classifier}

    def build(self, pretrained: bool = False, **kwargs: Any) -> nn.Module:
        """The network, as timm's factory makes it with these keyword arguments."""
        return self.family.build(self, pretrained, **kwargs)


_ARCHITECTURES: dict[str, Architecture] = {}


def list_architectures() -> list[Architecture]:
    """The registered networks, in the order of their registration."""
    return list(_ARCHITECTURES.values())


def list_zoo() -> list[Architecture]:
    """The networks that the authors published."""
    return [architecture for architecture in list_architectures() if architecture.is_in_zoo]


def register_architecture(architecture: Architecture, manifest: Manifest | None = None) -> None:
    """Make a network known to timm's factory, to ``convert`` and to every command.

    Args:
        architecture: its record.
        manifest: of the checkpoints; by default what ``usable_manifest`` gives.

    Raises:
        ValueError: timm knows its name already, or no checkpoint can be named after it.
    """
    if not re.fullmatch(r'[a-z0-9_]+', architecture.name):
        raise ValueError(f'a network is named with a-z, 0-9 and _ alone, not {architecture.name!r}')
    if timm.is_model(architecture.name):
        raise ValueError(f'timm knows a network {architecture.name} already; choose another name')
    _ARCHITECTURES[architecture.name] = architecture
    _register_with_timm(architecture, manifest or usable_manifest())


def _register_with_timm(architecture: Architecture, manifest: Manifest) -> None:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return architecture.build(pretrained, **kwargs)

    create.__name__ = create.__qualname__ = architecture.name
    create.__module__ = architecture.family.module
    create.__doc__ = f'{architecture.description}; kernel sizes {", ".join(map(str, architecture.kernel_sizes))}.'
    module: Any = sys.modules[architecture.family.module]
    setattr(module, architecture.name, create)
    module.default_cfgs[architecture.name] = default_cfg_of(architecture, manifest)
    register_model(create)


def refresh_pretrained_cfgs() -> None:
    """Let timm's registry follow the manifests, as after a conversion: tags, defaults and what counts as pretrained."""
    manifest = usable_manifest()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # timm's, about a name that is registered again
        for architecture in list_architectures():
            _register_with_timm(architecture, manifest)
