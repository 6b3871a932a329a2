"""Suites: typed and strict, every mistake named with its key."""

from pathlib import Path

import pytest

from eca_zoo.errors import InputError
from eca_zoo.harness.accuracy.input_plan import plan_input
from eca_zoo.harness.networks.baselines import with_baseline
from eca_zoo.harness.speed.settings import ThroughputSettings
from eca_zoo.harness.suites import check_files, parse_suite, read_suite, with_settings
from eca_zoo.models import list_zoo
from eca_zoo.resources import packaged_names
from eca_zoo.vocabulary import OTHER_NAMES, name_of

ZOO = [record.name for record in list_zoo()]


def parse(body):
    return parse_suite(f'version: 1\n{body}', Path('mine.yaml'))


def test_every_packaged_suite_can_be_read():
    names = ['canvases', 'coco', 'complexity', 'digits', 'gpu', 'imagenet', 'throughput']
    assert packaged_names('suites') == names
    for name in (name for name in names if name not in ('canvases', 'coco')):  # suites of detectors
        assert read_suite(name).name == name


def test_the_default_suite_is_the_published_table_beside_its_baselines():
    suite = read_suite('imagenet')
    plain = ['resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnet152', 'mobilenetv2_100']
    assert [spec.title for spec in suite.models] == [*ZOO, *plain]
    assert suite.baseline == 'plain'
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
        (
            'models: [resnet50]\nbenhc: both',
            'benhc: unknown key; the nearest is bench; there are version, models, baseline, bench, img_size, data, '
            'accuracy, throughput, check',
        ),
        ('models: []', 'models: it names none; list at least one, such as eca_resnet50'),
        ('models: [resnet50]\nbench: fast', "bench: use one of inference, train, both, not 'fast'"),
        ('models: [resnet50]\nimg_size: 0', 'img_size: must be at least 1, not 0'),
        (
            'models: [{nme: resnet50}]',
            'models[0].nme: unknown key; the nearest is name; there are name, pretrained, checkpoint, num_classes, '
            'in_chans, model_kwargs, img_size, crop_pct, interpolation, mean, std, label',
        ),
        ('models: [resnet50, {name: resnet18, img_size: 0}]', 'models[1]: img_size must be at least 1, not 0'),
        (
            'models: [{name: zoo, label: mine}]',
            "models[0]: 'zoo' stands for 6 networks; a label or checkpoint is one",
        ),
        ('models: [resnet50]\nbaseline: zoo', "baseline: 'zoo' stands for 6 networks; name one"),
        (
            'models: [resnet50]\nbaseline: plain\nthroughput: [{}, {precison: a}]',
            'throughput[1].precison: unknown key; the nearest is precision; there are device, precision, ',
        ),
        (
            'models: [resnet50]\nthroughput: [{}, {batch_size: many}]',
            'throughput[1].batch_size: Expected `int | null`, got `str`',
        ),
        ('models: [resnet50]\nthroughput: [{train: true}]', 'throughput[0].train: unknown key; there are device, '),
        (
            'models: [resnet50]\naccuracy: {batchsize: 1}',
            'accuracy.batchsize: unknown key; the nearest is batch_size; there are batch_size, workers, ',
        ),
        (
            'models: [resnet50]\naccuracy: {compile: eager, torchcompile: eager}',
            'accuracy: torchcompile and compile are one setting; give one',
        ),
        ('models: [resnet50]\ndata: {split: val}', 'data.name: what the table calls the data set is missing'),
        (
            'models: [resnet50]\ndata: {name: a, datadir: b}',
            'data.datadir: unknown key; the nearest is data_dir; there are data_dir, dataset, split, ',
        ),
        (
            'models: [resnet50]\ndata: {name: a, models: [resnet18]}',
            'data.models: resnet18 is not among the models of the suite; add it there',
        ),
        ('models: [resnet50]\ncheck: {top1: -1}', 'check.top1: a tolerance in percentage points, not -1'),
        (
            'models: [resent50]',
            "models[0]: 'resent50' is no model that timm knows; the nearest names are resnet50, resnet50t, resnet50s",
        ),
        (
            'models: [{name: resnet18, label: a}, {name: resnet18, label: b}]\nbaseline: resnet18',
            "baseline: 'resnet18' is 2 of the networks (a, b); give one of them by this name",
        ),
        (
            'models: [resnext50_32x4d]\nbaseline: plain',
            'baseline: none of the networks (resnext50_32x4d) has a plain counterpart; name one network as the ',
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_file_and_key(body, message):
    with pytest.raises(InputError) as error:
        parse(body)
    assert str(error.value).startswith(f'mine.yaml: {message}')
    assert '\n' not in str(error.value)


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


def test_one_image_size_is_that_of_validation_complexity_and_throughput():
    suite = parse('models: [resnet50]\nimg_size: 160\nthroughput: [{}, {img_size: 96}]')
    assert (suite.img_size, suite.accuracy.img_size) == (160, 160)
    assert [one.img_size for one in suite.throughput] == [160, 96]
    own = parse('models: [resnet50]\nimg_size: 160\naccuracy: {img_size: 224}\nthroughput: [{}]')
    assert (own.accuracy.img_size, own.throughput[0].img_size) == (224, 160)


def test_a_model_carries_its_own_input():
    suite = parse("""
models: [resnet50, {name: resnet18, img_size: 32, mean: [0.5, 0.5, 0.5], std: [1, 1, 1], crop_pct: 1.0, num_classes: 10,
  pretrained: false}]
img_size: 160
""")
    plain, own = (plan_input(spec, suite.accuracy.checked()) for spec in suite.models)
    assert (plain.pixels.input_size, plain.mean) == ((3, 160, 160), (0.485, 0.456, 0.406))
    assert (own.pixels.input_size, own.pixels.crop_pct, own.mean, own.std) == (
        (3, 32, 32), 1.0, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0),
    )  # fmt: skip
    assert suite.models[1].num_classes == 10


