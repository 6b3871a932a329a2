"""The results table: columns, units, CSV and the text for a terminal."""

import csv
import dataclasses
import io

import pytest

from eca_zoo.errors import InputError
from eca_zoo.harness.accuracy.results import AccuracyResult
from eca_zoo.harness.networks.complexity import complexity
from eca_zoo.harness.speed.results import ThroughputResult
from eca_zoo.harness.speed.settings import ThroughputSettings
from eca_zoo.harness.table.columns import COLUMNS, cells_of, columns_as_markdown
from eca_zoo.harness.table.files import to_csv, write_text
from eca_zoo.harness.table.frames import to_frame
from eca_zoo.harness.table.rows import Measured, accuracy_cells, join_measurements, reported_cells, throughput_cells
from eca_zoo.harness.table.text import to_text
from eca_zoo.harness.table.timm_files import to_timm_files
from eca_zoo.weights.manifest import packaged_manifest
from tests.harness.processes import ROOT

SETTINGS = ThroughputSettings(device='cpu', batch_size=4, channels_last=True)
TIMED = ThroughputResult('eca_resnet18', SETTINGS, 4, 224, 61.5, 1.25, 65.04, 70.0, 10, 0.98, None)
ADDED = {
    'infer_spread', 'backend', 'baseline', 'fused', 'reparameterized', 'allocator', 'train_samples_per_sec',
    'train_step_time', 'train_batch_size', 'train_img_size', 'train_relative_throughput', 'error', 'mean_top1', 'mce',
    'delta_vs_baseline', 'delta_ci95_low', 'delta_ci95_high', 'p_vs_baseline',
    'gpu', 'accuracy_gpu', 'peak_reserved_mb', 'compile_mode', 'preprocess', 'gpu_decoded', 'cpu_decoded',
}  # fmt: skip
ACCURACY = {
    'dataset': 'imagenet-1k', 'num_images': 50000, 'top1': 70.916, 'top1_err': 29.084, 'top5': 89.93, 'top5_err': 10.07,
    'img_size': 224, 'crop_pct': 0.875, 'interpolation': 'bilinear',
}  # fmt: skip


@pytest.fixture(scope='module')
def row():
    return {
        'model': 'eca_resnet18', **ACCURACY, **cells_of('complexity', complexity('eca_resnet18')),
        **throughput_cells(TIMED),
    }  # fmt: skip


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_columns_of_the_design_come_in_its_order():
    names = [column.name for column in COLUMNS]
    names = [name for name in names if name not in ADDED]
    assert ' '.join(names) == (
        'model weights_sha256 dataset num_images top1 top1_err top5 top5_err top1_ci95 img_size crop_pct interpolation '
        'param_count params infer_gmacs infer_macts params_paper gflops_paper reported_top1 reported_top5 delta_top1 '
        'infer_samples_per_sec infer_step_time infer_step_time_p95 infer_batch_size infer_img_size relative_throughput '
        'peak_memory_mb device precision memory_format compile'
    )


def test_every_column_says_what_it_means_and_where_it_comes_from():
    assert all(column.meaning and column.source for column in COLUMNS)
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)


def test_the_readme_defines_the_columns_as_the_code_does():
    assert columns_as_markdown() in (ROOT / 'benchmark/README.md').read_text(encoding='utf-8')


def test_what_was_not_measured_is_an_empty_cell_and_zero_is_a_zero(row):
    (cells,) = read(to_csv(to_frame([{**row, 'top1': 0.0}])))
    assert cells['top1'] == '0.000'
    assert cells['peak_memory_mb'] == ''
    assert cells['train_samples_per_sec'] == ''
    assert cells['weights_sha256'] == ''


def test_figures_are_written_in_the_units_of_their_columns(row):
    (cells,) = read(to_csv(to_frame([row])))
    assert cells['params'] == '11689556'
    assert cells['param_count'] == '11.69'
    assert cells['params_paper'] == '11.15'
    assert cells['gflops_paper'] == '1.7014'
    assert cells['infer_gmacs'] == '1.8141'
    assert cells['infer_macts'] == '2.49'
    assert cells['infer_samples_per_sec'] == '61.50'
    assert cells['relative_throughput'] == '0.980'
    assert (cells['device'], cells['precision'], cells['memory_format'], cells['compile']) == (
        'cpu', 'fp32', 'channels_last', 'none',
    )  # fmt: skip


