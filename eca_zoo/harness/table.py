"""The results table: what each column means, and its forms as CSV, as timm's two files and on a terminal."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eca_zoo.errors import InputError
from eca_zoo.weights.files import move_into_place, storage_error, temporary_beside

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of the table: unit, meaning, where its values come from, and how a number is written."""

    name: str
    unit: str
    meaning: str
    source: str
    spec: str = ''


_ACCURACY = 'validation: a ratio of integer counts'
_COUNTED = 'counted on the meta device for `infer_img_size`'
_REPORTED = '`reported` in weights_manifest.yaml'
_TIMED = 'benchmark: rounds in turn with the other networks'
_SETTING = 'setting of the benchmark'

COLUMNS = (
    Column('model', '', 'timm name of the network', 'suite'),
    Column('weights_sha256', '', 'SHA-256 of the checkpoint that was validated', 'the bytes that were loaded'),
    Column('dataset', '', 'data set that was validated on', 'suite'),
    Column('num_images', 'images', 'images that were counted', 'validation'),
    Column('top1', '%', 'images whose first guess is right', _ACCURACY, '.3f'),
    Column('top1_err', '%', '100 - `top1`', _ACCURACY, '.3f'),
    Column('top5', '%', 'images whose class is among the first five guesses', _ACCURACY, '.3f'),
    Column('top5_err', '%', '100 - `top5`', _ACCURACY, '.3f'),
    Column('top1_ci95', '%', 'half width of the 95 % Wilson interval of `top1`', 'computed from the counts', '.3f'),
    Column('img_size', 'pixels', 'height and width of the validated images', 'evaluation transform'),
    Column('crop_pct', '', 'part of the resized image that the centre crop keeps', 'evaluation transform', '.3f'),
    Column('interpolation', '', 'filter of the resize', 'evaluation transform'),
    Column('param_count', '10^6', 'parameters', 'counted', '.2f'),
    Column('params', '', 'parameters, exact; buffers are not counted', 'counted'),
    Column(
        'infer_gmacs',
        '10^9',
        'multiply-adds of one image in convolutions, linear layers and matrix products (attention included), without '
        "biases and norms. In timm's format this is fvcore's count, which adds 2 an element of a batch norm (5 of a "
        "layer or group norm) and the inputs of adaptive poolings, because timm's published tables hold that: 4.11 for "
        'resnet50 at 224 pixels, where this column has 4.0892',
        _COUNTED,
        '.4f',
    ),
    Column('infer_macts', '10^6', 'elements that those operators put out for one image', _COUNTED, '.2f'),
    Column('params_paper', '2^20', "parameters in the unit of the paper's tables", 'counted', '.2f'),
    Column(
        'gflops_paper',
        '2^30; 10^9 for MobileNetV2',
        "multiply-adds of one image in the paper's tables, counted as ptflops counts: convolutions and linear "
        'layers with bias, batch norms, activations and poolings',
        _COUNTED,
        '.4f',
    ),
    Column('reported_top1', '%', 'top-1 that the authors report', _REPORTED, '.2f'),
    Column('reported_top5', '%', 'top-5 that the authors report', _REPORTED, '.2f'),
    Column('delta_top1', '%', '`top1` - `reported_top1`, on the data set that was reported', 'computed', '+.3f'),
    Column('infer_samples_per_sec', 'images/s', 'inference throughput, the median of the rounds', _TIMED, '.2f'),
    Column('infer_step_time', 'ms', 'time of a batch that corresponds to it', _TIMED, '.3f'),
    Column('infer_step_time_p95', 'ms', '95th percentile of the times of all timed batches', _TIMED, '.3f'),
    Column(
        'infer_spread', '%', "interquartile range of the rounds' throughputs, in percent of the median", _TIMED, '.1f'
    ),
    Column('infer_batch_size', 'images', 'batch size, after halving where the one asked for did not fit', _TIMED),
    Column('infer_img_size', 'pixels', 'height and width of the images of complexity and throughput', _SETTING),
    Column(
        'relative_throughput',
        '',
        "median over the rounds of the throughput divided by the baseline's in the same round",
        _TIMED,
        '.3f',
    ),
    Column(
        'peak_memory_mb',
        '2^20 bytes',
        'most memory that tensors took on the device, weights included; CUDA alone',
        'torch.cuda.max_memory_allocated',
        '.1f',
    ),
    Column('device', '', 'device of the benchmark', _SETTING),
    Column('precision', '', 'fp32, tf32, fp16, bf16, amp (fp16) or amp_bf16', _SETTING),
    Column('memory_format', '', 'contiguous or channels_last', _SETTING),
    Column('compile', '', 'backend of torch.compile; none for eager', _SETTING),
    Column('backend', '', 'torch, onnxruntime or openvino', _SETTING),
    Column('fused', '', 'yes: batch norms were folded into convolutions', _SETTING),
    Column(
        'train_samples_per_sec', 'images/s', 'throughput of training steps, the median of the rounds', _TIMED, '.2f'
    ),
    Column('train_step_time', 'ms', 'time of a training step that corresponds to it', _TIMED, '.3f'),
    Column('train_batch_size', 'images', 'batch size of the training steps', _TIMED),
    Column('train_img_size', 'pixels', 'height and width of the images of the training steps', _TIMED),
    Column('train_relative_throughput', '', 'as `relative_throughput`, for training steps', _TIMED, '.3f'),
    Column('error', '', 'why something that was asked for is not there', 'the part that failed'),
)
BY_NAME = {column.name: column for column in COLUMNS}

