"""Accuracy: timm's counts, one pass for many models, and models that fail alone."""

import dataclasses
import os
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import ImageNetInfo, create_dataset, create_loader, resolve_data_config
from timm.models import register_model
from timm.utils import accuracy

from eca_zoo.errors import InputError, RunError
from eca_zoo.harness.accuracy.evaluation import evaluate
from eca_zoo.harness.accuracy.results import AccuracyResult
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.networks.model_spec import ModelSpec
from tests.harness.image_sets import MODEL, digits, encoded, write_folder, write_shards

QUICK = EvalSettings(batch_size=16, workers=0, device='cpu')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp('data') / 'digits')


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A small network with random weights for ten classes, whose guesses differ between images."""
    torch.manual_seed(3)
    model = timm.create_model('test_resnet', num_classes=10)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    path = tmp_path_factory.mktemp('weights') / 'random.safetensors'
    save_file(model.state_dict(), path)
    return path


def random_model(checkpoint: Path, label: str = '', **changes) -> ModelSpec:
    return ModelSpec('test_resnet', checkpoint=checkpoint, num_classes=10, label=label, **changes)


def counts(results: list[AccuracyResult]) -> list[tuple[int, int, int]]:
    return [(result.top1_count, result.top5_count, result.num_images) for result in results]


def timm_counts(root: Path, model: torch.nn.Module, batch_size: int, channels_last: bool = False) -> tuple[float, ...]:
    """Top-1 and top-5 in percent as timm's validate.py computes them."""
    config = resolve_data_config({}, model=model, use_test_size=True)
    dataset = create_dataset('', root=str(root), split='validation')
    loader = create_loader(
        dataset, config['input_size'], batch_size, interpolation=config['interpolation'], mean=config['mean'],
        std=config['std'], num_workers=0, crop_pct=config['crop_pct'], crop_mode=config['crop_mode'],
        device=torch.device('cpu'),
    )  # fmt: skip
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    sums, total = [0.0, 0.0], 0
    with torch.inference_mode():
        for images, target in loader:
            if channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            for index, value in enumerate(accuracy(model.eval()(images), target, topk=(1, 5))):
                sums[index] += value.item() * len(target)
            total += len(target)
    return tuple(round(value / total, 4) for value in sums)


@pytest.mark.parametrize('channels_last', [False, True])
def test_top1_and_top5_are_those_of_timm(folder, checkpoint, channels_last):
    settings = dataclasses.replace(QUICK, channels_last=channels_last)
    [trained, random] = evaluate([ModelSpec(MODEL), random_model(checkpoint)], DataSpec(root=folder), settings)
    model = timm.create_model(MODEL, pretrained=True)
    assert (trained.top1, trained.top5) == timm_counts(folder, model, 16, channels_last)
    model = timm.create_model('test_resnet', num_classes=10, checkpoint_path=str(checkpoint))
    assert (random.top1, random.top5) == timm_counts(folder, model, 16, channels_last)
    assert trained.top1 > 90
    assert 0 < random.top1 < 50


def test_a_result_holds_what_the_table_needs(folder, checkpoint):
    [result] = evaluate([random_model(checkpoint)], DataSpec(root=folder, label='digits-60'), QUICK)
    assert result.dataset == 'digits-60'
    assert result.num_images == 60
    assert len(result.weights_sha256) == 64
    assert result.img_size == 160
    assert result.params == sum(
        parameter.numel() for parameter in timm.create_model('test_resnet', num_classes=10).parameters()
    )
    assert result.top1 == round(100 * result.top1_count / 60, 4)
    assert result.top1 + result.top1_err == pytest.approx(100)
    assert [row[0] for row in result.per_class] == [sum(label == index for _, label in digits()) for index in range(10)]
    assert sum(row[3] for row in result.per_class) == 60
    assert AccuracyResult.from_json(result.to_json()) == result


def test_the_hash_of_packaged_weights_is_that_of_the_manifest(folder):
    from eca_zoo.weights.manifest import packaged_manifest

    [result] = evaluate([ModelSpec(MODEL)], DataSpec(root=folder), QUICK)
    assert result.weights_sha256 == packaged_manifest().models[MODEL].checkpoint.sha256


