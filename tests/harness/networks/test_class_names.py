"""What class indices are called: the data set's names, the model's, WordNet ids."""

from timm.data import ImageNetInfo

from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.datasets import open_data
from eca_zoo.harness.networks.class_names import names_of_classes
from tests.harness.image_sets import write_folder


def test_the_classes_of_a_part_of_imagenet_have_the_ids_of_all_a_thousand(tmp_path):
    ids = ImageNetInfo('imagenet-1k').label_names()
    data = open_data(DataSpec(write_folder(tmp_path, names=ids[100:110])))
    assert names_of_classes(data, data.class_indices(1000), 1000, None) == tuple(ids)


def test_names_of_the_data_set_come_before_those_of_the_model(tmp_path):
    data = open_data(DataSpec(write_folder(tmp_path)))
    named = names_of_classes(data, data.class_indices(10), 12, {9: 'nine', 10: 'ten'})
    assert named == (*'0123456789', 'ten', '')
