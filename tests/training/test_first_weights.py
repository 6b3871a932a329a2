"""First weights from a file: all of them where the classes are as many, all but the classifier's where not."""

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import eca_zoo
import eca_zoo.models
from eca_zoo.errors import InputError
from eca_zoo.training.network import build_network
from eca_zoo.training.recipes.recipe import Recipe
from tests.training.helpers import write_recipe, write_splits
from tests.training.test_bad_input import SMALL


def _source(name, num_classes, **options):
    torch.manual_seed(3)
    return timm.create_model(name, num_classes=num_classes, **options).state_dict()


@pytest.mark.parametrize(
    ('name', 'classes', 'heads'),
    [
        ('test_eca_resnet', 10, 'fc.'),
        ('eca_mobilenetv2', 10, 'classifier.'),
        ('test_vit', 10, 'head.'),
        ('test_eca_resnet', 7, 'fc.'),
        ('test_vit', 1, 'head.'),
    ],
)
def test_all_tensors_are_the_files_but_a_classifier_of_other_classes(tmp_path, name, classes, heads):
    state = _source(name, classes)
    save_file(state, tmp_path / 'first.safetensors')
    network = build_network(name, 10, Recipe(), tmp_path / 'first.safetensors')
    for key, tensor in network.state_dict().items():
        if classes == 10 or not key.startswith(heads):
            assert torch.equal(tensor, state[key]), key
        else:
            assert tensor.shape[0] == 10
    assert 'state_dict' not in network.pretrained_cfg
    again = build_network(name, 10, Recipe(), tmp_path / 'first.safetensors')
    assert all(torch.equal(*pair) for pair in zip(network.parameters(), again.parameters(), strict=True))


def test_what_a_file_may_lack_is_begun_and_channels_are_adapted(tmp_path):
    state = _source('test_eca_resnet', 10)
    lacking = {key: tensor for key, tensor in state.items() if 'num_batches' not in key and not key.startswith('fc.')}
    torch.save({'model_state_dict': lacking}, tmp_path / 'first.pth')
    network = build_network('test_eca_resnet', 10, Recipe(model_kwargs={'in_chans': 1}), tmp_path / 'first.pth')
    found = network.state_dict()
    assert torch.equal(found['conv1.0.weight'], state['conv1.0.weight'].sum(1, keepdim=True))
    assert torch.equal(found['layer1.0.conv1.weight'], state['layer1.0.conv1.weight'])
    assert found['fc.weight'].abs().sum() > 0


def test_position_embeddings_follow_the_image_size(tmp_path):
    save_file(_source('test_vit', 10), tmp_path / 'first.safetensors')
    recipe = Recipe(img_size=96, model_kwargs={'img_size': 96})
    network = build_network('test_vit', 10, recipe, tmp_path / 'first.safetensors')
    assert network.pos_embed.shape[1] == 36 + 1


def test_a_network_whose_name_stands_for_other_classes_is_validated_on_those_of_the_data(tmp_path):
    """test_resnet has 1,000 classes by its cfg; the digits have ten."""
    recipe, data = write_recipe(tmp_path, SMALL), write_splits(tmp_path / 'digits', 30)
    save_file(_source('test_resnet', 1000), tmp_path / 'first.safetensors')
    for first in (None, tmp_path / 'first.safetensors'):
        log = eca_zoo.train(
            recipe, 'test_resnet', data, tmp_path / f'out {first is None}', device='cpu', workers=0,
            initial_checkpoint=first,
        )  # fmt: skip
        assert log['num_images'].iloc[-1] == 10


def test_a_training_begins_at_the_weights_of_another_and_goes_on_with_no_others(tmp_path):
    """From end to end, with validation: without a rate the weights stay those of the file."""
    state = _source('test_eca_resnet', 10)
    first = tmp_path / 'first.safetensors'
    save_file(state, first)
    recipe, data, out = write_recipe(tmp_path, SMALL), write_splits(tmp_path / 'digits', 30), tmp_path / 'out'

    def train():
        eca_zoo.train(
            recipe, data_dir=data, run_dir=out, lr=1e-30, weight_decay=0, device='cpu', workers=0,
            initial_checkpoint=str(first),
        )  # fmt: skip

    train()
    trained = load_file(out / 'last.safetensors')
    assert torch.equal(trained['fc.weight'], state['fc.weight'])
    assert torch.equal(trained['conv1.0.weight'], state['conv1.0.weight'])
    save_file(state | {'fc.bias': state['fc.bias'] + 1}, first)
    with pytest.raises(InputError, match='it holds a run with first_weights_sha256 '):
        train()
