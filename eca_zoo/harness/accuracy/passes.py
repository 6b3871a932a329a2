"""One pass over the data for many models: an image is read, decoded and transformed once, and each model sees it."""

import logging
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from eca_zoo.errors import EcaZooError, InputError, RunError, one_line
from eca_zoo.harness.accuracy.loaded_network import Forward, Runnable
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.accuracy.tally import DeviceTally, Tally
from eca_zoo.harness.accuracy.targets import Targets
from eca_zoo.harness.data.batches import Batch, Loader, number_of_blocks, on_device
from eca_zoo.harness.data.datasets import OpenData
from eca_zoo.harness.data.gpu_decoding.device_decoder import DeviceDecoder
from eca_zoo.harness.data.images import BadImage
from eca_zoo.harness.machine.device_errors import (
    DeviceLostError,
    is_device_lost,
    is_out_of_memory,
    may_be_out_of_memory,
    without_frames,
)
from eca_zoo.harness.machine.memory import release_memory

_logger = logging.getLogger(__name__)

#: Seconds between two records of partial counts.
RECORD_EVERY = 5.0
_PROGRESS_EVERY = 0.2


class OutOfMemoryError(RunError):
    """A model that does not fit beside the others, even image by image."""


class StoppedError(RunError):
    """A pass that was asked to stop; what was counted has been recorded."""


