"""The columns of the results table: name, unit, meaning, digits, and the measurement that each value comes from.

A new column is one entry in ``COLUMNS``: the CSV, the frames in Python, the terminal and the documentation
(``make docs``) derive from it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal

Part = Literal['accuracy', 'complexity', 'reported', 'setting', 'infer', 'train']


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        name: in the header.
        unit: of its values; empty for texts and pure numbers.
        meaning: what the values are.
        source: where they come from.
        spec: format of a number, which makes the column one of numbers.
        is_integer: the values are integers.
        values: how the cell is read from a measurement: an ``AccuracyResult``, a ``Complexity``, the figures that
            authors reported, ``ThroughputSettings``, or a ``ThroughputResult`` of inference or training. Columns that
            are filled where the parts are joined have none.
        heading: short one on a terminal, where the column is shown if it holds anything; empty for none.
        is_setting: on a terminal it stands below the table where all rows share it.
        in_table: whether it is written; a value that only other formats need is not.
    """

    name: str
    unit: str
    meaning: str
    source: str
    spec: str = ''
    is_integer: bool = False
    values: Mapping[Part, Callable[[Any], Any]] = field(default_factory=dict)
    heading: str = ''
    is_setting: bool = False
    in_table: bool = True


_ACCURACY = 'validation: a ratio of integer counts'
_COUNTED = 'counted on the meta device for `infer_img_size`'
_REPORTED = '`reported` in weights_manifest.yaml'
_SETS = 'computed from the counts of each data set'
_PAIRED = 'integer counts of the images that one of both has right'
_TIMED = 'benchmark: rounds in turn with the other networks'
_SETTING = 'setting of the benchmark'


def _accuracy(
    name: str, unit: str, meaning: str, source: str, spec: str = '', of: str | None = None, **more: Any
) -> Column:
    return Column(name, unit, meaning, source, spec, values={'accuracy': attrgetter(of or name)}, **more)


def _complexity(
    name: str, unit: str, meaning: str, source: str, spec: str, value: Callable[[Any], Any], **more: Any
) -> Column:
    return Column(name, unit, meaning, source, spec, values={'complexity': value}, **more)


def _reported(name: str, meaning: str, **more: Any) -> Column:
    value = attrgetter(name.removeprefix('reported_'))
    return Column(name, '%', meaning, _REPORTED, '.2f', values={'reported': value}, **more)


def _infer(name: str, unit: str, meaning: str, of: str, source: str = _TIMED, spec: str = '', **more: Any) -> Column:
    return Column(name, unit, meaning, source, spec, values={'infer': attrgetter(of)}, **more)


def _train(name: str, unit: str, meaning: str, of: str, spec: str = '', **more: Any) -> Column:
    return Column(name, unit, meaning, _TIMED, spec, values={'train': attrgetter(of)}, **more)


def _setting(name: str, meaning: str, value: Callable[[Any], Any]) -> Column:
    return Column(name, '', meaning, _SETTING, values={'setting': value}, is_setting=True)


