"""Detectors over a set: the same files on any number of processes and after any end, and one line for what is wrong."""

import csv
import json
import signal

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from eca_zoo.cli import main
from eca_zoo.detection.coco_images import open_coco
from eca_zoo.detection.evaluation.detector_spec import DetectorSettings, DetectorSpec
from eca_zoo.detection.evaluation.run import evaluate_detectors
from eca_zoo.resources import packaged_path
from tests.detection.coco_sets import toolbox_evaluation, write_checkpoint, write_set
from tests.harness.image_sets import write_folder
from tests.harness.processes import ROOT, run_program

pytest.importorskip('pycocotools')
MODEL = 'test_maskrcnn'
FIGURES = ['ap', 'ap50', 'ap75', 'ap_small', 'ap_medium', 'ap_large', 'ar_1', 'ar_10', 'ar_100', 'ar_small',
           'ar_medium', 'ar_large']  # fmt: skip


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp('coco') / 'set', images=9)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp('weights') / 'detector.safetensors')


def validate(coco, weights, *arguments):
    return main(['validate', '-m', MODEL, '--checkpoint', str(weights), '--data-dir', str(coco), '--device', 'cpu',
                 '--model-kwargs', 'detections_per_image=20', '--resamples', '20', *map(str, arguments)])  # fmt: skip


