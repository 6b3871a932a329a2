import json
import math

import pytest
import timm
import torch
from safetensors.torch import save_file

import eca_zoo
from eca_zoo.cli import main
from eca_zoo.errors import InputError
from eca_zoo.harness.accuracy.label_sets.paired import PairedCounts
from eca_zoo.harness.comparison.comparison import compare
from eca_zoo.harness.comparison.runs import Run, read_run
from eca_zoo.harness.comparison.verdicts import scatter_of
from eca_zoo.harness.table.files import to_csv
from eca_zoo.harness.table.frames import to_frame
from tests.harness.image_sets import MODEL, write_folder

MACHINE = {'processor': 'a processor', 'cpus': 2, 'threads': {'intra_op': 2}, 'gpus': [], 'data': {'images': 'abc'}}
NAMES = ('resnet18', 'resnet34', 'resnet50', 'resnet101')


def run_of(rates=(40.0, 25.0, 15.0, 8.0), top1=70.0, sha='a' * 64, environment=MACHINE, **cells):
    given = {
        'dataset': 'imagenet-1k', 'num_images': 50_000, 'top1': top1, 'weights_sha256': sha, 'infer_spread': 2.0,
        'infer_step_time': 10.0, 'infer_step_time_p95': 10.1, 'params': 11, 'infer_gmacs': 1.8, **cells,
    }  # fmt: skip
    rows = [{'model': name, 'infer_samples_per_sec': rate, **given} for name, rate in zip(NAMES, rates, strict=False)]
    return Run('run', to_frame(rows), environment)


def outcomes(comparison, figure):
    return [row.verdicts[figure].outcome for row in comparison.rows]


def test_equal_runs_have_no_regression_and_nothing_around_them_differs():
    comparison = compare(run_of(), run_of())
    assert comparison.context == comparison.regressions == ()
    assert outcomes(comparison, 'accuracy') == ['equal'] * 4
    assert outcomes(comparison, 'throughput') == ['undecidable'] * 4
    assert outcomes(comparison, 'complexity') == ['equal'] * 4


def test_the_same_weights_and_data_with_another_count_are_named():
    comparison = compare(run_of(), run_of(top1=69.998))
    assert outcomes(comparison, 'accuracy') == ['worse'] * 4
    assert '35000 -> 34999 right for the same weights, data and settings' in comparison.rows[0].accuracy.text
    assert comparison.regressions == ()
    assert len(compare(run_of(), run_of(top1=69.8)).regressions) == 4


def test_other_weights_are_compared_by_intervals_and_by_pairs_where_they_are_known():
    unpaired = compare(run_of(), run_of(top1=70.3, sha='b' * 64))
    assert outcomes(unpaired, 'accuracy') == ['undecidable'] * 4
    assert 'unpaired' in unpaired.rows[0].accuracy.text
    paired = compare(
        run_of(), run_of(top1=70.3, sha='b' * 64), paired=lambda model, dataset: PairedCounts(50_000, 400, 250)
    )
    assert outcomes(paired, 'accuracy') == ['better'] * 4
    assert 'paired, p = ' in paired.rows[0].accuracy.text


def test_one_slower_network_is_a_regression_and_the_others_are_not():
    comparison = compare(run_of(), run_of(rates=(40.3, 24.9, 12.0, 8.1)))
    assert outcomes(comparison, 'throughput') == ['undecidable', 'undecidable', 'worse', 'undecidable']
    assert comparison.regressions == ('resnet50: 15.00 -> 12.00 images/s (-20.0 %)',)


def test_two_runs_of_a_busy_machine_are_not_decidable():
    # From -22 % to +5,312 %, with rounds that agree among themselves.
    comparison = compare(run_of(), run_of(rates=(31.2, 1353.0, 15.5, 24.0)))
    assert outcomes(comparison, 'throughput') == ['undecidable'] * 4
    assert comparison.regressions == ()


def test_batches_that_scatter_make_a_throughput_undecidable_though_its_rounds_agree():
    slow = run_of(rates=(20.0, 12.5, 7.5, 4.0), infer_step_time_p95=31.0)
    assert outcomes(compare(run_of(), slow), 'throughput') == ['undecidable'] * 4
    steady = run_of(rates=(20.0, 12.5, 7.5, 4.0))
    assert outcomes(compare(run_of(), steady), 'throughput') == ['worse'] * 4


@pytest.mark.parametrize(
    ('new', 'reason'),
    [
        (run_of(rates=(9.0,), environment=MACHINE | {'processor': 'another'}), 'another machine'),
        (run_of(rates=(9.0,), environment={}), 'the machine of one is not known'),
        (run_of(rates=(9.0,), infer_batch_size=7), 'other settings (infer_batch_size)'),
        (run_of(rates=(9.0,), infer_spread=None), 'the spread of one is not known'),
    ],
)
def test_throughputs_that_cannot_be_compared_say_why(new, reason):
    (row,) = compare(run_of(infer_batch_size=8), new).rows
    assert row.throughput.outcome == 'undecidable'
    assert reason in row.throughput.text


def test_data_sets_of_different_names_are_not_compared():
    (row, *_) = compare(run_of(), run_of(dataset='imagenet-real', top1=80.0)).rows
    assert row.accuracy.outcome == 'undecidable'
    assert 'on imagenet-1k and on imagenet-real' in row.accuracy.text


def test_new_gone_and_failed_rows_are_named():
    old = run_of(rates=(40.0, 25.0))
    new = Run('new', to_frame([*run_of(rates=(40.0,)).table.to_dict('records'), {'model': 'vit'}]), MACHINE)
    new.table.loc[0, 'error'] = 'out of memory'
    comparison = compare(old, new)
    assert (comparison.added, comparison.gone) == (('vit',), ('resnet34',))
    assert comparison.regressions == ('resnet18: failed: out of memory',)


