"""The table of detectors: AP, complexity and images a second in one file, from a run that is continued."""

import csv
import json

import pytest

from eca_zoo.cli import main
from eca_zoo.detection import create_detector
from eca_zoo.detection.coco_suite import read_coco_suite
from eca_zoo.detection.evaluation.detector_spec import DetectorSettings, DetectorSpec
from eca_zoo.detection.speed import SpeedSettings, time_detectors
from tests.detection.coco_sets import write_set

pytest.importorskip('pycocotools')
SUITE = """
version: 1
detectors: [test_maskrcnn.digits]
annotations: {annotations}
images: {images}
resamples: 0
settings: {{device: cpu, workers: 0}}
throughput: {{rounds: 1, round_seconds: 0, warmup_steps: 1, image_size: [64, 96]}}
"""


@pytest.fixture
def suite(tmp_path):
    folder = write_set(tmp_path / 'set', images=3)
    path = folder / 'annotations' / 'instances_val.json'
    truth = json.loads(path.read_text())
    digits = {3: 1, 7: 2, 8: 3, 90: 4}  # category ids of the detector
    truth['categories'] = [{'id': number, 'name': str(number - 1)} for number in digits.values()]
    for entry in truth['annotations']:
        entry['category_id'] = digits[entry['category_id']]
    path.write_text(json.dumps(truth))
    suite = tmp_path / 'suite.yaml'
    suite.write_text(SUITE.format(annotations=path, images=folder / 'val'))
    return suite


def test_the_table_holds_all_that_is_known_of_a_detector(suite, tmp_path, capsys):
    command = ['leaderboard', str(suite), '--run-dir', str(tmp_path / 'run')]
    assert main(command) == 0
    table = (tmp_path / 'run' / 'coco.csv').read_bytes()
    rows = list(csv.DictReader(table.decode().splitlines()))
    assert [row['task'] for row in rows] == ['bbox', 'segm']
    for row in rows:
        assert (row['model'], row['dataset'], row['num_images']) == ('test_maskrcnn.digits', 'val', '3')
        assert float(row['ap']) >= 0
        assert float(row['samples_per_sec']) > 0
        assert row['gflops'] == rows[0]['gflops'] != ''
        assert row['error'] == ''
    assert json.loads((tmp_path / 'run' / 'environment.json').read_text())['data']['images'] == 3
    assert main(command) == 0  # nothing is measured again
    assert (tmp_path / 'run' / 'coco.csv').read_bytes() == table
    assert 'AP50' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('detectors: []', 'detectors: it names none'),
        ('resample: 1', 'resample: unknown key; the nearest is resamples'),
        ('settings: {device: cpu, batch: 1}', 'settings.batch: unknown key'),
        ('throughput: {rounds: 0}', 'throughput: image_size, rounds and threads must be at least 1'),
    ],
)
def test_a_wrong_key_of_a_suite_is_named(tmp_path, capsys, change, message):
    path = tmp_path / 'suite.yaml'
    lines = ['version: 1', 'detectors: [test_maskrcnn]'][: 1 if change.startswith('detectors') else 2]
    path.write_text('\n'.join([*lines, change]))
    assert main(['leaderboard', str(path), '--run-dir', str(tmp_path / 'run')]) == 2
    assert f'{path}: {message}' in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


def test_the_packaged_suite_has_the_six_of_the_published_table():
    suite = read_coco_suite('coco')
    assert len(suite.specs()) == 6
    assert all(spec.name.endswith('_fpn') for spec in suite.specs())
    assert read_coco_suite('imagenet') is None


def test_a_detector_without_weights_is_timed_with_as_many_objects_as_a_trained_one_finds():
    small = {'channels': 16, 'backbone': 'test_eca_resnet', 'min_size': 96}
    specs = [
        DetectorSpec('a', module=create_detector('retinanet', **small).eval()),
        DetectorSpec('test_maskrcnn', options={'num_classes': 80}),  # no published weights have these classes
    ]
    seen = []
    results = time_detectors(
        specs, DetectorSettings('cpu'), SpeedSettings((96, 128), 2, 0, 1), 'a', lambda *state: seen.append(state)
    )
    assert [result.error for result in results] == [None, None]
    assert results[0].relative == 1
    assert results[1].samples_per_sec > 0
    assert results[1].detections == 100
    assert seen[-1][:2] == (6, 6)


def test_benchmark_counts_and_refuses_flags_of_classifiers(tmp_path, capsys):
    file = tmp_path / 'table.csv'
    assert main(['benchmark', 'retinanet_*', '--bench', 'profile', '--results-file', str(file)]) == 0
    with file.open() as opened:
        rows = list(csv.DictReader(opened))
    assert [row['gflops'] for row in rows] == ['239.43', '315.57']
    assert main(['benchmark', 'retinanet_*', '--compile']) == 2
    assert '--compile is for classifiers, and these models are detectors' in capsys.readouterr().err
