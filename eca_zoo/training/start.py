"""A training from a user's options: the recipe, the data, the network, the run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eca_zoo.errors import InputError
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.machine.processes import Processes, agreed, check_own_devices, from_main
from eca_zoo.harness.resume.signals import StopRequest
from eca_zoo.training.loop import Progress
from eca_zoo.training.recipes.recipe import ChosenRecipe
from eca_zoo.training.record.board import check_installed
from eca_zoo.training.run import RunSettings, TrainingResult, run_training
from eca_zoo.training.setup import classification_task, made_data, training_device


@dataclass(frozen=True)
class TrainSettings:
    """What is trained on what, beside the recipe.

    Attributes:
        model: timm's name; the recipe's by default.
        initial_checkpoint: file of the first weights.
        train_split: of the data set.
        val_split: of the data set; empty for no validation.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``xpu``.
        validation_batch_size: images a step of the validation.
    """

    model: str | None = None
    initial_checkpoint: Path | None = None
    train_split: str = 'train'
    val_split: str = 'validation'
    device: str = 'auto'
    validation_batch_size: int | None = None


def start_training(
    chosen: ChosenRecipe,
    data: DataSpec,
    settings: TrainSettings,
    run: RunSettings,
    processes: Processes,
    stop: StopRequest | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainingResult:
    """Train a classifier; see ``run_training`` for what may go wrong on the way.

    Raises:
        InputError: no model or data is named, or they do not fit.
    """
    if run.tensorboard:
        agreed(check_installed)
    recipe = chosen.recipe
    model = settings.model or recipe.model
    if model is None:
        raise InputError(f'the recipe {chosen.name} names no network; name one with --model')
    data = from_main(agreed(lambda: made_data(recipe, data, run.run_dir) if processes.is_main else data))
    device = agreed(lambda: training_device(settings.device, processes))
    check_own_devices(device)
    validation = EvalSettings(
        batch_size=settings.validation_batch_size, workers=run.loop.workers, device=settings.device,
    )  # fmt: skip
    task = agreed(
        lambda: classification_task(
            model, recipe, data, settings.train_split, settings.val_split, device, validation,
            settings.initial_checkpoint, processes,
        )
    )  # fmt: skip
    return run_training(task, chosen, run, device, processes, stop, progress)