def test_the_scatter_is_three_robust_deviations_and_endless_where_most_ratios_disagree():
    assert scatter_of([(1.0, 1.02), (1.0, 1.02), (1.0, 1.02), (0.5, 1.02)]) == 1.0
    assert scatter_of([(2.0, 1.02)]) == 1.0
    assert scatter_of([(1.0, 1.5), (1.1, 1.5)]) == pytest.approx(1.1 ** (0.5 * 1.4826 * 3))
    assert scatter_of([(1.0, 1.02), (0.7, 1.02), (3.0, 1.02)]) == math.inf


def test_runs_without_a_common_row_are_an_error():
    with pytest.raises(InputError, match='have no row in common; name two runs of the same networks'):
        compare(run_of(rates=(1.0,)), Run('other', to_frame([{'model': 'vit'}])))


def written(folder, run):
    folder.mkdir()
    (folder / 'leaderboard.csv').write_text(to_csv(run.table))
    (folder / 'environment.json').write_text(json.dumps(run.environment))
    return folder


def test_the_command_ends_with_1_on_a_regression_and_writes_three_formats(tmp_path, capsys):
    old = written(tmp_path / 'old', run_of())
    new = written(tmp_path / 'new', run_of(rates=(40.0, 25.0, 12.0, 8.0), environment=MACHINE | {'suite': 'other'}))
    assert read_run(new).machine == read_run(old).machine
    assert main(['compare', str(old), str(new)]) == 1
    output = capsys.readouterr()
    assert '  suite: none -> other\n' in output.out
    assert 'eca-zoo compare: regression: resnet50: 15.00 -> 12.00 images/s (-20.0 %)' in output.err
    assert main(['compare', str(old), str(new), '--speed-tolerance', '25', '--format', 'json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['rows'][2]['throughput']['outcome'] == 'worse'
    assert main(['compare', str(old), str(old), '--format', 'markdown']) == 0
    assert '| resnet50 | equal: top-1 70.000 -> 70.000 %; same weights and data |' in capsys.readouterr().out


def test_published_figures_are_compared_with_those_of_the_same_data_set(tmp_path, capsys):
    table = to_frame([{'model': 'eca_resnet50', 'dataset': 'imagenet-1k', 'num_images': 50_000, 'top1': 76.5}])
    run = written(tmp_path / 'run', Run('run', table))
    assert main(['compare', str(run), '--against', 'published']) == 1
    assert 'top-1 77.420 -> 76.500 %' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (['RUN'], '1 runs were named; name two runs'),
        (['RUN', 'RUN', '--against', 'published'], '2 runs were named; name one run'),
        (['RUN', 'nowhere'], 'nowhere: holds no leaderboard.csv'),
    ],
)
def test_wrong_arguments_of_the_command_are_one_line(tmp_path, capsys, arguments, reason):
    run = written(tmp_path / 'run', run_of())
    assert main(['compare', *(str(run) if word == 'RUN' else word for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count('\n') == 1


@pytest.mark.parametrize(
    ('row', 'complaint'),
    [
        ('a,104.7,60', 'top1 of a is 104.7; it is at least 0 and at most 100: correct the table'),
        ('a,-1,60', 'top1 of a is -1; it is at least 0 and at most 100: correct the table'),
        ('a,50,0', 'num_images of a is 0; it is at least 1: correct the table'),
    ],
)
def test_a_figure_that_cannot_be_is_named(row, complaint, tmp_path):
    path = tmp_path / 'table.csv'
    path.write_text(f'model,top1,num_images\n{row}\n')
    with pytest.raises(InputError) as raised:
        read_run(path)
    assert str(raised.value) == f'{path}: {complaint}'


def test_two_runs_with_other_weights_are_compared_in_pairs_without_predictions(tmp_path):
    """As a user has them: two run directories, whose journals hold a bit for each image."""
    root = write_folder(tmp_path / 'digits', count=40)
    files = {}
    for name, noise in (('old', 0.0), ('new', 1.0)):
        network = timm.create_model(MODEL, pretrained=True)
        torch.manual_seed(0)
        network.fc.weight.data += noise * torch.randn_like(network.fc.weight)
        files[name] = tmp_path / f'{name}.safetensors'
        save_file(network.state_dict(), files[name])
        suite = tmp_path / f'{name}.yaml'
        suite.write_text(
            f'version: 1\nmodels: [{{name: test_eca_resnet, label: mine, checkpoint: {files[name]}}}]\n'
            'data: {name: digits}\naccuracy: {device: cpu, workers: 0}\n'
        )
        eca_zoo.leaderboard(suite, tmp_path / f'run-{name}', data_dir=root)
    old, new = (read_run(tmp_path / f'run-{name}') for name in ('old', 'new'))
    (row,) = compare(old, new).rows
    lost = round((old.table['top1'][0] - new.table['top1'][0]) * 40 / 100)
    assert lost > 3
    assert row.accuracy.outcome == 'worse'
    counts = PairedCounts(40, 0, lost)
    assert f'paired, p = {counts.p_value():.3g}' in row.accuracy.text
    # Without the journals there are the two figures alone.
    for file in tmp_path.glob('run-*/journal-*.jsonl'):
        file.unlink()
    (row,) = compare(*(read_run(tmp_path / f'run-{name}') for name in ('old', 'new'))).rows
    assert 'unpaired: what each did with each image is not known' in row.accuracy.text
