"""The network that a throughput is compared with: one for all, or each network's own plain counterpart."""

import dataclasses
from collections.abc import Mapping, Sequence

from eca_zoo.errors import InputError
from eca_zoo.harness.networks.model_names import expand_one
from eca_zoo.harness.networks.model_spec import ModelSpec, network_arguments
from eca_zoo.harness.networks.pretrained import check_classifier, pretrained_cfg
from eca_zoo.harness.networks.user_checkpoint import with_head_classes
from eca_zoo.models.registry import list_architectures

#: The name of a baseline that is each network's own counterpart without ECA layers.
PLAIN = 'plain'
#: The one network that all are compared with, or by title each one's own; None for no comparison.
Baseline = ModelSpec | Mapping[str, ModelSpec] | None

# Arguments that say something of ECA layers, or of weights that a plain network does not have.
_OF_ECA_ALONE = ('kernel_sizes', 'pretrained_cfg', 'pretrained_cfg_overlay')


def baseline_of(spec: ModelSpec, baseline: Baseline) -> ModelSpec | None:
    """What one network is compared with; None for nothing."""
    return baseline.get(spec.title) if isinstance(baseline, Mapping) else baseline


def with_baseline(specs: Sequence[ModelSpec], name: str) -> tuple[list[ModelSpec], Baseline]:
    """``specs`` and those networks that they are compared with and that are not among them; and which is whose.

    Args:
        specs: networks.
        name: title or timm name of one of them; an architecture, where one of them is of it; another network that timm
            knows; or ``plain``: each network's own counterpart, with the same arguments and image size.

    Raises:
        InputError: it stands for none or for several networks.
    """
    if name == PLAIN:
        return _with_plain(specs)
    for matches in (
        [spec for spec in specs if spec.title == name],
        [spec for spec in specs if spec.name == name],
        [spec for spec in specs if '.' not in name and architecture_of(spec) == name],
    ):
        if len(matches) > 1:
            titles = ', '.join(spec.title for spec in matches)
            raise InputError(f'{name!r} is {len(matches)} of the networks ({titles}); give one of them by this name')
        if matches:
            return list(specs), matches[0]
    other = ModelSpec(expand_one(name))
    return [*specs, other], other


def architecture_of(spec: ModelSpec) -> str:
    """timm's name of the architecture of a network; empty where nobody says it."""
    if spec.module is None and ':' not in spec.name:
        return spec.name.partition('.')[0]
    try:
        return str(pretrained_cfg(spec).get('architecture') or '')
    except InputError:
        return ''


def _with_plain(specs: Sequence[ModelSpec]) -> tuple[list[ModelSpec], Baseline]:
    plain = {record.name: record.plain for record in list_architectures() if record.plain is not None}
    known = [with_head_classes(spec) for spec in specs]
    baseline: dict[str, ModelSpec] = {}
    for spec in known[: len(specs)]:
        architecture = architecture_of(spec)
        if architecture in plain.values():
            baseline[spec.title] = next(given for given in specs if given.title == spec.title)
        if architecture in plain:
            wanted = _counterpart(spec, plain[architecture])
            match = next((other for other in known if _is_same_network(other, wanted)), None)
            if match is None:
                taken = any(other.title == wanted.title for other in known)
                match = dataclasses.replace(wanted, label=f'{wanted.name} beside {spec.title}' if taken else '')
                known.append(match)
                baseline[match.title] = match
            baseline[spec.title] = next((given for given in specs if given.title == match.title), match)
    if not baseline:
        raise InputError(
            f'none of the networks ({", ".join(spec.title for spec in specs)}) has a plain counterpart; name one '
            'network as the baseline'
        )
    return [*specs, *known[len(specs) :]], baseline


def _counterpart(spec: ModelSpec, name: str) -> ModelSpec:
    """The network ``name`` with the arguments of ``spec`` that it has too; with its weights, where they fit."""
    num_classes, in_chans = spec.num_classes, spec.in_chans
    if spec.module is not None:
        num_classes, in_chans = (getattr(spec.module, key, None) for key in ('num_classes', 'in_chans'))
    kwargs = {key: value for key, value in spec.model_kwargs.items() if key not in _OF_ECA_ALONE}
    plain = ModelSpec(name, num_classes=num_classes, in_chans=in_chans, model_kwargs=kwargs, img_size=spec.img_size)
    try:
        check_classifier(plain, pretrained_cfg(plain))
    except InputError:
        return dataclasses.replace(plain, pretrained=False)
    return plain


def _is_same_network(spec: ModelSpec, other: ModelSpec) -> bool:
    return (
        spec.module is None
        and architecture_of(spec) == architecture_of(other)
        and network_arguments(spec) == network_arguments(other)
        and spec.img_size == other.img_size
    )