def test_the_figures_are_those_of_the_toolbox_for_the_results_that_are_written(coco, weights, tmp_path, capsys):
    files = ['--results-file', tmp_path / 'table.csv', '--save-predictions', tmp_path / 'found.json']
    assert validate(coco, weights, *files, '--per-class', tmp_path / 'classes.csv', '--save-pictures', 2) == 0
    with (tmp_path / 'table.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['task'] for row in rows] == ['bbox', 'segm']
    for row in rows:
        found = json.loads((tmp_path / f'found.{row["task"]}.json').read_text())
        assert len(found) > 20
        assert set(found[0]) == {
            'image_id',
            'category_id',
            'score',
            {'bbox': 'bbox', 'segm': 'segmentation'}[row['task']],
        }
        expected = toolbox_evaluation(coco / 'annotations' / 'instances_val.json', found, row['task']).stats
        assert [row[name] for name in FIGURES] == [f'{100 * value:.3f}' if value >= 0 else '' for value in expected]
        params = sum(
            tensor.numel() for key, tensor in load_file(weights).items() if '.running_' not in key and 'num_' not in key
        )
        assert (row['dataset'], row['num_images'], row['params']) == ('val', '9', str(params))
        assert float(row['ap_ci95']) >= 0
    with (tmp_path / 'classes.csv').open() as file:
        classes = list(csv.DictReader(file))
    assert [row['category'] for row in classes] == ['cat', 'dog', 'bird', 'never marked'] * 2
    assert classes[3]['ap'] == ''
    pictures = sorted((tmp_path / 'pictures').rglob('*.png'))
    assert len(pictures) == 2
    assert Image.open(pictures[0]).width > 2 * 480
    assert 'AP50' in capsys.readouterr().out


PROGRAM = """
sys.path.insert(0, {root!r})
from scripts.end_at import end_at
import pandas, pycocotools.mask, torchvision
import eca_zoo.detection.evaluation.run, eca_zoo.detection.evaluation.table

def command(name):
    return ['validate', '-m', 'test_maskrcnn', '--checkpoint', {weights!r}, '--data-dir', {coco!r}, '--device', 'cpu',
            '--model-kwargs', 'detections_per_image=10', '--resamples', '5', '--record-every', '0',
            '--run-dir', f'{out}/{{name}}-run',
            '--results-file', f'{out}/{{name}}.csv', '--save-predictions', f'{out}/{{name}}.json']

def validate(name, count=1, step=0, number=0):
    def run(rank):
        if rank == 0:
            end_at(step, number)
        return main(command(name))
    return launch(count, run)

"""
_SUFFIXES = ('csv', 'bbox.json', 'segm.json')


def contents(folder, name):
    return [(folder / f'{name}.{suffix}').read_bytes() for suffix in _SUFFIXES]


def test_files_are_the_same_to_the_byte_on_any_number_of_processes(coco, weights, tmp_path):
    body = PROGRAM.format(root=str(ROOT), weights=str(weights), coco=str(coco), out=str(tmp_path))
    body += "for count in (1, 2, 3, 5):\n    assert validate(f'p{count}', count) == [0] * count\n"
    run_program(tmp_path / 'program.py', body)
    assert len({tuple(contents(tmp_path, f'p{count}')) for count in (1, 2, 3, 5)}) == 1


def test_a_run_that_is_ended_again_and_again_gives_the_files_of_an_undisturbed_one(coco, weights, tmp_path):
    ends = [(4, signal.SIGKILL), (10, signal.SIGKILL), (7, signal.SIGTERM), (14, signal.SIGKILL)]
    body = PROGRAM.format(root=str(ROOT), weights=str(weights), coco=str(coco), out=str(tmp_path))
    body += f"""
codes = [validate('whole')[0]]
codes += [validate('ended', 1, step, number)[0] for step, number in {[(step, int(n)) for step, n in ends]!r}]
print('CODES', *codes, validate('ended', 2)[0])
"""
    done = run_program(tmp_path / 'program.py', body)
    [line] = [line for line in done.stdout.splitlines() if line.startswith('CODES')]
    assert line.split()[1:] == ['0', '-9', '-9', '143', '-9', '0']
    assert contents(tmp_path, 'ended') == contents(tmp_path, 'whole')
    assert 'stopped by SIGTERM; what was found is in' in done.stderr


def test_detectors_that_share_images_find_what_each_finds_alone(coco, weights, tmp_path):
    other = write_checkpoint(tmp_path / 'other.safetensors', seed=1)
    specs = [DetectorSpec(MODEL, weights, label='a'), DetectorSpec(MODEL, other, {'min_size': 96}, label='b')]
    data, settings = open_coco(coco), DetectorSettings('cpu', workers=2)
    together = evaluate_detectors(specs, data, settings, resamples=10, baseline='a')
    for spec, result in zip(specs, together, strict=True):
        [alone] = evaluate_detectors([spec], data, DetectorSettings('cpu', workers=0), resamples=0)
        for task in ('bbox', 'segm'):
            assert result.detections.to_json(task) == alone.detections.to_json(task)
            assert result.tasks[task].figures == alone.tasks[task].figures
    difference = together[1].tasks['bbox'].difference
    assert difference[0] == pytest.approx(
        together[1].tasks['bbox'].figures['ap'] - together[0].tasks['bbox'].figures['ap'], abs=1e-12
    )
    assert together[0].tasks['bbox'].difference is None


def test_a_detector_that_fails_leaves_the_others_alone(coco, weights, tmp_path):
    good, bad = DetectorSpec(MODEL, weights, label='good'), DetectorSpec(MODEL, tmp_path / 'none', label='bad')
    results = evaluate_detectors([bad, good], open_coco(coco), DetectorSettings('cpu'), tasks=('bbox',), resamples=0)
    assert results[0].error == f'{tmp_path / "none"}: there is no such checkpoint; check --checkpoint'
    assert (results[0].exit_code, results[1].error) == (2, None)


def edited(coco, tmp_path, change):
    truth = json.loads((coco / 'annotations' / 'instances_val.json').read_text())
    change(truth)
    (tmp_path / 'edited.json').write_text(json.dumps(truth))
    return ['--annotations', tmp_path / 'edited.json', '--images', coco / 'val']


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda truth: truth['images'][2].update(file_name='gone.png'), '1 of the 9 images of {file} are not there'),
        (lambda truth: truth['images'][0].update(height=160, width=120), 'it was turned after it was annotated'),
        (lambda truth: truth['categories'][0].update(id=2), 'category_id 3 is none of the 4 categories'),
        (lambda truth: truth['annotations'][1].pop('segmentation'), 'annotations[1] (id 2): it has no segmentation'),
    ],
    ids=['no image', 'turned', 'category', 'no mask'],
)
def test_what_is_wrong_with_a_set_is_one_line_with_exit_code_2(coco, weights, tmp_path, capsys, change, message):
    out = tmp_path / 'table.csv'
    assert validate(coco, weights, *edited(coco, tmp_path, change), '--results-file', out) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if 'error' in line]
    assert message.format(file=tmp_path / 'edited.json') in line
    assert not out.exists()


