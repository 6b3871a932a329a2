"""Class mappings with their pitfalls: string-sorted numbers, subsets, other label sets, ground-truth files."""

import json

import numpy as np
import pytest
from scipy.io import savemat
from timm.data import ImageNetInfo

from eca_zoo.errors import InputError
from eca_zoo.harness.data.ground_truth import read_ground_truth
from eca_zoo.harness.data.labels import (
    NAMED_CLASS_LISTS,
    LabelError,
    map_classes,
    named_subset,
    read_class_list,
    read_class_map,
    read_real_labels,
)

SYNSETS = ImageNetInfo('imagenet-1k').label_names()
IMAGENETTE = [
    'n01440764', 'n02102040', 'n02979186', 'n03000684', 'n03028079', 'n03394916', 'n03417042', 'n03425413',
    'n03445777', 'n03888257',
]  # fmt: skip


def test_all_wordnet_ids_of_imagenet_map_to_their_sorted_order():
    assert map_classes(sorted(SYNSETS), 1000, 'data') == list(range(1000))


def test_imagenette_maps_to_ten_of_a_thousand_classes():
    assert map_classes(IMAGENETTE, 1000, 'data') == [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]


def test_imagenette_for_a_model_with_ten_classes_maps_in_order():
    assert map_classes(IMAGENETTE, 10, 'data') == list(range(10))


@pytest.mark.parametrize('name', ['imagenet-a', 'imagenet-r'])
def test_the_200_classes_of_imagenet_a_and_r_map_to_the_published_indices(name):
    indices = read_class_list(name)
    names = [SYNSETS[index] for index in indices]
    assert len(indices) == 200
    assert map_classes(sorted(names), 1000, 'data') == sorted(indices)


def test_imagenet_a_and_r_are_recognised_by_their_classes():
    for name in NAMED_CLASS_LISTS:
        assert named_subset([SYNSETS[index] for index in read_class_list(name)]) == name
    assert named_subset(SYNSETS[:200]) is None
    assert named_subset(IMAGENETTE) is None


def test_wordnet_ids_map_by_the_label_set_of_a_model_with_21841_classes():
    synsets = ImageNetInfo('imagenet-22k').label_names()
    assert map_classes(['n01440764', 'n02123159'], 21841, 'data') == [
        synsets.index('n01440764'),
        synsets.index('n02123159'),
    ]


def test_a_wordnet_id_that_is_no_imagenet_class_is_named():
    with pytest.raises(LabelError) as error:
        map_classes(['n01440764', 'n99999999'], 1000, 'DIR', 'resnet50')
    assert str(error.value) == (
        'DIR: 1 class (n99999999) of its 2 are not among the classes of imagenet-1k, which resnet50 has; name another '
        'data set, or say which is which with --class-map FILE'
    )


def test_the_folders_of_imagenet_v2_map_by_value_in_whatever_order_they_come():
    names = sorted(map(str, range(1000)))
    assert names[:4] == ['0', '1', '10', '100']
    assert map_classes(names, 1000, 'data') == [int(name) for name in names]


def test_some_folders_of_imagenet_v2_map_by_value():
    assert map_classes(['7', '10', '999'], 1000, 'data') == [7, 10, 999]


def test_numbers_with_leading_zeros_map_by_value():
    assert map_classes(['0007', '0010', '0999'], 1000, 'data') == [7, 10, 999]


def test_numbers_from_one_to_the_class_count_map_in_order():
    assert map_classes(['1', '2', '3'], 3, 'data') == [0, 1, 2]


def test_ten_digits_are_not_the_first_ten_classes_of_imagenet():
    with pytest.raises(LabelError) as error:
        map_classes(list('0123456789'), 1000, '/digits', 'resnet50')
    assert str(error.value) == (
        '/digits: it has 10 classes (0, 1, 2, ...) and resnet50 has 1000 classes; name another data set or split, '
        'build the model with --num-classes 10, or say which is which with --class-map FILE'
    )


@pytest.mark.parametrize('names', [['cat', 'dog'], ['cat', 'dog', 'n01440764', 'x']])
def test_a_class_count_that_is_not_the_models_is_refused(names):
    with pytest.raises(LabelError, match=f'it has {len(names)} classes .* and the model has 3 classes'):
        map_classes(names, 3, 'data')


def test_names_map_in_order_where_there_are_as_many_as_classes():
    assert map_classes(['cat', 'dog'], 2, 'data') == [0, 1]


def test_a_class_map_is_lines_or_a_json_object(tmp_path):
    lines, json_file = tmp_path / 'map.txt', tmp_path / 'map.json'
    lines.write_text('dog\ncat\n')
    json_file.write_text(json.dumps({'dog': 5, 'cat': 2}))
    assert read_class_map(lines) == {'dog': 0, 'cat': 1}
    assert read_class_map(json_file) == {'dog': 5, 'cat': 2}


@pytest.mark.parametrize('content', ['["dog"]', '{"dog": "1"}', '{}', '{'])
def test_a_class_map_in_json_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / 'map.json'
    path.write_text(content)
    with pytest.raises(InputError, match=str(path)):
        read_class_map(path)


def test_a_class_that_is_named_twice_in_a_class_map_is_refused(tmp_path):
    path = tmp_path / 'map.txt'
    path.write_text('dog\ncat\ndog\n')
    with pytest.raises(InputError, match='names each class once'):
        read_class_map(path)


@pytest.mark.parametrize('content', ['', 'cat\n', '1\n2\n1\n'])
def test_a_list_of_valid_labels_has_different_numbers(tmp_path, content):
    path = tmp_path / 'valid.txt'
    path.write_text(content)
    with pytest.raises(InputError, match='one class index a line, each once'):
        read_class_list(str(path))


def test_real_labels_belong_to_the_number_in_the_file_name():
    names = ['val/n01751748/ILSVRC2012_val_00000001.JPEG', 'ILSVRC2012_val_00000004_n04263257.JPEG']
    assert read_real_labels(None, names) == [[], [809]]


def test_real_labels_of_another_data_set_are_refused():
    with pytest.raises(InputError) as error:
        read_real_labels(None, ['cat.jpg'])
    assert str(error.value) == (
        'cat.jpg: not an ImageNet validation image (ILSVRC2012_val_00000001.JPEG to 00050000), so it has no ReaL '
        'labels; leave out --real-labels'
    )


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
