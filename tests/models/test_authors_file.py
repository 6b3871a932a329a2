"""The authors' own file through timm's doors: ``checkpoint_path``, a cfg with a file, and ``load_checkpoint``."""

import copy
import io
import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

import eca_zoo.models  # noqa: F401  (registers the networks)
from tests.reference_checkpoints import checkpoint, golden_input, layouts, reference_state_dict

GOLDEN = np.load(Path(__file__).parents[1] / 'data' / 'golden_logits.npz')
FAMILIES = pytest.mark.parametrize('name', ['eca_resnet18', 'eca_mobilenetv2'])


def by_checkpoint_path(name: str, path: Path) -> nn.Module:
    return timm.create_model(name, checkpoint_path=str(path))


def by_cfg(name: str, path: Path, **kwargs) -> nn.Module:
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={'file': str(path)}, **kwargs)


def by_load_checkpoint(name: str, path: Path) -> nn.Module:
    network = timm.create_model(name)
    timm.models.load_checkpoint(network, str(path))
    return network


DOORS = pytest.mark.parametrize('open_door', [by_checkpoint_path, by_cfg, by_load_checkpoint])


def authors_file(name: str, folder: Path, **options: bool) -> Path:
    path = folder / f'{layouts()[name]["file"]}.pth.tar'
    torch.save(checkpoint(name, **options), path)
    return path


@FAMILIES
@DOORS
@pytest.mark.parametrize('data_parallel', [False, True])
def test_logits_are_those_of_the_authors_code(name, open_door, data_parallel, tmp_path):
    network = open_door(name, authors_file(name, tmp_path, data_parallel=data_parallel)).eval()
    with torch.no_grad():
        logits = network(golden_input()).double().numpy()
    assert np.linalg.norm(logits - GOLDEN[name]) / np.linalg.norm(GOLDEN[name]) <= 1e-5


@FAMILIES
def test_class_count_channels_and_features_are_adapted_as_timm_does(name, tmp_path):
    path, state = authors_file(name, tmp_path), reference_state_dict(name)
    stem = next(iter(state.values()))
    adapted = by_cfg(name, path, num_classes=3, in_chans=1)
    assert adapted.get_classifier().out_features == 3
    torch.testing.assert_close(next(adapted.parameters()), stem.sum(1, keepdim=True))
    features = by_cfg(name, path, features_only=True)
    torch.testing.assert_close(next(features.parameters()), stem)


@DOORS
def test_file_that_would_run_code_is_refused_and_runs_nothing(open_door, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'executed'),)

    path = tmp_path / 'evil.pth.tar'
    torch.save({'state_dict': Evil()}, path)
    with pytest.raises(RuntimeError, match='weights_only=True blocked loading'):
        open_door('eca_resnet18', path)
    assert not (tmp_path / 'executed').exists()


def test_both_names_of_one_tensor_are_reported_and_neither_is_lost():
    network = timm.create_model('eca_resnet18')
    state = {**network.state_dict(), 'layer1.0.eca.conv.weight': torch.zeros(1, 1, 3)}
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "layer1.0.eca.conv.weight"'):
        network.load_state_dict(state)


@FAMILIES
def test_loading_leaves_the_given_state_dict_as_it_was(name):
    state = reference_state_dict(name)
    before = dict(state)
    timm.create_model(name).load_state_dict(state)
    assert list(state) == list(before)


def pickled(network: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@FAMILIES
@pytest.mark.parametrize('copied', [copy.deepcopy, pickled, nn.DataParallel])
def test_a_copied_pickled_or_wrapped_network_understands_the_authors_names_too(name, copied):
    network = timm.create_model(name)
    state, other = reference_state_dict(name), copied(network)
    wrapped = isinstance(other, nn.DataParallel)
    other.load_state_dict({f'module.{key}': value for key, value in state.items()} if wrapped else state)
    for loaded, expected in zip(other.state_dict().values(), state.values(), strict=True):
        assert torch.equal(loaded, expected)
