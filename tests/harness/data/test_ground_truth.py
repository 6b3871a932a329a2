"""Ground-truth files in every form that people have, and labels that may be meant for another image."""

import numpy as np
import pytest
from scipy.io import savemat
from timm.data import ImageNetInfo

from eca_zoo.errors import InputError
from eca_zoo.harness.accuracy.evaluation import evaluate
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.datasets import open_data
from eca_zoo.harness.data.ground_truth import read_ground_truth
from eca_zoo.harness.networks.model_spec import ModelSpec
from tests.harness.image_sets import MODEL, digits, write_named

SYNSETS = ImageNetInfo('imagenet-1k').label_names()
NAMES = ['ILSVRC2012_val_00000001.JPEG', 'ILSVRC2012_val_00000002.JPEG', 'ILSVRC2012_val_00000003.JPEG']


@pytest.mark.parametrize(
    ('content', 'labels'),
    [
        ('\n'.join(f'{name} {index}' for name, index in zip(NAMES, (65, 970, 0), strict=True)), [65, 970, 0]),
        ('\n'.join(f'{name},{index}' for name, index in zip(reversed(NAMES), (0, 970, 65), strict=True)), [65, 970, 0]),
        (
            'ImageId,PredictionString\n'
            'ILSVRC2012_val_00000002,n09193705 85 1 499 272 n09193705 1 2 3 4 \n'
            'ILSVRC2012_val_00000001,n01751748 1 2 3 4 \n'
            'ILSVRC2012_val_00000003,n02105855 1 2 3 4 \n',
            ['n01751748', 'n09193705', 'n02105855'],
        ),
        ('n01751748\nn09193705\nn02105855\n', ['n01751748', 'n09193705', 'n02105855']),
        ('65\n970\n0\n', [65, 970, 0]),
    ],
    ids=['caffe', 'comma and another order', 'kaggle', 'wordnet ids', 'class indices'],
)
def test_ground_truth_files_are_read_in_every_form(tmp_path, content, labels):
    path = tmp_path / 'truth.txt'
    path.write_text(content)
    assert read_ground_truth(path, NAMES) == labels


def devkit_order() -> list[str]:
    """WordNet ids in an order that is not the sorted one."""
    return sorted(SYNSETS, key=lambda name: name[::-1])


def test_numbers_of_the_development_kit_are_not_class_indices(tmp_path):
    path = tmp_path / 'ILSVRC2012_validation_ground_truth.txt'
    path.write_text('490\n361\n171\n')
    with pytest.raises(InputError) as error:
        read_ground_truth(path, NAMES)
    assert str(error.value) == (
        f'{path}: its numbers from 1 are the order of the development kit, not class indices; put meta.mat of the kit '
        '(or map_clsloc.txt) beside the file, or give a ground-truth file with WordNet ids'
    )


def test_numbers_of_the_development_kit_are_resolved_by_its_map(tmp_path):
    order = devkit_order()
    (tmp_path / 'truth.txt').write_text('490\n361\n1\n')
    lines = [f'{name} {number} name' for number, name in enumerate(order, 1)]
    (tmp_path / 'map_clsloc.txt').write_text('\n'.join(reversed(lines)))
    labels = read_ground_truth(tmp_path / 'truth.txt', NAMES)
    assert labels == [order[489], order[360], order[0]]


def test_numbers_of_the_development_kit_are_resolved_by_its_meta_file(tmp_path):
    order = devkit_order()
    kinds = [('ILSVRC2012_ID', 'f8'), ('WNID', 'O'), ('num_children', 'f8')]
    inner = [(1001 + number, f'n9999999{number}', 3) for number in range(4)]
    records = np.array([(number, name, 0) for number, name in enumerate(order, 1)] + inner, dtype=kinds)
    (tmp_path / 'data').mkdir()
    savemat(tmp_path / 'data' / 'meta.mat', {'synsets': records.reshape(-1, 1)})
    (tmp_path / 'truth.txt').write_text('490\n361\n1\n')
    assert read_ground_truth(tmp_path / 'truth.txt', NAMES) == [order[489], order[360], order[0]]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('', 'is empty'),
        ('65\n970\n', 'it labels 2 images by their order, and there are 3'),
        (f'{NAMES[0]} 65\n{NAMES[1]} 7\n', f'it has no label for {NAMES[2]}'),
        ('cat\ndog\nbird\n', "'cat' is neither a WordNet id"),
        (f'{NAMES[0]} 65\n{NAMES[1]} 7 8\n', 'line 2: expected a file name and its class'),
    ],
)
def test_a_ground_truth_file_that_does_not_fit_is_refused(tmp_path, content, message):
    path = tmp_path / 'truth.txt'
    path.write_text(content)
    with pytest.raises(InputError, match=message) as error:
        read_ground_truth(path, NAMES)
    assert str(path) in str(error.value)


def truth(tmp_path, content):
    path = tmp_path / 'truth.txt'
    path.write_text(content)
    return path