def test_a_baseline_by_architecture_is_the_labelled_model():
    for models in ('{name: resnet50, label: mine}', '{name: resnet50.a1_in1k, label: mine}'):
        suite = parse(f'models: [eca_resnet50, {models}]\nbaseline: resnet50')
        assert [spec.title for spec in suite.models] == ['eca_resnet50', 'mine']
        assert suite.baseline == 'mine'
    other = parse('models: [eca_resnet50, {name: resnet50.a1_in1k, label: mine}]\nbaseline: resnet50.tv_in1k')
    assert (other.baseline, len(other.models)) == ('resnet50.tv_in1k', 3)


def test_the_plain_baseline_is_each_networks_own_counterpart():
    body = """
models: [eca_resnet18, resnet34, {name: eca_resnet34.k3357_in1k, label: mine}, {name: eca_resnet18, label: small,
  img_size: 64, num_classes: 10, pretrained: false, model_kwargs: {kernel_sizes: [3, 3, 3, 3], drop_rate: 0.1}},
  seresnet50]
baseline: plain
data: {name: a}
"""
    suite = parse(body)
    specs, baseline = with_baseline(suite.models, suite.baseline)
    assert {title: spec.title for title, spec in baseline.items()} == {
        'eca_resnet18': 'resnet18', 'resnet18': 'resnet18', 'mine': 'resnet34', 'resnet34': 'resnet34',
        'small': 'resnet18 beside small', 'resnet18 beside small': 'resnet18 beside small',
    }  # fmt: skip
    assert tuple(specs) == suite.models
    own = baseline['small']
    assert (own.img_size, own.num_classes, own.model_kwargs) == (64, 10, {'drop_rate': 0.1})
    # timm has no weights with ten classes.
    assert not own.pretrained
    assert 'resnet18 beside small' not in suite.validated
    assert 'resnet18' in suite.validated


def test_paths_are_relative_to_the_file_and_all_are_checked_before_anything_runs(tmp_path):
    suite = parse_suite("""
version: 1
models: [{name: resnet18, checkpoint: a.pth}, {name: resnet34, checkpoint: /nowhere/b.pth}]
data: {name: mine, data_dir: ../data, class_map: map.txt, real_labels: true, valid_labels: some.txt}
""", tmp_path / 'suites' / 'mine.yaml')  # fmt: skip
    folder = tmp_path / 'suites'
    assert [spec.checkpoint for spec in suite.models] == [folder / 'a.pth', Path('/nowhere/b.pth')]
    assert (suite.data.root, suite.data.class_map) == (folder / '../data', folder / 'map.txt')
    assert (suite.data.real_labels, suite.data.valid_labels) == ('default', str(folder / 'some.txt'))
    with pytest.raises(InputError) as error:
        check_files(suite)
    assert str(error.value) == (
        f'{folder}/mine.yaml: models[0].checkpoint: there is no {folder}/a.pth; models[1].checkpoint: there is no '
        f'/nowhere/b.pth; data.data_dir: there is no {folder}/../data; data.class_map: there is no {folder}/map.txt; '
        f'data.valid_labels: there is no {folder}/some.txt (paths are relative to the folder of the suite)'
    )
    folder.mkdir()
    (folder / 'names.txt').write_text('resnet18\n')
    listed = parse_suite('version: 1\nmodels: [names.txt]', folder / 'mine.yaml')
    assert [spec.name for spec in listed.models] == ['resnet18']


@pytest.mark.parametrize('old', [name for names in OTHER_NAMES.values() for name in names])
def test_other_names_of_settings_are_understood(old):
    places = {
        'compile': ('accuracy', 'eager'), 'compile_mode': ('accuracy', 'default'), 'root': ('data', 'somewhere'),
        'data_dir': ('data', 'somewhere'), 'download': ('data', 'true'), 'global_pool': ('accuracy', 'max'),
        'trust_remote_code': ('data', 'true'), 'warmup_steps': ('throughput', '3'), 'prefetch': ('accuracy', '3'),
    }  # fmt: skip
    place, value = places.get(name_of(old), ('accuracy', 'true'))
    entry = f'{{{old}: {value}{", name: a" if place == "data" else ""}}}'
    suite = parse(f'models: [resnet50]\n{place}: {f"[{entry}]" if place == "throughput" else entry}')
    record = {'accuracy': suite.accuracy, 'data': suite.data, 'throughput': (*suite.throughput, None)[0]}[place]
    field = 'root' if name_of(old) == 'data_dir' else name_of(old)
    assert str(getattr(record, field)).lower() == value


def test_flags_of_the_command_go_before_the_settings_of_the_suite():
    suite = parse('models: [resnet50]\naccuracy: {batch_size: 8}\nthroughput: [{device: cuda}, {batch_size: 4}]')
    changed = with_settings(suite, {'device': 'cpu', 'batch_size': 2, 'precision': None, 'workers': 1})
    assert (changed.accuracy.device, changed.accuracy.batch_size, changed.accuracy.workers) == ('cpu', 2, 1)
    # What has become one setting is timed once.
    assert changed.throughput == (ThroughputSettings(device='cpu', batch_size=2),)


def test_an_unknown_suite_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(InputError) as error:
        read_suite('imagnet')
    assert str(error.value) == (
        "'imagnet' is no suite: name a .yaml file or one of canvases, coco, complexity, digits, gpu, imagenet, "
        'throughput'
    )
    with pytest.raises(InputError, match='there is no such suite'):
        read_suite(str(tmp_path / 'mine.yaml'))