def test_a_value_without_a_column_is_an_error():
    with pytest.raises(KeyError, match='top_1'):
        to_csv(to_frame([{'model': 'a', 'top_1': 3}]))


def test_the_text_shows_measured_columns_and_shared_settings_once(row):
    lines = to_text(to_frame([row])).splitlines()
    assert lines[0].split() == [
        'model', 'top-1', 'top-5', 'img_size', 'GMACs', 'params/2^20', 'paper', 'GFLOPs', 'images/s', 'p95', 'ms',
        'spread', '%', 'relative',
    ]  # fmt: skip
    assert lines[2].split() == [
        'eca_resnet18', '70.916', '89.930', '224', '1.8141', '11.15', '1.7014', '61.50', '70.000', '1.2', '0.980',
    ]  # fmt: skip
    assert lines[-1] == (
        'device cpu, precision fp32, memory_format channels_last, compile none, backend torch, fused no, '
        'reparameterized no, '
        'allocator default, infer_batch_size 4, infer_img_size 224'
    )


def test_a_setting_that_differs_is_a_column(row):
    text = to_text(to_frame([row, {**row, 'precision': 'bf16'}]))
    assert text.splitlines()[0].endswith('precision')
    assert text.splitlines()[3].endswith('bf16')


def test_the_difference_to_the_reported_accuracy_is_given_on_the_reported_data_alone():
    manifest = packaged_manifest()
    same = reported_cells('eca_resnet18', manifest, 'imagenet-1k', 70.916)
    assert (same['reported_top1'], same['reported_top5']) == (70.92, 89.93)
    assert same['delta_top1'] == pytest.approx(-0.004)
    assert reported_cells('eca_resnet18.k3577_in1k', manifest, 'imagenet-v2', 58.0)['delta_top1'] is None
    assert reported_cells('resnet50', manifest, 'imagenet-1k', 80.0) == {}


def test_errors_of_all_parts_of_a_row_stand_in_its_last_cell():
    failed = ThroughputResult('eca_resnet18', SETTINGS, error='CUDA out of memory')
    measured = [(SETTINGS, type('Both', (), {'infer': {'eca_resnet18': failed}, 'train': {}})())]
    shared = {'eca_resnet18': [{'error': 'weights not published'}]}
    table = join_measurements(['eca_resnet18'], measured, lambda key: {'params': 1}, shared)
    assert table['error'].tolist() == ['weights not published; CUDA out of memory']
    assert table['params'].tolist() == [1]


@pytest.mark.parametrize(
    ('accuracy', 'throughput', 'cell'),
    [
        (None, True, 'yes'), (None, False, 'no'), (True, None, 'yes'), (False, None, 'no'), (True, True, 'yes'),
        (False, False, 'no'), (True, False, 'accuracy'), (False, True, 'throughput'),
    ],
)  # fmt: skip
def test_fused_says_which_figures_of_a_row_were_measured_in_the_form_for_inference(accuracy, throughput, cell):
    name = 'eca_resnet18'
    shared, measured = {name: [{}]}, []
    if accuracy is not None:
        shared = {name: [accuracy_cells(AccuracyResult(name, 'digits', fuse=accuracy))]}
    if throughput is not None:
        settings = dataclasses.replace(SETTINGS, fuse=throughput)
        measured = [(settings, Measured({name: dataclasses.replace(TIMED, settings=settings)}))]
    table = join_measurements([name], measured, lambda key: {'infer_gmacs_fvcore': 1.82}, shared)
    assert table['fused'].tolist() == [cell]
    if throughput is not None:
        assert list(to_timm_files(table))[-1] == (
            'benchmark-infer-fp32-nhwc-cpu-fused.csv' if throughput else 'benchmark-infer-fp32-nhwc-cpu.csv'
        )


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / 'new' / 'table.csv'
    write_text(path, 'a\n')
    write_text(path, 'b\n')
    assert path.read_text() == 'b\n'
    assert [file.name for file in path.parent.iterdir()] == ['table.csv']


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(InputError, match='is a folder; name a file'):
        write_text(tmp_path, 'a')
