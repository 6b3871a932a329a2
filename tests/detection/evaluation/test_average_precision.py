"""Precision, recall and the twelve figures are those of COCO's toolbox, to the last bit."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from eca_zoo.detection.coco_annotations import read_annotations
from eca_zoo.detection.evaluation.average_precision import accumulate
from eca_zoo.detection.evaluation.detections import TASKS, Detections, read_results
from eca_zoo.detection.evaluation.matching import match
from tests.detection.coco_sets import CATEGORIES, make_set, of_task, toolbox_evaluation

pytest.importorskip('pycocotools')
COCO100 = Path(__file__).parents[4] / 'shared' / 'reference' / 'coco100'


def curves_of(folder, truth, results, task):
    (folder / 'annotations.json').write_text(json.dumps(truth))
    (folder / 'results.json').write_text(json.dumps(of_task(results, task)))
    annotations = read_annotations(folder / 'annotations.json')
    return accumulate(match(annotations, read_results(folder / 'results.json', task), task))


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize(
    'arguments',
    [
        {'seed': 0},
        {'seed': 1, 'images': 60, 'objects': 9},
        {'seed': 2, 'images': 3, 'detections': 900},
        {'seed': 3, 'first_id': 0},
        {'seed': 4, 'detections': 0},
        {'seed': 5, 'objects': 0},
        {'seed': 6, 'images': 0},
    ],
    ids=['set', 'many', 'crowded', 'id 0', 'nothing found', 'nothing marked', 'no images'],
)
def test_arrays_and_figures_equal_the_toolbox(tmp_path, task, arguments):
    truth, results = make_set(**arguments)
    curves = curves_of(tmp_path, truth, results, task)
    expected = toolbox_evaluation(tmp_path / 'annotations.json', results, task)
    assert np.array_equal(curves.precision, expected.eval['precision'])
    assert np.array_equal(curves.recall, expected.eval['recall'])
    assert list(curves.figures().values()) == expected.stats.tolist()


def test_the_figures_of_a_category_are_those_of_a_set_with_it_alone(tmp_path):
    truth, results = make_set(7, images=20)
    per_category = curves_of(tmp_path, truth, results, 'bbox').per_category()
    for number in CATEGORIES:
        own = dict(truth, categories=[entry for entry in truth['categories'] if entry['id'] == number])
        own['annotations'] = [entry for entry in truth['annotations'] if entry['category_id'] == number]
        (tmp_path / 'own.json').write_text(json.dumps(own))
        found = [entry for entry in results if entry['category_id'] == number]
        expected = toolbox_evaluation(tmp_path / 'own.json', found, 'bbox').stats[:3].tolist()
        assert list(per_category[number].values()) == expected
    assert per_category[90] == {'ap': -1, 'ap50': -1, 'ap75': -1}


def test_what_the_annotations_do_not_know_does_not_count(tmp_path):
    truth, results = make_set(8)
    known = curves_of(tmp_path, truth, results, 'bbox')
    strangers = [dict(results[0], image_id=4), dict(results[1], category_id=4)]
    assert np.array_equal(curves_of(tmp_path, truth, strangers + results, 'bbox').precision, known.precision)


@pytest.mark.parametrize('task', TASKS)
def test_results_survive_their_file(tmp_path, task):
    _, results = make_set(9)
    (tmp_path / 'results.json').write_text(json.dumps(of_task(results, task)))
    read = read_results(tmp_path / 'results.json', task)
    text = read.to_json(task)
    assert json.loads(text) == [
        {key: entry[key] for key in value} for entry, value in zip(results, json.loads(text), strict=True)
    ]
    (tmp_path / 'again.json').write_bytes(text)
    assert read_results(tmp_path / 'again.json', task).to_json(task) == text
    assert Detections.joined([], True).to_json(task) == b'[]\n'


@pytest.mark.skipif(not COCO100.is_dir(), reason='needs the real annotations of ../shared, which are not ours to give')
@pytest.mark.parametrize('task', TASKS)
def test_real_annotations_give_the_printed_figures(task):
    with (COCO100 / 'expected.csv').open() as file:
        [row] = [row for row in csv.DictReader(file) if row['task'] == task]
    annotations = read_annotations(COCO100 / 'instances_val2014_100.json')
    annotations.check_masks()
    name = {'bbox': 'fakebbox', 'segm': 'fakesegm'}[task]
    results = read_results(COCO100 / f'instances_val2014_{name}100_results.json', task)
    figures = list(accumulate(match(annotations, results, task)).figures().values())
    assert figures == pytest.approx([float(value) for value in list(row.values())[1:]], abs=1e-12, rel=0)
