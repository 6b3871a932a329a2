"""From what a user names to a detection task: sets that fit, a detector with its first weights."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eca_zoo.detection.coco_annotations import CocoAnnotations
from eca_zoo.detection.coco_images import CocoSet, open_coco
from eca_zoo.detection.evaluation.detector_spec import DetectorSettings
from eca_zoo.detection.evaluation.matching import toolbox_masks
from eca_zoo.detection.networks.detectors import Detector
from eca_zoo.detection.networks.registry import (
    SYSTEMS,
    create_detector,
    depends_on_classes,
    list_detector_architectures,
    load_but_classes,
)
from eca_zoo.errors import InputError
from eca_zoo.harness.machine.processes import Processes
from eca_zoo.harness.networks.user_checkpoint import misfits, read_checkpoint
from eca_zoo.training.data.objects import TrainingObjects
from eca_zoo.training.data.order import random_state_kept, seed_all
from eca_zoo.training.network import freeze
from eca_zoo.training.norms import gradient_group, with_shared_norms
from eca_zoo.training.recipes.recipe import ChosenRecipe, Recipe
from eca_zoo.training.tasks.classification_setup import check_backend, check_shares
from eca_zoo.training.tasks.detection import DetectionTask, ValidationSet
from eca_zoo.weights.convert.key_maps import rename_keys
from eca_zoo.weights.convert.recognition import is_of_detector, rename_to_fit
from eca_zoo.weights.load import shortened

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CocoFiles:
    """Where the sets of a training are.

    Attributes:
        root: folder into which COCO was unpacked.
        train_split: that is trained on.
        val_split: that is validated on; empty for none.
        annotations: file in the place of that of the training below ``root``.
        images: folder in the place of that of the training below ``root``.
        val_annotations: as ``annotations``, of the validation.
        val_images: as ``images``, of the validation.
    """

    root: Path | None
    train_split: str
    val_split: str
    annotations: Path | None = None
    images: Path | None = None
    val_annotations: Path | None = None
    val_images: Path | None = None

    def open_training(self) -> CocoSet:
        """The set that is trained on; boxes that are no boxes are left out."""
        return open_coco(self.root, self.train_split, self.annotations, self.images, leave_out_faulty_boxes=True)

    def open_validation(self) -> CocoSet | None:
        """The set that is validated on, if one is named.

        Raises:
            InputError: it is named nowhere.
        """
        if not self.val_split:
            return None
        if self.root is None and self.val_annotations is None:
            raise InputError(
                "no validation is named; give --val-annotations and --val-images, or train without with --val-split ''"
            )
        return open_coco(self.root, self.val_split, self.val_annotations, self.val_images)


def system_of(model: str) -> str | None:
    """The kind of detector that ``model`` names; None where it names none."""
    name = model.partition('.')[0]
    systems = {record.name: record.system for record in list_detector_architectures()}
    return systems.get(name, name if name in SYSTEMS else None)


def detection_task(
    model: str,
    chosen: ChosenRecipe,
    files: CocoFiles,
    device: torch.device,
    validation: DetectorSettings,
    checkpoint: Path | None = None,
    processes: Processes | None = None,
) -> DetectionTask:
    """Open the data, check that everything fits, and build the detector.

    Args:
        model: name of a detector, or of a system, whose backbone is then among the recipe's ``model_kwargs``.
        chosen: how it is trained.
        files: the sets.
        device: of the detector.
        validation: how the validation runs, but for its numerics, which are the recipe's.
        checkpoint: file of the first weights: a detector's, or its backbone's.
        processes: of the run.

    Raises:
        InputError: the data or the checkpoint cannot be used or do not fit the detector.
    """
    recipe, processes = chosen.recipe, processes or Processes()
    _check_system(model, chosen)
    toolbox_masks()
    train, held_out = files.open_training(), files.open_validation()
    if held_out is not None:
        _check_same_categories(train.annotations, held_out.annotations)
    network: Any = _build(model, recipe, train.annotations.categories, checkpoint).to(device)
    if recipe.channels_last:
        network = network.to(memory_format=torch.channels_last)
    group = gradient_group(device, processes)
    if recipe.sync_bn and processes.world_size > 1:
        check_shares(len(TrainingObjects(train.annotations)), recipe, processes)
        network = with_shared_norms(network, group)
    if recipe.compile:
        check_backend(recipe.compile)
        network.backbone.compile(backend=recipe.compile)
    validated = None if held_out is None else ValidationSet(held_out, _with_numerics(validation, recipe, device))
    task = DetectionTask(model, network, train, recipe, validated)
    task.group = group
    if processes.is_main:
        for remark in train.annotations.remarks:
            _logger.warning('%s', remark)
        _logger.info(
            '%d images of %s to train on; %d others have no box', len(task), train.annotations.path, task.left_out
        )
    return task


def _check_system(model: str, chosen: ChosenRecipe) -> None:
    found, wanted = system_of(model), chosen.recipe.system
    if found is None:
        names = ', '.join(record.name for record in list_detector_architectures() if record.system == wanted)
        raise InputError(
            f'--model {model}: it is no detector, and the recipe {chosen.name} trains those of the system {wanted}: '
            f'{names}'
        )
    if found != wanted:
        raise InputError(
            f'--model {model}: its system is {found}, and the recipe {chosen.name} is for {wanted}; take another '
            f'recipe, or --system {found}'
        )


def _check_same_categories(train: CocoAnnotations, held_out: CocoAnnotations) -> None:
    if train.categories == held_out.categories:
        return
    ids = sorted(train.categories.keys() | held_out.categories.keys())
    first = next(number for number in ids if train.categories.get(number) != held_out.categories.get(number))
    names = [annotations.categories.get(first, 'not there') for annotations in (train, held_out)]
    raise InputError(
        f'{held_out.path}: its categories are not those of {train.path}: {first} is {names[1]} and {names[0]}; make '
        'them equal'
    )


def _with_numerics(given: DetectorSettings, recipe: Recipe, device: torch.device) -> DetectorSettings:
    precision = ('amp' if recipe.amp_dtype == 'float16' else 'amp_bf16') if recipe.amp else 'fp32'
    return DetectorSettings(str(device), precision, recipe.channels_last, workers=given.workers)


def _build(model: str, recipe: Recipe, categories: Mapping[int, str], checkpoint: Path | None) -> Detector:
    """The detector with its first weights, on the CPU; equal seeds give equal ones."""
    with_backbone = recipe.pretrained_backbone and not recipe.pretrained and checkpoint is None
    options = {'categories': categories, 'pretrained_backbone': with_backbone, **(recipe.model_kwargs or {})}
    try:
        with random_state_kept():
            seed_all(recipe.seed)
            network = create_detector(model, recipe.pretrained, **options)
    except InputError as error:
        if not with_backbone:
            raise
        with torch.device('meta'):  # says what has nothing to do with the weights
            create_detector(model, recipe.pretrained, **{**options, 'pretrained_backbone': False})
        raise InputError(
            f'{error}; or name other weights of the backbone with --initial-checkpoint, or none with '
            '--no-pretrained-backbone'
        ) from error
    if checkpoint is not None:
        _load(network, checkpoint, model)
    freeze(network, recipe)
    return network


def _load(network: Detector, checkpoint: Path, model: str) -> None:
    """Load a detector's checkpoint, but for the tensors of other classes, or a classifier's into the backbone.

    Raises:
        InputError: it is neither, or not of this network.
    """
    state = read_checkpoint(checkpoint, setting='--initial-checkpoint').state
    if is_of_detector(state):
        _load_detector(network, state, checkpoint, model)
        return
    body: Any = network.backbone.body
    expected = body.state_dict()
    state = rename_to_fit(state, expected)
    # What the features do not need, such as the classifier, is left out.
    state = {key: tensor for key, tensor in state.items() if key in expected}
    if faults := misfits(state, expected):
        raise InputError(
            f'{checkpoint}: it does not fit the backbone of {model}: {shortened(faults)}; name a checkpoint of that '
            'network, of ECA-Net with the same kernel_sizes'
        )
    body.load_state_dict(state, strict=False)


def _load_detector(network: Detector, state: dict[str, torch.Tensor], checkpoint: Path, model: str) -> None:
    architecture = next((one for one in list_detector_architectures() if one.name == model.partition('.')[0]), None)
    if architecture is not None:
        state = rename_keys(state, architecture.rename_key)
    others = {key: tensor for key, tensor in state.items() if not depends_on_classes(key)}
    expected = {key: tensor for key, tensor in network.state_dict().items() if not depends_on_classes(key)}
    if faults := misfits(others, expected):
        raise InputError(f'{checkpoint}: these are not weights of {model}: {shortened(faults)}')
    own = network.state_dict()
    load_but_classes(network, {key: tensor for key, tensor in state.items() if key in own})
