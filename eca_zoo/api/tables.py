"""Leaderboards and tables from Python."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from eca_zoo.arguments import path_of, takes
from eca_zoo.errors import InputError
from eca_zoo.harness.leaderboard import run_leaderboard
from eca_zoo.harness.machine.processes import agreed, current
from eca_zoo.harness.resume.signals import StopRequest
from eca_zoo.harness.suites import read_suite, with_settings
from eca_zoo.progress import ProgressBars

_UNITS = {'validation': 'img', 'complexity': 'networks', 'throughput': 'rounds'}


@takes(earlier={'out': 'run_dir'})
def leaderboard(
    suite: str | Path,
    run_dir: str | Path,
    *,
    data_dir: str | Path | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    workers: int | None = None,
    restart: bool | str | Sequence[str] = False,
    format: str = 'eca',
    progress: bool = False,
    command_line: Sequence[str] = (),
    stop: StopRequest | None = None,
) -> pd.DataFrame | None:
    """Accuracy, complexity and throughput of a suite, in a run directory that a killed run continues in.

    Args:
        suite: YAML file, or the name of one that comes with the package.
        run_dir: folder of the run.
        data_dir: folder of the suite's data set.
        device: of the validation and all throughputs, in the place of what the suite says.
        batch_size: likewise.
        precision: likewise.
        workers: processes that decode images, likewise.
        restart: forget what ``run_dir`` holds, or what it holds of some models: their names, or patterns.
        format: ``timm`` writes timm's files too.
        progress: show a progress bar on a terminal; elsewhere log a line a minute.
        command_line: for ``environment.json``.
        stop: when it is set, what was measured is recorded and the run ends.

    Returns:
        The table with all its columns; ``attrs`` has ``files`` (written), ``notes`` (why cells are empty), ``errors``
        (what failed, a line a network) and ``top1_tolerance`` of the suite. None in processes beside the main one.

    Raises:
        InputError: the suite, the data or the run directory cannot be used.
        RunError: decoding failed as a whole.
    """
    if format not in ('eca', 'timm'):
        raise InputError(f'format {format!r} is unknown; use eca or timm')
    processes = current()
    given = {'device': device, 'batch_size': batch_size, 'precision': precision, 'workers': workers}
    read = agreed(lambda: with_settings(read_suite(str(suite)), given))
    with ProgressBars(progress and processes.is_main) as bars:
        board = run_leaderboard(
            read, Path(run_dir), path_of(data_dir), processes=processes, timm_format=format == 'timm',
            restart=[restart] if isinstance(restart, str) else restart,
            command_line=command_line, stop=stop,
            report=lambda part, done, total, text: bars.show(part, done, total, text, _UNITS[part]),
        )  # fmt: skip
    if board is None:
        return None
    board.table.attrs.update(
        files=[str(path) for path in board.files], notes=board.notes, errors=board.errors,
        top1_tolerance=read.top1_tolerance,
    )  # fmt: skip
    return board.table
