"""Several sets of labels of the same images, and several data sets, in one run: each image is decoded once."""

import csv
import dataclasses
import json
import shutil
from collections import Counter

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import ImageNetInfo, create_transform, resolve_data_config

from eca_zoo.errors import InputError
from eca_zoo.harness.accuracy.evaluation import evaluate
from eca_zoo.harness.accuracy.label_sets.paired import PairedCounts
from eca_zoo.harness.accuracy.label_sets.right_images import from_text
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.folders import FolderImages
from eca_zoo.harness.data.labels import read_class_list
from eca_zoo.harness.leaderboard import run_leaderboard
from eca_zoo.harness.resume.signals import InterruptedRunError, StopRequest
from eca_zoo.harness.suites import parse_suite
from tests.harness.image_sets import digits

IMAGES, OTHERS, BLOCK = 25, 10, 5
SUITE = """
version: 1
models: [{name: test_resnet, checkpoint: a.safetensors, label: a}, {name: test_resnet, checkpoint: b.safetensors,
         label: b}]
baseline: b
img_size: 32
accuracy: {batch_size: 5, workers: 0, device: cpu}
data:
  - {name: imagenet-1k}
  - {name: imagenet-1k-real, images: imagenet-1k, real_labels: real.json}
  - {name: imagenet-a-clean, images: imagenet-1k, valid_labels: imagenet-a, skip_other_classes: true}
  - {name: imagenet-r-clean, images: imagenet-1k, valid_labels: imagenet-r, skip_other_classes: true}
  - {name: imagenet-a, valid_labels: imagenet-a}
"""
SETS = ['imagenet-1k', 'imagenet-1k-real', 'imagenet-a-clean', 'imagenet-r-clean', 'imagenet-a']


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    """Two networks with random weights, and images in folders of classes some of which they guess rightly."""
    home = tmp_path_factory.mktemp('home')
    networks = {}
    for seed, name in enumerate('ab'):
        torch.manual_seed(seed)
        networks[name] = timm.create_model('test_resnet').eval()
        save_file(networks[name].state_dict(), home / f'{name}.safetensors')
    transform = create_transform(**resolve_data_config({'img_size': 32}, model=networks['a']))
    pixels = torch.stack([transform(image.convert('RGB')) for image, _ in digits()[:IMAGES]])
    with torch.inference_mode():
        guesses = {name: network(pixels) for name, network in networks.items()}
    write_images(home, guesses)
    return home


def write_images(home, guesses):
    synsets = ImageNetInfo('imagenet-1k').label_names()
    parts = [read_class_list(part) for part in ('imagenet-a', 'imagenet-r')]
    neither = next(index for index in range(1000) if index not in parts[0] + parts[1])
    real = []
    for number in range(IMAGES):
        logits = guesses['ab'[number % 2]][number]
        of_a, of_r = (part[int(logits[list(part)].argmax())] for part in parts)
        best = int(logits.argmax())
        label = [best, of_a, of_r, neither, parts[0][number]][number % 5]
        save(home / 'all/imagenet-1k' / synsets[label], number, f'ILSVRC2012_val_{number + 1:08d}.png')
        real.append([[label], [best, label], []][number % 3])
        if number < OTHERS:
            save(home / 'all/imagenet-a' / synsets[of_a if number % 3 else parts[0][3]], number, f'{number}.png')
    (home / 'real.json').write_text(json.dumps(real))


def save(folder, number, name):
    folder.mkdir(parents=True, exist_ok=True)
    digits()[number][0].save(folder / name)


def suite(home, text=SUITE):
    return parse_suite(text, home / 'mine.yaml')


def rows(out):
    with (out / 'leaderboard.csv').open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def opened(monkeypatch):
    """How often each image was opened."""
    counts = Counter()
    before = FolderImages.open

    def open_and_count(self, position):
        counts[self.name(position)] += 1
        return before(self, position)

    monkeypatch.setattr(FolderImages, 'open', open_and_count)
    return counts