@dataclass
class NetworkInPass(Runnable):
    """A model in a pass, on one of the label sets of its images; it shares its network with those on the others.

    Attributes:
        class_indices: class index of each label of the data set.
        done: blocks that were counted before this pass, by any process.
        valid: class indices that the results are restricted to.
        tally: counts of this process.
        error: why it failed in this process.
        new_blocks: blocks that were counted and not recorded yet.
        new_bad: images of these blocks that could not be decoded.
        new_by_gpu: images of these blocks that the GPU has decoded.
        predictions: best guesses in these blocks.
        recorded: counts that were recorded.
        bad: images that could not be decoded, of blocks that were recorded.
        by_gpu: images that the GPU has decoded, of blocks that were recorded.
        is_whole: no block is half counted.
        data: the images with the labels that it is counted on; by default those of the pass.
    """

    class_indices: torch.Tensor
    done: frozenset[int]
    valid: tuple[int, ...] | None
    tally: DeviceTally
    error: Exception | None = None
    new_blocks: list[int] = field(default_factory=list)
    new_bad: list[BadImage] = field(default_factory=list)
    new_by_gpu: int = 0
    predictions: list[dict[str, torch.Tensor | None]] = field(default_factory=list)
    recorded: Tally | None = None
    bad: list[BadImage] = field(default_factory=list)
    by_gpu: int = 0
    is_whole: bool = True
    data: OpenData | None = None


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
        self._forward = Forward(options.settings)
        by_data: dict[int, list[NetworkInPass]] = {}
        by_network: dict[int, list[NetworkInPass]] = {}
        for member in self._members:
            by_data.setdefault(id(member.data or data), []).append(member)
            by_network.setdefault(id(member.network), []).append(member)
        self._networks = list(by_network.values())
        self._targets: dict[int, Targets] = {}
        for sharing in by_data.values():
            targets = Targets(sharing[0].data or data, sharing, self._device)
            self._targets |= {id(member): targets for member in sharing}
        self._images_done = self._total = 0
        self._recorded_at = self._shown_at = time.monotonic()

    def run(self, blocks: Sequence[int], loader: Loader) -> None:
        """Count the images of ``blocks``; models that fail keep their error and leave the others alone.

        Raises:
            InputError: an image cannot be decoded, or has no usable label.
            DeviceLostError: this process can do nothing more on its device; what was counted since the last record is
                lost.
            RunError: decoding failed as a whole, or not even a batch of pixels fits into memory.
            StoppedError: the pass was asked to stop.
        """
        images = self._data.images
        self._total = sum(self._block_size(block) for block in blocks) if not images.is_stream else len(images)
        transform = self._members[0].plan.pixels
        batches = loader.batches(transform, blocks)
        if transform.preprocess == 'gpu':
            batches = DeviceDecoder(transform.left_encoded(), self._device, images.name).batches(batches)
        can_record = True
        try:
            self._run(on_device(batches, self._device, bool(self._options.settings.channels_last)))
        except Exception as error:
            can_record = not is_device_lost(error)
            if isinstance(error, EcaZooError):
                raise
            # Who stops a run may end its workers too.
            self._check_stop()
            if (explained := self._explained(error)) is None:
                raise
            raise explained from error
        finally:
            if can_record:
                self.record()

    def _run(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            self._check_stop()
            self._step(batch)
            if time.monotonic() - self._recorded_at >= self._options.record_every:
                self.record()
            if all(member.error is not None for member in self._members):
                return

    def _explained(self, error: Exception) -> RunError | None:
        """What ended the pass, as a user is told, where torch does not say it."""
        if _is_dead_worker(error):
            return RunError(
                f'a process that decodes images died: {one_line(error)}; try fewer --workers, or more shared memory'
            )
        if is_device_lost(error):
            return DeviceLostError(one_line(error))
        if is_out_of_memory(error):
            return RunError(
                f'{self._device} has no memory for a batch ({one_line(error)}); give a smaller --batch-size'
            )
        return None

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
        self._forward.start_batch()
        for number, members in enumerate(self._networks):
            # A model of many takes its share of the time of a batch.
            self._show(self._images_done + count * number // len(self._networks))
            asking = [one for one in members if one.error is None and batch.block not in one.done]
            if not asking:
                continue
            self._check_stop()
            for member in asking:
                # Ctrl-C and the death of a worker are raised anywhere.
                member.is_whole = False
            if len(batch.labels):
                self._run_network(members, asking, batch)
            for member in asking:
                member.new_blocks.append(batch.block)
                member.new_bad += batch.bad
                member.new_by_gpu += batch.by_gpu
                member.is_whole = True
        self._images_done += count
        self._show(self._images_done)

    def _run_network(self, members: list[NetworkInPass], asking: list[NetworkInPass], batch: Batch) -> None:
        """Run one network on a batch, and count it on each label set that asks for it."""
        checked = [one for one in asking if self._does([one], self._targets[id(one)].check, one, batch)]
        logits: list[torch.Tensor] = []
        if checked and self._does(checked, lambda: logits.append(self._forward.logits(checked[0], batch.pixels))):
            for member in members:
                member.chunk = checked[0].chunk
            for member in checked:
                self._does([member], self._count, member, batch, logits[0])
        if all(one.error is not None for one in members):
            members[0].network.module = torch.nn.Identity()
            self._forward.start_batch()
            release_memory()

    def _does(self, members: Sequence[NetworkInPass], action: Callable[..., None], *arguments: Any) -> bool:
        """Whether ``action`` succeeds; members that it fails for are out of the pass."""
        try:
            action(*arguments)
        except Exception as error:
            if is_device_lost(error) or _is_dead_worker(error):
                raise
            _logger.debug('%s failed\n%s', members[0].title, traceback.format_exc())
            # Its frames hold the network's activations.
            failure = without_frames(error)
        else:
            return True
        if is_out_of_memory(failure):
            failure = OutOfMemoryError(f'out of memory on {self._device}, one image at a time')
        elif may_be_out_of_memory(failure):
            # With no other model beside it, it is what it says.
            failure = OutOfMemoryError(one_line(failure))
        for member in members:
            member.error = failure
        _logger.warning('%s: %s', members[0].title, one_line(failure))
        return False

    def _count(self, member: NetworkInPass, batch: Batch, logits: torch.Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] != member.network.num_classes:
            raise RunError(f'its output has the shape {list(logits.shape)}, expected (N, {member.network.num_classes})')
        assert batch.sent is not None
        targets = self._targets[id(member)]
        on_device = targets.on_device(member, batch.sent)
        if on_device.classes is not None:
            logits = logits.index_select(1, on_device.classes)
        guesses = member.tally.add(
            logits, on_device.targets, on_device.right, batch.sent[0], on_device.classes, on_device.counted
        )
        if self._options.keep_predictions:
            probabilities = logits.float().softmax(dim=1).gather(1, guesses)
            member.predictions.append(
                {
                    'positions': batch.positions,
                    'targets': targets.classes(member, batch),
                    'guesses': guesses if on_device.classes is None else on_device.classes[guesses],
                    'probabilities': probabilities,
                    'counted': targets.counted(member, batch),
                }
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
