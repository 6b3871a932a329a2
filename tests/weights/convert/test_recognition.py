"""Recognising networks from their tensors, under the authors' key names or the networks' own."""

import dataclasses

import pytest
import timm
import torch

from eca_zoo.models import list_architectures
from eca_zoo.weights.convert.recognition import recognise, rename_to_fit
from eca_zoo.weights.errors import CheckpointError
from tests.reference_checkpoints import layouts, reference_state_dict


def state_of(name: str, **kwargs) -> dict[str, torch.Tensor]:
    return timm.create_model(name, device='meta', **kwargs).state_dict()


@pytest.mark.parametrize('name', list(layouts()))
def test_every_network_is_recognised_from_its_tensors(name: str) -> None:
    kernels = layouts()[name]['kernels']
    sizes = (1, 3) if isinstance(kernels, str) else tuple(kernels)
    state = {key: torch.empty(shape, device='meta') for key, shape, _ in layouts()[name]['tensors']}
    assert recognise(state)[:3] == (name, sizes, 1000)


@pytest.mark.parametrize('record', list_architectures(), ids=lambda record: record.name)
def test_any_classes_channels_kernel_sizes_and_dtype_are_recognised(record) -> None:
    sizes = tuple(range(5, 5 + 2 * len(record.kernel_sizes), 2))
    state = state_of(record.name, kernel_sizes=sizes, num_classes=7, in_chans=1, dtype=torch.float16)
    assert recognise(state)[:3] == (record.name, sizes, 7)


@pytest.mark.parametrize(
    ('name', 'nearest'),
    [
        ('resnet101', 'eca_resnet101: missing layer1.0.se.conv.weight; '),
        ('mobilenetv2_100', 'eca_mobilenetv2: missing blocks.0.0.bn2.act.conv.weight; '),
        (
            'resnext50_32x4d',
            'eca_resnet50: layer1.0.conv1.weight has shape [128, 64, 1, 1] instead of [64, 64, 1, 1]; ',
        ),
    ],
)
def test_nearest_network_is_named_with_the_first_differences(name: str, nearest: str) -> None:
    state = state_of(name)
    with pytest.raises(CheckpointError) as caught:
        recognise(state)
    assert str(caught.value).startswith(f'no network here has these {len(state)} tensors; the nearest is {nearest}')


def test_tensors_that_fit_two_networks_need_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    record = next(record for record in list_architectures() if record.name == 'eca_resnet18')
    records = [record, dataclasses.replace(record, name='eca_twin')]
    monkeypatch.setattr('eca_zoo.models.list_architectures', lambda: records)
    state = state_of('eca_resnet18')
    with pytest.raises(CheckpointError) as caught:
        recognise(state)
    assert str(caught.value) == 'its tensors fit eca_resnet18 and eca_twin alike; say with --model which one it holds'
    assert recognise(state, 'eca_twin').architecture == 'eca_twin'


def test_keys_are_renamed_only_where_that_makes_more_of_them_fit() -> None:
    original, network = reference_state_dict('eca_mobilenetv2'), state_of('eca_mobilenetv2')
    assert list(rename_to_fit(original, network)) == list(network)
    for state in (network, state_of('resnet18'), {'features.0.0.weight': torch.zeros(1)}):
        assert list(rename_to_fit(state, state)) == list(state)
