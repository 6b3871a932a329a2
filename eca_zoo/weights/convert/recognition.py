"""Recognising a network or detector from the tensors of a checkpoint: they are compared with those of each one here."""

import functools
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from eca_zoo.weights.convert.key_maps import rename_keys
from eca_zoo.weights.errors import CheckpointError
from eca_zoo.weights.load import differences, shortened

if TYPE_CHECKING:
    from eca_zoo.detection.networks.registry import DetectorArchitecture
    from eca_zoo.models import Architecture

# Detectors' keys begin with it, in the layout of their authors' framework and in torchvision's.
_DETECTOR_PREFIX = 'backbone.'


class Recognised(NamedTuple):
    """What the tensors of a checkpoint belong to, and the tensors under the network's own key names."""

    architecture: str
    kernel_sizes: tuple[int, ...]
    num_classes: int
    state: dict[str, torch.Tensor]


class _Layout(NamedTuple):
    """Tensors on the meta device, and the position in ``kernel_sizes`` of the weight of each ECA layer."""

    state: dict[str, torch.Tensor]
    position: dict[str, int]


class _Comparison(NamedTuple):
    found: Recognised
    problems: list[str]


def recognise(state: Mapping[str, torch.Tensor], architecture: str | None = None) -> Recognised:
    """The network that the tensors of ``state`` belong to, whose keys are its own or the authors'.

    Kernel sizes, the number of classes and of input channels, and dtypes are taken as they are.

    Args:
        state: tensors of a checkpoint; those on the meta device will do.
        architecture: the registered network or detector that they must belong to, where that is known.

    Raises:
        CheckpointError: they belong to no registered network, to another one, or to several.
    """
    if architecture is not None:
        # Mostly it is that one, and the others need not be built.
        alone = _compare_all(state, architecture, others=False).get(architecture)
        if alone is not None and not alone.problems:
            return alone.found
    compared = _compare_all(state, architecture)
    fits = [name for name, comparison in compared.items() if not comparison.problems]
    if architecture in fits or (len(fits) == 1 and architecture is None):
        return compared[architecture or fits[0]].found
    if architecture is not None:
        if fits:
            raise CheckpointError(f'it holds {fits[0]}, not {architecture}; name that, or leave --model out')
        raise CheckpointError(f'it does not hold {architecture}: {shortened(compared[architecture].problems)}')
    if fits:
        raise CheckpointError(f'its tensors fit {" and ".join(fits)} alike; say with --model which one it holds')
    nearest = min(compared, key=lambda name: len(compared[name].problems))
    problems = shortened(compared[nearest].problems)
    raise CheckpointError(f'no network here has these {len(state)} tensors; the nearest is {nearest}: {problems}')


def _compare_all(
    state: Mapping[str, torch.Tensor], architecture: str | None, others: bool = True
) -> dict[str, _Comparison]:
    """Comparisons with ``architecture``, and with ``others`` with the kind of networks that the keys are of."""
    from eca_zoo.detection.networks.registry import list_detector_architectures
    from eca_zoo.models import list_architectures

    is_detector = is_of_detector(state)
    compared = {
        record.name: _compare(state, record)
        for record in list_architectures()
        if (others and not is_detector) or record.name == architecture
    }
    for detector in list_detector_architectures():
        if (others and is_detector) or detector.name == architecture:
            compared[detector.name] = _compare_detector(state, detector)
    return compared


