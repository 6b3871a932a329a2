"""Training, as people call it from Python."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from eca_zoo.arguments import path_of, record, takes
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.machine.processes import agreed, current
from eca_zoo.harness.resume.signals import StopRequest
from eca_zoo.progress import ProgressBars
from eca_zoo.training.loop import LoopSettings, Progress
from eca_zoo.training.recipes.reading import read_recipe
from eca_zoo.training.recipes.recipe import Recipe
from eca_zoo.training.run import RunSettings
from eca_zoo.training.start import TrainSettings, start_training

# Those that are no arguments of their own.
_RECIPE_KEYS = {field.name for field in dataclasses.fields(Recipe)} - {'model', 'data'}


@takes(
    LoopSettings, TrainSettings, DataSpec, Recipe, without=('root', 'split', 'label', 'model', 'data'),
    earlier={'data': 'data_dir', 'out': 'run_dir'},
)  # fmt: skip
def train(
    recipe: str | Path,
    model: str | None = None,
    data_dir: str | Path | None = None,
    run_dir: str | Path = 'train',
    *,
    checkpoint_every: int = 0,
    restart: bool = False,
    allow_change: bool = False,
    tensorboard: bool = False,
    progress: bool = False,
    command_line: Sequence[str] = (),
    stop: StopRequest | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Train a network by a recipe; the same call goes on where a run was interrupted, with the same bits.

    Args:
        recipe: YAML file, or the name of one that comes with the package.
        model: timm name of the network, or for a recipe with ``system`` name of the detector, where the recipe names
            none.
        data_dir: folder with ``train`` and ``validation``, with one folder a class each; for a detector the folder into
            which COCO was unpacked.
        run_dir: folder of the run.
        checkpoint_every: epochs between two checkpoints that stay; 0 for none.
        restart: forget what ``run_dir`` holds.
        allow_change: go on although something differs that changes bits, and record it.
        tensorboard: write the rows of the log for TensorBoard too, which is to be installed.
        progress: show a progress bar on a terminal; elsewhere log a line a minute.
        command_line: for the record.
        stop: when it is set, the state is saved and the run ends.
        **options: keys of the recipe in the place of its own (``lr``, ``batch_size``, ``epochs``, ...), fields of
            ``LoopSettings`` (``workers``, ``log_interval``, ``save_seconds``, ...), of ``TrainSettings`` (``device``,
            ``val_split``, ``initial_checkpoint``, ``annotations``, ...) and of ``DataSpec`` (``dataset``, ...).

    Returns:
        The log of the run, a row an epoch; ``attrs`` has ``best`` (figures of the best epoch) and ``files``.

    Raises:
        InputError: an argument is wrong, or the data or the folder cannot be used.
        RunError: a loss is no number, or images cannot be decoded.
    """
    processes = current()
    overrides = {key: options[key] for key in options if key in _RECIPE_KEYS}
    chosen = agreed(lambda: read_recipe(recipe, overrides))
    settings = RunSettings(
        Path(run_dir), record(LoopSettings, options), checkpoint_every, restart, allow_change, command_line, tensorboard
    )
    with ProgressBars(progress and processes.is_main) as bars:

        def show(state: Progress) -> None:
            bars.show(f'epoch {state.epoch}/{state.epochs}', state.images, state.of, state.text, 'img')

        result = start_training(
            chosen, record(DataSpec, options, root=path_of(data_dir)), record(TrainSettings, options, model=model),
            settings, processes, stop, show,
        )  # fmt: skip
    frame = pd.DataFrame([row for row in result.log if row['kind'] == 'epoch']).drop(columns='kind')
    frame.attrs.update(best=result.best, files=[str(path) for path in result.files])
    return frame