@pytest.fixture(scope='module')
def finished(home, tmp_path_factory):
    """The run directory of the suite, of which the last data set was added later, and what was opened in both runs."""
    out = tmp_path_factory.mktemp('finished')
    with pytest.MonkeyPatch.context() as patches:
        counts = opened.__wrapped__(patches)
        run_leaderboard(suite(home, SUITE.rpartition('  - {name: imagenet-a,')[0]), out, home / 'all')
        first = counts.copy()
        run_leaderboard(suite(home), out, home / 'all', timm_format=True)
    return out, first, counts - first


def test_each_image_is_decoded_once_for_all_its_labels_and_all_models(finished):
    _, first, _ = finished
    assert set(first.values()) == {1}
    assert [name.rsplit('/', 3)[-3] for name in first] == ['imagenet-1k'] * IMAGES


def test_of_a_data_set_that_is_added_to_a_finished_run_the_images_alone_are_decoded(finished):
    _, _, second = finished
    assert set(second.values()) == {1}
    assert [name.rsplit('/', 3)[-3] for name in second] == ['imagenet-a'] * OTHERS


def test_the_table_has_a_row_for_each_model_and_data_set(finished):
    assert [(row['model'], row['dataset']) for row in rows(finished[0])] == [(name, s) for name in 'ab' for s in SETS]
    environment = json.loads((finished[0] / 'environment.json').read_text())
    assert list(environment['data']) == SETS


@pytest.mark.parametrize('number', range(len(SETS)), ids=SETS)
def test_counts_of_a_shared_pass_are_those_of_a_run_of_its_own(home, finished, number):
    read = suite(home)
    one = read.data[number]
    root = home / 'all' / (one.images or one.spec.name)
    [result] = evaluate([read.models[0]], dataclasses.replace(one.spec, root=root), read.accuracy)
    assert result.top1_count
    [row] = [row for row in rows(finished[0]) if (row['model'], row['dataset']) == ('a', SETS[number])]
    assert (int(row['num_images']), row['top1'], row['top5']) == (
        result.num_images, f'{result.top1:.3f}', f'{result.top5:.3f}',
    )  # fmt: skip


def test_images_of_other_classes_do_not_count_for_a_part_of_the_classes(home, finished):
    names = [path.parent.name for path in sorted((home / 'all/imagenet-1k').rglob('*.png'))]
    synsets = ImageNetInfo('imagenet-1k').label_names()
    for part in ('imagenet-a', 'imagenet-r'):
        kept = {synsets[index] for index in read_class_list(part)}
        [row] = [row for row in rows(finished[0]) if (row['model'], row['dataset']) == ('a', f'{part}-clean')]
        assert 0 < int(row['num_images']) == sum(name in kept for name in names) < IMAGES


def test_differences_to_the_baseline_are_those_of_the_images_that_one_of_both_has_right(home, finished):
    spec = DataSpec(root=home / 'all/imagenet-1k')
    own, other = evaluate(list(suite(home).models), spec, suite(home).accuracy)
    right, right_other = (from_text(result.right, IMAGES) for result in (own, other))
    assert int(right.sum()) == own.top1_count
    counts = PairedCounts(IMAGES, int((right & ~right_other).sum()), int((right_other & ~right).sum()))
    assert counts.gained
    assert counts.lost
    row, *_ = rows(finished[0])
    assert (row['baseline'], row['delta_vs_baseline'], row['p_vs_baseline']) == (
        'b', f'{counts.difference:+.3f}', f'{counts.p_value():.3g}',
    )  # fmt: skip
    assert [row['delta_ci95_low'], row['delta_ci95_high']] == [f'{bound:+.3f}' for bound in counts.interval95()]
    assert {row['delta_vs_baseline'] for row in rows(finished[0]) if row['model'] == 'b'} == {''}


def test_another_baseline_is_compared_with_without_counting_again(home, finished, tmp_path, opened):
    out = shutil.copytree(finished[0], tmp_path / 'run')
    run_leaderboard(parse_suite(SUITE, home / 'mine.yaml', baseline='a'), out, home / 'all')
    assert not opened
    before = [float(row['delta_vs_baseline']) for row in rows(finished[0]) if row['model'] == 'a']
    assert [float(row['delta_vs_baseline']) for row in rows(out) if row['model'] == 'b'] == [-one for one in before]