_TIMM_ACCURACY = (
    'model',
    'img_size',
    'top1',
    'top1_err',
    'top5',
    'top5_err',
    'param_count',
    'crop_pct',
    'interpolation',
)
_TIMM_INFERENCE = (
    'model',
    'infer_img_size',
    'infer_samples_per_sec',
    'infer_step_time',
    'infer_batch_size',
    'param_count',
    'infer_gmacs',
    'infer_macts',
)
# What a row needs beyond the columns, to be written in timm's format; it is in no table.
FVCORE = 'infer_gmacs_fvcore'

# Columns that a terminal has room for, and their short headings.
_ON_A_TERMINAL = {
    'model': 'model',
    'top1': 'top-1',
    'top1_ci95': '+/-',
    'top5': 'top-5',
    'reported_top1': 'reported',
    'delta_top1': 'delta',
    'params_paper': 'params/2^20',
    'gflops_paper': 'paper GFLOPs',
    'infer_gmacs': 'GMACs',
    'infer_samples_per_sec': 'images/s',
    'infer_spread': 'spread %',
    'infer_step_time_p95': 'p95 ms',
    'relative_throughput': 'relative',
    'peak_memory_mb': 'peak MiB',
    'train_samples_per_sec': 'train images/s',
    'train_relative_throughput': 'relative',
}
_SETTINGS = (
    'device',
    'precision',
    'memory_format',
    'compile',
    'backend',
    'fused',
    'infer_batch_size',
    'infer_img_size',
    'train_batch_size',
    'train_img_size',
)


def format_cell(name: str, value: Any) -> str:
    """``value`` as column ``name`` writes it; empty if it was not measured."""
    if value is None:
        return ''
    spec = BY_NAME[name].spec
    return format(value, spec) if spec else str(value)


def to_csv(rows: Iterable[Row], columns: Sequence[str] = tuple(BY_NAME)) -> str:
    """The table as CSV text; a value that is None or absent is an empty cell.

    Raises:
        KeyError: a row has a value that no column is for.
    """
    rows = list(rows)
    for row in rows:
        for name in row.keys() - BY_NAME.keys() - {FVCORE}:
            raise KeyError(f'no column {name!r}')
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(columns)
    writer.writerows([format_cell(name, row.get(name)) for name in columns] for row in rows)
    return text.getvalue()


