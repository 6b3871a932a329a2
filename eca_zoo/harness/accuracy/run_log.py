"""What an operator reads of an evaluation in its log, in the main process alone: lines of the level INFO."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar

from eca_zoo.harness.accuracy.results import AccuracyResult
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.datasets import OpenData
from eca_zoo.harness.machine.processes import current

_logger = logging.getLogger(__name__)
_NAMES = 6
_is_silent: ContextVar[bool] = ContextVar('is_silent', default=False)


@contextlib.contextmanager
def said_by_the_caller() -> Iterator[None]:
    """While the body runs, evaluations say nothing: they are a part of something that has lines of its own."""
    before = _is_silent.set(True)
    try:
        yield
    finally:
        _is_silent.reset(before)


def _speaks() -> bool:
    return current().is_main and not _is_silent.get()


def log_start(titles: Sequence[str], data: OpenData, settings: EvalSettings) -> None:
    """Say what is evaluated, on what, and how.

    Args:
        titles: of the models.
        data: the images.
        settings: checked settings.
    """
    processes = current()
    if not _speaks():
        return
    more = f' and {len(titles) - _NAMES} more' if len(titles) > _NAMES else ''
    images = 'a stream of images' if data.images.is_stream else f'{len(data.images):,} images'
    where = f' in {data.spec.root}' if data.spec.root is not None else ''
    how = f'{settings.device}, {settings.precision}, batch size {settings.batch_size}, {settings.workers} workers'
    how += f', preprocess {settings.preprocess}' if settings.preprocess != 'exact' else ''
    each = f', {processes.world_size} processes' if processes.world_size > 1 else ''
    _logger.info('validation of %s%s', ', '.join(titles[:_NAMES]), more)
    _logger.info('%s of %s%s; %s%s', images, data.spec.name, where, how, each)


def log_continued(done: int, models: int) -> None:
    """Say how many of the models an earlier run has finished."""
    if done and _speaks():
        _logger.info('%d of %d models are done already', done, models)


def log_position(counted: Mapping[str, Sequence[int]], data: OpenData, block_size: int) -> None:
    """Say where models continue that an earlier run has begun.

    Args:
        counted: blocks that were counted before, by title.
        data: the images.
        block_size: images of a block.
    """
    if not _speaks():
        return
    total = len(data.images)
    for title, blocks in counted.items():
        if blocks:
            images = sum(min(block_size, total - block * block_size) for block in blocks)
            _logger.info('%s: continuing at %s of %s images', title, f'{images:,}', f'{total:,}')


def log_result(result: AccuracyResult) -> None:
    """Say what was counted of a model, or why nothing was."""
    if not _speaks():
        return
    if result.error is not None:
        _logger.info('failed: %s', result.error)
        return
    figures = f'top-1 {result.top1:.3f} %, top-5 {result.top5:.3f} % of {result.num_images:,} images'
    if result.gpu_decoded is not None:
        figures += f', {result.gpu_decoded:,} decoded by the GPU and {result.cpu_decoded:,} by the CPU'
    _logger.info('%s: %s', result.model, figures)
