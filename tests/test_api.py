"""The Python interface: typed frames, one kind of error, nothing changed behind the caller's back."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch

import eca_zoo
from eca_zoo.cli import main
from eca_zoo.errors import EcaZooError, InputError
from tests.harness.image_sets import write_folder

ROOT = Path(__file__).parents[1]
DIGITS = 'test_eca_resnet.digits'
SUITE = f"""
version: 1
models: [{DIGITS}, test_resnet]
data: {{name: digits, models: [{DIGITS}]}}
accuracy: {{device: cpu, workers: 0}}
throughput: [{{device: cpu, batch_size: 1, img_size: 32, rounds: 2, round_seconds: 0, warmup_steps: 0}}]
"""


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    """Sixty digits in folders 0 to 9."""
    return write_folder(tmp_path_factory.mktemp('digits')) / 'validation'


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text(SUITE)
    return path


def test_an_evaluation_is_a_typed_frame(digits):
    table = eca_zoo.evaluate([DIGITS], digits, device='cpu', workers=0)
    assert table['model'].tolist() == [DIGITS]
    assert {name: str(dtype) for name, dtype in table.dtypes.items()} == {
        'model': 'string', 'weights_sha256': 'string', 'dataset': 'string', 'num_images': 'Int64', 'top1': 'Float64',
        'top1_err': 'Float64', 'top5': 'Float64', 'top5_err': 'Float64', 'top1_ci95': 'Float64', 'img_size': 'Int64',
        'crop_pct': 'Float64', 'interpolation': 'string', 'param_count': 'Float64', 'params': 'Int64',
        'accuracy_gpu': 'string', 'error': 'string', 'preprocess': 'string', 'gpu_decoded': 'Int64',
        'cpu_decoded': 'Int64',
        'mean_top1': 'Float64', 'mce': 'Float64',
    } | {name: 'string' for name in ('fused',) if name in table}  # fmt: skip
    assert table.loc[0, 'num_images'] == 60
    assert table.loc[0, 'params'] == 373_674
    assert table['error'].isna().all()
    assert table.attrs['skipped'] == []


def test_a_network_that_is_built_already_is_evaluated_and_not_changed(digits):
    network = timm.create_model(DIGITS, pretrained=True).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    table = eca_zoo.evaluate({'named': DIGITS, 'built': network}, str(digits), device='cpu', workers=0)
    assert table['model'].tolist() == ['named', 'built']
    assert table['top1'].nunique() == 1
    assert table['weights_sha256'].isna().tolist() == [False, True]
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_run_directory_holds_a_network_with_these_very_weights(digits, tmp_path):
    network = timm.create_model(DIGITS, pretrained=True)
    arguments = {'device': 'cpu', 'workers': 0, 'run_dir': tmp_path / 'run'}
    first = eca_zoo.evaluate(network, digits, **arguments)
    pd.testing.assert_frame_equal(eca_zoo.evaluate(network, digits, **arguments), first)
    with torch.no_grad():
        network.fc.bias.add_(1)
    with pytest.raises(InputError, match='use another folder, --restart test_eca_resnet to measure'):
        eca_zoo.evaluate(network, digits, **arguments)


def test_a_model_that_fails_is_a_row_with_its_error(digits):
    table = eca_zoo.evaluate([DIGITS, 'test_vit'], digits, device='cpu', workers=0)
    assert table['top1'].isna().tolist() == [False, True]
    assert '1000 classes' in table.loc[1, 'error']


def test_the_command_line_counts_the_same(digits, tmp_path, capsys):
    assert main(['validate', '--model', DIGITS, '--data-dir', str(digits), '--device', 'cpu', '-j', '0']) == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    table = eca_zoo.evaluate(DIGITS, digits, device='cpu', workers=0)
    assert float(row[1]) == table.loc[0, 'top1']


def test_complexity_takes_names_and_networks():
    network = timm.create_model('eca_resnet18')
    table = eca_zoo.complexity(['eca_resnet18', network], img_size=64)
    assert table['model'].tolist() == ['eca_resnet18', 'eca_resnet18']
    assert table['params'].tolist() == [11_689_556] * 2
    assert table['infer_gmacs'].nunique() == 1
    assert table['infer_img_size'].tolist() == [64, 64]


def test_a_benchmark_is_a_frame_and_a_file(tmp_path):
    path = tmp_path / 'speed.csv'
    table = eca_zoo.benchmark(
        ['test_eca_resnet'], baseline='test_resnet', device='cpu', img_size=32, batch_size=1, rounds=2,
        round_seconds=0, precision=['fp32', 'bf16'], results_file=path,
    )  # fmt: skip
    assert table[['model', 'precision']].to_numpy().tolist() == [
        ['test_eca_resnet', 'fp32'], ['test_eca_resnet', 'bf16'], ['test_resnet', 'fp32'], ['test_resnet', 'bf16'],
    ]  # fmt: skip
    assert (table['infer_samples_per_sec'] > 0).all()
    written = eca_zoo.read_table(path)
    assert written['infer_batch_size'].tolist() == [1] * 4
    assert written['peak_memory_mb'].isna().all()


def test_a_leaderboard_is_the_table_that_it_writes(digits, suite, tmp_path):
    table = eca_zoo.leaderboard(suite, tmp_path / 'run', data_dir=digits)
    written = eca_zoo.read_table(tmp_path / 'run' / 'leaderboard.csv')
    assert written['model'].tolist() == table['model'].tolist() == [DIGITS, 'test_resnet']
    assert written.dtypes.to_dict() == table[written.columns].dtypes.to_dict()
    assert written['num_images'].tolist() == [60, pd.NA]
    assert table.attrs['errors'] == []
    assert table.attrs['notes'] == ['accuracy is empty: not validated on digits in the suite mine (test_resnet)']


def test_a_table_of_timms_is_read_too(tmp_path):
    path = tmp_path / 'results-imagenet.csv'
    path.write_text(
        '\ufeffmodel,top1,param_count,img_size,source\nresnet50,80.1,25.56,224,somebody\n', encoding='utf-8'
    )
    table = eca_zoo.read_table(path)
    assert (table.loc[0, 'top1'], table.loc[0, 'img_size'], table.loc[0, 'source']) == (80.1, 224, 'somebody')


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: eca_zoo.evaluate('eca_resnet5', '.'), "'eca_resnet5' is no model that timm knows; the nearest names"),
        (lambda: eca_zoo.evaluate(3, '.'), 'models are names, networks .* or a list of them, not 3'),
        (lambda: eca_zoo.evaluate([], '.'), 'no model is named; give at least one'),
        (lambda: eca_zoo.evaluate(DIGITS, '/nowhere'), '/nowhere: there is no such folder or file'),
        (lambda: eca_zoo.evaluate(DIGITS, 7), 'a path is a string or a pathlib.Path, not 7'),
        (lambda: eca_zoo.evaluate(DIGITS), 'no data is named'),
        (lambda: eca_zoo.evaluate(DIGITS, dataset='hub/x'), r"dataset 'hub/x': there is no kind hub/; use hfds/"),
        (lambda: eca_zoo.evaluate(DIGITS, '.', batchsize=8), r"evaluate\(\) takes no 'batchsize'; the nearest are"),
        (lambda: eca_zoo.evaluate(DIGITS, '.', batch_size='8'), 'batch_size: Expected `int | null`, got `str`'),
        (lambda: eca_zoo.evaluate(torch.nn.Linear(2, 2), '.', num_classes=2), 'Linear: num_classes cannot change a'),
        (lambda: eca_zoo.benchmark('test_resnet', rounds=0), 'rounds must be at least 1, not 0'),
        (lambda: eca_zoo.benchmark('test_resnet', bench='speed'), "bench 'speed' is unknown; use one of inference"),
        (lambda: eca_zoo.benchmark('test_resnet', round=1), r"benchmark\(\) takes no 'round'; the nearest are rounds"),
        (lambda: eca_zoo.complexity('test_resnet', image_size=3), r"complexity\(\) takes no 'image_size'; the nearest"),
        (lambda: eca_zoo.leaderboard('nonsense', 'x'), "'nonsense' is no suite: name a .yaml file or one of"),
        (lambda: eca_zoo.read_table('/nowhere.csv'), '/nowhere.csv: cannot read the table: .*; name a CSV file'),
        (lambda: eca_zoo.read_table(ROOT / 'LICENSE'), 'LICENSE: not a table'),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_one_line_with_the_remedy(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert '\n' not in str(caught.value)
    assert isinstance(caught.value, EcaZooError)


def test_dir_lists_the_interface_and_the_package_is_typed():
    names = dir(eca_zoo)
    assert {'EcaLayer', '__version__', 'benchmark', 'complexity', 'evaluate', 'leaderboard', 'read_table'} <= set(names)
    assert all(getattr(eca_zoo, name) is not None for name in names)
    assert re.fullmatch(r'\d+\.\d+\.\d+', eca_zoo.__version__)
    assert (Path(eca_zoo.__file__).parent / 'py.typed').exists()


def test_importing_the_package_imports_neither_pandas_nor_the_harness():
    code = 'import sys, eca_zoo; print([m for m in sys.modules if m == "pandas" or m.startswith("eca_zoo.harness")])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout == '[]\n'


def test_the_examples_of_the_documentation_run(digits, suite, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / 'docs/python.md').read_text(encoding='utf-8')
    names = {'DIGITS': str(digits), 'SUITE': str(suite)}
    blocks = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    assert len(blocks) >= 8
    for block in blocks:
        exec(compile(block, 'docs/python.md', 'exec'), names)
    assert os.path.exists('run/leaderboard.csv')


def test_other_names_of_keywords_are_understood(tmp_path):
    with pytest.raises(InputError, match='torchcompile and compile are one argument; give one'):
        eca_zoo.benchmark('test_resnet', compile='eager', torchcompile='eager')
    with pytest.raises(InputError, match='/nowhere: there is no such folder'):
        eca_zoo.evaluate('test_eca_resnet.digits', root='/nowhere', gp='avg')
    (tmp_path / 'mine.yaml').write_text('version: 1\nmodels: [test_resnet]')
    table = eca_zoo.leaderboard(tmp_path / 'mine.yaml', out=tmp_path / 'run')
    assert table['model'].tolist() == ['test_resnet']
