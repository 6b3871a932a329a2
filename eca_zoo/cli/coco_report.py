"""What ``validate`` prints and writes for detectors: the table of COCO's figures as text, CSV or JSON."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eca_zoo.detection.coco_images import CocoSet
    from eca_zoo.detection.evaluation.results import DetectorResult


def report(args: argparse.Namespace, results: Sequence['DetectorResult'], data: 'CocoSet') -> int:
    """Print the table and what failed, write the files that were asked for; returns the exit code."""
    from eca_zoo.detection.evaluation.table import per_class_csv, rows_of, to_csv, to_text
    from eca_zoo.harness.table.files import write_text

    rows = rows_of(results)
    good = [row for row in rows if 'error' not in row]
    if good:
        print(to_text(good), flush=True)
    for result in results:
        if result.error is not None:
            print(f'eca-zoo validate: error: {result.error}', file=sys.stderr)
    if args.results_file is not None and good:
        text = json.dumps(rows, indent=4) + '\n' if args.results_format == 'json' else to_csv(rows)
        write_text(args.results_file, text)
    if args.per_class is not None and good:
        write_text(args.per_class, per_class_csv(results, data.annotations.categories))
    codes = {result.exit_code for result in results}
    return max(codes) if len(codes) == 1 else 1
