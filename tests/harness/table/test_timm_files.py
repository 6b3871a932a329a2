"""timm's result files: what timm's own readers expect, and its published files written again."""

import pandas as pd
import pytest

import eca_zoo
from eca_zoo.errors import InputError
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.table.frames import read_table, to_frame
from eca_zoo.harness.table.timm_files import to_timm_files

ACCURACY = {
    'dataset': 'imagenet-1k', 'num_images': 50000, 'top1': 70.916, 'top1_err': 29.084, 'top5': 89.93, 'top5_err': 10.07,
    'img_size': 224, 'crop_pct': 0.875, 'interpolation': 'bilinear',
}  # fmt: skip
TIMED = {
    'infer_img_size': 224, 'infer_samples_per_sec': 61.5, 'infer_step_time': 65.04, 'infer_batch_size': 4,
    'device': 'cpu', 'precision': 'fp32', 'memory_format': 'channels_last', 'compile': 'none', 'backend': 'torch',
    'fused': 'no',
}  # fmt: skip
COUNTED = {'param_count': 11.69, 'infer_gmacs': 1.8141, 'infer_gmacs_fvcore': 1.82, 'infer_macts': 2.49}
ROW = {'model': 'eca_resnet18', **ACCURACY, **TIMED, **COUNTED}
HEADER = 'model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,interpolation'


def accuracy(model: str, top1: float, top5: float, dataset: str = 'imagenet-1k', img_size: int = 224) -> dict:
    figures = {'top1': top1, 'top1_err': 100 - top1, 'top5': top5, 'top5_err': 100 - top5}
    return {**ACCURACY, 'model': model, **figures, 'dataset': dataset, 'img_size': img_size, 'param_count': 1.0}


def test_the_files_have_exactly_timms_names_columns_digits_and_order():
    better = {**ROW, 'model': 'eca_resnet34', 'top1': 74.2}
    untimed = {key: value for key, value in better.items() if key not in TIMED}
    files = to_timm_files(to_frame([ROW, untimed]))
    assert list(files) == ['results-imagenet.csv', 'benchmark-infer-fp32-nhwc-cpu.csv']
    assert files['results-imagenet.csv'].splitlines() == [
        HEADER,
        'eca_resnet34,224,74.200,29.084,89.930,10.070,11.69,0.875,bilinear',
        'eca_resnet18,224,70.916,29.084,89.930,10.070,11.69,0.875,bilinear',
    ]
    assert files['benchmark-infer-fp32-nhwc-cpu.csv'].splitlines() == [
        'model,infer_img_size,infer_samples_per_sec,infer_step_time,infer_batch_size,param_count,infer_gmacs,infer_macts',
        'eca_resnet18,224,61.50,65.040,4,11.69,1.82,2.49',
    ]


def test_no_file_is_there_for_what_was_not_measured():
    assert to_timm_files(to_frame([{'model': 'eca_resnet18'}])) == {}
    assert list(to_timm_files(to_frame([ROW | {'top1': None}]))) == ['benchmark-infer-fp32-nhwc-cpu.csv']


def test_each_setting_of_the_benchmark_has_a_file_and_the_accuracy_is_listed_once():
    files = to_timm_files(to_frame([ROW, {**ROW, 'precision': 'bf16', 'compile': 'inductor'}]))
    assert list(files) == [
        'results-imagenet.csv', 'benchmark-infer-fp32-nhwc-cpu.csv', 'benchmark-infer-bf16-nhwc-cpu-dynamo.csv',
    ]  # fmt: skip
    assert files['results-imagenet.csv'].count('\n') == 2


@pytest.mark.parametrize(
    ('dataset', 'name'),
    [
        ('imagenet-1k', 'results-imagenet.csv'),
        ('ImageNet', 'results-imagenet.csv'),
        ('imagenet-1k-real', 'results-imagenet-real.csv'),
        ('imagenetv2-matched-frequency', 'results-imagenetv2-matched-frequency.csv'),
        ('imagenet-sketch', 'results-sketch.csv'),
        ('imagenet-a', 'results-imagenet-a.csv'),
        ('imagenet-a-clean', 'results-imagenet-a-clean.csv'),
        ('imagenet-r', 'results-imagenet-r.csv'),
        ('imagenet-r-clean', 'results-imagenet-r-clean.csv'),
        ('my cats/2026', 'results-my_cats_2026.csv'),
    ],
)
def test_files_have_the_names_that_timms_readers_open(dataset, name):
    assert list(to_timm_files(to_frame([accuracy('a', 1, 2, dataset)]))) == [name]