def to_timm_files(rows: Sequence[Row]) -> dict[str, str]:
    """timm's result files, name to CSV text: the accuracies, and one file for each setting of the benchmark.

    The columns, their digits and the order (best first) are timm's; rows without the measurement are left out.
    """
    timm_rows = [{**row, 'infer_gmacs': row.get(FVCORE)} for row in rows]
    accurate = _best_first(timm_rows, 'top1')
    dataset = next((str(row['dataset']) for row in accurate), 'imagenet')
    files = {f'results-{_file_part(dataset)}.csv': _timm_csv(_without_repeats(accurate), _TIMM_ACCURACY)}
    timed = _best_first(timm_rows, 'infer_samples_per_sec')
    names = [_benchmark_name(row) for row in timed]
    for name in dict.fromkeys(names):
        files[name] = _timm_csv([row for row, own in zip(timed, names, strict=True) if own == name], _TIMM_INFERENCE)
    if not names:
        files['benchmark-infer.csv'] = _timm_csv([], _TIMM_INFERENCE)
    return files


def _best_first(rows: Iterable[Row], name: str) -> list[Row]:
    return sorted((row for row in rows if row.get(name) is not None), key=lambda row: -row[name])


def _without_repeats(rows: Iterable[Row]) -> list[Row]:
    """One row a model: a model has one for each setting of the benchmark, with the same accuracy."""
    return list({row['model']: row for row in rows}.values())


def _benchmark_name(row: Row) -> str:
    layout = 'nhwc' if row['memory_format'] == 'channels_last' else 'nchw'
    extras = [row['backend']] if row['backend'] != 'torch' else []
    extras += ['dynamo'] if row['compile'] not in (None, 'none') else []
    extras += ['fused'] if row['fused'] == 'yes' else []
    device = str(row['device']).split(':')[0]
    return (
        f'{"-".join(_file_part(part) for part in ["benchmark-infer", row["precision"], layout, device, *extras])}.csv'
    )


def _file_part(text: str) -> str:
    return ''.join(letter if letter.isalnum() or letter in '-_.' else '_' for letter in text)


def _timm_csv(rows: Iterable[Row], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(columns)
    for row in rows:
        # timm gives two digits of the multiply-adds.
        writer.writerow(
            format(row[name], '.2f') if name == 'infer_gmacs' else format_cell(name, row.get(name)) for name in columns
        )
    return text.getvalue()


def to_text(rows: Sequence[Row]) -> str:
    """The table for a terminal: columns that hold anything; settings that all rows share stand below it."""
    values = {name: [row[name] for row in rows if row.get(name) is not None] for name in BY_NAME}
    shared = {name: values[name][0] for name in _SETTINGS if len(set(values[name])) == 1}
    shown = {name: label for name, label in _ON_A_TERMINAL.items() if values[name]}
    shown |= {name: name for name in _SETTINGS if values[name] and name not in shared}
    lines = [list(shown.values())]
    lines += [[format_cell(name, row.get(name)) for name in shown] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ['-' * width for width in widths])
    text = [_aligned(line, widths) for line in lines]
    if shared:
        text.append(', '.join(f'{name} {value}' for name, value in shared.items()))
    return '\n'.join(text)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return '  '.join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()


def columns_as_markdown() -> str:
    """The definitions of the columns as a Markdown table."""
    lines = ['| column | unit | meaning | from |', '|---|---|---|---|']
    lines += [f'| `{c.name}` | {c.unit} | {c.meaning} | {c.source} |' for c in COLUMNS]
    return '\n'.join(lines)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``: afterwards the file is complete, or as it was before.

    Raises:
        StorageError: it cannot be written; nothing is left behind.
        InputError: ``path`` is a folder.
    """
    if path.is_dir():
        raise InputError(f'{path}: is a folder; name a file')
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open('x', encoding='utf-8', newline='') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        move_into_place(temporary, path)
    except OSError as error:
        raise storage_error(path, error, '--out') from None
    finally:
        temporary.unlink(missing_ok=True)
