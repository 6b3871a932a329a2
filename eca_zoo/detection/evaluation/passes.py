"""Detectors over the images of a set: each is read and decoded once, and resized once for all that share a resize."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch.utils.data import DataLoader, Dataset

from eca_zoo.detection.coco_images import CocoSet
from eca_zoo.detection.evaluation.detections import Detections
from eca_zoo.detection.evaluation.detector_spec import DetectorSettings
from eca_zoo.detection.networks.detectors import Detector
from eca_zoo.detection.networks.transform import DetectionTransform, ResizedImage
from eca_zoo.detection.run_lengths import RunLengths
from eca_zoo.errors import EcaZooError, InputError, RunError, one_line
from eca_zoo.harness.data.batches import start_method
from eca_zoo.harness.machine.devices import autocast
from eca_zoo.harness.resume.signals import leave_signals_to_parent

#: Images of a block, the unit that processes share out and that a journal records.
BLOCK_SIZE = 4
#: Tensors that say what was found in some images: a row each, and the run lengths of all masks one after the other.
Part = dict[str, torch.Tensor]
#: What is the same in a resize that detectors share.
Resize = tuple[int, int]


@dataclass
class DetectorInPass:
    """A detector in a pass.

    Attributes:
        title: of the detector.
        module: ready to run.
        done: blocks that were run before, by any process.
        error: why it failed in this process.
        new_blocks: blocks that were run and not handed over yet.
        new_parts: what was found in them.
    """

    title: str
    module: Detector
    done: frozenset[int] = frozenset()
    error: Exception | None = None
    new_blocks: list[int] = field(default_factory=list)
    new_parts: list[Part] = field(default_factory=list)


class StoppedError(RunError):
    """A pass that was asked to stop; what was found has been handed over."""


@dataclass
class PassOptions:
    """What a pass needs beside the set and the detectors.

    Attributes:
        settings: checked settings.
        record: called every few seconds for each detector that ran over a block since.
        progress: called with the images that are done.
        should_stop: asked between images.
        record_every: seconds.
    """

    settings: DetectorSettings
    record: Callable[[DetectorInPass], None]
    progress: Callable[[int], None]
    should_stop: Callable[[], bool]
    record_every: float


def run_pass(data: CocoSet, members: Sequence[DetectorInPass], blocks: Sequence[int], options: PassOptions) -> None:
    """Run detectors over blocks of images; those that fail keep their error and leave the others alone.

    Raises:
        InputError: an image cannot be read, or has another size than the annotations say.
        StoppedError: the pass was asked to stop.
    """
    recorded_at, done = time.monotonic(), 0

    def record() -> None:
        for member in members:
            if member.error is None and member.new_blocks:
                options.record(member)

    try:
        for block, images in _loader(data, members, blocks, options.settings.workers or 0) if blocks else ():
            for member in members:
                if member.error is None and block not in member.done:
                    _run_block(member, block, images, options)
            done += len(images)
            options.progress(done)
            if time.monotonic() - recorded_at >= options.record_every:
                record()
                recorded_at = time.monotonic()
    finally:
        record()


@torch.inference_mode()
def _run_block(
    member: DetectorInPass, block: int, images: list[tuple[int, dict[Resize, ResizedImage]]], options: PassOptions
) -> None:
    settings = options.settings
    parts = []
    try:
        for position, resized in images:
            if options.should_stop():
                raise StoppedError('asked to stop')
            with autocast(settings.precision, torch.device(settings.device)):
                found = member.module.detect(resized[_resize(member.module.transform)])
            parts.append(_part(position, found))
    except StoppedError:
        raise
    except Exception as error:
        member.error = error if isinstance(error, EcaZooError) else RunError(one_line(error))
        member.new_blocks, member.new_parts = [], []
        return
    member.new_blocks.append(block)
    member.new_parts += parts


def _part(position: int, found: dict) -> Part:
    boxes = found['boxes'].double().cpu()
    boxes[:, 2:] -= boxes[:, :2]
    part = {
        'positions': torch.full((len(boxes),), position), 'labels': found['labels'].cpu(),
        'scores': found['scores'].double().cpu(), 'boxes': boxes,
    }  # fmt: skip
    if 'masks' in found:
        counts = [mask['counts'] for mask in found['masks']]
        part['runs'] = torch.frombuffer(bytearray(b''.join(counts)) or bytearray(1), dtype=torch.uint8)
        part['lengths'] = torch.tensor([len(text) for text in counts], dtype=torch.int64)
        part['runs'] = part['runs'][: int(part['lengths'].sum())]
    return part


def joined(parts: Sequence[Part]) -> Part:
    """Parts as one."""
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]} if parts else {}


def detections_of(data: CocoSet, parts: Sequence[Part], has_masks: bool) -> Detections:
    """What was found in all images, in their order; within an image the best first."""
    part = joined(parts)
    if not part:
        return Detections.joined([], has_masks)
    order = part['positions'].argsort(stable=True)
    positions = part['positions'][order].tolist()
    images = data.annotations.images
    masks: tuple[RunLengths, ...] | None = None
    if has_masks:
        runs = part['runs'].numpy().tobytes()
        ends = part['lengths'].cumsum(0).tolist()
        starts = [0, *ends[:-1]]
        masks = tuple(
            {'size': [images[position].height, images[position].width], 'counts': runs[starts[index] : ends[index]]}
            for position, index in zip(positions, order.tolist(), strict=True)
        )
    ids = torch.tensor([images[position].id for position in positions], dtype=torch.int64)
    return Detections(
        ids.numpy(), part['labels'][order].numpy(), part['scores'][order].numpy(), part['boxes'][order].numpy(), masks
    )


def blocks_of(data: CocoSet) -> range:
    """Numbers of the blocks of a set."""
    return range(-(-len(data) // BLOCK_SIZE))


def _resize(transform: DetectionTransform) -> Resize:
    return transform.shorter, transform.longest


class _Blocks(Dataset):
    """The images of a block, resized for each kind of detector; an error is a value, since it crosses processes."""

    def __init__(self, data: CocoSet, transforms: dict[Resize, DetectionTransform]) -> None:
        self._data, self._transforms = data, transforms

    def __getitem__(self, block: int) -> tuple[int, list[tuple[int, dict[Resize, ResizedImage]]], str]:
        images = []
        for position in range(block * BLOCK_SIZE, min((block + 1) * BLOCK_SIZE, len(self._data))):
            try:
                pixels = self._data.read(position)
            except InputError as error:
                return block, [], str(error)
            images.append((position, {key: one.resize(pixels) for key, one in self._transforms.items()}))
        return block, images, ''


def _loader(
    data: CocoSet, members: Sequence[DetectorInPass], blocks: Sequence[int], workers: int
) -> Iterator[tuple[int, list[tuple[int, dict[Resize, ResizedImage]]]]]:
    transforms = {_resize(member.module.transform): member.module.transform for member in members}
    loader = DataLoader(
        _Blocks(data, transforms), batch_size=None, sampler=list(blocks), num_workers=min(workers, len(blocks)),
        collate_fn=_unchanged, worker_init_fn=_prepare_worker, generator=torch.Generator(),
        multiprocessing_context=start_method() if workers else None,
    )  # fmt: skip
    for block, images, error in loader:
        if error:
            raise InputError(error)
        yield block, images


def _unchanged(block: object) -> object:
    return block


def _prepare_worker(worker_id: int) -> None:
    """Leave signals to the main process, which stops its workers after it has saved what was found."""
    torch.set_num_threads(1)
    leave_signals_to_parent()