@pytest.mark.parametrize(
    ('spec', 'name'),
    [
        ({'real_labels': 'default'}, 'imagenet-1k-real'),
        ({'valid_labels': 'imagenet-a'}, 'imagenet-a-clean'),
        ({'valid_labels': 'lists/mine.txt'}, 'imagenet-1k-mine'),
        ({'label': 'imagenet-a', 'valid_labels': 'imagenet-a'}, 'imagenet-a'),
        ({'label': 'imagenet-real', 'real_labels': 'real.json'}, 'imagenet-real'),
        ({}, 'imagenet-1k'),
    ],
)
def test_other_labels_or_a_part_of_the_classes_are_another_data_set(spec, name):
    assert DataSpec(**{'label': 'imagenet-1k', **spec}).results_name == name


def test_rows_are_unique_by_model_and_image_size():
    rows = [accuracy('a', 70, 90), accuracy('a', 72, 91, img_size=288), accuracy('a', 70, 90)]
    text = to_timm_files(to_frame(rows))['results-imagenet.csv']
    assert [line.split(',')[:3] for line in text.splitlines()[1:]] == [['a', '288', '72.000'], ['a', '224', '70.000']]


def test_what_is_printed_alike_is_ordered_by_top_5_and_then_by_name():
    rows = [accuracy('c', 70.0004, 90), accuracy('b', 70, 90.0003), accuracy('d', 70, 91), accuracy('a', 69, 99)]
    text = to_timm_files(to_frame(rows))['results-imagenet.csv']
    assert [line.split(',')[0] for line in text.splitlines()[1:]] == ['d', 'b', 'c', 'a']


def test_differences_to_the_base_are_those_of_the_same_model_and_size_among_ties_too():
    base = [accuracy('a', 80, 95), accuracy('b', 80, 94), accuracy('c', 70, 90), accuracy('a', 81, 93, img_size=288)]
    real = [
        accuracy('a', 85, 97.5, 'imagenet-real'), accuracy('b', 86, 97.25, 'imagenet-real'),
        accuracy('c', 69.9999, 90, 'imagenet-real'), accuracy('new', 90, 99, 'imagenet-real'),
    ]  # fmt: skip
    files = to_timm_files(to_frame([*base, *real]))
    lines = files['results-imagenet-real.csv'].splitlines()
    assert lines[0] == f'{HEADER},top1_diff,top5_diff,rank_diff'
    assert [[line.split(',')[0], *line.split(',')[-3:]] for line in lines[1:]] == [
        ['new', '', '', ''],
        ['b', '+6.000', '+3.250', '+1'],
        ['a', '+5.000', '+2.500', '-1'],
        ['c', '+0.000', '+0.000', '0'],
    ]
    assert files['results-imagenet.csv'].splitlines()[0] == HEADER


def test_a_benchmark_has_the_name_before_the_tag_once_for_each_size():
    rows = [
        {**ROW, 'model': name, 'infer_samples_per_sec': rate}
        for name, rate in (('resnet50.a1_in1k', 10), ('resnet50.tv_in1k', 11), ('my.net', 9), ('hf-hub:a/b.c@v1', 8))
    ]
    text = to_timm_files(to_frame(rows))['benchmark-infer-fp32-nhwc-cpu.csv']
    assert [line.split(',')[0::2][:2] for line in text.splitlines()[1:]] == [
        ['resnet50', '11.00'], ['my.net', '9.00'], ['hf-hub:a/b.c@v1', '8.00'],
    ]  # fmt: skip


def test_files_as_timm_publishes_them_are_read_and_written_again(tmp_path):
    text = {
        'results-imagenet.csv': f'{HEADER}\na,336,89.466,10.534,98.824,1.176,"1,013.01",1.000,bicubic\n',
        'results-imagenet-real.csv': f'{HEADER},top1_diff,top5_diff,rank_diff\n'
        'a,336,91.078,8.922,98.604,1.396,"1,013.01",1.000,bicubic,+1.612,-0.220,0\n',
    }
    for name, content in text.items():
        (tmp_path / name).write_text(content)
    table = pd.concat([read_table(tmp_path / name) for name in text], ignore_index=True)
    assert table['dataset'].tolist() == ['imagenet-1k', 'imagenet-1k-real']
    assert table['param_count'].tolist() == [1013.01, 1013.01]
    written = eca_zoo.write_timm_files(table, tmp_path / 'again')
    assert [path.name for path in written] == list(text)
    assert [path.read_text() for path in written] == [
        content.replace('"1,013.01"', '1013.01') for content in text.values()
    ]


def test_accuracies_of_no_data_set_are_refused():
    with pytest.raises(InputError, match='accuracies of no data set; fill its column dataset'):
        to_timm_files(to_frame([{'model': 'a', 'top1': 3.0}]))