def is_of_detector(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether ``state`` has the keys of a detector: in the layout of its authors' framework or in torchvision's."""
    return any(key.startswith(_DETECTOR_PREFIX) for key in state)


def rename_to_fit(state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``state`` under the key names of the network that expects ``expected``, where those of a family's authors fit it.

    They fit if they make more keys agree than there are; otherwise the keys stay as they are.
    """
    from eca_zoo.models import list_architectures

    families = dict.fromkeys(record.family for record in list_architectures())
    candidates = [dict(state), *(rename_keys(state, family.rename_key) for family in families)]
    return max(candidates, key=lambda candidate: len(candidate.keys() & expected.keys()))


def _compare(state: Mapping[str, torch.Tensor], architecture: 'Architecture') -> _Comparison:
    layout = _layout(architecture)
    renamed = rename_keys(state, architecture.family.rename_key)
    kernel_sizes = _kernel_sizes(renamed, layout, architecture.kernel_sizes)
    fields, expected = architecture.cfg_fields, {}
    num_classes = _size(renamed, f'{fields["classifier"]}.weight', 0) or 0
    for key, wanted in layout.state.items():
        shape = list(wanted.shape)
        if key in layout.position:
            shape[2] = kernel_sizes[layout.position[key]]
        elif key.startswith(f'{fields["classifier"]}.'):
            shape[0] = num_classes or shape[0]
        elif key == f'{fields["first_conv"]}.weight':
            shape[1] = _size(renamed, key, 1) or shape[1]
        dtype = renamed[key].dtype if key in renamed else wanted.dtype
        expected[key] = torch.empty(shape, dtype=dtype, device='meta')
    found = Recognised(architecture.name, kernel_sizes, num_classes, renamed)
    return _Comparison(found, differences(renamed, expected))


def _compare_detector(state: Mapping[str, torch.Tensor], architecture: 'DetectorArchitecture') -> _Comparison:
    from eca_zoo.detection.networks.registry import class_rows, count_classes

    layout = _detector_layout(architecture)
    renamed = rename_keys(state, architecture.rename_key)
    kernel_sizes = _kernel_sizes(renamed, layout, architecture.kernel_sizes or ())
    num_classes, expected = count_classes(renamed) or 1, {}
    for key, wanted in layout.state.items():
        shape = list(wanted.shape)
        if key in layout.position:
            shape[2] = kernel_sizes[layout.position[key]]
        if shape:
            shape[0] = class_rows(key, shape[0], num_classes)
        dtype = renamed[key].dtype if key in renamed else wanted.dtype
        expected[key] = torch.empty(shape, dtype=dtype, device='meta')
    found = Recognised(architecture.name, kernel_sizes, num_classes, renamed)
    return _Comparison(found, differences(renamed, expected))


def _size(state: Mapping[str, torch.Tensor], key: str, dimension: int) -> int | None:
    """Size of a tensor in one dimension; None where there is no such tensor or dimension."""
    tensor = state.get(key)
    return tensor.shape[dimension] if tensor is not None and tensor.ndim > dimension else None


def _kernel_sizes(state: Mapping[str, torch.Tensor], layout: _Layout, default: tuple[int, ...]) -> tuple[int, ...]:
    """The kernel size that most of the ECA layers of each position have; the default one where none has any."""
    counters: list[Counter[int]] = [Counter() for _ in default]
    for key, position in layout.position.items():
        size = _size(state, key, 2)
        if size is not None and size % 2:
            counters[position][size] += 1
    return tuple(
        counter.most_common(1)[0][0] if counter else size for counter, size in zip(counters, default, strict=True)
    )


@functools.cache
def _layout(architecture: 'Architecture') -> _Layout:
    return _layout_of(architecture.build(kernel_sizes=_markers(architecture.kernel_sizes), device='meta'))


@functools.cache
def _detector_layout(architecture: 'DetectorArchitecture') -> _Layout:
    with torch.device('meta'):
        return _layout_of(architecture.build({1: 'any'}, _markers(architecture.kernel_sizes or ())))


def _markers(kernel_sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes that tell where each is used: 1, 3, 5, ...."""
    return tuple(2 * position + 1 for position in range(len(kernel_sizes)))


def _layout_of(network: Any) -> _Layout:
    from eca_zoo.models import EcaLayer

    position = {
        f'{name}.conv.weight': module.conv.kernel_size[0] // 2
        for name, module in network.named_modules()
        if isinstance(module, EcaLayer)
    }
    return _Layout(network.state_dict(), position)
