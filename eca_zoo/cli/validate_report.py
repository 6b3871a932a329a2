"""What ``validate`` prints and writes: timm's columns as text and in a results file."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eca_zoo.cli.logs import complain

if TYPE_CHECKING:
    from eca_zoo.harness.accuracy.results import AccuracyResult
    from eca_zoo.harness.table.results_file import ResultsFile


def exit_code(results: Sequence['AccuracyResult']) -> int:
    """0 without errors; 2 if nothing but wrong input went wrong with every model; else 1."""
    codes = {result.exit_code for result in results}
    return max(codes) if len(codes) == 1 else 1


def results_file(args: argparse.Namespace) -> 'ResultsFile | None':
    """The file that ``args`` name for the table; None if they name none.

    Raises:
        InputError: it cannot be used.
    """
    from eca_zoo.harness.table.results_file import ResultsFile

    return None if args.results_file is None else ResultsFile(args.results_file, args.results_format)


def report(args: argparse.Namespace, results: Sequence['AccuracyResult'], file: 'ResultsFile | None') -> int:
    """Write the results file; print the table, and what was skipped or failed; returns the exit code."""
    good = [result for result in results if result.error is None]
    good.sort(key=lambda result: -(result.top1 or 0))
    rows = [_row(result, args.metrics_avg, args.checkpoint or ()) for result in good]
    not_written = _write(rows, file, len(results)) if rows and file is not None else None
    if rows:
        print(_as_text(rows, good), flush=True)
    skipped = dict.fromkeys(image for result in results for image in result.skipped)
    for image in skipped:
        complain(f'eca-zoo validate: skipped {image.name}: {image.reason}')
    for error in [*(result.error for result in results), not_written]:
        if error is not None:
            complain(f'eca-zoo validate: error: {error}')
    return exit_code(results) or int(not_written is not None)


def _write(rows: Sequence[dict[str, Any]], file: 'ResultsFile', count: int) -> str | None:
    """Write the results of ``count`` models, as timm does; returns why they could not be written."""
    import pandas as pd

    from eca_zoo.files import StorageError

    frame = pd.DataFrame(list(rows))
    # Digits as Python gives them, which are timm's.
    cells = pd.DataFrame([{name: str(value) for name, value in row.items()} for row in rows])
    try:
        file.write(frame, cells, json.dumps(rows[0] if count == 1 else list(rows), indent=4))
    except StorageError as error:
        return str(error)
    return None


def _row(result: 'AccuracyResult', metrics: str | None, checkpoints: Sequence[Path]) -> dict[str, Any]:
    """timm's columns, in timm's order, the number of images that they are of, and whose pixels, where not timm's."""
    row: dict[str, Any] = {
        'model': result.name or result.model,
        'top1': result.top1,
        'top1_err': result.top1_err,
        'top5': result.top5,
        'top5_err': result.top5_err,
    }
    if metrics is not None:
        from eca_zoo.harness.accuracy.counts import precision_recall_f1

        values = precision_recall_f1(result.per_class, metrics)
        for name, value in zip(('precision', 'recall', 'f1_score'), values, strict=True):
            row[f'{metrics}_{name}'] = round(value, 4)
    row |= {
        'param_count': result.param_count,
        'img_size': result.img_size,
        'crop_pct': result.crop_pct,
        'interpolation': result.interpolation,
        'num_images': result.num_images,
    }
    if result.preprocess not in (None, 'exact'):
        row['preprocess'] = result.preprocess
    if result.gpu_decoded is not None:
        row |= {'gpu_decoded': result.gpu_decoded, 'cpu_decoded': result.cpu_decoded}
    if len(checkpoints) > 1 or any(path.is_dir() for path in checkpoints):
        row['checkpoint'] = str(result.checkpoint)
    return row


def _as_text(rows: Sequence[dict[str, Any]], results: Sequence['AccuracyResult']) -> str:
    lines = [[*rows[0], '+/-']]
    for row, result in zip(rows, results, strict=True):
        cells = [_cell(name, value) for name, value in row.items()]
        lines.append([*cells, f'{result.top1_ci95:.3f}'])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return '\n'.join(
        '  '.join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    )


def _cell(name: str, value: Any) -> str:
    is_percent = name.startswith(('top1', 'top5')) or name.endswith(('precision', 'recall', 'f1_score'))
    return f'{value:.4f}' if is_percent else str(value)
