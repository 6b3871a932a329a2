"""The results table: what each column means, and its forms as CSV, as timm's two files and on a terminal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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

# What a row needs beyond the columns, to be written in timm's format; it is in no table.
FVCORE = 'infer_gmacs_fvcore'


def format_cell(name: str, value: Any) -> str:
    """``value`` as column ``name`` writes it; empty if it was not measured."""
    if value is None:
        return ''
    spec = BY_NAME[name].spec
    return format(value, spec) if spec else str(value)


def columns_as_markdown() -> str:
    """The definitions of the columns as a Markdown table."""
    lines = ['| column | unit | meaning | from |', '|---|---|---|---|']
    lines += [f'| `{c.name}` | {c.unit} | {c.meaning} | {c.source} |' for c in COLUMNS]
    return '\n'.join(lines)
