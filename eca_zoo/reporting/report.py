"""One call for all that a report writes."""

from collections.abc import Sequence
from pathlib import Path

from eca_zoo.harness.comparison.comparison import compare
from eca_zoo.harness.comparison.runs import earlier_run, read_run
from eca_zoo.reporting.changes import changes
from eca_zoo.reporting.contents import TABLE_FILE, read_contents
from eca_zoo.reporting.detectors import detectors
from eca_zoo.reporting.figures import write_figures
from eca_zoo.reporting.page import page_of, write_page
from eca_zoo.reporting.sections import reported_and_measured
from eca_zoo.reporting.space import write_space
from eca_zoo.reporting.trainings import trainings

PAGE_FILE = 'report.html'


def write_report(
    path: Path,
    out: Path | None = None,
    figures: Path | None = None,
    space: Path | None = None,
    against: str | Path | None = None,
    training_runs: Sequence[Path] = (),
    detector_runs: Sequence[Path] = (),
) -> list[Path]:
    """Write the page of a table, and figures and a Space where they are asked for; returns the files.

    The same input gives the same bytes. The table is read and never changed.

    Args:
        path: the run directory of a leaderboard, or a table as CSV.
        out: file of the page; by default ``report.html`` beside the table.
        figures: folder for figures as SVG, PDF and PNG.
        space: folder for a static Space of the Hugging Face Hub.
        against: an earlier run, likewise, or ``published``; the page says what changed since.
        training_runs: run directories of trainings, whose curves it shows.
        detector_runs: run directories of suites of detectors, whose average precision it shows.

    Raises:
        InputError: there is no usable table, the runs have nothing in common, or something that is not ours is in the
            way of an output.
        StorageError: an output cannot be written.
    """
    contents = read_contents(path)
    parts = [reported_and_measured(contents)]
    if against is not None:
        now = read_run(path)
        parts.append(changes(compare(earlier_run(against, now), now)))
    if detector_runs:
        parts.append(detectors(detector_runs))
    if training_runs:
        parts.append(trainings(training_runs))
    page = page_of(contents, [part for part in parts if part])
    if out is None:
        stem = '' if contents.source.name == TABLE_FILE else f'{contents.source.stem}-'
        out = contents.source.with_name(f'{stem}{PAGE_FILE}')
    written = []
    if figures is not None:
        written += write_figures(contents, figures)
    if space is not None:
        written += write_space(contents, page, space)
    write_page(page, out)
    return [out, *written]
