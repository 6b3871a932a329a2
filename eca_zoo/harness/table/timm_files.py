"""timm's result files: its names, columns, order and digits."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from eca_zoo.harness.table.files import formatted

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


def to_timm_files(frame: pd.DataFrame) -> dict[str, str]:
    """timm's result files, name to CSV text: the accuracies, and one file for each setting of the benchmark.

    The columns, their digits and the order (best first) are timm's; rows without the measurement are left out. The
    multiply-adds are fvcore's, as in timm's published tables.
    """
    frame = frame.assign(infer_gmacs=frame['infer_gmacs_fvcore'])
    # A model has a row for each setting of the benchmark, with the same accuracy.
    accurate = _best_first(frame, 'top1').drop_duplicates('model')
    dataset = accurate['dataset'].iloc[0] if len(accurate) else 'imagenet'
    files = {f'results-{_file_part(dataset)}.csv': _timm_csv(accurate, _TIMM_ACCURACY)}
    timed = _best_first(frame, 'infer_samples_per_sec')
    names = pd.Series([_benchmark_name(row) for row in timed.to_dict('records')], timed.index, dtype='string')
    files |= {name: _timm_csv(part, _TIMM_INFERENCE) for name, part in timed.groupby(names, sort=False)}
    if timed.empty:
        files['benchmark-infer.csv'] = _timm_csv(timed, _TIMM_INFERENCE)
    return files


def _best_first(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    return frame.dropna(subset=[name]).sort_values(name, ascending=False, kind='stable')


def _benchmark_name(row: Mapping[Any, Any]) -> str:
    layout = 'nhwc' if row['memory_format'] == 'channels_last' else 'nchw'
    extras = [row['backend']] if row['backend'] != 'torch' else []
    extras += ['dynamo'] if not pd.isna(row['compile']) and row['compile'] != 'none' else []
    extras += ['fused'] if row['fused'] in ('yes', 'throughput') else []
    device = str(row['device']).split(':')[0]
    return (
        f'{"-".join(_file_part(part) for part in ["benchmark-infer", row["precision"], layout, device, *extras])}.csv'
    )


def _file_part(text: str) -> str:
    return ''.join(letter if letter.isalnum() or letter in '-_.' else '_' for letter in text)


def _timm_csv(frame: pd.DataFrame, columns: Sequence[str]) -> str:
    cells = formatted(frame, columns)
    if 'infer_gmacs' in columns:
        # timm gives two digits of the multiply-adds.
        cells['infer_gmacs'] = [format(value, '.2f') for value in frame['infer_gmacs']]
    return cells.to_csv(index=False, lineterminator='\n')