def test_labels_of_one_file_name_in_several_folders_go_by_the_path(tmp_path):
    root = write_named(tmp_path / 'digits', lambda index, _: f'cam{index % 2}/{index // 2:04d}.png')
    lines = [f'cam{index % 2}/{index // 2:04d}.png {label}' for index, (_, label) in enumerate(digits())]
    spec = DataSpec(root=root, ground_truth=truth(tmp_path, '\n'.join(lines)))
    [result] = evaluate([ModelSpec(MODEL)], spec, EvalSettings(batch_size=20, workers=0, device='cpu'))
    assert (result.top1, result.num_images) == (100, 60)


@pytest.mark.parametrize(
    ('content', 'labels'),
    [
        ('b/1.png 1\na/1.png 0\n', [0, 1]),
        ('./a/1.png 0\nb\\1.png 1\n', [0, 1]),
        ('val/a/1.png 0\nval/b/1.png 1\n', [0, 1]),
        ('/data/val/a/1.jpg 0\n/data/val/b/1.jpg 1\n', [0, 1]),
        ('a/1 0\nb/1 1\na/1 0\n', [0, 1]),
        ('file,class\na/1.png,0\nb/1.png,1\n', [0, 1]),
    ],
    ids=['other order', 'other slashes', 'from above', 'other extension', 'the same twice', 'with a header'],
)  # fmt: skip
def test_paths_are_found_as_people_write_them(tmp_path, content, labels):
    assert read_ground_truth(truth(tmp_path, content), ['a/1.png', 'b/1.png']) == labels


def test_paths_may_begin_below_the_folder_of_the_data_set(tmp_path):
    assert read_ground_truth(truth(tmp_path, 'a/1.png 0\nb/1.png 1\n'), ['x/a/1.png', 'x/b/1.png']) == [0, 1]


def test_a_file_name_is_enough_where_only_one_image_has_it(tmp_path):
    path = truth(tmp_path, 'val/1.png 0\nval/2.png 1\n')
    assert read_ground_truth(path, ['n01440764/1.png', 'n01443537/2.png']) == [0, 1]


def test_a_name_may_have_spaces_and_two_images_names_that_differ_in_their_extension(tmp_path):
    path = truth(tmp_path, 'my cat.png 0\nmy cat.jpg, 1\n"a, b.png",2\n')
    assert read_ground_truth(path, ['my cat.png', 'my cat.jpg', 'a, b.png']) == [0, 1, 2]


@pytest.mark.parametrize(
    ('content', 'names', 'message'),
    [
        ('1.png 0\n', ['a/1.png', 'b/1.png'], "1.png may be a/1.png or b/1.png; write paths below the data set's"),
        ('a/1.png 0\nb/1.png 1\n', ['1.png'], 'whether 1.png is a/1.png or b/1.png is not known; write paths below'),
        ('a/1.png 0\nb/1.png 1\n', ['c/1.png'], 'whether c/1.png is a/1.png or b/1.png is not known'),
        ('a/1.png 0\na/1.png 1\n', ['a/1.png'], 'it has two labels for a/1.png: 0 and 1; remove the wrong one'),
        ('a/1.png 0\n./a/1.png 1\n', ['a/1.png'], 'it has two labels for ./a/1.png: 0 and 1'),
        ('ImageId,PredictionString\nx,n01440764 1 2\nx,n01443537 1 2\n', ['x.JPEG'], 'it has two labels for x:'),
        ('ImageId,PredictionString\nx,\n', ['x.JPEG'], 'x has no label; expected an image and its PredictionString'),
    ],
)  # fmt: skip
def test_a_label_that_may_be_meant_for_another_image_is_an_error(tmp_path, content, names, message):
    path = truth(tmp_path, content)
    with pytest.raises(InputError) as error:
        read_ground_truth(path, names)
    assert str(error.value).startswith(f'{path}: {message}')


def test_labels_by_order_are_refused_where_names_have_two_orders(tmp_path):
    path = truth(tmp_path, '0\n1\n2\n')
    assert read_ground_truth(path, ['1.png', '2.png', '3.png']) == [0, 1, 2]
    with pytest.raises(
        InputError, match=r'by their order, and whether 10.png or 2.png comes first is not known; give a'
    ):
        read_ground_truth(path, ['1.png', '2.png', '10.png'])
    with pytest.raises(InputError, match=r'whether a/2.png or b/1.png comes first is not known'):
        read_ground_truth(path, ['a/2.png', 'b/1.png', 'c/3.png'])


def test_labels_by_order_belong_to_the_numbers_of_imagenets_validation_images(tmp_path):
    names = [f'{folder}/ILSVRC2012_val_{number:08d}.JPEG' for folder, number in (('a', 2), ('a', 3), ('b', 1))]
    assert read_ground_truth(truth(tmp_path, '0\n1\n2\n'), names) == [1, 2, 0]


def test_labels_of_images_that_are_not_there_are_counted_in_a_warning(tmp_path):
    root = write_named(tmp_path / 'digits', lambda index, _: f'{index}.png', 2)
    path = truth(tmp_path, 'file label\n0.png 0\n1.png 1\n2.png 2\n3.png 3\n')
    images = open_data(DataSpec(root=root, ground_truth=path)).images
    assert images.remarks == (f'{path}: 2 of its 5 labels belong to no image here (2.png)',)