def test_a_broken_image_is_named(coco, weights, tmp_path, capsys):
    broken = write_set(tmp_path / 'broken')
    (broken / 'val' / '003.png').write_bytes((broken / 'val' / '003.png').read_bytes()[:200])
    assert validate(broken, weights, '-j', 1) == 2
    assert '003.png: the image cannot be read' in capsys.readouterr().err


@pytest.mark.parametrize('mode', ['L', 'CMYK', 'I;16', 'RGBA', 'P'])
def test_images_of_any_kind_are_read_as_they_are_stored(tmp_path, mode):
    folder = write_set(tmp_path / 'set', images=1)
    path = folder / 'val' / '000.png'
    original = Image.open(path)
    if mode == 'I;16':
        grey = original.convert('L')
        converted, expected = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), grey.convert('RGB')
    else:
        converted, expected = original.convert(mode), original.convert(mode).convert('RGB')
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    converted.save(path, 'JPEG' if mode == 'CMYK' else 'PNG', exif=exif)
    if mode == 'CMYK':
        expected = Image.open(path).convert('RGB')
    pixels = open_coco(folder).read(0)
    assert tuple(pixels.shape) == (3, 120, 160)
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), expected)


def test_a_detector_of_other_categories_is_refused(coco, weights, tmp_path, capsys):
    two = write_checkpoint(tmp_path / 'two.safetensors', classes=2)
    assert validate(coco, two) == 2
    assert 'test_maskrcnn@two.safetensors does not know the category 3 (cat); it has 2: 1, 2' in capsys.readouterr().err
    nine = write_checkpoint(tmp_path / 'nine.safetensors', classes=9)
    assert validate(coco, nine) == 2
    assert "the category 3 is 'cat' there and '3' for test_maskrcnn@nine.safetensors" in capsys.readouterr().err


def test_a_checkpoint_of_the_other_kind_of_network_is_said_to_be_one(coco, weights, tmp_path, capsys):
    classifier = packaged_path('checkpoints/test_eca_resnet.digits.safetensors')
    assert validate(coco, classifier) == 2
    assert 'test_eca_resnet.digits.safetensors: it holds test_eca_resnet, not test_maskrcnn' in capsys.readouterr().err
    write_folder(tmp_path / 'digits', 20)
    command = [
        'validate',
        '-m',
        'test_eca_resnet',
        '--checkpoint',
        str(weights),
        '--data-dir',
        str(tmp_path / 'digits'),
    ]
    assert main([*command, '--num-classes', '10', '--device', 'cpu']) == 2
    assert f'{weights}: it holds a detector, and test_eca_resnet is a classifier' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['-m', MODEL, 'test_resnet'], 'test_maskrcnn is a detector and test_resnet is none'),
        (['-m', MODEL, '--test-pool'], '--test-pool is for classifiers'),
        (['-m', 'test_resnet', '--task', 'bbox'], '--task is for detectors'),
        (
            ['-m', MODEL, '--split', 'train'],
            'none of its annotations (annotations/instances_val.json) are for the split',
        ),
        (['-m', MODEL, '--save-pictures', '3'], 'name one'),
    ],
)
def test_wrong_flags_are_named(coco, capsys, arguments, message):
    assert main(['validate', '--data-dir', str(coco), *arguments]) == 2
    assert message in capsys.readouterr().err
