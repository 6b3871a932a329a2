"""Data sets as people have them: the same images with the same classes from each, and one line for what cannot be."""

import shutil
import tarfile
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features
from datasets import Image as HubImage

from eca_zoo.errors import InputError
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.datasets import open_data
from tests.harness.image_sets import add_file, digits, encoded, write_folder, write_shards, write_tar

LABELS = sorted(label for _, label in digits())


def labels_of(spec: DataSpec) -> list[int]:
    """Class index of each image for a model with ten classes."""
    data = open_data(spec)
    indices = data.class_indices(10)
    labels = []
    for position in range(len(data.images)):
        image = data.images.open(position)
        labels.append(indices[image.label])
        getattr(image.source, 'close', bool)()
    return labels


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / 'digits')


def test_a_folder_is_found_by_its_split(folder):
    data = open_data(DataSpec(root=folder))
    assert data.class_names == tuple('0123456789')
    assert data.spec.name == 'digits'
    assert labels_of(DataSpec(root=folder)) == LABELS
    assert labels_of(DataSpec(root=folder / 'validation')) == LABELS


def test_a_tar_of_folders_has_the_same_images(tmp_path, folder):
    path = write_tar(tmp_path / 'digits.tar')
    assert labels_of(DataSpec(root=path)) == LABELS
    assert open_data(DataSpec(root=path)).images.names() == open_data(DataSpec(root=folder)).images.names()
    assert [file.name for file in tmp_path.iterdir() if 'pickle' in file.name] == []


def test_the_library_of_hub_data_sets_has_the_same_images(tmp_path, folder):
    write_parquet(tmp_path / 'hub')
    spec = DataSpec(root=tmp_path / 'cache', dataset=f'hfds/{tmp_path / "hub"}')
    data = open_data(spec)
    assert sorted(labels_of(spec)) == LABELS
    assert len(data.images.fingerprint()) == 64
    with pytest.raises(InputError, match=r'it has 10 classes \(0, 1, 2, ...\) and resnet50 has 1000 classes; '):
        data.class_indices(1000, 'resnet50')


def test_numbers_that_a_hub_data_set_sorts_as_text_map_by_value(tmp_path):
    names = sorted(map(str, range(12)))
    assert names[:3] == ['0', '1', '10']
    features = Features({'image': HubImage(), 'label': ClassLabel(names=names)})
    rows = {'image': [digits()[0][0]] * 12, 'label': list(range(12))}
    (tmp_path / 'hub' / 'data').mkdir(parents=True)
    Dataset.from_dict(rows, features).to_parquet(tmp_path / 'hub' / 'data' / 'validation-00000-of-00001.parquet')
    data = open_data(DataSpec(root=tmp_path / 'cache', dataset=f'hfds/{tmp_path / "hub"}'))
    assert data.class_indices(12) == [int(name) for name in names]


def test_settings_that_a_kind_does_not_take_are_refused(folder):
    with pytest.raises(InputError, match='digits: it takes no --target-key; leave it out'):
        open_data(DataSpec(root=folder, target_key='label'))
    with pytest.raises(InputError, match='torch/mnist: it takes no --class-map and no --input-key; leave them out'):
        open_data(DataSpec(root=folder, dataset='torch/mnist', input_key='image'))


def test_shards_of_webdataset_on_disk_have_the_same_images(tmp_path):
    root = write_shards(tmp_path / 'shards')
    spec = DataSpec(root=root, dataset='wds/digits', split='digits-{00..02}.tar')
    data = open_data(spec)
    assert not data.images.is_stream
    assert labels_of(spec) == [label for _, label in digits()]
    assert data.images.names()[20] == 'digits-01.tar/0020'


def test_torchvisions_folder_has_the_same_images(folder):
    assert labels_of(DataSpec(root=folder, dataset='torch/image_folder')) == LABELS


def test_images_in_no_folders_are_labelled_by_a_ground_truth_file(tmp_path):
    flat = tmp_path / 'flat'
    flat.mkdir()
    for index, (image, _) in enumerate(digits()):
        (flat / f'{index:04d}.png').write_bytes(encoded(image))
    truth = tmp_path / 'truth.txt'
    truth.write_text('\n'.join(f'{index:04d}.png {label}' for index, (_, label) in enumerate(digits())))
    assert labels_of(DataSpec(root=flat, ground_truth=truth)) == [label for _, label in digits()]


def test_a_flat_tar_is_labelled_by_a_ground_truth_file(tmp_path):
    with tarfile.open(tmp_path / 'flat.tar', 'w') as tar:
        for index, (image, _) in enumerate(digits()):
            add_file(tar, f'ILSVRC2012_val_{index:08d}.png', encoded(image))
    truth = tmp_path / 'truth.txt'
    truth.write_text('\n'.join(str(label) for _, label in digits()))
    spec = DataSpec(root=tmp_path / 'flat.tar', ground_truth=truth)
    assert labels_of(spec) == [label for _, label in digits()]
    with pytest.raises(InputError, match='its 60 images lie in no class folders'):
        open_data(DataSpec(root=tmp_path / 'flat.tar'))


def test_a_hub_data_set_that_is_streamed_is_read_in_one_go(tmp_path):
    write_parquet(tmp_path / 'hub')
    data = open_data(DataSpec(dataset=f'hfids/{tmp_path / "hub"}', num_samples=60))
    assert data.images.is_stream
    assert [label for _, label in data.images.stream(0)] == [label for _, label in digits()]


