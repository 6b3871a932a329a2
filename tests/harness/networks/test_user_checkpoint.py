"""A user's checkpoint: every container, hashed, and refused when it is another network's or would run code."""

import argparse
import hashlib
import os
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from eca_zoo.errors import InputError
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.networks.user_checkpoint import (
    checkpoint_files,
    distinct_names,
    head_classes,
    load_checkpoint,
    with_head_classes,
)
from tests.reference_checkpoints import checkpoint as authors_checkpoint
from tests.reference_checkpoints import layouts


@pytest.fixture
def model():
    return timm.create_model('test_resnet', num_classes=10)


def weights(seed: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return timm.create_model('test_resnet', num_classes=10).state_dict()


def write(path, kind: str, state: dict[str, torch.Tensor]) -> None:
    wrapped = {f'module.{key}': value for key, value in state.items()}
    if kind == 'safetensors':
        save_file(state, path)
    elif kind == 'before 1.6':
        torch.save(state, path, _use_new_zipfile_serialization=False)
    elif kind in ('model_state_dict', 'net'):
        torch.save({kind: state, 'optimizer_state_dict': {'lr': 0.1}, 'epoch': 3}, path)
    elif kind == 'lightning':
        inner = {f'model.{key}': value for key, value in state.items()}
        losses = {'criterion.weight': torch.ones(10), 'ema.fc.weight': torch.ones(10, 96)}
        torch.save({'pytorch-lightning_version': '2.4.0', 'epoch': 3, 'state_dict': {**inner, **losses}}, path)
    elif kind == 'wrapped twice':
        torch.save({f'model._orig_mod.module.{key}': value for key, value in state.items()}, path)
    elif kind == 'training':
        extras = {'epoch': 3, 'arch': 'test_resnet', 'args': argparse.Namespace(lr=0.1), 'metric': 77.0}
        torch.save({'state_dict': wrapped, 'state_dict_ema': weights(2), **extras}, path)
    else:
        torch.save(wrapped if kind == 'wrapped' else state, path)


def is_loaded(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


KINDS = [
    'safetensors', 'bare', 'wrapped', 'wrapped twice', 'before 1.6', 'training', 'model_state_dict', 'net', 'lightning',
]  # fmt: skip


@pytest.mark.parametrize('kind', KINDS)
def test_every_container_is_loaded_and_hashed(tmp_path, model, kind):
    path = tmp_path / ('weights.safetensors' if kind == 'safetensors' else 'weights.pth.tar')
    write(path, kind, weights())
    assert load_checkpoint(model, path, 'm') == hashlib.sha256(path.read_bytes()).hexdigest()
    assert is_loaded(model, weights())


def test_averaged_weights_are_loaded_on_request(tmp_path, model):
    path = tmp_path / 'weights.pth.tar'
    write(path, 'training', weights())
    load_checkpoint(model, path, 'm', use_ema=True)
    assert is_loaded(model, weights(2))


def test_averaged_weights_that_are_not_there_are_refused(tmp_path, model):
    path = tmp_path / 'weights.pth'
    write(path, 'bare', weights())
    with pytest.raises(InputError, match='it holds no averaged weights'):
        load_checkpoint(model, path, 'm', use_ema=True)


def test_old_checkpoints_without_batch_counters_are_loaded(tmp_path, model):
    path = tmp_path / 'weights.safetensors'
    save_file({key: value for key, value in weights().items() if not key.endswith('num_batches_tracked')}, path)
    load_checkpoint(model, path, 'm')
    assert torch.equal(model.fc.weight, weights()['fc.weight'])


def test_a_checkpoint_with_other_classes_says_how_many(tmp_path):
    path = tmp_path / 'weights.safetensors'
    save_file(weights(), path)
    thousand = timm.create_model('test_resnet')
    before = {key: value.clone() for key, value in thousand.state_dict().items()}
    with pytest.raises(InputError) as error:
        load_checkpoint(thousand, path, 'test_resnet')
    assert str(error.value) == (
        f'{path}: these are not the weights of test_resnet: fc.weight has shape [10, 96] instead of [1000, 96]; '
        'fc.bias has shape [10] instead of [1000]; name the model that they were trained for, or its number of classes '
        'with --num-classes 10'
    )
    assert is_loaded(thousand, before)


def test_a_checkpoint_of_another_network_is_refused_with_the_first_differences(tmp_path):
    path = tmp_path / 'weights.safetensors'
    save_file(weights(), path)
    other = timm.create_model('test_vit', num_classes=10)
    with pytest.raises(InputError) as error:
        load_checkpoint(other, path, 'test_vit')
    text = str(error.value)
    assert text.startswith(
        f'{path}: these are not the weights of test_vit: missing cls_token; missing pos_embed; missing '
        'patch_embed.proj.weight; and '
    )
    assert text.endswith(' more; name the model that they were trained for')
    assert '\n' not in text


@pytest.mark.parametrize('content', [b'', b'<html></html>', b'PK\x03\x04broken', b'\x80\x02garbage'])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, model, content):
    path = tmp_path / 'weights.pth'
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        load_checkpoint(model, path, 'm')
    assert str(error.value).startswith(f'{path}: ')
    assert '\n' not in str(error.value)


def test_a_truncated_file_is_refused(tmp_path, model):
    path = tmp_path / 'weights.safetensors'
    save_file(weights(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r'weights\.safetensors: '):
        load_checkpoint(model, path, 'm')


def test_a_pickle_that_would_run_code_is_not_executed(tmp_path, model):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'executed'),)

    path = tmp_path / 'weights.pth'
    torch.save({'state_dict': Evil()}, path)
    with pytest.raises(InputError, match='refused, and nothing was executed'):
        load_checkpoint(model, path, 'm')
    assert not (tmp_path / 'executed').exists()


