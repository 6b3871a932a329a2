"""Which class an image counts for: subsets of ImageNet, valid labels, ReaL labels."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import ImageNetInfo, create_dataset, create_loader, resolve_data_config
from timm.utils import accuracy

from eca_zoo.harness.accuracy.evaluation import evaluate
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.networks.model_spec import ModelSpec
from tests.harness.image_sets import digits, write_folder, write_shards

QUICK = EvalSettings(batch_size=16, workers=0, device='cpu')


@pytest.fixture(scope='module')
def thousand(tmp_path_factory):
    """A small network with random weights for ImageNet's classes."""
    torch.manual_seed(5)
    model = timm.create_model('test_resnet')
    path = tmp_path_factory.mktemp('weights') / 'thousand.safetensors'
    save_file(model.state_dict(), path)
    return ModelSpec('test_resnet', checkpoint=path)


def test_wordnet_folders_of_a_subset_are_counted_under_imagenets_classes(tmp_path, thousand):
    synsets = ImageNetInfo('imagenet-1k').label_names()
    indices = [701, 0, 217, 482, 491, 497, 566, 569, 571, 574]
    root = write_folder(tmp_path / 'imagenette', names=[synsets[index] for index in indices])
    [result] = evaluate([thousand], DataSpec(root=root), QUICK)
    assert result.error is None
    assert {index for index, row in enumerate(result.per_class) if row[0]} == set(indices)


def test_results_over_a_part_of_the_classes_are_those_of_timms_valid_labels(tmp_path, thousand):
    indices = [
        int(line) for line in (Path(timm.data.__file__).parent / '_info/imagenet_r_indices.txt').read_text().split()
    ]
    synsets = ImageNetInfo('imagenet-1k').label_names()
    chosen = [indices[number * 17] for number in range(10)]
    root = write_folder(tmp_path / 'r', names=[synsets[index] for index in chosen])
    [result] = evaluate([thousand], DataSpec(root=root, valid_labels='imagenet-r'), QUICK)
    model = timm.create_model('test_resnet', checkpoint_path=str(thousand.checkpoint)).eval()
    mapping = {synsets[index]: place for place, index in enumerate(indices)}
    dataset = create_dataset('', root=str(root), split='validation', class_map=mapping)
    config = resolve_data_config({}, model=model, use_test_size=True)
    loader = create_loader(dataset, config['input_size'], 16, num_workers=0, device=torch.device('cpu'), **{
        key: config[key] for key in ('mean', 'std', 'interpolation', 'crop_pct', 'crop_mode')
    })  # fmt: skip
    right = [0.0, 0.0]
    with torch.inference_mode():
        for images, target in loader:
            for place, value in enumerate(accuracy(model(images)[:, indices], target, topk=(1, 5))):
                right[place] += value.item() * len(target) / 100
    assert (result.top1_count, result.top5_count, result.num_images) == (round(right[0]), round(right[1]), 60)
    assert {index for index, row in enumerate(result.per_class) if row[0] or row[3]} <= set(indices)


def test_an_image_of_a_class_that_is_no_valid_label_is_named(tmp_path, thousand):
    root = write_folder(tmp_path / 'subset', names=[str(index) for index in (1, 11, 21, 31, 41, 51, 61, 71, 81, 91)])
    valid = tmp_path / 'valid.txt'
    valid.write_text('11\n21\n')
    [result] = evaluate([thousand], DataSpec(root=root, valid_labels=str(valid)), QUICK)
    assert 'its class is not among the valid labels; leave out --valid-labels' in result.error


def test_real_labels_replace_those_of_the_folders_and_leave_out_images_without_any(tmp_path, thousand):
    synsets = ImageNetInfo('imagenet-1k').label_names()
    # Numbers of validation images, and timm's copy of their ReaL labels: none, one, several.
    from eca_zoo.harness.data.labels import read_real_labels

    names = [f'ILSVRC2012_val_{number:08d}.JPEG' for number in range(1, 31)]
    real = read_real_labels(None, names)
    for (image, _), name in zip(digits()[:30], names, strict=True):
        folder = tmp_path / 'val' / synsets[7]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / name, 'png')
    [result] = evaluate([thousand], DataSpec(root=tmp_path, real_labels='default'), QUICK)
    model = timm.create_model('test_resnet', checkpoint_path=str(thousand.checkpoint)).eval()
    from timm.data import RealLabelsImagenet

    dataset = create_dataset('', root=str(tmp_path), split='validation')
    oracle = RealLabelsImagenet.__new__(RealLabelsImagenet)
    oracle.real_labels, oracle.filenames = dict(zip(names, real, strict=True)), dataset.filenames(basename=True)
    oracle.topk, oracle.is_correct, oracle.sample_idx = (1, 5), {1: [], 5: []}, 0
    config = resolve_data_config({}, model=model, use_test_size=True)
    loader = create_loader(dataset, config['input_size'], 16, num_workers=0, device=torch.device('cpu'), **{
        key: config[key] for key in ('mean', 'std', 'interpolation', 'crop_pct', 'crop_mode')
    })  # fmt: skip
    with torch.inference_mode():
        for images, _ in loader:
            oracle.add_result(model(images))
    assert result.num_images == sum(bool(labels) for labels in real) == 28
    assert (result.top1, result.top5) == tuple(round(oracle.get_accuracy(k), 4) for k in (1, 5))


def test_real_labels_need_no_class_folders(tmp_path, thousand):
    for (image, _), number in zip(digits()[:10], range(1, 11), strict=True):
        image.save(tmp_path / f'ILSVRC2012_val_{number:08d}.JPEG', 'png')
    [result] = evaluate([thousand], DataSpec(root=tmp_path, real_labels='default'), QUICK)
    assert result.error is None
    assert result.num_images == 9


def test_a_label_that_the_model_has_no_class_for_is_named_with_its_image(tmp_path):
    root = write_shards(tmp_path / 'shards')
    spec = ModelSpec('test_resnet', pretrained=False, num_classes=5)
    [result] = evaluate([spec], DataSpec(root=root, dataset='wds/digits', split='digits-{00..02}.tar'), QUICK)
    assert result.error == (
        f'test_resnet: {root}/digits-00.tar:0005: its label 5 is none of the 5 classes of test_resnet; name the data '
        'set that the model was made for'
    )
