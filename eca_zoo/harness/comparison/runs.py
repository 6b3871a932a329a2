"""A run as a comparison reads it: its table, what it ran on, and whether the figures can be told apart by machine."""

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from eca_zoo.errors import InputError, one_line
from eca_zoo.files import read_text
from eca_zoo.harness.accuracy.results import AccuracyResult
from eca_zoo.harness.resume.journal import recorded_rows
from eca_zoo.harness.table.columns import BY_NAME
from eca_zoo.harness.table.frames import read_table, to_frame
from eca_zoo.harness.table.rows import entry_of
from eca_zoo.weights.manifest import Manifest, load_manifest

TABLE_FILE, ENVIRONMENT_FILE = 'leaderboard.csv', 'environment.json'
_ACCURACY = 'accuracy'
#: In the place of an earlier run: the figures that the authors reported.
PUBLISHED = 'published'
#: What has to be equal for two throughputs to be of one machine.
MACHINE = ('processor', 'cpus', 'memory_mb', 'threads', 'gpus', 'driver')


@dataclass(frozen=True)
class Run:
    """A table and what it ran on.

    Attributes:
        name: as it was given.
        table: with the types of its columns.
        environment: of ``environment.json``; empty where there is none.
        accuracies: by model and data set what a run directory holds of them, with a bit for each image.
    """

    name: str
    table: pd.DataFrame
    environment: Mapping[str, Any] = field(default_factory=dict)
    accuracies: Mapping[tuple[str, str], AccuracyResult] = field(default_factory=dict)

    @property
    def machine(self) -> dict[str, Any] | None:
        """What its throughputs depend on; None where nobody wrote it down."""
        known = {key: self.environment[key] for key in MACHINE if key in self.environment}
        return known if 'processor' in known else None


def read_run(path: Path) -> Run:
    """Read a run directory, or a table that is a file.

    Raises:
        InputError: there is no table, it is broken, a figure in it cannot be, or a row of it is there twice.
    """
    source = path / TABLE_FILE if path.is_dir() else path
    if not source.is_file():
        raise InputError(f'{path}: holds no {TABLE_FILE}; name the --run-dir of eca-zoo leaderboard, or a CSV table')
    table = read_table(source)
    unknown = [name for name in table.columns if name not in BY_NAME]
    table = to_frame(table.drop(columns=unknown))
    _check_figures(source, table)
    beside = source.with_name(ENVIRONMENT_FILE)
    if source.name != TABLE_FILE or not beside.is_file():
        return Run(str(path), table)
    try:
        environment = json.loads(read_text(beside))
    except (OSError, ValueError) as error:
        raise InputError(f'{beside}: not readable: {one_line(error)}; let the run write it again') from None
    return Run(str(path), table, environment if isinstance(environment, dict) else {}, _accuracies_in(source.parent))


def _accuracies_in(folder: Path) -> dict[tuple[str, str], AccuracyResult]:
    found = {}
    for record in recorded_rows(folder):
        if str(record['table']).startswith(_ACCURACY):
            # A journal of another version has other fields.
            with contextlib.suppress(TypeError, KeyError):
                result = AccuracyResult.from_json(record['row'])
                found[result.model, result.dataset] = result
    return found


def _check_figures(source: Path, table: pd.DataFrame) -> None:
    for name, low, high in (('top1', 0, 100), ('top5', 0, 100), ('num_images', 1, None)):
        cells = table[name]
        wrong = table[(cells < low) | (False if high is None else cells > high)]
        for model, value in wrong[['model', name]].itertuples(index=False):
            most = '' if high is None else f' and at most {high}'
            raise InputError(f'{source}: {name} of {model} is {value:g}; it is at least {low}{most}: correct the table')


def earlier_run(name: str | Path, later: Run) -> Run:
    """The run that ``later`` is held against: a run directory, a table, or ``published``.

    Raises:
        InputError: as of ``read_run`` and ``published_run``.
    """
    if str(name) == PUBLISHED:
        return published_run(later.table['model'], load_manifest())
    return read_run(Path(name))


def published_run(models: Iterable[str], manifest: Manifest) -> Run:
    """The figures that the authors reported for ``models``, as a run to compare with.

    Raises:
        InputError: there are none for any of them.
    """
    entries = {model: entry_of(model, manifest) for model in models}
    rows = [
        {'model': model, 'dataset': entry.dataset, 'top1': entry.reported.top1, 'top5': entry.reported.top5}
        for model, entry in entries.items()
        if entry is not None and entry.reported is not None
    ]
    if not rows:
        raise InputError('no network of the table has published figures; name two runs to compare')
    return Run(PUBLISHED, to_frame(rows))
