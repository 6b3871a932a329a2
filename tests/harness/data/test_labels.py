"""Class mappings with their pitfalls: string-sorted numbers, subsets, other label sets, ground-truth files."""

import codecs
import json
from pathlib import Path

import pytest
from timm.data import ImageNetInfo
from timm.data.readers.class_map import load_class_map

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
from eca_zoo.harness.networks.model_names import read_names
from eca_zoo.harness.suites import read_suite
from eca_zoo.harness.table.frames import read_table
from eca_zoo.weights.manifest import read_manifest

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


def test_numbers_from_one_without_a_gap_are_a_complete_set_of_other_classes():
    with pytest.raises(LabelError, match=r'it has 9 classes \(1, 2, 3, ...\) and the model has 10 classes'):
        map_classes(list('123456789'), 10, 'data')
    assert map_classes(list('13456789'), 10, 'data') == [1, 3, 4, 5, 6, 7, 8, 9]


def test_numbers_from_one_to_the_class_count_map_in_order():
    assert map_classes(['1', '2', '3'], 3, 'data') == [0, 1, 2]


def test_ten_digits_are_not_the_first_ten_classes_of_imagenet():
    with pytest.raises(LabelError) as error:
        map_classes(list('0123456789'), 1000, '/digits', 'resnet50')
    assert str(error.value) == (
        '/digits: it has 10 classes (0, 1, 2, ...) and resnet50 has 1000 classes; name another data set or split, the '
        '--checkpoint of a network with 10 classes, or say which is which with --class-map FILE'
    )


@pytest.mark.parametrize('names', [['cat', 'dog'], ['cat', 'dog', 'n01440764', 'x']])
def test_a_class_count_that_is_not_the_models_is_refused(names):
    with pytest.raises(LabelError, match=f'it has {len(names)} classes .* and the model has 3 classes'):
        map_classes(names, 3, 'data')


def test_names_map_in_order_where_there_are_as_many_as_classes():
    assert map_classes(['cat', 'dog'], 2, 'data') == [0, 1]


def test_the_names_of_a_models_classes_come_before_every_other_rule():
    names = {0: 'n02123159', 1: 'n01440764', 2: '7', 3: 'cat'}
    assert map_classes(['7', 'cat', 'n01440764', 'n02123159'], 4, 'data', 'm', names) == [2, 3, 1, 0]
    synsets = dict(enumerate(reversed(SYNSETS)))
    assert map_classes(IMAGENETTE, 1000, 'data', 'm', synsets) == [999 - SYNSETS.index(name) for name in IMAGENETTE]
    with pytest.raises(
        LabelError, match=r'data: 1 class \(n99999999\) of its 2 are not among those of m; name another'
    ):
        map_classes(['n01440764', 'n99999999'], 1000, 'data', 'm', synsets)


def test_names_that_a_model_gives_to_two_classes_decide_nothing():
    remarks = []
    twice = {0: 'duck', 1: 'crane', 2: 'crane'}
    assert map_classes(['crane', 'duck', 'goose'], 3, 'data', 'm', twice, remarks) == [0, 1, 2]
    assert remarks[0].startswith('data: m has other names (duck, crane, crane) for its classes: ')


def test_a_class_map_is_lines_or_a_json_object(tmp_path):
    lines, json_file = tmp_path / 'map.txt', tmp_path / 'map.json'
    lines.write_text('dog\ncat\n')
    json_file.write_text(json.dumps({'dog': 5, 'cat': 2}))
    assert read_class_map(lines) == {'dog': 0, 'cat': 1}
    assert read_class_map(json_file) == {'dog': 5, 'cat': 2}


def test_an_empty_line_in_a_class_map_is_an_index_as_in_timm(tmp_path):
    path = tmp_path / 'map.txt'
    path.write_bytes('\ndog \r\n\r\n  cat\u2028s\r\n\n'.encode())
    timms = {name: index for name, index in load_class_map(str(path)).items() if name}
    assert read_class_map(path) == timms == {'dog': 1, 'cat\u2028s': 3}


def write_marked(path: Path, text: str, encoding: str) -> Path:
    path.write_bytes({'utf-8-sig': b'', 'utf-16-le': codecs.BOM_UTF16_LE}[encoding] + text.encode(encoding))
    return path


READERS = {
    'class map': ('map.txt', 'dog\ncat\n', read_class_map, {'dog': 0, 'cat': 1}),
    'class map in JSON': ('map.json', '{"dog": 0, "cat": 1}', read_class_map, {'dog': 0, 'cat': 1}),
    'valid labels': ('valid.txt', '3\n5\n', lambda path: read_class_list(str(path)), (3, 5)),
    'ReaL labels': ('real.json', '[[7]]', lambda path: read_real_labels(path, ['ILSVRC2012_val_00000001.JPEG']), [[7]]),
    'ground truth': ('truth.txt', 'a.png 3\n', lambda path: read_ground_truth(path, ['a.png']), [3]),
    'model list': ('models.txt', '# mine\n resnet18 \n  # and\nresnet50\n', read_names, ['resnet18', 'resnet50']),
    'suite': ('suite.yaml', 'version: 1\nmodels: [vgg11]\n', lambda path: len(read_suite(str(path)).models), 1),
    'manifest': ('manifest.yaml', 'version: 1\nmodels: {}\n', lambda path: read_manifest(path).models, {}),
    'table': ('table.csv', 'model,top1\nm,5\n', lambda path: read_table(path)['model'].tolist(), ['m']),
}  # fmt: skip


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16-le'])
@pytest.mark.parametrize('reader', READERS)
def test_text_is_read_as_if_it_had_no_byte_order_mark(reader, encoding, tmp_path):
    name, text, read, expected = READERS[reader]
    assert read(write_marked(tmp_path / name, text.replace('\n', '\r\n'), encoding)) == expected


def test_marks_in_files_that_were_joined_do_not_count(tmp_path):
    path = tmp_path / 'map.txt'
    path.write_bytes(b'\xef\xbb\xbfdog\n\xef\xbb\xbfcat\n')
    assert read_class_map(path) == {'dog': 0, 'cat': 1}


@pytest.mark.parametrize('content', ['["dog"]', '{"dog": "1"}', '{"dog": -1}', '{"dog": 1, "dog": 2}', '{}', '{'])
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


@pytest.mark.parametrize('content', ['', 'cat\n', '1\n2\n1\n', '1\n01\n'])
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
