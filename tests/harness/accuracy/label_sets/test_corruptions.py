"""ImageNet-C: many data sets in one folder, their mean accuracy, and the mean corruption error."""

import pytest

from eca_zoo.errors import InputError
from eca_zoo.harness.accuracy.evaluation import evaluate
from eca_zoo.harness.accuracy.label_sets.corruptions import (
    ALEXNET_ERRORS,
    SEVERITIES,
    SetCounts,
    mean_corruption_error,
    mean_top1,
)
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.networks.model_spec import ModelSpec
from tests.harness.image_sets import MODEL, digits

QUICK = EvalSettings(batch_size=16, workers=0, device='cpu')


def alexnets(factor=1.0, images=1_000_000):
    """Counts of a network whose error on each corruption is ``factor`` times AlexNet's."""
    return [
        SetCounts(f'{name}/{severity}', images, round(images * (1 - factor * error)))
        for name, error in ALEXNET_ERRORS.items()
        for severity in SEVERITIES
    ]


def test_alexnets_mean_corruption_error_is_100_and_half_its_errors_are_50():
    assert len(alexnets()) == 75
    assert mean_corruption_error(alexnets()) == pytest.approx(100)
    assert mean_corruption_error(alexnets(0.5)) == pytest.approx(50)


def test_the_error_of_a_corruption_is_the_mean_over_its_severities_beside_alexnets():
    counts = {one.name: one for one in alexnets()}
    # One severity of one corruption without any error: a fifth of the error of a fifteenth of the mean.
    counts['fog/3'] = SetCounts('fog/3', 10, 10)
    assert mean_corruption_error(list(counts.values())) == pytest.approx(100 - 100 / 75, abs=1e-4)


@pytest.mark.parametrize('change', ['missing', 'empty', 'twice'])
def test_there_is_no_mean_corruption_error_where_a_set_is_not_known(change):
    counts = alexnets()
    last = counts.pop()
    counts += {
        'missing': [], 'empty': [last._replace(images=0, top1_count=0)],
        'twice': [last, last._replace(name=f'digital/{last.name}')],
    }[change]  # fmt: skip
    assert mean_corruption_error(counts) is None


def test_further_corruptions_do_not_change_the_mean_corruption_error():
    further = SetCounts('extra/saturate/1', 10, 0)
    grouped = [one._replace(name=f'group/{one.name}') for one in alexnets()]
    assert mean_corruption_error([*grouped, further]) == pytest.approx(100)


def test_the_mean_accuracy_gives_each_set_the_same_weight():
    assert mean_top1([SetCounts('a/1', 10, 5), SetCounts('a/2', 1000, 1000)]) == 75
    assert mean_top1([]) is None


@pytest.fixture(scope='module')
def corrupted(tmp_path_factory):
    """Digits as ``corruption/severity/class``: one of each, black in the highest severity; and one beside them."""
    root = tmp_path_factory.mktemp('c')
    for corruption in (*ALEXNET_ERRORS, 'saturate'):
        for severity in SEVERITIES:
            for number, (image, label) in enumerate(digits()[:10] if corruption == 'fog' else digits()[:1]):
                folder = root / corruption / severity / str(label)
                folder.mkdir(parents=True)
                (image if severity < '5' else image.point(lambda _: 0)).save(folder / f'{number}.png')
    return root


def classes_of_digits(tmp_path):
    path = tmp_path / 'classes.txt'
    path.write_text('\n'.join(map(str, range(10))))
    return path


def test_sets_in_one_folder_are_one_row_with_their_mean_and_the_corruption_error(corrupted, tmp_path):
    classes = classes_of_digits(tmp_path)
    data = DataSpec(root=corrupted, sets='*/[1-5]', class_map=classes)
    [result] = evaluate([ModelSpec(MODEL)], data, QUICK)
    assert result.error is None
    assert result.num_images == 75 + 5 + 5 * 9
    alone = {}
    for name in ('fog/1', 'fog/5', 'snow/2'):
        [one] = evaluate([ModelSpec(MODEL)], DataSpec(root=corrupted / name, class_map=classes), QUICK)
        alone[name] = (one.num_images, one.top1_count)
    assert {name: tuple(counts) for name, *counts in result.sets if name in alone} == alone
    assert sum(one.top1_count for one in result.sets) == result.top1_count
    assert (result.mean_top1, result.mce) == (mean_top1(result.sets), mean_corruption_error(result.sets))
    assert result.mce is not None


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'sets': '*/6'}, r'no folder in it that matches the pattern \*/6 of data sets has class folders'),
        ({'sets': '*/1', 'real_labels': 'default'}, '--sets goes without --real-labels and --skip-other-classes'),
        ({'skip_other_classes': True}, '--skip-other-classes is about --valid-labels; name some'),
        ({'sets': '*/1', 'dataset': 'wds/digits'}, 'it takes no --sets; leave it out'),
    ],
)
def test_what_does_not_go_together_is_refused(corrupted, options, message):
    with pytest.raises(InputError, match=message):
        evaluate([ModelSpec(MODEL)], DataSpec(root=corrupted, **options), QUICK)


def test_a_pattern_takes_some_of_the_sets_and_says_what_it_leaves_out(corrupted, tmp_path, caplog):
    data = DataSpec(root=corrupted, sets='fog/*', class_map=classes_of_digits(tmp_path))
    [result] = evaluate([ModelSpec(MODEL)], data, QUICK)
    assert [one.name for one in result.sets] == [f'fog/{severity}' for severity in SEVERITIES]
    assert result.mce is None
    assert '75 images are left out: fog/* does not match' in caplog.text
