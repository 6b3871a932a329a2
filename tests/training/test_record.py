"""What a training leaves behind, in other commands: average, convert, publish, validate; curves and states."""

import hashlib
import json
import math

import pytest
import torch
from safetensors.torch import load_file

from eca_zoo.arguments import with_checkpoints
from eca_zoo.cli import main
from eca_zoo.errors import InputError
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.suites import read_suite
from eca_zoo.training.record.average import average_checkpoints
from eca_zoo.training.record.curves import draw_curves
from eca_zoo.training.record.state import StateFolder, write_weights
from tests.training.helpers import assert_same, write_recipe, write_splits

SMALL = 'version: 1\nmodel: test_eca_resnet\nepochs: 2\nbatch_size: 16\nimg_size: 32\nlr: 0.05\n'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """The folder of a finished run that kept the weights of both epochs."""
    folder = tmp_path_factory.mktemp('run')
    data, recipe = write_splits(folder / 'digits'), write_recipe(folder, SMALL)
    arguments = [recipe, '--data-dir', data, '--run-dir', folder / 'out', '--sched', 'constant', '--device', 'cpu']
    assert main(['train', *map(str, arguments), '-j', '0', '--checkpoint-every', '1']) == 0
    return folder / 'out'


def test_weights_have_their_hash_beside_them(run):
    for name in ('last', 'best', 'epoch-00001', 'epoch-00002'):
        path = run / f'{name}.safetensors'
        expected = f'{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n'
        assert path.with_name(f'{path.name}.sha256').read_text() == expected


def test_validate_takes_the_best_weights_and_counts_what_the_log_has(run, capsys):
    arguments = ['--model', 'test_eca_resnet', '--checkpoint', run / 'best.safetensors', '--img-size', '32', '-b', '16']
    arguments += ['--data-dir', run.parent / 'digits', '--device', 'cpu', '-j', '0', '--use-train-size']
    results = run.parent / 'results.json'
    arguments += ['--results-file', results, '--results-format', 'json']
    assert main(['validate', *map(str, arguments)]) == 0
    best = json.loads((run / 'run.json').read_text())['best']
    found = json.loads(results.read_text())
    row = found[0] if isinstance(found, list) else found
    assert row['top1'] == best['top1']


def test_tables_call_a_checkpoint_as_its_training(run, tmp_path):
    suite = tmp_path / 'mine.yaml'
    checkpoint = run / 'best.safetensors'
    suite.write_text(f'version: 1\nmodels:\n- {{name: test_eca_resnet, num_classes: 10, checkpoint: {checkpoint}}}\n')
    [spec] = read_suite(str(suite)).models
    assert spec.title == 'test_eca_resnet small sched=constant@best.safetensors'
    [spec] = with_checkpoints([ModelSpec('test_eca_resnet')], [checkpoint])
    assert spec.title == 'test_eca_resnet small sched=constant'


def test_an_average_is_the_mean_and_names_what_it_read(run, tmp_path, capsys):
    out = tmp_path / 'mean.safetensors'
    assert main(['average', str(run), '--out', str(out)]) == 0
    first, second, mean = (load_file(path) for path in (*sorted(run.glob('epoch-*.safetensors')), out))
    for key, tensor in mean.items():
        if tensor.is_floating_point():
            assert torch.equal(tensor, ((first[key].double() + second[key].double()) / 2).to(tensor.dtype))
        else:
            assert torch.equal(tensor, second[key])
    record = json.loads((tmp_path / 'mean.safetensors.json').read_text())
    assert record['sha256'] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert [hashlib.sha256((run / f'epoch-0000{n}.safetensors').read_bytes()).hexdigest() for n in (1, 2)] == [
        entry['sha256'] for entry in record['mean_of']
    ]
    assert record['sha256'] in capsys.readouterr().out


def test_an_average_of_one_or_of_different_networks_is_refused(run, tmp_path):
    with pytest.raises(InputError, match='nothing to average in 1 checkpoint'):
        average_checkpoints([run / 'last.safetensors'], tmp_path / 'mean.safetensors')
    write_weights(tmp_path / 'other.safetensors', {'weight': torch.zeros(2)})
    with pytest.raises(InputError, match='its tensors are not those of'):
        average_checkpoints([run / 'last.safetensors', tmp_path / 'other.safetensors'], tmp_path / 'mean.safetensors')
    assert not (tmp_path / 'mean.safetensors').exists()


def test_the_model_card_names_recipe_data_figures_and_curves(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('ECA_ZOO_HOME', str(tmp_path / 'home'))
    assert main(['convert', str(run / 'best.safetensors'), '--model', 'test_eca_resnet.mine']) == 0
    folder = tmp_path / 'hub'
    assert main(['publish', 'test_eca_resnet.mine', '--run-dir', str(run), '--folder', str(folder)]) == 0
    card = (folder / 'README.md').read_text()
    record = json.loads((run / 'run.json').read_text())
    assert (
        '`best.safetensors` of the recipe `small` of eca-zoo, 2 epochs, 6 steps; overridden: `sched: constant`.' in card
    )
    assert f'fingerprint `{record["identity"]["data"]["train"]["fingerprint"]}`' in card
    assert f'| Top-1 |  | {record["best"]["top1"]:.2f} % |' in card
    assert '![loss, accuracy and learning rate](curves.svg)' in card
    assert (folder / 'curves.svg').read_bytes() == (run / 'curves.svg').read_bytes()
    code = main(['publish', 'test_eca_resnet.digits', '--run-dir', str(run), '--folder', str(tmp_path / 'other')])
    assert code == 2
    assert 'the checkpoint was not made by this run' in capsys.readouterr().err


def test_a_state_gives_back_what_it_was_given(tmp_path):
    facts = {
        'numbers': [1, 0.1, math.inf, True, None, 'text'],
        3: (torch.arange(3), {'a': torch.tensor(0.5, dtype=torch.float64)}),
        'empty': {},
    }
    states = StateFolder(tmp_path)
    assert states.load() is None
    for step in (1, 2, 3):
        states.save(step, 0, facts)
    assert_same(states.load(), facts)
    assert [path.name for path in sorted(tmp_path.glob('state-*.safetensors'))] == [
        'state-000000002-00000.safetensors',
        'state-000000003-00000.safetensors',
    ]


def test_curves_are_drawn_of_what_the_log_has(run):
    import xml.etree.ElementTree as Xml

    rows = [
        {'kind': 'steps', 'step': 5, 'loss': 2.0, 'lr': 0.1},
        {'kind': 'epoch', 'step': 10, 'loss': 1.0, 'lr': 0.1, 'top1': 50.0, 'top1_ci95': 4.0, 'val_loss': 1.5},
    ]
    lines = Xml.fromstring(draw_curves(rows, 'a <b> & c')).findall('{http://www.w3.org/2000/svg}polyline')
    assert len(lines) == 4
    assert Xml.fromstring((run / 'curves.svg').read_text()) is not None
    assert 'polyline' not in draw_curves([], 'nothing')
