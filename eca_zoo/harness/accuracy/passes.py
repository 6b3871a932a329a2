"""One pass over the data for many models: an image is read, decoded and transformed once, and each model sees it."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from eca_zoo.errors import EcaZooError, InputError, RunError, one_line
from eca_zoo.harness.accuracy.input_plan import InputPlan
from eca_zoo.harness.accuracy.loading import LoadedNetwork
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.accuracy.tally import DeviceTally, Tally
from eca_zoo.harness.data.batches import Batch, Normalization, make_loader, number_of_blocks, on_device
from eca_zoo.harness.data.datasets import OpenData
from eca_zoo.harness.data.images import BadImage
from eca_zoo.harness.machine.devices import autocast, parameter_dtype
from eca_zoo.harness.machine.memory import is_out_of_memory, release_memory

_logger = logging.getLogger(__name__)

#: Seconds between two records of partial counts.
RECORD_EVERY = 5.0
_PROGRESS_EVERY = 0.2
_PAD = -1


class OutOfMemoryError(RunError):
    """A model that does not fit beside the others, even image by image."""


class StoppedError(RunError):
    """A pass that was asked to stop; what was counted has been recorded."""


@dataclass
class NetworkInPass:
    """A model in a pass.

    Attributes:
        title: of the model.
        network: ready to run.
        plan: of its input.
        class_indices: class index of each label of the data set.
        chunk: images a step, after halving.
        done: blocks that were counted before this pass, by any process.
        valid: class indices that the results are restricted to.
        tally: counts of this process.
        error: why it failed in this process.
        new_blocks: blocks that were counted and not recorded yet.
        new_bad: images of these blocks that could not be decoded.
        predictions: best guesses in these blocks.
        recorded: counts that were recorded.
        bad: images that could not be decoded, of blocks that were recorded.
        is_whole: no block is half counted.
    """

    title: str
    network: LoadedNetwork
    plan: InputPlan
    class_indices: torch.Tensor
    chunk: int
    done: frozenset[int]
    valid: tuple[int, ...] | None
    tally: DeviceTally
    error: Exception | None = None
    new_blocks: list[int] = field(default_factory=list)
    new_bad: list[BadImage] = field(default_factory=list)
    predictions: list[dict[str, torch.Tensor]] = field(default_factory=list)
    recorded: Tally | None = None
    bad: list[BadImage] = field(default_factory=list)
    is_whole: bool = True


Record = Callable[[NetworkInPass], None]
Progress = Callable[[int, int, Sequence[str]], None]


@dataclass
class PassOptions:
    """What a pass needs beside data and models.

    Attributes:
        settings: checked settings.
        record: called every few seconds for each model that counted something since.
        progress: called a few times a second with images done by this process, its share of them, and the models.
        should_stop: asked between batches.
        record_every: seconds.
        keep_predictions: keep the best guesses of each image.
    """

    settings: EvalSettings
    record: Record | None = None
    progress: Progress | None = None
    should_stop: Callable[[], bool] = lambda: False
    record_every: float = RECORD_EVERY
    keep_predictions: bool = False


def blocks_of(data: OpenData, block_size: int) -> range:
    """Numbers of the blocks of a data set with random access."""
    return range(number_of_blocks(len(data.images), block_size))


class Pass:
    """Runs models over blocks of images; counts stay on the device and in the members."""

    def __init__(self, data: OpenData, members: Sequence[NetworkInPass], options: PassOptions) -> None:
        self._data, self._members, self._options = data, list(members), options
        self._device = torch.device(options.settings.device)
        self._real = _padded(data.real_labels) if data.real_labels is not None else None
        self._normalizations: dict[tuple, Normalization] = {}
        most = max((member.network.num_classes for member in members), default=0)
        self._valid = {member.valid: _class_tensors(member.valid, most, self._device) for member in members}
        self._images_done = self._total = 0
        self._recorded_at = self._shown_at = time.monotonic()

    def run(self, blocks: Sequence[int]) -> None:
        """Count the images of ``blocks``; models that fail keep their error and leave the others alone.

        Raises:
            InputError: an image cannot be decoded, or has no usable label.
            RunError: decoding failed as a whole.
            StoppedError: the pass was asked to stop.
        """
        settings, images = self._options.settings, self._data.images
        self._total = sum(self._block_size(block) for block in blocks) if not images.is_stream else len(images)
        loader = make_loader(
            images, self._members[0].plan.pixels, self._block_size_asked, blocks, settings.workers or 0,
            bool(settings.pin_memory),
        )  # fmt: skip
        try:
            if blocks or images.is_stream:
                for batch in on_device(loader, self._device, bool(settings.channels_last)):
                    self._check_stop()
                    self._step(batch)
                    if time.monotonic() - self._recorded_at >= self._options.record_every:
                        self.record()
        except Exception as error:
            if not isinstance(error, EcaZooError):
                # Who stops a run may end its workers too.
                self._check_stop()
            if not _is_dead_worker(error):
                raise
            raise RunError(
                f'a process that decodes images died: {one_line(error)}; try fewer --workers, or more shared memory'
            ) from error
        finally:
            self.record()

    @property
    def _block_size_asked(self) -> int:
        assert self._options.settings.batch_size is not None
        return self._options.settings.batch_size

    def _block_size(self, block: int) -> int:
        return min(self._block_size_asked, len(self._data.images) - block * self._block_size_asked)

    def _check_stop(self) -> None:
        if self._options.should_stop():
            raise StoppedError('asked to stop')

    @torch.inference_mode()
    def _step(self, batch: Batch) -> None:
        if batch.bad and not self._data.spec.skip_bad_images:
            first = batch.bad[0]
            raise InputError(
                f'{first.name}: cannot be decoded: {first.reason}; repair or remove it, or pass --skip-bad-images'
            )
        count = len(batch.labels) + len(batch.bad)
        shared: dict[tuple, torch.Tensor] = {}
        for number, member in enumerate(self._members):
            # A model of many takes its share of the time of a batch.
            self._show(self._images_done + count * number // len(self._members))
            if member.error is None and batch.block not in member.done:
                self._check_stop()
                # Ctrl-C and the death of a worker are raised anywhere.
                member.is_whole = False
                if len(batch.labels):
                    self._guarded(member, batch, shared)
                member.new_blocks.append(batch.block)
                member.new_bad += batch.bad
                member.is_whole = True
        self._images_done += count
        self._show(self._images_done)

    def _guarded(self, member: NetworkInPass, batch: Batch, shared: dict[tuple, torch.Tensor]) -> None:
        try:
            key = (member.plan.mean, member.plan.std)
            if key not in shared:
                shared[key] = self._normalized(member.plan, batch.pixels)
            self._count(member, batch, self._logits(member, shared[key]))
        except Exception as error:
            if _is_dead_worker(error):
                raise
            member.error = error
            if is_out_of_memory(error):
                member.error = OutOfMemoryError(f'out of memory on {self._device}, one image at a time')
            _logger.warning('%s: %s', member.title, one_line(member.error))
            member.network.module = torch.nn.Identity()
            release_memory()

    def _normalized(self, plan: InputPlan, pixels: torch.Tensor) -> torch.Tensor:
        dtype = parameter_dtype(self._options.settings.precision)
        if pixels.dtype != torch.uint8:
            return pixels.to(dtype)
        key = (plan.mean, plan.std)
        if key not in self._normalizations:
            self._normalizations[key] = Normalization(plan.mean, plan.std, pixels.shape[1], self._device, dtype)
        return self._normalizations[key](pixels)

    def _logits(self, member: NetworkInPass, images: torch.Tensor) -> torch.Tensor:
        """(N, C) logits; a model that runs out of memory takes half as many images at a time from then on."""
        while True:
            try:
                return torch.cat([self._forward(member, part) for part in images.split(member.chunk)])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or member.chunk == 1:
                    raise
            member.chunk //= 2
            _logger.warning('%s: out of memory, trying %d images at a time', member.title, member.chunk)
            release_memory()

    def _forward(self, member: NetworkInPass, images: torch.Tensor) -> torch.Tensor:
        settings, count = self._options.settings, len(images)
        if settings.compile and count < member.chunk:
            # One shape alone is compiled.
            images = torch.cat([images, images[-1:].expand(member.chunk - count, -1, -1, -1)])
            images = images.contiguous(
                memory_format=torch.channels_last if settings.channels_last else torch.contiguous_format
            )
        with autocast(settings.precision, self._device):
            logits = member.network.module(images)
        if isinstance(logits, tuple | list):
            logits = logits[0]
        return logits[:count]

    def _count(self, member: NetworkInPass, batch: Batch, logits: torch.Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] != member.network.num_classes:
            raise RunError(f'its output has the shape {list(logits.shape)}, expected (N, {member.network.num_classes})')
        if self._real is not None:
            keep = (self._real[batch.positions] != _PAD).any(dim=1).nonzero().flatten()
            batch = batch._replace(positions=batch.positions[keep], labels=batch.labels[keep])
            logits = logits[keep.to(logits.device)]
        if not len(batch.labels):
            return
        targets = self._targets(member, batch)
        right = targets if self._real is None else self._real[batch.positions]
        places, classes = self._valid[member.valid]
        if classes is not None and places is not None:
            logits, targets, right = logits[:, classes], places[targets], places[right]
            if bool((targets == _PAD).any()):
                name = self._data.images.name(int(batch.positions[int((targets == _PAD).nonzero()[0])]))
                raise InputError(f'{name}: its class is not among the valid labels; leave out --valid-labels')
        sent = [tensor.to(self._device, non_blocking=True) for tensor in (targets, right, batch.positions)]
        guesses = member.tally.add(logits, sent[0], sent[1], sent[2], classes)
        if self._options.keep_predictions:
            self._keep(member, batch, logits, guesses, targets)

    def _targets(self, member: NetworkInPass, batch: Batch) -> torch.Tensor:
        """(N,) class index of each image for the model."""
        known = member.class_indices
        wrong = (batch.labels < 0) | (batch.labels >= len(known))
        if bool(wrong.any()):
            index = int(wrong.nonzero()[0])
            raise InputError(
                f'{self._data.images.name(int(batch.positions[index]))}: its label {int(batch.labels[index])} is none '
                f'of the {len(known)} classes of {member.title}; name the data set that the model was made for'
            )
        return known[batch.labels]

    def _keep(
        self, member: NetworkInPass, batch: Batch, logits: torch.Tensor, guesses: torch.Tensor, targets: torch.Tensor
    ) -> None:
        probabilities = logits.float().softmax(dim=1).gather(1, guesses)
        _, classes = self._valid[member.valid]
        if classes is not None:
            guesses, targets = classes[guesses], classes.cpu()[targets]
        member.predictions.append(
            {'positions': batch.positions, 'targets': targets, 'guesses': guesses, 'probabilities': probabilities}
        )

    def _show(self, done: int) -> None:
        now = time.monotonic()
        if self._options.progress is not None and now - self._shown_at >= _PROGRESS_EVERY:
            self._options.progress(done, self._total, [member.title for member in self._members])
            self._shown_at = now

    def record(self) -> None:
        """Stop models with logits that are no numbers, and hand over what was counted since the last time."""
        for member in self._members:
            if member.error is None and (position := member.tally.first_bad()) is not None:
                member.error = RunError(
                    f'its logits are NaN or infinite for {self._data.images.name(position)}; evaluate in another '
                    'precision, or check the weights'
                )
                _logger.warning('%s: %s', member.title, member.error)
            if member.error is None and member.is_whole and member.new_blocks and self._options.record is not None:
                self._options.record(member)
        self._recorded_at = time.monotonic()


def _is_dead_worker(error: Exception) -> bool:
    """Whether torch says, wherever the main process is at that moment, that a worker of its loader has died."""
    return isinstance(error, RuntimeError) and 'DataLoader worker' in str(error)


def _padded(labels: list[list[int]]) -> torch.Tensor:
    width = max(map(len, labels), default=1) or 1
    return torch.tensor([row + [_PAD] * (width - len(row)) for row in labels])


def _class_tensors(
    classes: tuple[int, ...] | None, num_classes: int, device: torch.device
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The place of each class index among ``classes`` (-1: none; so is that of -1), and ``classes`` on the device."""
    if classes is None:
        return None, None
    places = torch.full((num_classes + 1,), _PAD)
    places[list(classes)] = torch.arange(len(classes))
    return places, torch.tensor(classes, device=device)
