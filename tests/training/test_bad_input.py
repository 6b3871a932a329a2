"""Wrong recipes, data and folders: one line that names the input and the remedy, and nothing lost."""

import json
import re
import shutil
from pathlib import Path

import pytest
import timm
import torch

import eca_zoo
from eca_zoo.cli import main
from eca_zoo.errors import InputError
from eca_zoo.training.loop import LoopSettings
from eca_zoo.training.recipes.reading import read_recipe
from tests.training.helpers import write_recipe, write_splits

SMALL = 'version: 1\nmodel: test_eca_resnet\nepochs: 1\nbatch_size: 16\nimg_size: 32\nlr: 0.05\nsched: constant\n'


@pytest.fixture
def data(tmp_path):
    return write_splits(tmp_path / 'digits', 30)


def fails(capsys, *arguments, workers: str = '0') -> tuple[int, str]:
    """Exit code and the one line of a command that fails."""
    code = main(['train', *map(str, arguments), '--device', 'cpu', '-j', workers])
    [line] = [line for line in capsys.readouterr().err.splitlines() if ': error: ' in line or ': failed: ' in line]
    return code, line.removeprefix('eca-zoo train: error: ')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('version: 2\n', 'a recipe is a mapping with version: 1'),
        ('version: 1\nlearning_rate: 1\n', 'learning_rate: unknown key'),
        ('version: 1\nepoch: 1\n', 'epoch: unknown key; the nearest are epochs'),
        ('version: 1\nlr: fast\n', 'lr: Expected `float | null`, got `str`'),
        ('version: 1\nepochs: 0\n', 'epochs: must be at least 1, not 0'),
        ('version: 1\nlr: 0.0\n', 'lr: must be above 0, not 0.0'),
        ('version: 1\nhflip: 1.5\n', 'hflip: must lie between 0 and 1, not 1.5'),
        ('version: 1\nsched: plateau\n', 'sched: must be one of cosine, tanh'),
        ('version: 1\nepochs: 3\nwarmup_epochs: 3\n', 'warmup_epochs: must be fewer than the 3 epochs, not 3'),
        ('version: 1\nlr: 1\nlr: 2\n', "key 'lr' occurs twice"),
        ('version: 1\nclip_grad: 0.0\n', 'clip_grad: must be above 0'),
        ('version: 1\nlr: .nan\n', 'lr: must be finite'),
        ('version: 1\nval_img_size: 0\n', 'val_img_size: must be at least 1, not 0'),
        ('version: 1\nscale: [1.0, 0.5]\n', 'scale: must be two numbers above 0, the smaller one first'),
        ('version: 1\nlr_noise: [0.2, 0.9, 0.3]\n', 'lr_noise: must be one or two fractions of the schedule'),
        ('version: 1\ndecay_milestones: [6, 3]\n', 'decay_milestones: must be epochs from 1 that rise'),
        ('version: 1\nstd: [0.5, 0.0, 0.5]\n', 'std: must be above 0'),
        ('version: 1\naa: rand-foo\n', "aa: timm's policies have no section 'foo'"),
        ('version: 1\naa: rand-foo1\n', 'aa: timm has no such policy (Unknown RandAugment config section)'),
        ('version: 1\naa: rnad-m9\n', 'aa: timm has no such policy'),
        ('version: 1\naa: rand-m\n', "aa: timm's policies have no section 'm'"),
    ],
)
def test_a_wrong_key_of_a_recipe_is_named(tmp_path, text, message):
    with pytest.raises(InputError, match=re.escape(message)) as error:
        read_recipe(write_recipe(tmp_path, text))
    assert str(tmp_path / 'small.yaml') in str(error.value)


def test_an_unknown_recipe_has_nearest_names(tmp_path, capsys):
    code, line = fails(capsys, 'eca_resnt', '--run-dir', tmp_path / 'out')
    assert (code, line) == (
        2,
        "'eca_resnt' is no recipe; the nearest are eca_resnet, eca_mobilenetv2, or name a .yaml file",
    )
    code, line = fails(capsys, tmp_path / 'none.yaml', '--run-dir', tmp_path / 'out')
    assert (code, line.split(';')[0]) == (2, f'{tmp_path / "none.yaml"}: there is no such recipe')
    with pytest.raises(InputError, match=r"train\(\) takes no 'learning_rate'"):
        eca_zoo.train('digits', run_dir=tmp_path / 'out', learning_rate=1)


