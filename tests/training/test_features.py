"""What a recipe can ask for, each beside what it must equal."""

import copy
import dataclasses

import pytest
import torch
from PIL import Image
from timm.data.auto_augment import RandAugment
from timm.utils import ModelEmaV3
from torch import nn

from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.datasets import open_data
from eca_zoo.training.data.order import Schedule, epoch_order
from eca_zoo.training.data.pixels import TrainingTransform
from eca_zoo.training.network import build_network, set_training_mode
from eca_zoo.training.optimisation import LearningRate, make_optimizer
from eca_zoo.training.recipes.recipe import Recipe
from eca_zoo.training.step import Stepper
from eca_zoo.training.tasks.classification import ClassificationLoss, ClassificationTask
from tests.harness.processes import run_program
from tests.training.helpers import write_recipe, write_splits

MODEL = 'test_eca_resnet'
PLAIN = Recipe(epochs=2, batch_size=16, lr=0.05, sched='constant', img_size=32)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return open_data(DataSpec(root=write_splits(tmp_path_factory.mktemp('digits')), split='train'))


class Steps:
    """A few steps of a recipe on the digits, by the parts of the loop."""

    def __init__(self, data, recipe: Recipe, dtype: torch.dtype = torch.float32) -> None:
        self.network = build_network(MODEL, 10, recipe).to(dtype)
        if recipe.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)
        self.task = ClassificationTask(MODEL, self.network, data, recipe)
        self.optimizer = make_optimizer(self.network, recipe)
        self.stepper = Stepper(self.task, self.optimizer, recipe, torch.device('cpu'))
        self._schedule = Schedule(len(self.task), recipe.batch_size, recipe.seed, parts=recipe.grad_accum_steps)
        self._rate = LearningRate(self.optimizer, recipe, self._schedule.steps_per_epoch)
        set_training_mode(self.network, recipe)

    def run(self, count: int) -> list[float]:
        """The losses of ``count`` steps."""
        losses = []
        for step in range(count):
            self._rate.set(step)
            positions = self._schedule.positions(step, epoch_order(42, step // self._schedule.steps_per_epoch, 40))
            share = self._schedule.share(positions, 0)
            parts = [self.task.reader()(0, part) for part in share.parts]
            losses.append(float(self.stepper.step(step, 0, parts, share.weights)))
        return losses


def distance(first: nn.Module, second: nn.Module) -> float:
    """The distance of all weights and statistics, relative to their norm."""
    one, two = (torch.cat([t.double().flatten() for t in module.state_dict().values()]) for module in (first, second))
    return float((one - two).norm() / two.norm())


def test_accumulated_parts_equal_the_whole_batch_where_norms_are_frozen(data):
    whole = Steps(data, dataclasses.replace(PLAIN, freeze_norms=True), torch.float64)
    parts = Steps(data, dataclasses.replace(PLAIN, freeze_norms=True, grad_accum_steps=3), torch.float64)
    # The last of the three steps has half as many images.
    assert parts.run(3) == pytest.approx(whole.run(3), rel=1e-12)
    assert distance(parts.network, whole.network) < 1e-12


def test_channels_last_gives_the_step_of_the_other_memory_format(data):
    first = Steps(data, dataclasses.replace(PLAIN, channels_last=False))
    second = Steps(data, dataclasses.replace(PLAIN, channels_last=True))
    assert second.run(1) == pytest.approx(first.run(1), rel=1e-6)
    assert distance(second.network, first.network) < 1e-6


def test_float32_follows_float64_step_by_step_from_common_weights(data):
    exact = Steps(data, PLAIN, torch.float64)
    losses = []
    for step in range(3):
        single = Steps(data, PLAIN)
        single.network.load_state_dict(exact.network.state_dict())
        positions = exact._schedule.positions(step, epoch_order(42, 0, 40))
        part = exact.task.reader()(0, tuple(positions))
        losses.append((float(single.stepper.step(step, 0, [part], [1.0])),
                       float(exact.stepper.step(step, 0, [part], [1.0]))))  # fmt: skip
    for found, expected in losses:
        assert found == pytest.approx(expected, rel=1e-6)


def test_the_average_is_timms_and_follows_the_weights(data):
    steps = Steps(data, dataclasses.replace(PLAIN, model_ema=True, model_ema_decay=0.9))
    expected = ModelEmaV3(copy.deepcopy(steps.network), decay=0.9)
    for step in range(3):
        part = steps.task.reader()(0, tuple(range(16)))
        steps.stepper.step(step, 0, [part], [1.0])
        expected.update(steps.network, step=step + 1)
    assert distance(steps.stepper.ema.module, expected.module) == 0
    assert distance(steps.network, expected.module) > 0


@pytest.mark.parametrize(
    'asked',
    [
        {'amp': True, 'amp_dtype': 'bfloat16'},
        {'amp': True, 'amp_dtype': 'float16'},
        {'clip_grad': 1.0},
        {'clip_grad': 0.01, 'clip_mode': 'agc'},
        {'clip_grad': 0.1, 'clip_mode': 'value'},
        {'opt': 'lamb', 'weight_decay': 0.02, 'bce_loss': True, 'bce_target_thresh': 0.2, 'mixup': 0.1, 'cutmix': 1.0},
        {'opt': 'adamw', 'layer_decay': 0.7, 'smoothing': 0.1, 'drop_path': 0.2},
        {'opt': 'lookahead_rmsproptf', 'reprob': 1.0, 'aa': 'augmix-m3', 'grayscale_prob': 0.5},
        {'grad_checkpointing': True, 'bce_loss': True, 'smoothing': 0.1, 'preprocess': 'fast'},
        {'opt': 'adamw', 'opt_betas': (0.8, 0.95), 'opt_eps': 1e-6, 'weight_decay': 0.1, 'filter_bias_and_bn': False},
        {'bce_loss': True, 'bce_sum': True, 'bce_pos_weight': 2.0, 'model_ema': True, 'model_ema_warmup': True},
        {'drop_block': 0.1, 'head_init_scale': 0.1, 'no_aug': True},
        {'reprob': 1.0, 'remode': 'rand', 'recount': 2, 'vflip': 0.5, 'gaussian_blur_prob': 0.5},
        {
            'color_jitter': 0.4,
            'color_jitter_prob': 0.5,
            'mixup': 0.2,
            'mixup_prob': 0.5,
            'cutmix': 1.0,
            'mixup_switch_prob': 0.2,
        },
        {'lr': None, 'lr_base': 0.2, 'lr_base_size': 64, 'lr_base_scale': 'sqrt', 'opt': 'sgd'},
        {'cutmix_minmax': (0.2, 0.8), 'mixup_mode': 'elem', 'train_crop_mode': 'rkrc', 'train_interpolation': 'random'},
    ],
    ids=lambda asked: ' '.join(asked),
)
def test_a_recipe_may_ask_for_it(data, asked):
    first, second = (Steps(data, dataclasses.replace(PLAIN, **asked)) for _ in range(2))
    losses = first.run(3)
    assert all(0 < loss < 10 for loss in losses)
    # Whatever is random follows from the seed.
    assert second.run(3) == losses
    assert distance(first.network, second.network) == 0


def test_an_augmentation_at_the_end_of_its_scale_makes_a_black_image(data):
    # The most used policy gets there for one image in 44 that it posterizes.
    recipe = dataclasses.replace(PLAIN, aa='rand-m10-inc1', hflip=0.0)
    transform = TrainingTransform((3, 32, 32), (0.5, 0.5, 0.5), 'RGB', recipe)
    image = Image.new('RGB', (32, 32), 'white')
    [policy] = [step for step in transform.build()._steps if isinstance(step, RandAugment)]
    [operation] = [one for one in policy.ops if one.name == 'PosterizeIncreasing']
    assert {operation(image).getextrema() for _ in range(20)} == {((255, 255),) * 3, ((0, 0),) * 3}


def test_gradients_are_clipped_to_their_norm(data):
    steps = Steps(data, dataclasses.replace(PLAIN, clip_grad=0.5, momentum=0.0, lr=1.0))
    before = [parameter.detach().clone() for parameter in steps.network.parameters()]
    steps.run(1)
    moved = torch.cat([(a - b).flatten() for a, b in zip(steps.network.parameters(), before, strict=True)])
    assert float(moved.detach().norm()) == pytest.approx(0.5, rel=1e-5)


def test_norms_have_the_recipes_arguments():
    norms = build_network('eca_mobilenetv2', 10, Recipe(bn_eps=0.5, bn_momentum=0.25)).modules()
    assert {(norm.eps, norm.momentum) for norm in norms if isinstance(norm, nn.BatchNorm2d)} == {(0.5, 0.25)}


def test_frozen_modules_keep_weights_and_statistics(data):
    steps = Steps(data, dataclasses.replace(PLAIN, freeze=('conv1', 'bn1', 'layer1')))
    before = copy.deepcopy(steps.network.state_dict())
    steps.run(2)
    changed = {key for key, tensor in steps.network.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed
    assert not [key for key in changed if key.startswith(('conv1', 'bn1', 'layer1'))]


def test_layer_decay_lowers_the_rate_of_lower_layers(data):
    steps = Steps(data, dataclasses.replace(PLAIN, layer_decay=0.5, lr=0.1))
    steps.run(1)
    rates = {id(parameter): group['lr'] for group in steps.optimizer.param_groups for parameter in group['params']}
    assert rates[id(steps.network.fc.weight)] == 0.1
    assert rates[id(steps.network.conv1[0].weight)] < rates[id(steps.network.layer4[0].conv1.weight)] < 0.1


def test_the_last_image_of_an_odd_number_is_mixed_with_none():
    loss = ClassificationLoss(Recipe(mixup=0.5, smoothing=0.1), 4)
    images, labels = torch.rand(5, 3, 8, 8), torch.arange(5) % 4
    mixed, targets = loss.mix(images.clone(), labels, 0)
    assert torch.equal(mixed[4], images[4])
    assert not torch.equal(mixed[0], images[0])
    assert torch.allclose(targets.sum(1), torch.ones(5))
    assert torch.allclose(targets[4], torch.tensor([0.925, 0.025, 0.025, 0.025]))
    off = ClassificationLoss(Recipe(mixup=0.5, mixup_off_epoch=1), 4)
    assert torch.equal(off.mix(images.clone(), labels, 1)[0], images)


# Trains with batch-norm statistics over all processes, in float64, and keeps the weights.
SHARED = """
from eca_zoo.harness.data.datasets import open_data
from eca_zoo.training.tasks.classification import ClassificationTask
from eca_zoo.training.loop import Loop, LoopSettings
from eca_zoo.training.data.pixels import TrainingTransform
from eca_zoo.training.network import build_network
from eca_zoo.training.norms import with_shared_norms
from eca_zoo.training.recipes.reading import read_recipe

def train(recipe, out):
    recipe = read_recipe(recipe).recipe
    data = open_data(DataSpec(root=Path({data!r}), split='train'))
    with process_group() as processes:
        network = build_network('test_eca_resnet', 10, recipe).double()
        if processes.world_size > 1:
            network = with_shared_norms(network)
        task = ClassificationTask('digits', network, data, recipe)
        loop = Loop(task, recipe, LoopSettings(workers=0, log_interval=1), torch.device('cpu'), processes)
        loop.train()
        if processes.is_main:
            rows = [row['loss'] for row in loop.log.rows]
            torch.save((network.state_dict(), rows), f'{{out}}-{{processes.world_size}}.pt')

for path in {recipes!r}:
    print(*(launch(count, lambda rank: train(path, path)) for count in (1, 2)))
"""
SHARED_RECIPE = """\
version: 1
epochs: 1
batch_size: 13
img_size: 32
lr: 0.05
sched: constant
grad_accum_steps: {parts}
freeze_norms: {frozen}
"""


def test_two_processes_train_as_one_where_norms_see_the_whole_batch(tmp_path):
    # Batches of 13, 13, 13 and, with frozen norms, 1: shares differ, and in the last step one process has no image.
    recipes = []
    for name, text in (
        ('shared', SHARED_RECIPE.format(parts=1, frozen='false') + 'drop_last: true\n'),
        ('frozen', SHARED_RECIPE.format(parts=2, frozen='true')),
    ):
        (tmp_path / name).mkdir()
        recipes.append(str(write_recipe(tmp_path / name, text)))
    program = SHARED.format(recipes=recipes, data=str(write_splits(tmp_path / 'digits')))
    assert run_program(tmp_path / 'program.py', program).stdout == '[0] [0, 0]\n' * 2
    for recipe in recipes:
        (one, losses), (two, others) = (torch.load(f'{recipe}-{count}.pt') for count in (1, 2))
        assert others == pytest.approx(losses, abs=2e-6)
        errors = {key: float((two[key] - one[key]).norm() / one[key].norm().clamp(min=1e-9)) for key in one
                  if one[key].is_floating_point()}  # fmt: skip
        assert max(errors.values()) < 1e-12, max(errors.items(), key=lambda item: item[1])