def test_models_of_one_transform_decode_each_image_once(folder, checkpoint, monkeypatch):
    opened = []
    original = Image.open

    def count(file, *args, **kwargs):
        opened.append(file)
        return original(file, *args, **kwargs)

    monkeypatch.setattr(Image, 'open', count)
    models = [random_model(checkpoint, label) for label in 'abcdef']
    results = evaluate(models, DataSpec(root=folder), QUICK)
    assert len(opened) == 60
    assert len(set(counts(results))) == 1


def test_models_that_differ_in_mean_and_deviation_alone_share_a_pass(folder, checkpoint, monkeypatch):
    shifted = ModelSpec(
        'test_resnet', checkpoint=checkpoint, num_classes=10, label='shifted',
        model_kwargs={'pretrained_cfg_overlay': {'mean': (0.1, 0.1, 0.1)}},
    )  # fmt: skip
    [alone] = evaluate([shifted], DataSpec(root=folder), QUICK)
    [plain, together] = evaluate([random_model(checkpoint), shifted], DataSpec(root=folder), QUICK)
    assert together == alone
    assert together.loss != plain.loss


def test_models_that_do_not_fit_together_are_evaluated_one_after_another(folder, checkpoint, monkeypatch, caplog):
    monkeypatch.setattr('eca_zoo.harness.accuracy.run.room_for_weights', lambda device: 1)
    models = [random_model(checkpoint, label) for label in 'abc']
    together = evaluate(models, DataSpec(root=folder), QUICK)
    assert len(set(counts(together))) == 1
    assert '2 more models of this transform do not fit into memory beside the others' in caplog.text


def test_a_model_that_fails_does_not_stop_the_others(folder, checkpoint):
    models = [ModelSpec('eca_resnet18'), random_model(checkpoint), ModelSpec('test_resnet', num_classes=7)]
    [unpublished, good, mismatched] = evaluate(models, DataSpec(root=folder), QUICK)
    assert unpublished.error.startswith(f'{folder}: it has 10 classes (0, 1, 2, ...) and eca_resnet18 has 1000 classes')
    assert mismatched.error.startswith('test_resnet: its weights have 1000 classes, not 7')
    assert (unpublished.exit_code, unpublished.top1, unpublished.num_images) == (2, None, 0)
    assert good.error is None
    assert good.num_images == 60


def test_weights_that_need_conversion_are_an_error_of_the_model(tmp_path):
    root = write_folder(tmp_path / 'imagenette', names=ImageNetInfo('imagenet-1k').label_names()[:10])
    [result] = evaluate([ModelSpec('eca_resnet18')], DataSpec(root=root), QUICK)
    assert result.error.startswith('eca_resnet18.k3577_in1k needs conversion: no hash of its weights is known')
    assert result.exit_code == 2


def test_logits_that_are_no_numbers_stop_the_model_and_name_the_image(folder, checkpoint, tmp_path):
    from safetensors.torch import load_file

    state = load_file(checkpoint)
    state['fc.bias'][3] = float('nan')
    save_file(state, tmp_path / 'nan.safetensors')
    [bad, good] = evaluate(
        [random_model(tmp_path / 'nan.safetensors', 'bad'), random_model(checkpoint, 'good')],
        DataSpec(root=folder),
        QUICK,
    )
    first = folder / 'validation' / '0' / '0000.png'
    assert bad.error == (
        f'bad: its logits are NaN or infinite for {first}; evaluate in another precision, or check the weights'
    )
    assert bad.exit_code == 1
    assert good.num_images == 60


