"""What ``validate`` prints and writes: timm's columns as text, CSV or JSON."""

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eca_zoo.harness.accuracy.results import AccuracyResult


def exit_code(results: Sequence['AccuracyResult']) -> int:
    """0 without errors; 2 if nothing but wrong input went wrong with every model; else 1."""
    codes = {result.exit_code for result in results}
    return max(codes) if len(codes) == 1 else 1


def report(args: argparse.Namespace, results: Sequence['AccuracyResult']) -> int:
    """Print the table, and what was skipped or failed; write the results file; returns the exit code."""
    good = [result for result in results if result.error is None]
    good.sort(key=lambda result: -(result.top1 or 0))
    rows = [_row(result, args.metrics_avg, args.checkpoint) for result in good]
    if rows:
        print(_as_text(rows, good), flush=True)
    skipped = dict.fromkeys(image for result in results for image in result.skipped)
    for image in skipped:
        print(f'eca-zoo validate: skipped {image.name}: {image.reason}', file=sys.stderr)
    for result in results:
        if result.error is not None:
            print(f'eca-zoo validate: error: {result.error}', file=sys.stderr)
    if args.results_file is not None and rows:
        from eca_zoo.harness.table.files import write_text

        write_text(args.results_file, _as_json(rows, len(results)) if args.results_format == 'json' else _as_csv(rows))
    return exit_code(results)


def _row(result: 'AccuracyResult', metrics: str | None, checkpoint: Path | None) -> dict[str, Any]:
    """timm's columns, in timm's order, and the number of images that they are of."""
    row: dict[str, Any] = {
        'model': result.model.partition('@')[0],
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
    if checkpoint is not None and checkpoint.is_dir():
        row['checkpoint'] = str(result.checkpoint)
    return row


def _as_csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _as_json(rows: Sequence[dict[str, Any]], count: int) -> str:
    return json.dumps(rows[0] if count == 1 else list(rows), indent=4)


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
