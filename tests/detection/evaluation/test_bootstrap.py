"""Resamples are evaluations of sets in which images stand several times, and intervals follow from them."""

import json

import numpy as np
import pytest

from eca_zoo.detection.coco_annotations import read_annotations
from eca_zoo.detection.evaluation.average_precision import accumulate
from eca_zoo.detection.evaluation.bootstrap import ap_interval, ap_of_resamples, difference_interval
from eca_zoo.detection.evaluation.detections import read_results
from eca_zoo.detection.evaluation.matching import match
from tests.detection.coco_sets import make_set, of_task, toolbox_evaluation

pytest.importorskip('pycocotools')


def write(folder, truth, results, task='bbox'):
    (folder / 'annotations.json').write_text(json.dumps(truth))
    (folder / 'results.json').write_text(json.dumps(of_task(results, task)))
    return match(read_annotations(folder / 'annotations.json'), read_results(folder / 'results.json', task), task)


def drawn(truth, results, weights):
    """The set in which each image stands as often as it was drawn, one beside the other."""
    images = sorted(truth['images'], key=lambda image: image['id'])
    copies = [(image, copy) for image, weight in zip(images, weights, strict=True) for copy in range(weight)]
    repeated = {'images': [], 'categories': truth['categories'], 'annotations': []}
    found = []
    for image, copy in copies:
        new = {'image_id': image['id'] * 10 + copy}
        repeated['images'].append(dict(image, id=new['image_id']))
        for entry in truth['annotations']:
            if entry['image_id'] == image['id']:
                repeated['annotations'].append(dict(entry, id=len(repeated['annotations']) + 1, **new))
        found += [dict(entry, **new) for entry in results if entry['image_id'] == image['id']]
    return repeated, found


@pytest.mark.parametrize('task', ['bbox', 'segm'])
def test_a_resample_has_the_ap_that_the_toolbox_gives_to_the_images_that_were_drawn(tmp_path, task):
    rng = np.random.default_rng(0)
    truth, results = make_set(1, images=15)
    scores = rng.permutation(len(results)) / len(results)
    results = [dict(entry, score=score) for entry, score in zip(results, scores.tolist(), strict=True)]
    matches = write(tmp_path, truth, results, task)
    weights = rng.multinomial(15, np.full(15, 1 / 15), size=6).astype(np.int32)
    weights[0] = 1
    values = ap_of_resamples(matches, weights)
    for value, row in zip(values, weights.tolist(), strict=True):
        repeated, found = drawn(truth, results, row)
        (tmp_path / 'drawn.json').write_text(json.dumps(repeated))
        expected = toolbox_evaluation(tmp_path / 'drawn.json', found, task).stats[0]
        assert value == pytest.approx(expected, abs=1e-12)
    assert values[0] == pytest.approx(accumulate(matches).figures()['ap'], abs=1e-12)


def test_an_interval_depends_on_its_seed_alone_and_reports_how_far_it_is(tmp_path):
    matches = write(tmp_path, *make_set(2, images=30))
    states = []
    first = ap_interval(matches, 50, seed=3, report=lambda done, total: states.append((done, total)))
    assert ap_interval(matches, 50, seed=3) == first != ap_interval(matches, 50, seed=4)
    assert states == [(32, 50), (50, 50)]
    assert first.value == pytest.approx(accumulate(matches).figures()['ap'], abs=1e-12)
    assert first.low < first.value < first.high
    few = ap_interval(write(tmp_path, *make_set(2, images=8)), 50)
    assert few.half_width > first.half_width


def test_a_difference_is_surer_than_its_parts_where_detectors_fail_together(tmp_path):
    truth, results = make_set(5, images=30)
    better, worse = write(tmp_path, truth, results), write(tmp_path, truth, results[1::2] + results[::4])
    difference = difference_interval(better, worse, 100)
    assert difference.value == ap_interval(better, 2).value - ap_interval(worse, 2).value
    assert difference.half_width < ap_interval(better, 100).half_width
    assert difference_interval(better, better, 20).half_width == 0
    with pytest.raises(ValueError, match='on the same images and categories'):
        difference_interval(better, write(tmp_path, *make_set(5, images=3)))


@pytest.mark.parametrize('arguments', [{'objects': 0}, {'images': 0}])
def test_where_there_is_no_ap_there_is_no_interval(tmp_path, arguments):
    assert ap_interval(write(tmp_path, *make_set(1, **arguments)), 5) is None
