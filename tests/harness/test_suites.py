"""Suites: typed and strict, every mistake named with its key."""

from pathlib import Path

import pytest

from eca_zoo.errors import InputError
from eca_zoo.harness.speed.settings import ThroughputSettings
from eca_zoo.harness.suites import parse_suite, read_suite
from eca_zoo.models import list_zoo
from eca_zoo.resources import packaged_names

ZOO = [record.name for record in list_zoo()]


def parse(body):
    return parse_suite(f'version: 1\n{body}', Path('mine.yaml'))


def test_every_packaged_suite_can_be_read():
    assert packaged_names('suites') == ['complexity', 'digits', 'imagenet', 'throughput']
    for name in packaged_names('suites'):
        assert read_suite(name).name == name


def test_the_default_suite_is_the_published_table_beside_its_baselines():
    suite = read_suite('imagenet')
    assert [spec.title for spec in suite.models] == [*ZOO, 'resnet50', 'mobilenetv2_100']
    assert suite.baseline == 'resnet50'
    assert suite.data.name == 'imagenet-1k'
    assert suite.data.root is None
    assert suite.validated == tuple(spec.title for spec in suite.models)


def test_the_demo_validates_the_small_network_alone():
    suite = read_suite('digits')
    assert suite.validated == ('test_eca_resnet.digits',)
    assert {spec.title for spec in suite.models} >= {*ZOO, 'resnet50', 'mobilenetv2_100'}


def test_a_suite_is_read_with_its_types_and_defaults():
    suite = parse("""
models: [resnet50, {name: eca_resnet50, label: mine, checkpoint: runs/a.safetensors, model_kwargs: {drop_rate: 0.1}}]
baseline: mobilenetv2_100
bench: both
data: {name: mine, root: data, split: val, models: [mine]}
accuracy: {batch_size: 8, crop_pct: 1.0}
throughput: [{precision: bf16, batch_size: 4}, {device: cpu, compile: inductor}]
check: {top1: 0.5}
""")
    assert [spec.title for spec in suite.models] == ['resnet50', 'mine', 'mobilenetv2_100']
    assert suite.models[1].checkpoint == Path('runs/a.safetensors')
    assert suite.models[1].model_kwargs == {'drop_rate': 0.1}
    assert (suite.data.name, suite.data.root, suite.data.split) == ('mine', Path('data'), 'val')
    assert suite.validated == ('mine',)
    assert (suite.accuracy.batch_size, suite.accuracy.crop_pct, suite.accuracy.precision) == (8, 1.0, 'fp32')
    assert suite.throughput == (
        ThroughputSettings(precision='bf16', batch_size=4),
        ThroughputSettings(device='cpu', compile='inductor'),
    )
    assert (suite.baseline, suite.bench, suite.top1_tolerance) == ('mobilenetv2_100', 'both', 0.5)


@pytest.mark.parametrize(
    ('body', 'message'),
    [
        ('models: [resnet50]\nbenhc: both', 'mine.yaml: benhc: unknown key'),
        ('models: []', 'mine.yaml: models: it names none; list at least one, such as eca_resnet50'),
        ('models: [resnet50]\nbench: fast', "mine.yaml: bench: use one of inference, train, both, not 'fast'"),
        ('models: [{nme: resnet50}]', 'mine.yaml: models[0].nme: unknown key'),
        (
            'models: [{name: zoo, label: mine}]',
            "mine.yaml: models: 'zoo' stands for 6 networks; a label or checkpoint is one",
        ),
        ('models: [resnet50]\nbaseline: zoo', "mine.yaml: baseline: 'zoo' stands for 6 networks; name one"),
        ('models: [resnet50]\nthroughput: [{precison: a}]', 'mine.yaml: throughput[0].precison: unknown key'),
        (
            'models: [resnet50]\nthroughput: [{}, {batch_size: many}]',
            'mine.yaml: throughput[1].batch_size: Expected `int | null`, got `str`',
        ),
        ('models: [resnet50]\nthroughput: [{train: true}]', 'mine.yaml: throughput[0].train: unknown key'),
        ('models: [resnet50]\naccuracy: {batchsize: 1}', 'mine.yaml: accuracy.batchsize: unknown key'),
        ('models: [resnet50]\ndata: {split: val}', 'mine.yaml: data.name: what the table calls the data set, not None'),
        ('models: [resnet50]\ndata: {name: a, roott: b}', 'mine.yaml: data.roott: unknown key'),
        (
            'models: [resnet50]\ndata: {name: a, models: [resnet18]}',
            'mine.yaml: data.models: resnet18 is not among the models of the suite; add it there',
        ),
        (
            'models: [resnet50]\ncheck: {top1: -1}',
            'mine.yaml: check: top1 is a tolerance in percentage points, not -1.0',
        ),
        (
            'models: [resent50]',
            "'resent50' is no model that timm knows; the nearest names are resnet50, resnet50t, resnet50s",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_file_and_key(body, message):
    with pytest.raises(InputError) as error:
        parse(body)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('models: [', 'mine.yaml: not a readable suite: '),
        ('version: 1\nmodels: [a]\nmodels: [b]', "mine.yaml: not a readable suite: key 'models' occurs twice"),
        ('- resnet50', 'mine.yaml: a suite is a mapping with the keys version and models, at least'),
        ('version: 2\nmodels: [resnet50]', 'mine.yaml: version: expected 1, found 2'),
        ('models: [resnet50]', 'mine.yaml: Object missing required field `version`'),
    ],
)  # fmt: skip
def test_text_that_is_no_suite_is_refused(text, message):
    with pytest.raises(InputError) as error:
        parse_suite(text, Path('mine.yaml'))
    assert str(error.value).startswith(message)


def test_the_example_of_the_readme_is_a_suite():
    readme = (Path(__file__).parents[2] / 'benchmark/README.md').read_text(encoding='utf-8')
    suite = parse_suite(readme.partition('```yaml\n')[2].partition('```')[0], Path('readme.yaml'))
    assert len(suite.throughput) == 2
    assert 'mine' in [spec.title for spec in suite.models]


def test_an_unknown_suite_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(InputError) as error:
        read_suite('imagnet')
    assert str(error.value) == (
        "'imagnet' is no suite: name a .yaml file or one of complexity, digits, imagenet, throughput"
    )
    with pytest.raises(InputError, match='there is no such suite'):
        read_suite(str(tmp_path / 'mine.yaml'))