def test_the_authors_key_names_are_understood(tmp_path):
    import eca_zoo.models  # noqa: F401

    path = tmp_path / 'eca_resnet18_k3577.pth.tar'
    torch.save(authors_checkpoint('eca_resnet18'), path)
    model = timm.create_model('eca_resnet18', kernel_sizes=(3, 5, 7, 7))
    load_checkpoint(model, path, 'eca_resnet18')
    assert 'eca_resnet18' in layouts()


def test_a_folder_stands_for_its_checkpoints_in_natural_order(tmp_path):
    for name in ('checkpoint-10.pth.tar', 'checkpoint-9.pth.tar', 'last.safetensors', 'log.csv'):
        (tmp_path / name).write_bytes(b'x')
    names = [file.name for file in checkpoint_files(tmp_path)]
    assert names == ['checkpoint-9.pth.tar', 'checkpoint-10.pth.tar', 'last.safetensors']
    assert checkpoint_files(tmp_path / 'log.csv') == [tmp_path / 'log.csv']


def test_a_folder_without_checkpoints_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r'there are no checkpoints \(.safetensors, .pth.tar, .pth, .pt, .bin, .ckpt\) in'
    ):
        checkpoint_files(tmp_path)


def test_several_files_are_told_apart_by_their_folders_where_their_names_agree():
    files = [Path('runs/a/best.pth'), Path('runs/b/best.pth'), Path('runs/b/last.pth')]
    assert distinct_names(files) == ['a/best.pth', 'b/best.pth', 'last.pth']
    with pytest.raises(InputError, match=r'^runs/b/best.pth: this checkpoint is given twice; name it once$'):
        distinct_names([Path('runs/b/best.pth'), Path('runs/a/../b/best.pth')])


def test_the_classes_of_a_checkpoint_are_those_of_its_head(tmp_path):
    for kind in ('safetensors', 'training', 'lightning'):
        path = tmp_path / (f'{kind}.safetensors' if kind == 'safetensors' else f'{kind}.pth')
        write(path, kind, weights())
        assert with_head_classes(ModelSpec('test_resnet', checkpoint=path)).num_classes == 10
        assert with_head_classes(ModelSpec('test_resnet', checkpoint=path, num_classes=5)).num_classes == 5
    assert with_head_classes(ModelSpec('test_resnet', checkpoint=tmp_path / 'no.pth')).num_classes is None
    assert head_classes({'features.weight': torch.ones(3, 3)}, {'classifier': ('head', 'head_dist')}) is None
    assert head_classes({'head_dist.weight': torch.ones(7, 3)}, {'classifier': ('head', 'head_dist')}) == 7
