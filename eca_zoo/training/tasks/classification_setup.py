"""From what a user names to a classification task: data sets that fit, a network with its first weights, a device."""

import dataclasses
from pathlib import Path

import torch
from torch import nn

from eca_zoo.errors import InputError
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.datasets import OpenData, open_data
from eca_zoo.harness.data.folders import split_folder
from eca_zoo.harness.data.images import Images
from eca_zoo.harness.data.listing import ListedImages, counted
from eca_zoo.harness.machine.devices import resolve_device
from eca_zoo.harness.machine.processes import Processes, local_device
from eca_zoo.training.data.digits import write_digits
from eca_zoo.training.network import build_network
from eca_zoo.training.norms import gradient_group, with_shared_norms
from eca_zoo.training.recipes.recipe import Recipe
from eca_zoo.training.tasks.classification import ClassificationTask, Validation, validation_settings

_DIGITS = 1797
_FEW = 1000  # images that are validated without starting processes for them


def training_device(name: str, processes: Processes) -> torch.device:
    """The device of this process.

    Raises:
        InputError: there is none of that name.
    """
    return resolve_device(local_device(name, processes))


def made_data(recipe: Recipe, data: DataSpec, out: Path) -> DataSpec:
    """``data``, or what the recipe makes in the run's folder where the user names none.

    Raises:
        InputError: neither names any, or it cannot be made.
        StorageError: it cannot be written.
    """
    if data.root is not None or data.dataset or recipe.data is None:
        return data
    folder = out / 'digits'
    if len(list(folder.rglob('*.png'))) != _DIGITS:
        write_digits(folder)
    return dataclasses.replace(data, root=folder, label='digits')


def classification_task(
    model: str,
    recipe: Recipe,
    data: DataSpec,
    train_split: str,
    val_split: str,
    device: torch.device,
    validation: EvalSettings,
    checkpoint: Path | None = None,
    processes: Processes | None = None,
) -> ClassificationTask:
    """Open the data, check that everything fits, and build the network.

    Args:
        model: timm's name.
        recipe: how it is trained.
        data: with both splits.
        train_split: that is trained on.
        val_split: that is validated on; empty for none.
        device: of the network.
        validation: device, workers and batch size of the validation.
        checkpoint: file of the first weights.
        processes: of the run.

    Raises:
        InputError: the data sets cannot be used or do not fit each other or the network.
    """
    train = _open_training(dataclasses.replace(data, split=train_split))
    held_out = open_data(_validation_spec(data, val_split)) if val_split else None
    if held_out is not None:
        _check_same_classes(train, held_out)
    num_classes = recipe.num_classes or _number_of_classes(train)
    network: nn.Module = build_network(model, num_classes, recipe, checkpoint).to(device)
    if recipe.channels_last:
        network = network.to(memory_format=torch.channels_last)
    processes = processes or Processes()
    group = gradient_group(device, processes)
    if recipe.sync_bn and processes.world_size > 1:
        check_shares(len(train.images), recipe, processes)
        network = with_shared_norms(network, group)
    validator = None
    if held_out is not None:
        if validation.workers is None and len(held_out.images) <= _FEW:
            validation = dataclasses.replace(validation, workers=0)
        settings = validation_settings(recipe, network, validation)
        validator = Validation(model, held_out.spec, settings, held_out.fingerprints())
    if recipe.compile:
        check_backend(recipe.compile)
        network.compile(backend=recipe.compile)
    task = ClassificationTask(model, network, train, recipe, validator, device)
    task.group = group
    return task


def _open_training(data: DataSpec) -> OpenData:
    if _lacks_split(data):
        raise InputError(
            f'{data.root}: there is no folder {data.split} in it; sort the images into {data.split}/CLASS and '
            'validation/CLASS, or name the splits with --train-split and --val-split'
        )
    train = open_data(data)
    images, where = train.images, data.root or data.dataset
    if images.is_stream:
        raise InputError(
            f'{where}: a streamed data set has no order of its own to be shuffled and continued; download it, or name '
            'its shards on disk'
        )
    if images.empty_classes:
        raise InputError(
            f'{where}: classes without an image in {data.split}: {counted(images.empty_classes)}; add images or remove '
            'their folders'
        )
    classes = train.class_names
    if classes is not None and len(classes) < 2:
        raise InputError(f'{where}: {data.split} has one class, {classes[0]}; a classifier needs two at least')
    return train


def _validation_spec(data: DataSpec, split: str) -> DataSpec:
    spec = dataclasses.replace(data, split=split)
    if _lacks_split(spec):
        raise InputError(
            f'{data.root}: there is no folder {split} in it; name another with --val-split, or train without '
            "validation with --val-split ''"
        )
    return spec


def _lacks_split(data: DataSpec) -> bool:
    """Whether a folder is named that has no folder of the split; an evaluation would take the whole of it."""
    root = data.root
    return root is not None and root.is_dir() and not data.dataset and split_folder(root, data.split) == root


def _check_same_classes(train: OpenData, held_out: OpenData) -> None:
    """Refuse a validation set with other classes: the same name must be the same class index.

    Raises:
        InputError: they differ.
    """
    first, second = train.class_names, held_out.class_names
    if first is None or second is None or first == second:
        return
    where = train.spec.root or train.spec.dataset
    missing, more = sorted(set(first) - set(second)), sorted(set(second) - set(first))
    parts = [f'{counted(missing)} in {train.spec.split} alone'] if missing else []
    parts += [f'{counted(more)} in {held_out.spec.split} alone'] if more else []
    raise InputError(f'{where}: the two splits have other classes ({"; ".join(parts)}); make them equal')


def _number_of_classes(train: OpenData) -> int:
    if train.class_names is not None:
        return len(train.class_names)
    known = train.images.num_classes or _largest_label(train.images)
    if known is None:
        where = train.spec.root or train.spec.dataset
        raise InputError(f'{where}: how many classes it has is not known; say so with --num-classes')
    return known


def _largest_label(images: Images) -> int | None:
    return max(images._labels) + 1 if isinstance(images, ListedImages) else None


def check_shares(count: int, recipe: Recipe, processes: Processes) -> None:
    """Refuse steps in which a process would take part in fewer exchanges than the others.

    Raises:
        InputError: there would be one.
    """
    last = 0 if recipe.drop_last else count % recipe.batch_size
    smallest = min(size for size in (recipe.batch_size, last) if size) // processes.world_size
    if smallest < recipe.grad_accum_steps:
        raise InputError(
            f'sync_bn: the smallest batch leaves {smallest} images to a process, fewer than the parts of the '
            f'accumulation ({recipe.grad_accum_steps}); take --drop-last, or another --batch-size'
        )


def check_backend(backend: str) -> None:
    """Refuse a backend that ``torch.compile`` does not have.

    Raises:
        InputError: there is none of that name.
    """
    if backend not in torch.compiler.list_backends(exclude_tags=()):
        known = ', '.join(torch.compiler.list_backends())
        raise InputError(f'compile: there is no backend {backend}; use one of {known}')
