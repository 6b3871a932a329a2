"""Trainings of detectors: as a plain loop has them, killed, validated, started from weights, and what is refused."""

import json
import os
import signal

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from eca_zoo.cli import main
from eca_zoo.detection import create_detector
from eca_zoo.detection.coco_images import open_coco
from eca_zoo.detection.evaluation.matching import toolbox_masks
from eca_zoo.resources import packaged_path
from eca_zoo.training.data.objects import TrainingObjects
from eca_zoo.training.data.order import epoch_order, grouped_order, seed_step
from eca_zoo.training.optimisation import LearningRate
from eca_zoo.training.recipes.reading import read_recipe
from eca_zoo.training.step import Stepper
from eca_zoo.training.tasks.detection import DetectionTask
from tests.detection.coco_sets import CATEGORIES, write_set
from tests.training.helpers import assert_equal_bits, write_recipe

RECIPE = """\
version: 1
system: maskrcnn
model: test_maskrcnn
epochs: 2
batch_size: 4
group_size: 2
weight_decay: 1.0e-4
filter_bias_and_bn: false
clip_grad: 5
lr: 0.02
sched: constant
warmup_steps: 3
pretrained_backbone: true
model_ema: true
model_ema_decay: 0.9
model_kwargs: {min_size: 64, max_size: 96}
"""


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    folder = tmp_path_factory.mktemp('coco')
    write_set(folder, seed=5, images=8, split='train')
    return write_set(folder, seed=6, images=2, split='validation')


@pytest.fixture(scope='module')
def run(coco, tmp_path_factory):
    """A finished run, its recipe, and the arguments of the command."""
    folder = tmp_path_factory.mktemp('run')
    arguments = [str(write_recipe(folder, RECIPE)), '--data-dir', str(coco), '--device', 'cpu', '--log-interval', '1']
    assert main(['train', *arguments, '-j', '0', '--run-dir', str(folder / 'whole')]) == 0
    return folder / 'whole', arguments


def test_the_rate_rises_in_500_steps_and_falls_after_epochs_8_and_11():
    recipe = read_recipe('mask_rcnn_1x').recipe
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], recipe.lr)
    rate = LearningRate(optimizer, recipe, steps_per_epoch=1000)
    assert rate.epochs == 12
    # mmdetection v1's runner: rate * (1 - (1 - step / 500) * (1 - 1/3)).
    for step in (0, 1, 250, 499, 3, 0):
        assert rate.set(step) == pytest.approx(0.01 * (1 - (1 - step / 500) * (2 / 3)), rel=1e-15)
    rates = {step: rate.set(step) for step in (500, 7999, 8000, 10999, 11000, 11999)}
    assert list(rates.values()) == pytest.approx([0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4], rel=1e-12)


def test_the_1x_recipes_are_one_for_three_systems():
    recipes = [read_recipe(name).recipe for name in ('faster_rcnn_1x', 'mask_rcnn_1x', 'retinanet_1x')]
    assert [recipe.system for recipe in recipes] == ['fasterrcnn', 'maskrcnn', 'retinanet']
    [first] = {json.dumps({**vars(recipe), 'system': ''}) for recipe in recipes}
    expected = {'epochs': 12, 'batch_size': 8, 'lr': 0.01, 'weight_decay': 1e-4, 'momentum': 0.9, 'clip_grad': 35}
    assert json.loads(first).items() >= expected.items()


def targets_of(data, position):
    """What a user would give to a detector for an image, crowds with it."""
    annotations = data.annotations
    found = [n for n, image in enumerate(annotations.image_ids) if image == annotations.images[position].id]
    boxes = torch.tensor(annotations.boxes[found], dtype=torch.float32)
    boxes[:, 2:] += boxes[:, :2]
    codes = annotations.masks(toolbox_masks())
    return {
        'boxes': boxes, 'labels': torch.from_numpy(annotations.category_ids[found]),
        'iscrowd': torch.from_numpy(annotations.is_crowd[found]),
        'masks': torch.from_numpy(toolbox_masks().decode([codes[n] for n in found])).permute(2, 0, 1),
    }  # fmt: skip


