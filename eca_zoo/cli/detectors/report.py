"""What ``validate`` prints and writes for detectors: COCO's figures as a table, its results files, pictures."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from eca_zoo.cli.logs import complain

if TYPE_CHECKING:
    from eca_zoo.detection.coco_images import CocoSet
    from eca_zoo.detection.evaluation.results import DetectorResult
    from eca_zoo.harness.table.results_file import ResultsFile


class Files(NamedTuple):
    """What is written beside the terminal; None for what nobody asked for."""

    table: 'ResultsFile | None'
    per_class: 'ResultsFile | None'
    pictures: Path | None


def files_of(args: argparse.Namespace) -> Files:
    """The files that ``args`` name.

    Raises:
        InputError: one of them cannot be used.
    """
    from eca_zoo.errors import InputError
    from eca_zoo.harness.table.results_file import ResultsFile, check_place

    if args.predictions is not None:
        check_place(args.predictions, '--predictions')
        if args.predictions.suffix.lower() in ('.csv', '.md', '.parquet'):
            raise InputError(
                f"{args.predictions}: what detectors find is written as COCO's JSON; name a file .json "
                'with --predictions'
            )
    pictures = None
    if args.save_pictures is not None:
        if args.save_pictures < 1:
            raise InputError(f'--save-pictures is a number of images, at least 1, not {args.save_pictures}')
        if args.run_dir is None and args.results_file is None:
            raise InputError('--save-pictures puts them beside the --results-file or into the --run-dir; name one')
        pictures = (args.run_dir or args.results_file.parent) / 'pictures'
    table = None if args.results_file is None else ResultsFile(args.results_file, args.results_format)
    per_class = None if args.per_class is None else ResultsFile(args.per_class, setting='--per-class')
    return Files(table, per_class, pictures)


def report(args: argparse.Namespace, results: Sequence['DetectorResult'], data: 'CocoSet', files: Files) -> int:
    """Print the table and what failed, write the files that were asked for; returns the exit code."""
    from eca_zoo.cli.detectors.validate import exit_code
    from eca_zoo.detection.evaluation.table import rows_of, to_text, write_per_class, write_table

    rows = rows_of(results)
    good = [result for result in results if result.error is None]
    if good:
        print(to_text([row for row in rows if 'error' not in row]), flush=True)
    for result in results:
        if result.error is not None:
            complain(f'eca-zoo validate: error: {result.error}')
    if files.table is not None and good:
        write_table(files.table, rows)
    if files.per_class is not None and good:
        write_per_class(files.per_class, good, data.annotations.categories)
    if args.predictions is not None:
        _write_results(args.predictions, good)
    if files.pictures is not None:
        from eca_zoo.detection.evaluation.worst import draw_worst

        for result in good:
            for path in draw_worst(result, data, files.pictures / result.model, args.save_pictures):
                print(path)
    return exit_code(results)


def _write_results(given: Path, results: Sequence['DetectorResult']) -> None:
    """Write what was found in COCO's format: ``given`` with the task, and the model's name if there are several."""
    from eca_zoo.files import write_atomically

    stem = given.name.removesuffix('.json')
    for result in results:
        name = f'{stem}.{result.model}' if len(results) > 1 else stem
        for task in result.tasks:
            assert result.detections is not None
            path = given.with_name(f'{name}.{task}.json')
            write_atomically(path, result.detections.to_json(task), '--predictions')
