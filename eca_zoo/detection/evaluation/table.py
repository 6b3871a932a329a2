"""The table of detectors, a row for each detector and task: its columns, and the rows of results."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from eca_zoo.detection.complexity import DetectorComplexity
from eca_zoo.detection.evaluation.average_precision import FIGURES
from eca_zoo.detection.evaluation.detections import Task
from eca_zoo.detection.evaluation.results import DetectorResult, TaskResult
from eca_zoo.detection.speed import DetectorSpeed
from eca_zoo.harness.table.results_file import ResultsFile
from eca_zoo.weights.manifest import Entry, load_manifest

# Name of the set that the authors' figures are of.
_REPORTED_ON = 'val2017'
_REPORTED = ('ap', 'ap50', 'ap75', 'ap_small', 'ap_medium', 'ap_large')


class CocoColumn(NamedTuple):
    """A column: its name, unit, meaning and the format of its numbers; ``shown`` on a terminal under ``heading``."""

    name: str
    unit: str
    meaning: str
    spec: str = ''
    heading: str = ''


_MEANINGS = {
    'ap': 'average precision: mean over overlaps from 0.5 to 0.95, over recalls, and over categories',
    'ap50': 'the same at an overlap of 0.5', 'ap75': 'the same at an overlap of 0.75',
    'ap_small': '`ap` of objects under 32^2 pixels', 'ap_medium': '`ap` of objects from 32^2 to 96^2 pixels',
    'ap_large': '`ap` of objects over 96^2 pixels',
    'ar_1': 'share of objects that are found with one detection an image', 'ar_10': 'the same with ten detections',
    'ar_100': 'the same with a hundred detections', 'ar_small': '`ar_100` of objects under 32^2 pixels',
    'ar_medium': '`ar_100` of objects from 32^2 to 96^2 pixels', 'ar_large': '`ar_100` of objects over 96^2 pixels',
}  # fmt: skip
_HEADINGS = {'ap': 'AP', 'ap50': 'AP50', 'ap75': 'AP75', 'ap_small': 'APs', 'ap_medium': 'APm', 'ap_large': 'APl'}

COLUMNS = (
    CocoColumn('model', '', 'name of the detector', heading='model'),
    CocoColumn('task', '', '`bbox` for boxes, `segm` for masks', heading='task'),
    CocoColumn('weights_sha256', '', 'SHA-256 of the checkpoint'),
    CocoColumn('dataset', '', 'set that was evaluated on'),
    CocoColumn('num_images', 'images', 'images of the set', heading='images'),
    *(CocoColumn(name, '%', _MEANINGS[name], '.3f', _HEADINGS.get(name, '')) for name in FIGURES),
    CocoColumn(
        'ap_ci95', '%', 'half width of the 95 % interval of `ap`: bootstrap over images', '.3f', '+/-'
    ),
    CocoColumn('difference_ap', '%', '`ap` less that of the baseline on the same images', '+.3f', 'difference'),
    CocoColumn(
        'difference_ci95', '%', 'half width of its 95 % interval: bootstrap over images, the same ones for both', '.3f',
        '+/-',
    ),
    *(CocoColumn(f'reported_{name}', '%', f'`{name}` that the authors report', '.1f') for name in _REPORTED),
    CocoColumn('delta_ap', '%', '`ap` - `reported_ap`, on COCO val2017', '+.3f', 'delta'),
    CocoColumn(
        'params_m', '10^6', 'trained parameters, as the authors count: without stem and first stage', '.2f', 'params'
    ),
    CocoColumn(
        'gflops', '10^9',
        "FLOPs of one image of 1280x800 as the authors' framework counts them: multiply-adds, with bias, norms and "
        'activations', '.2f', 'GFLOPs',
    ),
    CocoColumn('params', '', 'parameters, exact'),
    CocoColumn(
        'gmacs', '10^9',
        'multiply-adds of that image in convolutions and linear layers, a transposed convolution by its input', '.4f',
    ),
    CocoColumn(
        'samples_per_sec', 'images/s', 'images a second, one by one, from decoded pixels to boxes and run lengths: '
        'median of the rounds', '.3f', 'img/s',
    ),
    CocoColumn(
        'spread_percent', '%', 'interquartile range of the rounds, of their median; empty for one round', '.1f', '+/- %'
    ),
    CocoColumn(
        'relative_throughput', '', 'median over the rounds of images a second over the baseline\'s in the same round',
        '.3f', 'ratio',
    ),
    CocoColumn('peak_memory_mb', '2^20 bytes', 'most memory that CUDA tensors took, weights included', '.0f', 'MiB'),
    CocoColumn('timed_detections', '', 'objects that were found in the image that was timed'),
    CocoColumn('error', '', 'why there are no figures'),
)  # fmt: skip
_COUNTS = ('num_images', 'params', 'timed_detections')
_BY_NAME = {column.name: column for column in COLUMNS}


def rows_of(results: Sequence[DetectorResult], speeds: Sequence[DetectorSpeed] = ()) -> list[dict[str, Any]]:
    """A row for each detector and task; what is not known is absent."""
    rows, timed = [], {speed.model: speed for speed in speeds}
    for result in results:
        shared: dict[str, Any] = {'model': result.model, 'dataset': result.dataset or None}
        if result.complexity is not None:
            shared |= complexity_cells(result.complexity)
        if result.model in timed:
            shared |= speed_cells(timed[result.model])
        if result.error is not None:
            shared['error'] = result.error
            if not result.tasks:
                rows.append(shared)
        shared |= {'num_images': result.num_images or None, 'weights_sha256': result.weights_sha256}
        for task, figures in result.tasks.items():
            measured = _measured_cells(figures)
            reported = _reported_cells(result, task, measured.get('ap'))
            rows.append({**shared, 'task': task, **measured, **reported})
    return rows


def _measured_cells(result: TaskResult) -> dict[str, Any]:
    """Figures in percent; those of nothing (-1 in COCO's toolbox) are absent."""
    cells = {name: 100 * value for name, value in result.figures.items() if value >= 0}
    if result.ap_ci95 is not None:
        cells['ap_ci95'] = 100 * result.ap_ci95
    if result.difference is not None:
        cells |= {'difference_ap': 100 * result.difference[0], 'difference_ci95': 100 * result.difference[1]}
    return cells


def speed_cells(speed: DetectorSpeed) -> dict[str, Any]:
    """What was timed, or why it was not."""
    if speed.error is not None:
        return {'error': speed.error}
    return {
        'samples_per_sec': speed.samples_per_sec, 'spread_percent': speed.spread_percent,
        'relative_throughput': speed.relative, 'peak_memory_mb': speed.peak_memory_mb,
        'timed_detections': speed.detections,
    }  # fmt: skip


def complexity_cells(counts: DetectorComplexity) -> dict[str, Any]:
    """What was counted, in the units of the table."""
    return {
        'params_m': counts.trained_params / 1e6, 'gflops': counts.flops / 1e9, 'params': counts.params,
        'gmacs': counts.macs / 1e9,
    }  # fmt: skip


def _reported_cells(result: DetectorResult, task: Task, ap: float | None) -> dict[str, Any]:
    entry = _entry(result.model) if result.checkpoint is None else None
    reported = None
    if entry is not None and entry.reported is not None:
        reported = entry.reported.box if task == 'bbox' else entry.reported.mask
    if reported is None:
        return {}
    cells = {f'reported_{name}': getattr(reported, name) for name in _REPORTED}
    if ap is not None and result.dataset == _REPORTED_ON:
        cells['delta_ap'] = ap - reported.ap
    return cells


def _entry(name: str) -> Entry | None:
    manifest = load_manifest()
    if name in manifest.models:
        return manifest.models[name]
    tags = manifest.tags(name)
    return manifest.models[tags[0]] if len(tags) == 1 else None


def coco_columns_as_markdown() -> str:
    """The columns as a table for the documentation."""
    lines = ['| column | unit | meaning |', '|---|---|---|']
    lines += [f'| `{column.name}` | {column.unit} | {column.meaning} |' for column in COLUMNS]
    return '\n'.join(lines)


def cell(name: str, value: Any) -> str:
    """The text of a cell; empty for what is not known."""
    if value is None:
        return ''
    return format(value, _BY_NAME[name].spec)


def frame_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The table with all columns; what is not known is missing."""
    frame = pd.DataFrame.from_records([{c.name: row.get(c.name) for c in COLUMNS} for row in rows])
    types = {c.name: 'Float64' if c.spec else 'Int64' if c.name in _COUNTS else 'string' for c in COLUMNS}
    return frame.astype(types) if len(frame) else pd.DataFrame(columns=list(types)).astype(types)


def write_table(file: ResultsFile, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table in the format of ``file``.

    Raises:
        StorageError: it cannot be written.
    """
    known = [{c.name: row[c.name] for c in COLUMNS if row.get(c.name) is not None} for row in rows]
    file.write(frame_of(rows), _cells_of(rows), json.dumps(known, indent=4) + '\n')


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as CSV text with all columns."""
    return _cells_of(rows).to_csv(index=False, lineterminator='\n')


def _cells_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    names = [column.name for column in COLUMNS]
    return pd.DataFrame([[cell(name, row.get(name)) for name in names] for row in rows], columns=names, dtype=object)


def write_per_class(file: ResultsFile, results: Sequence[DetectorResult], categories: Mapping[int, str]) -> None:
    """Write AP, AP50 and AP75 in percent of each category; missing for a category without objects.

    Raises:
        StorageError: it cannot be written.
    """
    names = ['model', 'task', 'category_id', 'category', 'ap', 'ap50', 'ap75']
    rows = [
        (result.model, task, number, categories[number], *(100 * f if f >= 0 else None for f in figures.values()))
        for result in results
        for task, one in result.tasks.items()
        for number, figures in one.per_category.items()
    ]
    types = dict.fromkeys(names, 'string') | {'category_id': 'Int64'} | dict.fromkeys(names[4:], 'Float64')
    frame = pd.DataFrame.from_records(rows, columns=names).astype(types)
    cells = frame.astype(object).where(frame.notna(), '')
    for name in names[4:]:
        cells[name] = ['' if pd.isna(value) else f'{value:.3f}' for value in frame[name]]
    file.write(frame, cells, frame.to_json(orient='records', indent=2, force_ascii=False) + '\n')


def to_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table for a terminal: columns with a heading that hold anything."""
    shown = [column for column in COLUMNS if column.heading and any(row.get(column.name) is not None for row in rows)]
    lines = [[column.heading for column in shown]]
    lines += [[cell(column.name, row.get(column.name)) for column in shown] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return '\n'.join(
        '  '.join(
            text.ljust(width) if number < 2 else text.rjust(width)
            for number, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
