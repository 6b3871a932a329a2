"""The best classes of images without labels, read and transformed as an evaluation reads them."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from eca_zoo.errors import InputError, RunError
from eca_zoo.harness.accuracy.input_plan import InputPlan, plan_input
from eca_zoo.harness.accuracy.loaded_network import load_network
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.accuracy.unlabelled.image_files import ImageFiles
from eca_zoo.harness.data.batches import Batch, Loader, Normalization, number_of_blocks, on_device
from eca_zoo.harness.data.labels import is_wordnet_id, read_class_map
from eca_zoo.harness.machine.devices import autocast, parameter_dtype
from eca_zoo.harness.machine.flags import numeric_flags
from eca_zoo.harness.machine.processes import agreed, current, gather, local_device, shard
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.networks.pretrained import label_names


class Guess(NamedTuple):
    """A class of an image: its index, its name and its probability."""

    class_index: int
    name: str
    probability: float


class Classified(NamedTuple):
    """The best classes of an image, best first; ``error`` says why there are none."""

    file: str
    guesses: tuple[Guess, ...]
    error: str | None = None


def classify(
    model: ModelSpec,
    files: Sequence[Path],
    settings: EvalSettings | None = None,
    topk: int = 5,
    class_map: Path | None = None,
    skip_bad_images: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Classified]:
    """The best classes of each image, in the order of the files.

    Under ``torchrun`` each process reads its part of the images, and all return the same.

    Args:
        model: a classifier.
        files: images.
        settings: how it runs, as for an evaluation.
        topk: classes of each image, at most those of the model.
        class_map: file with names of class indices, in the place of the model's own.
        skip_bad_images: give images that cannot be decoded an ``error``; by default the first one ends it.
        progress: called with the images that are done by all processes, as far as this one knows, and all of them.

    Raises:
        InputError: a setting cannot be used, the class map does not fit, or an image cannot be decoded.
        RunError: the probabilities of an image are no numbers.
    """
    processes = current()
    if topk < 1:
        raise InputError(f'--topk is at least 1, not {topk}')
    given = settings or EvalSettings()
    if given.preprocess == 'gpu':
        raise InputError('--preprocess gpu is for images with labels; choose exact or fast')
    checked = agreed(lambda: dataclasses.replace(given, device=local_device(given.device, processes)).checked())
    plan = agreed(lambda: plan_input(model, checked))
    network = agreed(lambda: load_network(model, checked, plan))
    names = agreed(lambda: class_names(plan.cfg, network.num_classes, class_map))
    images, size = ImageFiles(files), checked.batch_size or 1
    blocks = shard(range(number_of_blocks(len(images), size)), processes)
    device, found = torch.device(checked.device), dict[int, Classified]()
    step = _Step(network.module, plan, checked, min(topk, network.num_classes))
    loader = Loader(images, size, checked.workers or 0, bool(checked.pin_memory))
    batches = loader.batches(plan.pixels, blocks)
    with numeric_flags(checked.precision), torch.inference_mode():
        for batch in on_device(batches, device, bool(checked.channels_last)) if blocks else ():
            for position, values, indices in step(batch) if len(batch.positions) else ():
                guesses = tuple(Guess(i, names[i], value) for i, value in zip(indices, values, strict=True))
                found[position] = Classified(images.name(position), guesses)
            places = range(batch.block * size, min((batch.block + 1) * size, len(images)))
            bad = zip((place for place in places if place not in found), batch.bad, strict=True)
            found |= {place: Classified(name, (), reason) for place, (name, reason) in bad}
            if progress is not None:
                progress(min(len(found) * processes.world_size, len(images)), len(images))
    together = {position: one for part in gather(found) for position, one in part.items()}
    return _checked([together[position] for position in range(len(images))], model, skip_bad_images)


class _Step:
    """From a batch to the positions of its images, their best probabilities and their classes."""

    def __init__(self, module: torch.nn.Module, plan: InputPlan, settings: EvalSettings, topk: int) -> None:
        self._module, self._settings, self._topk = module, settings, topk
        self._device, self._dtype = torch.device(settings.device), parameter_dtype(settings.precision)
        channels = plan.pixels.input_size[0]
        self._normalise = Normalization(plan.mean, plan.std, channels, self._device, self._dtype)

    def __call__(self, batch: Batch) -> Iterable[tuple[int, list[float], list[int]]]:
        is_raw = batch.pixels.dtype == torch.uint8
        pixels = self._normalise(batch.pixels) if is_raw else batch.pixels.to(self._dtype)
        with autocast(self._settings.precision, self._device):
            logits = self._module(pixels)
        best = logits.float().softmax(dim=1).topk(self._topk, dim=1)
        return zip(batch.positions.tolist(), best.values.tolist(), best.indices.tolist(), strict=True)


def class_names(cfg: Mapping[str, Any], num_classes: int, class_map: Path | None = None) -> list[str]:
    """A name for each class index: of a class map, of the model's config, of ImageNet, or the index itself.

    Raises:
        InputError: the class map names none of these classes, or classes that the model does not have.
    """
    if class_map is not None:
        by_index = {index: name for name, index in read_class_map(class_map).items()}
        if max(by_index) >= num_classes:
            raise InputError(
                f'{class_map}: it has the class {max(by_index)}, and the model {num_classes} classes, from 0 on; name '
                'the class map that it was trained with'
            )
        return [by_index.get(index, str(index)) for index in range(num_classes)]
    own = label_names(cfg, num_classes) or {}
    if own and not all(map(is_wordnet_id, own.values())):
        return [own.get(index, str(index)) for index in range(num_classes)]
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({'num_classes': num_classes})
    if subset is None:
        return [own.get(index, str(index)) for index in range(num_classes)]
    info = ImageNetInfo(subset)
    return [info.index_to_description(index) for index in range(num_classes)]


def _checked(classified: list[Classified], model: ModelSpec, skip_bad_images: bool) -> list[Classified]:
    for one in classified:
        if one.error is not None and not skip_bad_images:
            raise InputError(
                f'{one.file}: cannot be decoded: {one.error}; repair or leave it out, or pass --skip-bad-images'
            )
        if any(math.isnan(guess.probability) for guess in one.guesses):
            raise RunError(f'{model.title}: its logits are NaN or infinite for {one.file}; use another precision')
    return classified