def write_parquet(root: Path) -> None:
    """The digits as a hub data set with one Parquet file."""
    names = [str(value) for value in range(10)]
    rows = {'image': [image for image, _ in digits()], 'label': [label for _, label in digits()]}
    features = Features({'image': HubImage(), 'label': ClassLabel(names=names)})
    (root / 'data').mkdir(parents=True)
    Dataset.from_dict(rows, features).to_parquet(root / 'data' / 'validation-00000-of-00001.parquet')


def test_a_class_map_leaves_out_folders_that_it_does_not_name(tmp_path, folder):
    mapping = tmp_path / 'map.json'
    mapping.write_text('{"3": 9, "1": 2}')
    data = open_data(DataSpec(root=folder, class_map=mapping))
    count = LABELS.count(1) + LABELS.count(3)
    assert len(data.images) == count
    assert sorted(labels_of(DataSpec(root=folder, class_map=mapping))) == [2] * LABELS.count(1) + [9] * LABELS.count(3)


def test_a_class_map_beside_the_data_is_found(folder):
    (folder / 'map.txt').write_text('\n'.join('0123456789'))
    assert labels_of(DataSpec(root=folder, class_map=Path('map.txt'))) == LABELS


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda root: None, 'there is no such folder or file; check --data-dir'),
        (lambda root: root.mkdir(), r'there are no images \(.png .jpg .jpeg\) in it or below; name a folder with one'),
        (lambda root: root.write_text('x'), r'not a folder and not a .tar file; unpack it'),
        (
            lambda root: (root / 'cat').mkdir(parents=True) or (root / 'cat' / 'a.webp').write_bytes(b'x'),
            r'no images \(.png .jpg .jpeg\) in it or below; it holds files with the extensions .webp',
        ),
        (
            lambda root: root.mkdir() or write_tar(root / 'digits.tar'),
            'there are tar files in it and no images; name the tar file',
        ),
    ],
    ids=['missing', 'empty', 'a file', 'other extensions', 'tar files'],
)
def test_data_that_is_no_image_folder_is_refused(tmp_path, make, message):
    root = tmp_path / 'data'
    make(root)
    with pytest.raises(InputError, match=message) as error:
        open_data(DataSpec(root=root))
    assert str(error.value).startswith(str(root))


def test_a_flat_folder_is_refused_with_what_to_do(tmp_path):
    (tmp_path / 'a.png').write_bytes(encoded(digits()[0][0]))
    with pytest.raises(InputError) as error:
        open_data(DataSpec(root=tmp_path))
    assert str(error.value) == (
        f'{tmp_path}: its 1 images lie in no class folders, so their classes are unknown; sort them into one folder '
        'for each class, or give --ground-truth FILE'
    )


def test_an_image_beside_the_class_folders_is_named(folder):
    (folder / 'validation' / 'thumbnail.png').write_bytes(encoded(digits()[0][0]))
    with pytest.raises(InputError, match=r'thumbnail.png lies beside the class folders, in none of them; move it away'):
        open_data(DataSpec(root=folder))


def test_two_splits_are_not_read_as_one_data_set(folder):
    shutil.copytree(folder / 'validation', folder / 'train')
    shutil.move(folder / 'validation', folder / 'test')
    with pytest.raises(InputError, match="it holds the splits test, train and none called 'validation'; choose one"):
        open_data(DataSpec(root=folder))
    assert labels_of(DataSpec(root=folder, split='test')) == LABELS


def test_a_damaged_tar_is_refused(tmp_path):
    path = write_tar(tmp_path / 'digits.tar')
    path.write_bytes(b'no tar' * 500)
    with pytest.raises(InputError, match=r'digits.tar: cannot be opened: '):
        open_data(DataSpec(root=path))


def test_an_unknown_hub_data_set_is_refused(tmp_path):
    with pytest.raises(InputError, match=r'hfds/.*nowhere, split validation\): cannot be opened: '):
        open_data(DataSpec(root=tmp_path, dataset=f'hfds/{tmp_path}/nowhere'))


def test_shards_that_lack_images_are_refused(tmp_path):
    root = write_shards(tmp_path / 'shards')
    with pytest.raises(InputError, match=r'its shards hold 60 images, 99 were declared'):
        open_data(DataSpec(root=root, dataset='wds/digits', split='digits-{00..02}.tar|99'))


def test_a_shard_that_was_cut_short_is_named(tmp_path):
    root = write_shards(tmp_path / 'shards')
    path = root / 'digits-01.tar'
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match=r'digits-01.tar: damaged WebDataset shard: '):
        open_data(DataSpec(root=root, dataset='wds/digits', split='digits-{00..02}.tar'))


def test_a_sample_without_an_image_is_named(tmp_path):
    with tarfile.open(tmp_path / 'a-00.tar', 'w') as tar:
        add_file(tar, 'x.cls', b'3')
    with pytest.raises(InputError, match=r'sample x has no image \(jpg, png, webp\) but cls; name its extension with'):
        open_data(DataSpec(root=tmp_path, dataset='wds/a', split='a-00.tar'))


@pytest.mark.parametrize('change', ['another size', 'another class', 'one more', 'one less'])
def test_a_changed_data_set_has_another_fingerprint(folder, change):
    before = open_data(DataSpec(root=folder)).images.fingerprint()
    assert open_data(DataSpec(root=folder)).images.fingerprint() == before
    first = folder / 'validation' / '0' / '0000.png'
    if change == 'another size':
        first.write_bytes(first.read_bytes() + b'x')
    elif change == 'another class':
        first.rename(folder / 'validation' / '1' / '0000.png')
    elif change == 'one more':
        shutil.copy(first, first.with_name('9999.png'))
    else:
        first.unlink()
    assert open_data(DataSpec(root=folder)).images.fingerprint() != before
