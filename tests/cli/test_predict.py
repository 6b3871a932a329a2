"""The command predict: names and probabilities of images without labels, the same on any number of processes."""

import csv
import json

import numpy as np
import pyarrow.parquet
import pytest
import timm
import torch
from safetensors.torch import save_file

from eca_zoo.cli import main
from eca_zoo.harness.accuracy.evaluation import evaluate
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.accuracy.unlabelled.classifying import class_names, classify
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.networks.model_spec import ModelSpec
from tests.harness.image_sets import MODEL, write_folder
from tests.harness.processes import run_program


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp('data') / 'digits', count=20)


def predict(*arguments):
    return main(['predict', '--device', 'cpu', '-j', '0', '-m', MODEL, *map(str, arguments)])


def test_guesses_are_those_of_an_evaluation(folder, tmp_path):
    assert predict(folder, '--out', tmp_path / 'guesses.json') == 0
    found = json.loads((tmp_path / 'guesses.json').read_text())
    evaluate(
        [ModelSpec(MODEL)], DataSpec(root=folder), EvalSettings(workers=0, device='cpu'),
        predictions=tmp_path / 'evaluated.parquet',
    )  # fmt: skip
    expected = pyarrow.parquet.read_table(tmp_path / 'evaluated.parquet').to_pylist()
    # Names of a data set are those below its split.
    assert [image['file'] for image in found] == [str(folder / 'validation' / row['file']) for row in expected]
    for image, row in zip(found, expected, strict=True):
        assert [entry['class'] for entry in image['classes']] == row['top5_classes']
        assert [np.float32(entry['probability']) for entry in image['classes']] == row['top5_probabilities']


@pytest.mark.parametrize('kind', ['csv', 'json', 'parquet', 'table'])
def test_every_format_holds_the_same_guesses(folder, tmp_path, kind, capsys):
    image = sorted(folder.rglob('*.png'))[0]
    out = tmp_path / f'guesses.{kind}'
    assert predict(image, image, '--topk', 2, *([] if kind == 'table' else ['--out', out])) == 0
    if kind == 'table':
        first, second = capsys.readouterr().out.splitlines()
        assert first.startswith(f'{image}  ')
        assert first.endswith(f'%  {image.parent.name}')
        assert second.startswith(' ')
        return
    if kind == 'json':
        [entry] = json.loads(out.read_text())
        rows = [{'file': entry['file'], **one} for one in entry['classes']]
    elif kind == 'csv':
        with out.open() as file:
            rows = list(csv.DictReader(file))
    else:
        rows = pyarrow.parquet.read_table(out).to_pylist()
    assert [row['file'] for row in rows] == [str(image)] * 2
    assert str(rows[0]['class']) == rows[0]['name'] == image.parent.name
    assert float(rows[0]['probability']) > 0.5 > float(rows[1]['probability'])


def test_names_come_from_a_class_map_the_model_or_imagenet(tmp_path):
    names = tmp_path / 'names.txt'
    names.write_text('zero\none\n')
    assert class_names({}, 3, names) == ['zero', 'one', '2']
    assert class_names({'label_names': ['a', 'b'], 'num_classes': 2}, 2) == ['a', 'b']
    assert class_names({}, 1000)[281] == 'tabby, tabby cat'
    synset = {'label_names': [f'n{number:08d}' for number in range(1000)], 'num_classes': 1000}
    assert class_names(synset, 1000)[281] == 'tabby, tabby cat'
    assert class_names({}, 3) == ['0', '1', '2']


def test_guesses_are_the_same_on_any_number_of_processes(folder, tmp_path):
    body = f"""
def predict(count):
    return launch(count, lambda rank: main(['predict', '-m', '{MODEL}', '{folder}', '--device', 'cpu', '-b', '4', '-j',
                                            '0', '--out', f'{tmp_path}/{{count}}.json']))
for count in (1, 2, 3, 5):
    assert predict(count) == [0] * count
"""
    run_program(tmp_path / 'program.py', body)
    assert len({(tmp_path / f'{count}.json').read_text() for count in (1, 2, 3, 5)}) == 1


def test_a_broken_image_ends_it_or_is_listed(folder, tmp_path, capsys):
    broken = tmp_path / 'broken.png'
    broken.write_text('no image')
    good = sorted(folder.rglob('*.png'))[0]
    out = tmp_path / 'guesses.json'
    assert predict(broken, good, '--out', out) == 2
    assert f'error: {broken}: cannot be decoded' in capsys.readouterr().err
    assert not out.exists()
    assert predict(broken, good, '--out', out, '--skip-bad-images') == 0
    assert f'skipped {broken}: its content is no image' in capsys.readouterr().err
    first, second = json.loads(out.read_text())
    assert (first['classes'], len(second['classes'])) == ([], 5)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['nowhere'], 'nowhere: there is no such file or folder'),
        (['EMPTY'], 'there are no images'),
        (['IMAGES', '--topk', '0'], '--topk is at least 1, not 0'),
        (['IMAGES', '--format', 'parquet'], '--format parquet needs a file'),
        (['IMAGES', '-m', 'maskrcnn_eca_resnet50_fpn'], 'is a detector; eca-zoo detect draws what it finds'),
        (['IMAGES', '-m', 'eca_*'], 'name one'),
    ],
)
def test_wrong_arguments_are_named(folder, tmp_path, capsys, arguments, message):
    (tmp_path / 'empty').mkdir()
    places = {'IMAGES': str(folder), 'EMPTY': str(tmp_path / 'empty')}
    assert predict(*[places.get(argument, argument) for argument in arguments]) == 2
    assert message in capsys.readouterr().err


def test_logits_that_are_no_numbers_are_said(folder, tmp_path, capsys):
    state = timm.create_model('test_resnet', num_classes=3).state_dict()
    state['fc.bias'] = torch.full((3,), torch.nan)
    save_file(state, tmp_path / 'nan.safetensors')
    assert predict(folder, '-m', 'test_resnet', '--checkpoint', tmp_path / 'nan.safetensors') == 1
    assert 'its logits are NaN or infinite for' in capsys.readouterr().err


def test_it_is_called_from_python_too(folder):
    [first, *_] = classify(
        ModelSpec(MODEL), sorted(folder.rglob('*.png')), EvalSettings(workers=0, device='cpu'), topk=99
    )
    assert sum(guess.probability for guess in first.guesses) == pytest.approx(1)
