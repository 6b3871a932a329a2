"""The authors' recipes: what their own loops make of weights and batches, in float64; learning rates; first weights."""

import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from eca_zoo.models import list_architectures
from eca_zoo.training.network import build_network
from eca_zoo.training.optimisation import LearningRate, make_optimizer
from eca_zoo.training.recipes.reading import read_recipe
from eca_zoo.training.step import Stepper
from eca_zoo.training.tasks.task import Task
from tests.training.reference_training import SETTINGS, batches, start

GOLDEN = np.load(Path(__file__).parents[1] / 'data' / 'golden_training.npz')
RECIPES = {'eca_resnet18': 'eca_resnet', 'eca_mobilenetv2': 'eca_mobilenetv2'}


class Tensors(Task):
    """Batches that are tensors already, with the mean cross-entropy."""

    title, metric = 'tensors', 'top1'

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __len__(self) -> int:
        return 0

    def reader(self):
        return lambda epoch, positions: None

    def loss(self, network, part, epoch):
        images, labels = part
        return nn.functional.cross_entropy(network(images), labels)

    def validate(self, network, stop):
        return {}

    def names(self, positions):
        return []

    def fingerprints(self):
        return {}


def relative(actual: float, expected: float) -> float:
    return abs(actual - expected) / max(abs(expected), 1e-300)


@pytest.mark.parametrize('name', SETTINGS)
def test_the_recipe_gives_the_losses_and_tensors_of_the_authors_loop(name):
    settings = SETTINGS[name]
    overrides = {'lr': settings['lr'], 'drop': 0.0}
    recipe = read_recipe(RECIPES[name], overrides).recipe
    assert recipe.weight_decay == settings['weight_decay']
    [architecture] = [known for known in list_architectures() if known.name == name]
    network = build_network(name, 1000, recipe).double()
    begin = start(name)
    renamed = {architecture.family.rename_key(key): key for key in begin}
    network.load_state_dict({key: begin[original] for key, original in renamed.items()})
    task = Tensors(network)
    optimizer = make_optimizer(network, recipe)
    rate = LearningRate(optimizer, recipe, settings['batches'])
    stepper = Stepper(task, optimizer, recipe, torch.device('cpu'))
    network.train()
    losses, rates = [], []
    for epoch in settings['epochs']:
        for number, part in enumerate(batches(name)):
            step = epoch * settings['batches'] + number
            rates.append(rate.set(step))
            losses.append(float(stepper.step(step, epoch, [part], [1.0])))
    assert list(dict.fromkeys(rates)) == list(GOLDEN[f'{name}.lrs'])
    worst_loss = max(map(relative, losses, GOLDEN[f'{name}.losses']))
    state = network.state_dict()
    original = {key: new for new, key in renamed.items()}
    worst = 0.0
    for key, expected in zip(GOLDEN[f'{name}.keys'], GOLDEN[f'{name}.summary'], strict=True):
        tensor = state[original[str(key)]].double().flatten()
        # A sum may be nearly 0; what it is worth is told by the norm of its tensor.
        scale = max(abs(expected[1]), 1e-300)
        actual = float(tensor.sum()), float(tensor.norm()), float(tensor[0])
        worst = max(worst, *(abs(a - e) / scale for a, e in zip(actual, expected, strict=True)))
    print(f'{name}: losses within {worst_loss:.1e}, tensors within {worst:.1e} of their norm')
    assert worst_loss < 1e-9
    assert worst < 1e-9


@pytest.mark.parametrize(
    ('recipe', 'formula'),
    [
        ('eca_resnet', lambda epoch: 0.1 * (0.1 ** (epoch // 30))),
        ('eca_mobilenetv2', lambda epoch: 0.045 * (0.98**epoch)),
    ],
)
def test_the_learning_rates_of_all_epochs_equal_the_formula_to_the_bit(recipe, formula):
    chosen = read_recipe(recipe).recipe
    parameter = nn.Linear(1, 1)
    rate = LearningRate(make_optimizer(parameter, chosen), chosen, 7)
    assert rate.epochs == {'eca_resnet': 100, 'eca_mobilenetv2': 400}[recipe]
    # In any order: a rate is a function of the step.
    for epoch in [*range(rate.epochs), 3, 99]:
        assert rate.set(7 * epoch + 6) == formula(epoch)


def test_resnets_begin_with_the_weights_that_the_authors_constructor_draws():
    recipe = read_recipe('eca_resnet').recipe
    network = build_network('eca_resnet18', 1000, recipe)
    # Their constructor: torch's own first weights in the order of the layers, then those of convolutions anew.
    torch.manual_seed(recipe.seed)
    drawn = timm.create_model('eca_resnet18', num_classes=1000, zero_init_last=False)
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, drawn.state_dict()[key]), key
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(bool((norm.weight == 1).all()) for norm in norms)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            assert abs(float(module.weight.detach().std()) / expected - 1) < 0.05


def test_mobilenetv2_begins_with_the_authors_distributions():
    network = build_network('eca_mobilenetv2', 1000, read_recipe('eca_mobilenetv2').recipe)
    drawn = {'depthwise': [], 'pointwise': []}
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            kind = 'depthwise' if module.groups > 1 else 'pointwise'
            drawn[kind].append((module.weight.detach() / expected).flatten())
    for values in drawn.values():
        joined = torch.cat(values)
        assert abs(float(joined.mean())) < 0.01
        assert abs(float(joined.std()) - 1) < 0.01
    assert abs(float(network.classifier.weight.detach().std()) - 0.01) < 1e-4
    assert not network.classifier.bias.any()


def test_a_network_of_another_family_has_no_weights_of_the_authors():
    with pytest.raises(Exception, match='first weights are known for ResNets and MobileNetV2, not for vit_tiny'):
        build_network('vit_tiny_patch16_224', 10, read_recipe('eca_resnet').recipe)
