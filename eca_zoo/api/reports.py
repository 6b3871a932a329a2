"""Pages of tables, and two runs beside each other, from Python."""

from collections.abc import Sequence
from pathlib import Path

from eca_zoo.arguments import path_of, takes
from eca_zoo.harness.comparison.comparison import Comparison
from eca_zoo.harness.comparison.comparison import compare as compare_runs
from eca_zoo.harness.comparison.runs import earlier_run, read_run
from eca_zoo.reporting.report import write_report


@takes()
def report(
    path: str | Path,
    out: str | Path | None = None,
    *,
    figures: str | Path | None = None,
    space: str | Path | None = None,
    against: str | Path | None = None,
    training: Sequence[str | Path] = (),
    detection: Sequence[str | Path] = (),
) -> list[Path]:
    """Write one HTML page of a table: it needs no server and no network, and the same input gives the same bytes.

    Args:
        path: the run directory of a leaderboard, or a table as CSV (timm's results files too).
        out: file of the page; by default ``report.html`` beside the table.
        figures: folder for figures as SVG, PDF and PNG with the plotted points as CSV; needs matplotlib.
        space: folder for a static Space of the Hugging Face Hub.
        against: an earlier run, or ``published``: the page says what changed since.
        training: run directories of trainings, whose curves the page shows.
        detection: run directories of suites of detectors, whose average precision the page shows.

    Returns:
        The files that were written; the page is the first.

    Raises:
        InputError: there is no usable table, or something that is not ours is in the way of an output.
        RunError: an output cannot be written.
    """
    return write_report(
        Path(path), path_of(out), path_of(figures), path_of(space), against, list(map(Path, training)),
        list(map(Path, detection)),
    )  # fmt: skip


@takes()
def compare(old: str | Path, new: str | Path, *, tolerance: float = 0.1, speed_tolerance: float = 5.0) -> Comparison:
    """Two runs beside each other: what differs around them, and which differences of their figures are real.

    Args:
        old: the earlier run: the run directory of a leaderboard, or a table as CSV (timm's results files too), or
            ``published``: the figures that the authors reported.
        new: the later run.
        tolerance: percentage points that an accuracy may get worse by.
        speed_tolerance: percent that a throughput may get worse by.

    Returns:
        The comparison: ``context``, ``rows`` with a verdict on each figure, ``added``, ``gone``, ``regressions``.

    Raises:
        InputError: there is no usable table, or the runs have nothing in common.
    """
    later = read_run(Path(new))
    return compare_runs(earlier_run(old, later), later, tolerance, speed_tolerance)
