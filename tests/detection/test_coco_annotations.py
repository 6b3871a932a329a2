"""Annotations in COCO's format: what is wrong with them is one line that names the file and the entry."""

import json

import pytest

from eca_zoo.detection.coco_annotations import read_annotations
from eca_zoo.detection.coco_images import open_coco
from eca_zoo.detection.evaluation.detections import read_results
from eca_zoo.errors import InputError
from tests.detection.coco_sets import make_set, of_task


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def refused(path, with_masks=False):
    with pytest.raises(InputError) as error:
        read_annotations(path).check_masks() if with_masks else read_annotations(path)
    assert '\n' not in str(error.value)
    assert str(error.value).startswith(f'{path}: ')
    return str(error.value).removeprefix(f'{path}: ')


def changed(part, index, **values):
    def change(truth):
        entry = truth[part][index]
        for key, value in values.items():
            if value is None:
                del entry[key]
            else:
                entry[key] = value

    return change


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (changed('annotations', 1, bbox=None), 'annotations[1] (id 2): it lacks the key `bbox`'),
        (changed('annotations', 1, area=None), 'annotations[1] (id 2): it lacks the key `area`'),
        (changed('annotations', 0, id='7'), 'annotations[0] (id 7): Expected `int`, got `str` in `id`'),
        (changed('annotations', 0, bbox=[1, 2, 3]), 'annotations[0] (id 1): '),
        (changed('images', 2, file_name=None), 'images[2] (id 25): it lacks the key `file_name`'),
        (changed('images', 2, height=0), 'images[2] (id 25): a file name, and a height and width of at least 1'),
        (changed('categories', 0, name=None), 'categories[0] (id 3): it lacks the key `name`'),
        (changed('annotations', 2, id=1), 'annotations[0] and annotations[2] have one id, 1; give each its own'),
        (changed('images', 1, id=5), 'images[0] and images[1] have one id, 5'),
        (changed('categories', 1, id=3), 'categories[0] and categories[1] have one id, 3'),
        (changed('annotations', 0, image_id=4), 'its image_id 4 is none of the 12 images of the file'),
        (changed('annotations', 0, category_id=4), 'its category_id 4 is none of the 4 categories of the file'),
        (changed('annotations', 0, bbox=[5, 5, 0, 9]), 'its box [5, 5, 0, 9] has no area'),
        (changed('annotations', 0, bbox=[5, 5, -3, 9]), 'its box [5, 5, -3, 9] has no area'),
        (changed('annotations', 0, bbox=[100, 5, 90, 9]), 'ends outside its image of 160x120 pixels'),
        (changed('annotations', 0, bbox=[-9, 5, 20, 9]), 'ends outside its image of 160x120 pixels'),
        (changed('annotations', 0, area=-1), 'area is at least 0 and iscrowd 0 or 1, not -1 and'),
        (changed('annotations', 0, iscrowd=2), 'area is at least 0 and iscrowd 0 or 1, not'),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, change, message):
    truth, _ = make_set(0)
    change(truth)
    assert message in refused(write(tmp_path / 'a.json', truth))


@pytest.mark.parametrize(
    ('segmentation', 'message'),
    [
        ([[1, 2, 3, 4, 5, 6, 7]], 'a polygon of its segmentation has 7 values; an even number of at least 6'),
        ([[1, 2, 3, 4]], 'a polygon of its segmentation has 4 values'),
        ([1, 2, 3, 4, 5, 6], 'its segmentation is no list of polygons'),
        ([], 'it has no segmentation, which the evaluation of masks needs; evaluate boxes alone with --task bbox'),
        (None, 'it has no segmentation'),
        ({'size': [160, 120], 'counts': [19200]}, 'its segmentation is of [160, 120] pixels, and its image of [120'),
        (
            {'size': [120, 160], 'counts': [5, 7]},
            'the run lengths of its segmentation do not add up to its image',
        ),
        (
            {'size': [120, 160], 'counts': '~'},
            'the run lengths of its segmentation do not add up to its image',
        ),
    ],
)
def test_a_wrong_mask_is_named_where_masks_are_compared(tmp_path, segmentation, message):
    truth, _ = make_set(0)
    truth['annotations'][3]['segmentation'] = segmentation
    path = write(tmp_path / 'a.json', truth)
    assert len(read_annotations(path)) == len(truth['annotations'])
    assert refused(path, with_masks=True).startswith(f'annotations[3] (id 4): {message}')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"images": [', 'no readable JSON'),
        ('[]', "it has no list 'images'"),
        ('{"images": [], "categories": {}}', "it has no list 'categories'"),
        ('\x00', 'no readable JSON'),
    ],
)
def test_a_file_that_is_something_else_is_refused(tmp_path, content, message):
    assert message in refused(write(tmp_path / 'a.json', content))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert refused(tmp_path / 'a.json') == 'cannot read the annotations: No such file or directory; name a JSON file'


def test_training_leaves_faulty_boxes_out_and_says_so(tmp_path):
    truth, _ = make_set(0)
    truth['annotations'][4]['bbox'] = [5, 5, 0, 9]
    read = read_annotations(write(tmp_path / 'a.json', truth), leave_out_faulty_boxes=True)
    assert len(read) == len(truth['annotations']) - 1
    assert 5 not in read.ids
    [remark] = read.remarks
    assert f'1 of its {len(truth["annotations"])} objects are left out (annotations[4]: its box' in remark


def test_an_annotation_that_the_toolbox_would_overlook_is_remarked_on(tmp_path):
    truth, _ = make_set(0, first_id=0)
    [remark] = read_annotations(write(tmp_path / 'a.json', truth)).remarks
    assert 'an annotation has the id 0' in remark


@pytest.mark.parametrize(
    ('task', 'change', 'message'),
    [
        ('bbox', {'bbox': None}, '[2]: it lacks the key `bbox`'),
        ('segm', {'segmentation': None}, '[2]: it lacks the key `segmentation`'),
        ('segm', {'bbox': [1, 2, 3, 4]}, '[2]: it has both `segmentation` and `bbox`'),
        ('bbox', {'score': 'high'}, '[2]: Expected `float`, got `str`'),
        ('segm', {'segmentation': {'size': [3, 3], 'counts': '1'}}, '[2]: the run lengths of its segmentation do not'),
    ],
)
def test_wrong_results_are_named(tmp_path, task, change, message):
    _, results = make_set(1)
    entries = of_task(results, task)
    entries[2] = {key: value for key, value in {**entries[2], **change}.items() if value is not None}
    path = write(tmp_path / 'results.json', entries)
    with pytest.raises(InputError, match=r'results\.json: ') as error:
        read_results(path, task)
    assert message in str(error.value)


def test_a_set_is_found_as_it_is_unpacked(tmp_path):
    truth, _ = make_set(0, images=1)
    (tmp_path / 'annotations').mkdir()
    for name in ('train2017', 'val2017'):
        write(tmp_path / 'annotations' / f'instances_{name}.json', truth)
        (tmp_path / name).mkdir()
        (tmp_path / name / '000.png').touch()
    assert open_coco(tmp_path).folder == tmp_path / 'val2017'
    assert open_coco(tmp_path, 'train').name == 'train2017'
    write(tmp_path / 'annotations' / 'instances_val2014.json', truth)
    with pytest.raises(InputError, match='choose one with --split or --annotations'):
        open_coco(tmp_path)
    assert open_coco(tmp_path, 'val2017').name == 'val2017'
    with pytest.raises(InputError, match='there is no annotations/instances_'):
        open_coco(tmp_path / 'val2017')