def test_timms_files_of_all_data_sets_have_the_differences_to_those_that_timm_compares_with(finished):
    out, *_ = finished
    files = {path.name: path.read_text().splitlines()[0].split(',') for path in out.glob('results-*.csv')}
    differences = {name for name, header in files.items() if header[-3:] == ['top1_diff', 'top5_diff', 'rank_diff']}
    names = ('imagenet', 'imagenet-a', 'imagenet-a-clean', 'imagenet-r-clean', 'imagenet-real')
    assert set(files) == {f'results-{name}.csv' for name in names}
    assert differences == {'results-imagenet-real.csv', 'results-imagenet-a.csv'}


def test_a_run_that_was_stopped_continues_to_the_same_table(home, finished, tmp_path, opened, monkeypatch):
    count = FolderImages.open
    stops = {12: StopRequest(), IMAGES + BLOCK + 3: StopRequest()}

    def open_and_stop(self, position):
        if (stop := stops.get(sum(opened.values()) + 1)) is not None:
            stop.signal_name = 'SIGTERM'
        return count(self, position)

    monkeypatch.setattr(FolderImages, 'open', open_and_stop)
    for stop in stops.values():
        with pytest.raises(InterruptedRunError):
            run_leaderboard(suite(home), tmp_path / 'run', home / 'all', stop=stop)
    run_leaderboard(suite(home), tmp_path / 'run', home / 'all')
    assert rows(tmp_path / 'run') == rows(finished[0])
    # The blocks that were decoded when a run ended were not counted.
    assert sum(opened.values()) <= IMAGES + OTHERS + len(stops) * BLOCK


def test_an_error_on_one_set_of_labels_leaves_the_others_alone(home, tmp_path):
    (tmp_path / 'few.txt').write_text('1\n2\n')
    text = f"""
version: 1
models: [{{name: test_resnet, checkpoint: {home}/a.safetensors, label: a}}]
data: [{{name: x, root: {home}/all/imagenet-1k}}, {{name: y, images: x, valid_labels: {tmp_path}/few.txt}}]
img_size: 32
accuracy: {{batch_size: 5, workers: 0, device: cpu}}
"""
    result = run_leaderboard(parse_suite(text, tmp_path / 'mine.yaml'), tmp_path / 'run')
    good, bad = rows(tmp_path / 'run')
    assert (good['dataset'], good['num_images'], good['error']) == ('x', str(IMAGES), '')
    assert bad['dataset'].startswith('y')
    assert 'its class is not among the valid labels' in bad['error']
    assert len(result.errors) == 1


@pytest.mark.parametrize(
    ('folders', 'message'),
    [
        ({'imagenet-2k': '.'}, 'the suite mine has no such data; it has imagenet-1k, '),
        ({'imagenet-1k-real': '.'}, 'its images are those of imagenet-1k; give --data-dir imagenet-1k=DIR'),
        ({'': 'empty'}, 'it holds no folder called imagenet-1k, imagenet-a; name each with --data-dir NAME=DIR'),
        ({'imagenet-1k': 'nowhere'}, 'there is no such folder or file'),
    ],
)
def test_folders_that_are_for_nothing_are_refused(home, tmp_path, folders, message):
    (tmp_path / 'empty').mkdir()
    folders = {name: tmp_path / folder for name, folder in folders.items()}
    with pytest.raises(InputError, match=message):
        run_leaderboard(suite(home), tmp_path / 'run', folders)
    assert not (tmp_path / 'run').exists()


def test_data_sets_without_a_folder_are_named_and_the_others_have_their_rows(home, tmp_path):
    result = run_leaderboard(suite(home), tmp_path, {'imagenet-a': home / 'all/imagenet-a'})
    assert [(row['model'], row['dataset']) for row in rows(tmp_path)] == [('a', 'imagenet-a'), ('b', 'imagenet-a')]
    assert result.notes == [
        'no row on imagenet-1k, imagenet-1k-real, imagenet-a-clean, imagenet-r-clean: no folder was given; add '
        '--data-dir NAME=DIR'
    ]