def _without_train(data):
    shutil.rmtree(data / 'train')


def _without_validation(data):
    shutil.rmtree(data / 'validation')


def _other_classes(data):
    shutil.move(data / 'validation' / '3', data / 'validation' / 'three')


def _one_class(data):
    for split in ('train', 'validation'):
        for name in range(1, 10):
            shutil.rmtree(data / split / str(name))


def _empty_class(data):
    (data / 'train' / 'ten').mkdir()


def _bad_image(data):
    next((data / 'train' / '4').iterdir()).write_bytes(b'no image')


@pytest.mark.parametrize(
    ('spoil', 'flags', 'message'),
    [
        (_without_train, [], 'there is no folder train in it; sort the images into train/CLASS'),
        (_without_validation, [], 'there is no folder validation in it; name another with --val-split'),
        (_other_classes, [], 'other classes (1: 3 in train alone; 1: three in validation alone); make them equal'),
        (_one_class, ['-b', '2'], 'train has one class, 0; a classifier needs two at least'),
        (_empty_class, [], 'classes without an image in train: 1: ten; add images or remove their folders'),
        (_bad_image, [], 'cannot be decoded: its content is no image that Pillow knows; repair or remove it'),
        (None, ['-b', '64'], 'batch_size: 64 is more than the 20 training images; lower --batch-size'),
        (None, ['--model', 'eca_resnet19'], '--model eca_resnet19: timm has no such network'),
        (None, ['--opt', 'sgdd'], "opt: timm has no optimiser 'sgdd'"),
        (None, ['--freeze', 'layer9'], 'freeze: layer9: the network has no such module; it has conv1'),
        (None, ['--freeze', '*'], 'freeze: * leaves nothing to train; freeze less'),
        (None, ['--init', 'authors', '-m', 'vit_tiny_patch16_224'], 'their first weights are known for ResNets'),
        (None, ['--device', 'cuda:9'], "device 'cuda:9' is not there"),
        (None, ['--opt-kwargs', 'nesterof=True'], "opt: momentum cannot be made so: SGD.__init__() got an unexpected"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_trained_on_are_refused_before_a_step(tmp_path, data, capsys, spoil, flags, message):
    if spoil is not None:
        spoil(data)
    device = ['--device', 'cpu'] if '--device' not in flags else []
    recipe = write_recipe(tmp_path, SMALL)
    arguments = [recipe, '--data-dir', data, '--run-dir', tmp_path / 'out', '-j', '0', *flags, *device]
    code = main(['train', *map(str, arguments)])
    [line] = [line for line in capsys.readouterr().err.splitlines() if ': error: ' in line]
    assert code == 2
    assert message in line
    assert not (tmp_path / 'out' / 'last.safetensors').exists()


def test_a_network_that_is_not_there_is_said_before_data_are_made(tmp_path, capsys):
    code, line = fails(capsys, 'digits', '--model', 'eca_resnet19', '--run-dir', tmp_path / 'out')
    assert (code, line.partition(';')[0]) == (2, '--model eca_resnet19: timm has no such network')
    assert not (tmp_path / 'out').exists()


def test_an_image_that_cannot_be_read_may_be_skipped_and_is_counted(tmp_path, data, caplog):
    _bad_image(data)
    arguments = ['--data-dir', data, '--run-dir', tmp_path / 'out', '--skip-bad-images', '--device', 'cpu', '-j', '0']
    assert main(['train', *map(str, [write_recipe(tmp_path, SMALL), *arguments])]) == 0
    assert 'another image takes its place' in caplog.text
    assert (tmp_path / 'out' / 'log.csv').read_text().splitlines()[-1].endswith(',1')


@pytest.mark.parametrize('workers', ['0', '1'])
def test_a_step_without_an_image_that_can_be_read_is_said_whoever_decodes(tmp_path, data, capsys, workers):
    for path in (data / 'train').rglob('*.png'):
        path.write_bytes(b'no image')
    arguments = ['--data-dir', data, '--run-dir', tmp_path / 'out', '--skip-bad-images']
    code, line = fails(capsys, write_recipe(tmp_path, SMALL), *arguments, workers=workers)
    assert code == 1
    assert line.endswith('is no image that Pillow knows), nor any other image of its step; repair them')


def test_classes_that_the_network_has_not_are_refused(tmp_path, data, capsys):
    arguments = [write_recipe(tmp_path, SMALL), '--data-dir', data, '--run-dir', tmp_path / 'out', '--num-classes', '7']
    code, line = fails(capsys, *arguments)
    assert code == 2
    assert 'it has 10 classes (0, 1, 2, ...) and test_eca_resnet has 7 classes' in line


def test_a_loss_that_is_no_number_names_step_rate_and_images(tmp_path, data, capsys):
    arguments = [write_recipe(tmp_path, SMALL), '--data-dir', data, '--run-dir', tmp_path / 'out', '--lr', '1e30']
    code, line = fails(capsys, *arguments, '--epochs', '3')
    assert code == 1
    assert re.match(r'the loss is NaN or infinite at step [2-6] \(epoch [1-3]\) with the learning rate 1e\+30; ', line)
    assert len(re.findall(r'digits/train/\d/\d{4}\.png', line)) in (4, 16)


def finished(tmp_path, data):
    out = tmp_path / 'out'
    arguments = [write_recipe(tmp_path, SMALL), '--data-dir', data, '--run-dir', out, '--device', 'cpu', '-j', '0']
    assert main(['train', *map(str, arguments), '--save-every', '1steps']) == 0
    return arguments[:5], out


def test_a_folder_of_another_run_is_refused_with_the_difference_and_may_be_gone_on_with(tmp_path, data, capsys):
    arguments, out = finished(tmp_path, data)
    before = (out / 'last.safetensors').read_bytes()
    code, line = fails(capsys, *arguments, '--epochs', '2', '--lr', '0.1')
    assert code == 2
    assert line == (
        f'{out}: it holds a run with recipe.epochs 1, not 2; recipe.lr 0.05, not 0.1; use another folder, '
        '--allow-change to go on all the same, or --restart to begin anew'
    )
    assert (out / 'last.safetensors').read_bytes() == before
    assert main(['train', *map(str, arguments), '--device', 'cpu', '-j', '0', '--epochs', '2', '--allow-change']) == 0
    record = json.loads((out / 'run.json').read_text())
    assert record['changes'] == [{'step': 2, 'changes': ['recipe.epochs 1, not 2']}]
    assert record['overridden'] == {'epochs': 2}
    assert record['title'] == 'test_eca_resnet small epochs=2'


def test_a_state_with_a_wrong_hash_is_refused_and_the_one_before_is_offered(tmp_path, data, capsys):
    arguments, out = finished(tmp_path, data)
    before, last = sorted(out.glob('state-*.safetensors'))
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    code, line = fails(capsys, *arguments)
    assert code == 2
    assert line.startswith(f'{last}: its bytes are not those that were written: SHA-256 ')
    assert line.endswith(f'remove it, and the same command goes on at step 2, which {before.name} holds')
    last.unlink()
    expected = (out / 'last.safetensors').read_bytes()
    assert main(['train', *map(str, arguments), '--device', 'cpu', '-j', '0']) == 0
    assert (out / 'last.safetensors').read_bytes() == expected


def test_weights_without_a_state_are_not_overwritten(tmp_path, data, capsys):
    arguments, out = finished(tmp_path, data)
    for path in out.glob('state-*'):
        path.unlink()
    code, line = fails(capsys, *arguments)
    assert code == 2
    assert 'it holds last.safetensors and no state to go on from' in line


def test_a_finished_run_is_complete_again_when_its_command_is_given_again(tmp_path, data):
    arguments, out = finished(tmp_path, data)
    expected = (out / 'last.safetensors').read_bytes()
    for name in ('last.safetensors', 'curves.svg', 'run.json', 'log.csv'):
        (out / name).unlink()
    assert main(['train', *map(str, arguments), '--device', 'cpu', '-j', '0']) == 0
    assert (out / 'last.safetensors').read_bytes() == expected
    assert (out / 'curves.svg').exists()
    assert (out / 'log.csv').read_text().startswith('kind,epoch,step,lr,loss,')


@pytest.mark.parametrize('name', ['last.safetensors', 'state-000000001-00000.safetensors'])
def test_a_full_disk_ends_the_run_in_one_line_and_leaves_what_was_saved(tmp_path, data, capsys, monkeypatch, name):
    out = tmp_path / 'out'
    write = Path.write_bytes
    full = False

    def write_bytes(path, content):
        if full and name in path.name:
            raise OSError(28, 'No space left on device', str(path))
        return write(path, content)

    monkeypatch.setattr(Path, 'write_bytes', write_bytes)
    arguments = [write_recipe(tmp_path, SMALL), '--data-dir', data, '--run-dir', out]
    full = True
    code, line = fails(capsys, *arguments, '--save-every', '1steps')
    assert code == 1
    assert 'no space left to write it; free some, or choose a --run-dir on another disk' in line
    assert not list(out.glob('.*.tmp'))
    full = False
    assert main(['train', *map(str, arguments), '--device', 'cpu', '-j', '0', '--save-every', '1steps']) == 0


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--val-interval', '0'], 'val_interval must be at least 1, not 0'),
        (['--log-interval', '0'], 'log_interval must be at least 1, not 0'),
        (['--checkpoint-every', '-1'], 'checkpoint_every must be at least 0, not -1'),
        (['--opt', 'adamw', '--opt-betas', '0.9'], 'opt: adamw cannot be made so'),
        (['--opt', 'adamw', '--opt-betas', '0.9', '0.8', '0.7'], 'opt_betas: adamw has 2, such as (0.9, 0.999), not'),
        (['--opt-betas', '0.9', '0.8'], 'opt_betas: momentum has none; leave it out'),
        (
            ['--global-pool', 'middle'],
            'test_eca_resnet: cannot be built so: Invalid pool type: middle; check model_kwargs',
        ),
        (['--input-img-mode', 'ABC'], 'the model takes 3 channels, and images have 1 (L) or 3 (RGB), not those of'),
        (
            ['--model', 'test_vit', '--drop-block', '0.1'],
            'test_vit: the network takes no drop_block_rate; leave it out',
        ),
    ],
)
def test_a_flag_without_a_sense_is_named(tmp_path, data, capsys, flags, message):
    recipe = write_recipe(tmp_path, SMALL)
    code, line = fails(capsys, recipe, '--data-dir', data, '--run-dir', tmp_path / 'out', *flags)
    assert code == 2
    assert line.startswith(message), line
    assert not (tmp_path / 'out').exists()


def test_a_number_of_workers_below_zero_is_named():
    with pytest.raises(InputError, match='workers must be at least 0, not -1'):
        LoopSettings(workers=-1)


def _saved(path, name, **options):
    torch.save(timm.create_model(name, **options).state_dict(), path)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda path: None, 'there is no such checkpoint; check --initial-checkpoint'),
        (lambda path: path.write_bytes(b'x'), 'not a PyTorch checkpoint, or damaged'),
        (lambda path: _saved(path, 'eca_resnet18'), 'these are not weights of test_eca_resnet: '),
        (lambda path: torch.save({'backbone.body.conv1.weight': torch.zeros(1)}, path), 'it holds a detector'),
    ],
    ids=['missing', 'broken', 'of_another_network', 'of_a_detector'],
)
def test_first_weights_that_cannot_be_used_are_named(tmp_path, data, capsys, make, message):
    path = tmp_path / 'first.pth'
    make(path)
    code, line = fails(
        capsys, write_recipe(tmp_path, SMALL), '--data-dir', data, '--run-dir', tmp_path / 'out',
        '--initial-checkpoint', path,
    )  # fmt: skip
    assert code == 2
    assert line.startswith(f'{path}: {message}'), line
    assert not (tmp_path / 'out').exists()