class _Hungry(torch.nn.Module):
    """Runs out of memory with more than ``limit`` images."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.num_classes = limit, 10
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.limit:
            raise torch.OutOfMemoryError(f'no memory for {len(x)} images')
        return x.mean((1, 2, 3))[:, None] * self.weight


@register_model
def hungry_network(pretrained: bool = False, limit: int = 3, **kwargs) -> _Hungry:
    return _Hungry(limit)


def test_a_model_that_is_out_of_memory_takes_half_the_images_at_a_time(folder):
    models = [
        ModelSpec('hungry_network', pretrained=False, num_classes=10, model_kwargs={'limit': limit}, label=str(limit))
        for limit in (1000, 3, 0)
    ]
    [roomy, tight, hopeless] = evaluate(models, DataSpec(root=folder), QUICK)
    assert (roomy.batch_size, tight.batch_size) == (16, 2)
    assert counts([roomy]) == counts([tight])
    assert hopeless.error == '0: out of memory on cpu, one image at a time'
    assert hopeless.exit_code == 1


def test_a_bad_image_stops_the_evaluation_and_is_named(tmp_path, checkpoint):
    root = write_folder(tmp_path / 'digits')
    bad = root / 'validation' / '4' / 'bad.png'
    bad.write_bytes(b'')
    with pytest.raises(InputError) as error:
        evaluate([random_model(checkpoint)], DataSpec(root=root), QUICK)
    assert str(error.value) == (
        f'{bad}: cannot be decoded: the file is empty; repair or remove it, or pass --skip-bad-images'
    )


@pytest.mark.parametrize('workers', [0, 2])
def test_bad_images_are_counted_and_listed_on_request(tmp_path, checkpoint, workers):
    root = write_folder(tmp_path / 'digits')
    [before] = evaluate([random_model(checkpoint)], DataSpec(root=root), QUICK)
    for name in ('1/bad.png', '7/worse.jpg'):
        (root / 'validation' / name).write_bytes(b'GIF89a')
    settings = dataclasses.replace(QUICK, workers=workers)
    [after] = evaluate([random_model(checkpoint)], DataSpec(root=root, skip_bad_images=True), settings)
    assert counts([after]) == counts([before])
    assert [Path(image.name).name for image in after.skipped] == ['bad.png', 'worse.jpg']


def test_a_data_set_of_bad_images_alone_is_an_error(tmp_path, checkpoint):
    (tmp_path / '0').mkdir()
    (tmp_path / '0' / 'bad.png').write_bytes(b'')
    for label in range(1, 10):
        (tmp_path / str(label)).mkdir()
        (tmp_path / str(label) / 'bad.png').write_bytes(b'x')
    [result] = evaluate([random_model(checkpoint)], DataSpec(root=tmp_path, skip_bad_images=True), QUICK)
    assert result.error == f'{tmp_path.name}: no image could be counted'
    assert result.top1 is None
    assert len(result.skipped) == 10


def test_shards_give_the_counts_of_the_folder(tmp_path, folder, checkpoint):
    root = write_shards(tmp_path / 'shards')
    [shards] = evaluate(
        [random_model(checkpoint)], DataSpec(root=root, dataset='wds/digits', split='digits-{00..02}.tar'), QUICK
    )
    [expected] = evaluate([random_model(checkpoint)], DataSpec(root=folder), QUICK)
    assert counts([shards]) == counts([expected])
    assert shards.loss == pytest.approx(expected.loss, rel=1e-6)


def test_a_stream_that_lacks_images_is_an_error(tmp_path, checkpoint):
    shards = write_shards(tmp_path / 'shards')
    (shards / 'digits-01.tar').unlink()
    spec = DataSpec(
        root=Path(f'pipe:cat {shards}'), dataset='wds/digits', split='digits-{00..02}.tar', num_samples=60
    )  # fmt: skip
    [result] = evaluate([random_model(checkpoint)], spec, QUICK)
    assert result.error == (
        'wds/digits: 40 images came from the stream, 60 were declared; the log says what could not be read; repair it, '
        'correct --num-samples, or pass --skip-bad-images'
    )
    [result] = evaluate([random_model(checkpoint)], dataclasses.replace(spec, skip_bad_images=True), QUICK)
    assert (result.error, result.num_images) == (None, 40)


def test_global_settings_of_torch_and_its_random_state_are_left_alone(folder, checkpoint):
    torch.manual_seed(1)
    state, flags = torch.random.get_rng_state(), torch.backends.cudnn.benchmark
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()
    evaluate([random_model(checkpoint)], DataSpec(root=folder), QUICK)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (torch.backends.cudnn.benchmark, torch.get_num_threads(), torch.is_grad_enabled()) == (flags, threads, grad)


def test_one_title_twice_is_refused(folder, checkpoint):
    with pytest.raises(InputError, match='the model a is named twice; name it once'):
        evaluate([random_model(checkpoint, 'a'), random_model(checkpoint, 'a')], DataSpec(root=folder), QUICK)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'batch_size': 0}, 'batch_size must be at least 1, not 0'),
        ({'std': (0.5, 0.0, 0.5)}, 'std must be finite and above 0, not'),
        ({'mean': (float('nan'),)}, 'mean must be finite, not'),
        ({'workers': -1}, 'workers must not be negative, not -1'),
        ({'crop_pct': 1.5}, 'crop_pct must be above 0 and at most 1, not 1.5'),
        ({'interpolation': 'cubic'}, "interpolation 'cubic' is unknown; use one of bilinear"),
        ({'crop_mode': 'middle'}, "crop_mode 'middle' is unknown; use one of center"),
        ({'precision': 'fp8'}, "precision 'fp8' is unknown"),
        ({'device': 'gpu'}, "device 'gpu'"),
        ({'compile': 'gcc'}, "compile backend 'gcc' is unknown"),
        ({'torchscript': True, 'compile': 'inductor'}, 'exclude each other'),
    ],
)
def test_a_setting_that_does_not_exist_is_refused(folder, change, message):
    with pytest.raises(InputError, match=message):
        evaluate([ModelSpec(MODEL)], DataSpec(root=folder), dataclasses.replace(QUICK, **change))


@pytest.mark.parametrize(
    'change',
    [
        {'precision': 'bf16'}, {'precision': 'amp_bf16'}, {'torchscript': True}, {'img_size': 48},
        {'input_size': (3, 40, 48)}, {'crop_pct': 0.9, 'crop_mode': 'squash'}, {'test_pool': True, 'img_size': 64},
        {'preprocess': 'fast'}, {'normalize_in_workers': True}, {'mean': (0.5,), 'std': (0.5,)},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_runs(folder, change):
    [result] = evaluate([ModelSpec(MODEL)], DataSpec(root=folder), dataclasses.replace(QUICK, **change))
    assert result.error is None
    assert result.num_images == 60
    assert result.top5 > 50


def test_compiled_models_see_one_shape_and_give_the_same_counts(folder):
    settings = dataclasses.replace(QUICK, compile='aot_eager')
    [compiled] = evaluate([ModelSpec(MODEL)], DataSpec(root=folder), settings)
    [eager] = evaluate([ModelSpec(MODEL)], DataSpec(root=folder), QUICK)
    assert counts([compiled]) == counts([eager])


def test_grey_images_go_to_a_model_with_one_channel(folder, tmp_path):
    model = timm.create_model('test_resnet', num_classes=10, in_chans=1)
    save_file(model.state_dict(), tmp_path / 'grey.safetensors')
    spec = ModelSpec('test_resnet', checkpoint=tmp_path / 'grey.safetensors', num_classes=10, in_chans=1)
    [result] = evaluate([spec], DataSpec(root=folder), QUICK)
    assert result.error is None
    assert result.num_images == 60
    assert encoded(digits()[0][0])[:4] == b'\x89PNG'


def test_progress_reaches_all_images(folder, checkpoint, monkeypatch):
    monkeypatch.setattr('eca_zoo.harness.accuracy.passes._PROGRESS_EVERY', 0)
    seen = []
    evaluate([random_model(checkpoint)], DataSpec(root=folder), QUICK, progress=seen.append)
    done = [step.done for step in seen]
    assert done == sorted(done)
    assert {16, 32, 48, 60} <= set(done)
    assert {(step.total, tuple(step.models)) for step in seen} == {(60, ('test_resnet@random.safetensors',))}


def test_a_worker_that_dies_is_an_error_that_says_so(folder, checkpoint, monkeypatch):
    def die(self, position):
        if torch.utils.data.get_worker_info() is not None:
            os._exit(3)
        raise AssertionError('only a worker decodes')

    monkeypatch.setattr('eca_zoo.harness.data.folders.FolderImages.open', die)
    with pytest.raises(RunError, match=r'a process that decodes images died: DataLoader worker .* try fewer --workers'):
        evaluate([random_model(checkpoint)], DataSpec(root=folder), dataclasses.replace(QUICK, workers=1))