def test_its_steps_are_those_of_a_plain_loop_over_the_detector(coco, tmp_path):
    recipe = write_recipe(tmp_path, RECIPE.replace('epochs: 2', 'epochs: 1'))
    flags = {'--data-dir': coco, '--device': 'cpu', '--hflip': 0, '--val-split': '', '-j': 0, '--log-interval': 1}
    command = [str(part) for flag in flags.items() for part in flag]
    assert main(['train', str(recipe), *command, '--run-dir', str(tmp_path / 'run')]) == 0
    ours = load_file(tmp_path / 'run' / 'last.safetensors')
    rows = pd.read_csv(tmp_path / 'run' / 'log.csv')

    data = open_coco(coco, 'train')
    objects = TrainingObjects(data.annotations)
    sizes = {'min_size': 64, 'max_size': 96}
    torch.manual_seed(42)
    detector = create_detector('test_maskrcnn', categories=CATEGORIES, pretrained_backbone=True, **sizes)
    detector.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(detector.parameters(), 0.02, momentum=0.9, weight_decay=1e-4)
    order = grouped_order(epoch_order(42, 0, len(objects)), objects.is_lying(), 2)
    losses = []
    for step, chosen in enumerate(order.split(4)):
        positions = objects.positions[chosen].tolist()
        seed_step(42, step, 0, 0, torch.device('cpu'))
        given = [data.read(position) for position in positions], [targets_of(data, position) for position in positions]
        loss = torch.stack(list(detector(*given).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 5)
        for group in optimizer.param_groups:
            group['lr'] = 0.02 * (1 - (1 - step / 3) * (2 / 3))
        optimizer.step()
        losses.append(loss.item())
    assert len(losses) == 2
    assert rows['loss'][rows['kind'] == 'steps'].tolist() == pytest.approx(losses, abs=2e-6)
    for key, tensor in detector.state_dict().items():
        assert torch.allclose(ours[key], tensor, rtol=1e-5, atol=1e-6), key


def test_it_is_validated_and_its_checkpoints_are_taken_by_validate(run, coco, tmp_path):
    folder, _ = run
    rows = pd.read_csv(folder / 'log.csv')
    epochs = rows[rows['kind'] == 'epoch']
    assert epochs['num_images'].tolist() == [2, 2]
    assert not epochs[['box_ap', 'mask_ap', 'ema_box_ap', 'ema_mask_ap']].isna().any(axis=None)
    assert 'top1' not in rows
    table = tmp_path / 'coco.csv'
    command = [
        'validate',
        '--model',
        'test_maskrcnn',
        '--checkpoint',
        str(folder / 'best.safetensors'),
        '--data-dir',
        str(coco),
    ]
    assert main([*command, '--device', 'cpu', '--resamples', '0', '--results-file', str(table)]) == 0
    measured = pd.read_csv(table).set_index('task')['ap']
    best = json.loads((folder / 'run.json').read_text())['best']
    assert best['value'] == best['ema_box_ap'] == pytest.approx(measured['bbox'], abs=5e-5)
    assert '>box AP<' in (folder / 'curves.svg').read_text()


def test_a_conversion_keeps_the_names_of_its_classes_and_the_card_names_the_training(run, tmp_path, monkeypatch):
    folder, _ = run
    monkeypatch.setenv('ECA_ZOO_HOME', str(tmp_path / 'home'))
    assert main(['convert', str(folder / 'best.safetensors'), '--model', 'test_maskrcnn.mine']) == 0
    assert create_detector('test_maskrcnn.mine', pretrained=True).categories == CATEGORIES
    hub = tmp_path / 'hub'
    assert main(['publish', 'test_maskrcnn.mine', '--run-dir', str(folder), '--folder', str(hub)]) == 0
    card = (hub / 'README.md').read_text()
    assert '`best.safetensors` of the recipe `small` of eca-zoo, 2 epochs' in card
    assert 'Data: train, ' in card
    assert '| Box AP |' in card


@pytest.mark.parametrize('kind', ['step', 'validate'])
def test_a_run_that_is_stopped_ends_in_the_same_bits(run, tmp_path, monkeypatch, kind):
    whole, arguments = run
    calls = 0

    def ending(*given):
        nonlocal calls
        calls += 1
        if calls == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*given)

    owner = {'step': Stepper, 'validate': DetectionTask}[kind]
    function = getattr(owner, kind)
    with monkeypatch.context() as patch:
        patch.setattr(owner, kind, ending)
        assert main(['train', *arguments, '-j', '0', '--run-dir', str(tmp_path / 'run')]) == 143
    assert main(['train', *arguments, '-j', '1', '--run-dir', str(tmp_path / 'run')]) == 0
    assert_equal_bits(whole, tmp_path / 'run')


