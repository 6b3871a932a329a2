"""A training from a user's options: the recipe, the data, the network, the run."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from eca_zoo.errors import InputError
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.machine.processes import Processes, agreed, check_own_devices, from_main
from eca_zoo.harness.resume.signals import StopRequest
from eca_zoo.training.loop import Progress
from eca_zoo.training.network import check_known
from eca_zoo.training.recipes.recipe import SYSTEMS, ChosenRecipe
from eca_zoo.training.record.board import check_installed
from eca_zoo.training.run import RunSettings, TrainingResult, run_training
from eca_zoo.training.tasks.classification_setup import classification_task, made_data, training_device
from eca_zoo.training.tasks.task import Task
from eca_zoo.weights.manifest import load_manifest

_OF_DETECTORS = ('annotations', 'images', 'val_annotations', 'val_images')


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
        annotations: of a detector's training, in the place of the file below the data folder.
        images: of a detector's training, in the place of the folder below the data folder.
        val_annotations: as ``annotations``, of its validation.
        val_images: as ``images``, of its validation.
    """

    model: str | None = None
    initial_checkpoint: Path | None = None
    train_split: str = 'train'
    val_split: str = 'validation'
    device: str = 'auto'
    validation_batch_size: int | None = None
    annotations: Path | None = None
    images: Path | None = None
    val_annotations: Path | None = None
    val_images: Path | None = None


def start_training(
    chosen: ChosenRecipe,
    data: DataSpec,
    settings: TrainSettings,
    run: RunSettings,
    processes: Processes,
    stop: StopRequest | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainingResult:
    """Train a classifier, or the detector that the recipe is for; see ``run_training`` for what may go wrong.

    Raises:
        InputError: no model or data is named, or they do not fit.
    """
    if run.tensorboard:
        agreed(check_installed)
    recipe = chosen.recipe
    model = settings.model or recipe.model
    if model is None:
        raise InputError(f'the recipe {chosen.name} names no network; name one with --model')
    device = agreed(lambda: training_device(settings.device, processes))
    check_own_devices(device)
    make = _classifier if recipe.system is None else _detector
    task = make(_Wanted(model, chosen, data, settings, run, device, processes))
    return run_training(task, chosen, run, device, processes, stop, progress)


class _Wanted(NamedTuple):
    """What a task is made of."""

    model: str
    chosen: ChosenRecipe
    data: DataSpec
    settings: TrainSettings
    run: RunSettings
    device: torch.device
    processes: Processes


def _classifier(wanted: _Wanted) -> Task:
    model, chosen, data, settings, run, device, processes = wanted
    _refuse(settings, _OF_DETECTORS, TrainSettings(), 'is for detectors, which recipes with a system train')
    if model.partition('.')[0] in {name.partition('.')[0] for name in _detectors()}:
        raise InputError(
            f'--model {model}: it is a detector, and the recipe {chosen.name} trains classifiers; take mask_rcnn_1x, '
            'faster_rcnn_1x, retinanet_1x, or another recipe with a system'
        )
    agreed(lambda: check_known(model))
    made = from_main(agreed(lambda: made_data(chosen.recipe, data, run.run_dir) if processes.is_main else data))
    validation = EvalSettings(
        batch_size=settings.validation_batch_size, workers=run.loop.workers, device=settings.device,
    )  # fmt: skip
    return agreed(
        lambda: classification_task(
            model, chosen.recipe, made, settings.train_split, settings.val_split, device, validation,
            settings.initial_checkpoint, processes,
        )
    )  # fmt: skip


def _detectors() -> list[str]:
    return [*SYSTEMS, *(name for name, entry in load_manifest().models.items() if entry.is_detector)]


def _detector(wanted: _Wanted) -> Task:
    # Classifiers' trainings, which are most, do not wait for the import.
    from eca_zoo.detection.evaluation.detector_spec import DetectorSettings
    from eca_zoo.training.tasks.detection_setup import CocoFiles, detection_task

    model, chosen, data, settings, run, device, processes = wanted
    of_all = ('root', 'split', 'skip_bad_images')
    of_classifiers = [field.name for field in dataclasses.fields(DataSpec) if field.name not in of_all]
    _refuse(data, of_classifiers, DataSpec(), "is for classifiers; a detector's images are annotated in COCO's format")
    _refuse(settings, ['validation_batch_size'], TrainSettings(), 'is for classifiers; detectors take one image a time')
    own = {name: getattr(settings, name) for name in _OF_DETECTORS}
    files = CocoFiles(data.root, settings.train_split, settings.val_split, **own)
    validation = DetectorSettings(settings.device, workers=run.loop.workers)
    return agreed(
        lambda: detection_task(model, chosen, files, device, validation, settings.initial_checkpoint, processes)
    )


def _refuse(given: Any, names: Sequence[str], without: Any, reason: str) -> None:
    """Refuse options that are not as they are without being given.

    Raises:
        InputError: there is one.
    """
    for name in names:
        if getattr(given, name) != getattr(without, name):
            raise InputError(f'--{name.replace("_", "-")} {reason}; leave it out')