ALL_COLUMNS = (
    Column('model', '', 'timm name of the network', 'suite', heading='model'),
    _accuracy('weights_sha256', '', 'SHA-256 of the checkpoint that was validated', 'the bytes that were loaded'),
    _accuracy('dataset', '', 'data set that was validated on', 'suite'),
    _accuracy('num_images', 'images', 'images that were counted', 'validation', is_integer=True),
    _accuracy('top1', '%', 'images whose first guess is right', _ACCURACY, '.3f', heading='top-1'),
    _accuracy('top1_err', '%', '100 - `top1`', _ACCURACY, '.3f'),
    _accuracy(
        'top5', '%', 'images whose class is among the first five guesses', _ACCURACY, '.3f', heading='top-5'
    ),
    _accuracy('top5_err', '%', '100 - `top5`', _ACCURACY, '.3f'),
    _accuracy(
        'top1_ci95',
        '%',
        'half width of the 95 % Wilson interval of `top1`',
        'computed from the counts',
        '.3f',
        heading='+/-',
    ),
    _accuracy(
        'mean_top1', '%', 'mean of the top-1 of the data sets in one folder, such as those of ImageNet-C', _SETS, '.3f',
        heading='mean top-1',
    ),
    _accuracy(
        'mce', '%',
        "mean corruption error of ImageNet-C: the error on each of the 15 corruptions, a mean over 5 severities, "
        "divided by AlexNet's",
        _SETS, '.2f', heading='mCE',
    ),
    _accuracy(
        'img_size', 'pixels', 'height and width of the validated images', 'evaluation transform', is_integer=True,
        heading='img_size',
    ),
    _accuracy('crop_pct', '', 'part of the resized image that the centre crop keeps', 'evaluation transform', '.3f'),
    _accuracy('interpolation', '', 'filter of the resize', 'evaluation transform'),
    _accuracy(
        'preprocess', '',
        "how images were prepared: exact (timm's pixels), fast (nearly these), or gpu (JPEG files by the GPU)",
        'setting of the validation', is_setting=True,
    ),
    _accuracy(
        'gpu_decoded', 'images', 'images that the GPU decoded; empty but for `preprocess` gpu', 'validation',
        is_integer=True,
    ),
    _accuracy(
        'cpu_decoded', 'images', "beside them, images that the CPU decoded, whose pixels are timm's", 'validation',
        is_integer=True,
    ),
    _complexity('param_count', '10^6', 'parameters', 'counted', '.2f', lambda counts: counts.params / 1e6),
    _complexity(
        'params', '', 'parameters, exact; buffers are not counted', 'counted', '', attrgetter('params'), is_integer=True
    ),
    _complexity(
        'infer_gmacs',
        '10^9',
        'multiply-adds of one image in convolutions, linear layers and matrix products (attention included), without '
        "biases and norms. In timm's format this is fvcore's count, which adds 2 an element of a batch norm (5 of a "
        "layer or group norm) and the inputs of adaptive poolings, because timm's published tables hold that: 4.11 for "
        'resnet50 at 224 pixels, where this column has 4.0892',
        _COUNTED,
        '.4f',
        lambda counts: counts.macs / 1e9,
        heading='GMACs',
    ),
    _complexity(
        'infer_gmacs_fvcore', '10^9', "fvcore's count, for timm's files", _COUNTED, '.2f',
        lambda counts: counts.macs_fvcore / 1e9, in_table=False,
    ),
    _complexity(
        'infer_macts', '10^6', 'elements that those operators put out for one image', _COUNTED, '.2f',
        lambda counts: counts.activations / 1e6,
    ),
    _complexity(
        'params_paper', '2^20', "parameters in the unit of the paper's tables", 'counted', '.2f',
        attrgetter('params_paper'), heading='params/2^20',
    ),
    _complexity(
        'gflops_paper',
        '2^30; 10^9 for MobileNetV2',
        "multiply-adds of one image in the paper's tables, counted as ptflops counts: convolutions and linear "
        'layers with bias, batch norms, activations and poolings',
        _COUNTED,
        '.4f',
        attrgetter('gflops_paper'),
        heading='paper GFLOPs',
    ),
    _reported('reported_top1', 'top-1 that the authors report', heading='reported'),
    _reported('reported_top5', 'top-5 that the authors report'),
    Column(
        'delta_top1', '%', '`top1` - `reported_top1`, on the data set that was reported', 'computed', '+.3f',
        heading='delta',
    ),
    Column(
        'delta_vs_baseline', '%', "`top1` minus the `baseline`'s on the same images", _PAIRED, '+.3f',
        heading='vs. baseline',
    ),
    Column(
        'delta_ci95_low', '%', "lower bound of its 95 % interval, Tango's score interval for paired shares", _PAIRED,
        '+.3f', heading='from',
    ),
    Column('delta_ci95_high', '%', 'upper bound of the same', _PAIRED, '+.3f', heading='to'),
    Column(
        'p_vs_baseline', '', "two-sided p-value of McNemar's exact test that both are equally accurate", _PAIRED, '.3g',
        heading='p',
    ),
    _infer(
        'infer_samples_per_sec', 'images/s', 'inference throughput, the median of the rounds', 'samples_per_sec',
        spec='.2f', heading='images/s',
    ),
    _infer('infer_step_time', 'ms', 'time of a batch that corresponds to it', 'step_time_ms', spec='.3f'),
    _infer(
        'infer_step_time_p95', 'ms', '95th percentile of the times of all timed batches', 'step_time_p95_ms',
        spec='.3f', heading='p95 ms',
    ),
    _infer(
        'infer_spread', '%',
        "interquartile range of the rounds' throughputs, in percent of the median; empty for one round",
        'spread_percent', spec='.1f', heading='spread %',
    ),
    _infer(
        'infer_batch_size', 'images', 'batch size, after halving where the one asked for did not fit', 'batch_size',
        is_integer=True, is_setting=True,
    ),
    Column(
        'infer_img_size', 'pixels', 'height and width of the images of complexity and throughput', _SETTING,
        is_integer=True, is_setting=True,
        values={'complexity': lambda counts: counts.input_size[-1], 'infer': attrgetter('img_size')},
    ),
    _infer(
        'relative_throughput',
        '',
        "median over the rounds of the throughput divided by the baseline's in the same round; beside the plain "
        "counterpart it is what the ECA layers cost. Empty for another image size than the baseline's",
        'relative',
        spec='.3f',
        heading='relative',
    ),
    _infer(
        'peak_memory_mb',
        '2^20 bytes',
        'most memory that tensors took on the device, weights included; CUDA alone',
        'peak_memory_mb',
        'torch.cuda.max_memory_allocated',
        '.1f',
        heading='peak MiB',
    ),
    _infer(
        'peak_reserved_mb', '2^20 bytes',
        'most memory that torch took from the device for it, unused parts of its blocks included; CUDA alone',
        'peak_reserved_mb', 'torch.cuda.max_memory_reserved', '.1f',
    ),
    Column(
        'gpu', '', 'name of the GPU of the benchmark; empty on the CPU', 'torch', is_setting=True,
        values={'infer': attrgetter('gpu'), 'train': attrgetter('gpu')},
    ),
    _accuracy('accuracy_gpu', '', 'name of the GPU of the validation; empty on the CPU', 'torch', of='gpu'),
    _setting('device', 'device of the benchmark', attrgetter('device')),
    _setting(
        'precision',
        "fp32, tf32, fp16, bf16, amp (fp16) or amp_bf16; what timm's scripts call float32 on CUDA is tf32",
        attrgetter('precision'),
    ),
    _setting(
        'memory_format', 'contiguous or channels_last',
        lambda settings: 'channels_last' if settings.channels_last else 'contiguous',
    ),
    _setting(
        'compile', 'backend of torch.compile; none for eager',
        lambda settings: None if settings.backend != 'torch' else settings.compile or 'none',
    ),
    _setting(
        'compile_mode', 'mode of torch.compile, such as reduce-overhead (CUDA graphs); empty for its default',
        lambda settings: settings.compile_mode if settings.compile and settings.compile_mode else None,
    ),
    _setting('backend', 'torch, onnxruntime or openvino', attrgetter('backend')),
    Column(
        'fused', '',
        'whether the network ran in its form for inference (`eca_zoo.optimize_for_inference`: batch norms folded): '
        'yes, no, or what alone was measured in it: accuracy or throughput',
        'settings of the validation and of the benchmark', is_setting=True,
        values={part: lambda measured: 'yes' if measured.fuse else 'no' for part in ('accuracy', 'setting')},
    ),
    _setting(
        'reparameterized',
        'yes: branches of networks that are made for it were folded with timm, before they were counted and timed',
        lambda settings: 'yes' if settings.reparameterize else 'no',
    ),
    _setting(
        'allocator',
        'memory of the CPU: default (the C library as it is), kept (it keeps the memory of freed tensors), or '
        'environment (variables choose or tune it); empty on other devices',
        attrgetter('allocator'),
    ),
    Column(
        'baseline', '', 'network that relative throughputs and differences refer to', _SETTING, is_setting=True,
        values={part: attrgetter('baseline') for part in ('infer', 'train')},
    ),
    _train(
        'train_samples_per_sec', 'images/s', 'throughput of training steps, the median of the rounds',
        'samples_per_sec', '.2f', heading='train images/s',
    ),
    _train('train_step_time', 'ms', 'time of a training step that corresponds to it', 'step_time_ms', '.3f'),
    _train(
        'train_batch_size', 'images', 'batch size of the training steps', 'batch_size', is_integer=True,
        is_setting=True,
    ),
    _train(
        'train_img_size', 'pixels', 'height and width of the images of the training steps', 'img_size',
        is_integer=True, is_setting=True,
    ),
    _train(
        'train_relative_throughput', '', 'as `relative_throughput`, for training steps', 'relative', '.3f',
        heading='relative',
    ),
    Column('error', '', 'why something that was asked for is not there', 'the part that failed'),
)  # fmt: skip
COLUMNS = tuple(column for column in ALL_COLUMNS if column.in_table)
BY_NAME = {column.name: column for column in ALL_COLUMNS}


def cells_of(part: Part, measurement: Any) -> dict[str, Any]:
    """The cells that ``measurement`` fills, see ``Column.values``."""
    return {column.name: column.values[part](measurement) for column in ALL_COLUMNS if part in column.values}


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