def test_it_begins_with_the_weights_that_are_named(run, coco, tmp_path):
    from eca_zoo.training.tasks.detection_setup import _load

    body = load_file(packaged_path('checkpoints/test_eca_resnet.digits.safetensors'))
    detector = create_detector('test_maskrcnn', num_classes=4)
    _load(detector, packaged_path('checkpoints/test_eca_resnet.digits.safetensors'), 'test_maskrcnn')
    assert torch.equal(detector.backbone.body.conv1[0].weight, body['conv1.0.weight'])
    trained = load_file(run[0] / 'last.safetensors')
    other = create_detector('test_maskrcnn', num_classes=7)
    first = other.roi_heads.box_predictor.cls_score.weight.clone()
    _load(other, run[0] / 'last.safetensors', 'test_maskrcnn')
    assert torch.equal(other.rpn.head.conv[0][0].weight, trained['rpn.head.conv.0.0.weight'])
    assert torch.equal(other.roi_heads.box_predictor.cls_score.weight, first)


def _other_categories(folder):
    path = folder / 'annotations' / 'instances_validation.json'
    content = json.loads(path.read_text())
    content['categories'][1]['name'] = 'hound'
    path.write_text(json.dumps(content))


def _no_boxes(folder):
    path = folder / 'annotations' / 'instances_train.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'annotations': []}))


def _no_masks(folder):
    path = folder / 'annotations' / 'instances_train.json'
    content = json.loads(path.read_text())
    del content['annotations'][0]['segmentation']
    path.write_text(json.dumps(content))


def _bad_images(folder):
    for path in (folder / 'train').iterdir():
        path.write_bytes(b'no image')


@pytest.mark.parametrize(
    ('recipe', 'spoil', 'flags', 'message'),
    [
        (None, None, ['--model', 'resnet18'], '--model resnet18: it is no detector, and the recipe small trains those'),
        (None, None, ['--system', 'retinanet'], 'its system is maskrcnn, and the recipe small is for retinanet; take'),
        (None, None, ['--mixup', '0.2'], 'mixup: it has no meaning for a detector; leave it out'),
        (None, None, ['--clip-mode', 'agc'], 'clip_mode: must be norm or value for a detector, not agc'),
        (None, None, ['--class-map', 'x.txt'], "--class-map is for classifiers; a detector's images are annotated in"),
        (None, None, ['-vb', '2'], '--validation-batch-size is for classifiers'),
        (None, None, ['--model-kwargs', 'min_sise=3'], "a detector has no option 'min_sise'; the nearest are min_size"),
        (None, None, ['--train-split', 'trian'], 'instances_train'),
        (None, None, ['--initial-checkpoint', 'none.pth'], 'none.pth: there is no such checkpoint; check --initial-'),
        (None, _other_categories, [], 'its categories are not those of'),
        (None, _no_boxes, [], 'none of its 8 images has a box to be trained on'),
        (None, _no_masks, [], 'it has no segmentation'),
        (None, _bad_images, [], 'nor any other image of its step'),
        ('digits', None, ['--annotations', 'x.json'], '--annotations is for detectors, which recipes with a system'),
        ('digits', None, ['--model', 'test_maskrcnn'], '--model test_maskrcnn: it is a detector, and the recipe'),
        ('mask_rcnn_1x', None, ['--model', 'maskrcnn_eca_resnet50_fpn'], 'or none with --no-pretrained-backbone'),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_in_one_line(tmp_path, capsys, recipe, spoil, flags, message):
    write_set(tmp_path / 'coco', seed=5, images=8, split='train')
    write_set(tmp_path / 'coco', seed=6, images=3, split='validation')
    if spoil is not None:
        spoil(tmp_path / 'coco')
    name = recipe or write_recipe(tmp_path, RECIPE)
    arguments = [
        name,
        '--data-dir',
        tmp_path / 'coco',
        '--run-dir',
        tmp_path / 'out',
        '--device',
        'cpu',
        '-j',
        '0',
        *flags,
    ]
    code = main(['train', *map(str, arguments)])
    [line] = [line for line in capsys.readouterr().err.splitlines() if ': error: ' in line or ': failed: ' in line]
    assert message in line
    assert code == (1 if spoil is _bad_images else 2)
    assert not (tmp_path / 'out' / 'last.safetensors').exists()
