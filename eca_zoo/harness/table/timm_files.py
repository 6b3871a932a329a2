"""timm's result files: its names, columns, order and digits, so that timm's own readers take them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import timm

import eca_zoo.models  # noqa: F401  (registers the networks)
from eca_zoo.errors import InputError
from eca_zoo.harness.table.dataset_names import timms_name
from eca_zoo.harness.table.files import formatted, write_text

_ACCURACY = ('model', 'img_size', 'top1', 'top1_err', 'top5', 'top5_err', 'param_count', 'crop_pct', 'interpolation')
_INFERENCE = (
    'model', 'infer_img_size', 'infer_samples_per_sec', 'infer_step_time', 'infer_batch_size', 'param_count',
    'infer_gmacs', 'infer_macts',
)  # fmt: skip
_NEEDED = {*_ACCURACY, *_INFERENCE, 'dataset', 'infer_gmacs_fvcore', 'device', 'precision', 'memory_format'}
_NEEDED |= {'compile', 'backend', 'fused', 'reparameterized', 'allocator'}
# Data sets whose files give differences to another one, as in timm's results/generate_csv_results.py.
_BASES = {
    'imagenet-real': 'imagenet',
    'imagenetv2-matched-frequency': 'imagenet',
    'sketch': 'imagenet',
    'imagenet-a': 'imagenet-a-clean',
    'imagenet-r': 'imagenet-r-clean',
}


def to_timm_files(frame: pd.DataFrame) -> dict[str, str]:
    """timm's result files, name to CSV text: one for each data set, and one for each setting of the benchmark.

    Only files that hold rows are there. Rows are unique by model and image size. Accuracies come best first: by top-1,
    top-5, then name; where the data set that timm compares with is in the table too, ``top1_diff``, ``top5_diff`` and
    ``rank_diff`` are the differences to it. Benchmarks come fastest first, under the name before the tag, which timm
    joins on; their multiply-adds are fvcore's, as in timm's published tables.
    """
    frame = frame.reindex(columns=[*frame.columns, *sorted(_NEEDED.difference(frame.columns))])
    frame = frame.assign(infer_gmacs=frame['infer_gmacs_fvcore'])
    accurate = frame.dropna(subset=['top1'])
    parts = pd.Series([_part_of(name) for name in accurate['dataset']], accurate.index, dtype='string')
    ranked = {str(part): _ranked(rows) for part, rows in accurate.groupby(parts, sort=False)}
    files = {}
    for part, rows in ranked.items():
        cells = formatted(rows, _ACCURACY)
        base = ranked.get(_BASES.get(part, ''))
        files[f'results-{part}.csv'] = _csv(cells if base is None else cells.assign(**_differences(rows, base)))
    timed = frame.dropna(subset=['infer_samples_per_sec'])
    timed = timed.sort_values('infer_samples_per_sec', ascending=False, kind='stable')
    names = pd.Series([_benchmark_name(row) for row in timed.to_dict('records')], timed.index, dtype='string')
    return files | {str(name): _csv(_benchmark(rows)) for name, rows in timed.groupby(names, sort=False)}


def write_timm_files(table: pd.DataFrame, folder: str | Path) -> list[Path]:
    """Write timm's result files, see ``to_timm_files``, into ``folder``.

    Args:
        table: of ``eca_zoo.leaderboard`` or ``eca_zoo.read_table``, or several of them by ``pandas.concat``: with
            ImageNet's own labels in it, the files of the other data sets have the differences to them.
        folder: is made if it is not there.

    Returns:
        The files.

    Raises:
        InputError: accuracies have no data set.
        StorageError: one cannot be written.
    """
    files = {Path(folder) / name: text for name, text in to_timm_files(table).items()}
    for path, text in files.items():
        write_text(path, text, 'folder')
    return list(files)


def _part_of(dataset: Any) -> str:
    if pd.isna(dataset):
        raise InputError('a table has accuracies of no data set; fill its column dataset, with imagenet-1k for example')
    return timms_name(dataset) or _file_part(dataset)


def _ranked(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each model and image size, best first; what is printed alike is ordered by name."""
    unique = rows.drop_duplicates(['model', 'img_size'])
    order = unique.assign(top1=_thousandths(unique['top1']), top5=_thousandths(unique['top5']))
    order = order.sort_values(['top1', 'top5', 'model'], ascending=[False, False, True], kind='stable')
    return unique.loc[order.index]


def _differences(rows: pd.DataFrame, base: pd.DataFrame) -> dict[str, list[str]]:
    """Cells of the differences of ranked ``rows`` to those of ``base`` for the same model and image size."""
    keys = ['model', 'img_size']
    known = base[[*keys, 'top1', 'top5']].assign(rank=range(len(base)))
    joined = rows[[*keys, 'top1', 'top5']].assign(rank=range(len(rows))).merge(
        known, on=keys, how='left', suffixes=('', '_base')
    )  # fmt: skip
    cells: dict[str, list[str]] = {}
    for name in ('top1', 'top5'):
        both = zip(_thousandths(joined[name]), _thousandths(joined[f'{name}_base']), strict=True)
        cells[f'{name}_diff'] = ['' if pd.isna(other) else f'{(own - other) / 1000:+.3f}' for own, other in both]
    ranks = [None if pd.isna(other) else int(other - own) for own, other in joined[['rank', 'rank_base']].to_numpy()]
    return cells | {'rank_diff': ['' if rank is None else f'{rank:+d}' if rank else '0' for rank in ranks]}


def _thousandths(percents: pd.Series) -> pd.Series:
    """Percentages as integers of the last digit that is printed, so that what is printed alike is equal."""
    digits = [None if pd.isna(value) else round(1000 * float(format(value, '.3f'))) for value in percents]
    return pd.Series(digits, percents.index, dtype='Int64')


def _benchmark(rows: pd.DataFrame) -> pd.DataFrame:
    """Cells of a benchmark's file."""
    rows = rows.assign(model=[_untagged(name) for name in rows['model']])
    rows = rows.drop_duplicates(['model', 'infer_img_size'])
    cells = formatted(rows, _INFERENCE)
    # timm gives two digits of the multiply-adds.
    cells['infer_gmacs'] = ['' if pd.isna(value) else format(value, '.2f') for value in rows['infer_gmacs']]
    return cells


def _untagged(name: str) -> str:
    """A model's name without its tag; a label or path that has a dot stays whole."""
    architecture = name.partition('.')[0]
    return architecture if timm.is_model(architecture) else name


def _benchmark_name(row: Mapping[Any, Any]) -> str:
    row = {name: None if pd.isna(value) else value for name, value in row.items()}
    layout = 'nhwc' if row['memory_format'] == 'channels_last' else 'nchw'
    extras = [row['backend']] if row['backend'] != 'torch' else []
    extras += ['dynamo'] if row['compile'] not in (None, 'none') else []
    extras += ['fused'] if row['fused'] in ('yes', 'throughput') else []
    extras += ['reparam'] if row['reparameterized'] == 'yes' else []
    extras += ['kept'] if row['allocator'] == 'kept' else []
    device = str(row['device']).split(':')[0]
    parts = ['benchmark-infer', row['precision'], layout, device, *extras]
    return f'{"-".join(_file_part(str(part)) for part in parts)}.csv'


def _file_part(text: str) -> str:
    return ''.join(letter if letter.isalnum() or letter in '-_.' else '_' for letter in text)


def _csv(cells: pd.DataFrame) -> str:
    return cells.to_csv(index=False, lineterminator='\n')
