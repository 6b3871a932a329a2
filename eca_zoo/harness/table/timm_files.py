"""timm's result files: its names, columns, order and digits."""

import csv
import io
from collections.abc import Iterable, Sequence

from eca_zoo.harness.table.columns import FVCORE, Row, format_cell

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
