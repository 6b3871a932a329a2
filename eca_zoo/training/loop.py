"""The training loop, in the order in which things happen: rate, step, log, save; after an epoch validation and best."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from eca_zoo.errors import InputError, RunError
from eca_zoo.harness.accuracy.settings import default_workers
from eca_zoo.harness.data.images import BadImage
from eca_zoo.harness.machine.processes import Processes, agreed, gather, sum_counts
from eca_zoo.harness.resume.signals import InterruptedRunError, StopRequest
from eca_zoo.training.data.loader import StepData, step_data
from eca_zoo.training.data.order import Schedule
from eca_zoo.training.meter import Clock, Meter
from eca_zoo.training.network import set_training_mode
from eca_zoo.training.optimisation import LearningRate, lay_out_as_parameters, make_optimizer
from eca_zoo.training.recipes.recipe import Recipe
from eca_zoo.training.record.log import EPOCH, STEPS, Log
from eca_zoo.training.step import Stepper
from eca_zoo.training.tasks.task import Task

_logger = logging.getLogger(__name__)

_SMALLEST_SCALE = 2.0**-20
_SHOW_EVERY = 0.2  # seconds


@dataclass(frozen=True)
class LoopSettings:
    """How a run goes on; none of it changes a weight.

    Attributes:
        workers: processes that decode images, for each process of the run; None for a choice by the machine.
        log_interval: steps between two rows of the log.
        val_interval: epochs between two validations; the last epoch has one always.
        save_seconds: seconds between two states; None for the ends of epochs alone.
        save_steps: steps between two states.
        skip_bad_images: count images that cannot be decoded; the next one of the step stands in for each.
    """

    workers: int | None = None
    log_interval: int = 50
    val_interval: int = 1
    save_seconds: float | None = 600.0
    save_steps: int | None = None
    skip_bad_images: bool = False

    def __post_init__(self) -> None:
        """Refuse what no run can have.

        Raises:
            InputError: a number is out of range.
        """
        smallest_of = {'workers': 0, 'log_interval': 1, 'val_interval': 1, 'save_steps': 1, 'save_seconds': 0}
        for name, smallest in smallest_of.items():
            value = getattr(self, name)
            if value is not None and not value >= smallest:
                raise InputError(f'{name} must be at least {smallest}, not {value}')


@dataclass(frozen=True)
class Progress:
    """How far an epoch (from 1) is, for a bar: images of all of them, and what to show beside it."""

    epoch: int
    epochs: int
    images: int
    of: int
    text: str


class Keeper:
    """What keeps a run; this one keeps nothing. Only the main process's is asked to write."""

    def save(self, loop: 'Loop') -> None:
        """Write the state of ``loop`` so that it can go on from here."""

    def best(self, network: nn.Module, figures: dict[str, Any]) -> None:
        """Write the best weights so far."""

    def epoch(self, network: nn.Module, epochs: int) -> None:
        """Write weights after a number of epochs, where that is wanted."""


class Loop:
    """A training run.

    Attributes:
        step: number of steps that are done.
        epoch: number of epochs that are done, with their validation.
        epochs: of the run.
        best: figures of the best epoch so far; ``epoch`` is its number from 1.
    """

    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        settings: LoopSettings,
        device: torch.device,
        processes: Processes | None = None,
        keeper: Keeper | None = None,
        log: Log | None = None,
        stop: StopRequest | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Make everything that has a state, at its beginning.

        Raises:
            InputError: the recipe does not fit the task.
        """
        self.task, self.recipe, self._settings, self._device = task, recipe, settings, device
        self._processes = processes or Processes()
        self._keeper, self.log, self._stop = keeper or Keeper(), log or Log(None), stop or StopRequest()
        self._progress = progress
        self.schedule = _schedule(task, recipe, self._processes)
        self.optimizer = make_optimizer(task.network, recipe)
        self._rate = LearningRate(self.optimizer, recipe, self.schedule.steps_per_epoch)
        self.stepper = Stepper(task, self.optimizer, recipe, device, self._processes)
        self.epochs = self._rate.epochs
        self.step = self.epoch = 0
        self.best: dict[str, Any] = {}
        self.bad: set[BadImage] = set()
        self.meter = Meter()
        self._lr = 0.0
        self._saved_at = self._shown_at = time.monotonic()

    def train(self) -> None:
        """Train to the end.

        Raises:
            InterruptedRunError: a signal asked to stop; the state is saved.
            InputError: an image cannot be decoded.
            RunError: a loss is no number.
            StorageError: something cannot be written.
        """
        steps_per_epoch = self.schedule.steps_per_epoch
        data = self._data(range(self.step, self.epochs * steps_per_epoch))
        while self.epoch < self.epochs:
            set_training_mode(self.task.network, self.recipe)
            self.meter.row_clock, self.meter.epoch_clock = Clock(), Clock()
            for step in range(self.step, (self.epoch + 1) * steps_per_epoch):
                parts, weights = self._next(data)
                self._lr = self._rate.set(step)
                loss = self.stepper.step(step, self.epoch, parts, weights)
                self.meter.add(step, self.schedule.images_of(step), loss)
                self.step = step + 1
                self._after_step()
            self._finish_epoch()

    def state(self) -> dict[str, Any]:
        """Everything that ``restore`` needs to go on with the same bits."""
        ema = self.stepper.ema
        return {
            'step': self.step,
            'epoch': self.epoch,
            'lr': self._lr,
            'best': self.best,
            'bad': [list(image) for image in sorted(self.bad)],
            'meter': self.meter.state(),
            'log': self.log.rows,
            'network': self.task.network.state_dict(),
            'optimizer': self.optimizer.state_dict(),
            'scaler': self.stepper.scaler.state_dict(),
            'ema': None if ema is None else ema.module.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` returned; each tensor gets the memory format that it had."""
        self.step, self.epoch, self.best, self._lr = (state[name] for name in ('step', 'epoch', 'best', 'lr'))
        self.bad = {BadImage(*image) for image in state['bad']}
        self.meter.restore(state['meter'])
        self.log.restore(state['log'])
        self.task.network.load_state_dict(state['network'])
        self.optimizer.load_state_dict(state['optimizer'])
        lay_out_as_parameters(self.optimizer)
        self.stepper.scaler.load_state_dict(state['scaler'])
        if self.stepper.ema is not None and state['ema'] is not None:
            self.stepper.ema.module.load_state_dict(state['ema'])

    def _data(self, steps: range) -> Iterator[StepData]:
        on_cpu, workers = self._device.type == 'cpu', self._settings.workers
        return step_data(
            self.task.reader(),
            self.schedule,
            self._processes.rank,
            steps,
            min(default_workers(on_cpu) if workers is None else workers, len(steps)),
            self._device.type == 'cuda',
        )

    def _next(self, data: Iterator[StepData]) -> StepData:
        began = time.monotonic()
        found = next(data)
        self.meter.waited(time.monotonic() - began)
        for part in found.parts:
            for image in self.task.bad_images(part):
                if not self._settings.skip_bad_images:
                    raise InputError(
                        f'{image.name}: cannot be decoded: {image.reason}; repair or remove it, or pass '
                        '--skip-bad-images'
                    )
                if image not in self.bad:
                    _logger.warning('%s: cannot be decoded: %s; another image takes its place', *image)
                    self.bad.add(image)
        return found

    def _after_step(self) -> None:
        """Log, save and stop where it is time; all processes do so after the same step."""
        settings, now = self._settings, time.monotonic()
        due = settings.save_seconds is not None and now - self._saved_at >= settings.save_seconds
        stop, due = self._any(self._stop.signal_name is not None, due)
        due = due or bool(settings.save_steps and self.step % settings.save_steps == 0)
        logs = self.step % settings.log_interval == 0
        if logs or due or stop or self._device.type == 'cpu':
            self._check_losses()
        if logs:
            self._add_row(STEPS, self.meter.row.take(), self.meter.row_clock.timings())
            self.meter.row_clock = Clock()
        if due or stop:
            self._save()
        if stop:
            raise self._interrupted()
        self._show(now)

    def _any(self, *flags: bool) -> list[bool]:
        """Whether any process says so, of each flag."""
        if self._processes.world_size == 1:
            return list(flags)
        return [bool(count) for count in sum_counts(torch.tensor([int(flag) for flag in flags])).tolist()]

    def _check_losses(self) -> None:
        bad = self.meter.flush()
        scaler = self.stepper.scaler
        if bad is None or (scaler.is_enabled() and scaler.get_scale() > _SMALLEST_SCALE):
            # With a scaler of the loss, a step whose gradients overflow is left out, and the scale halved.
            return
        epoch = bad // self.schedule.steps_per_epoch
        positions = self.schedule.positions(bad, self.schedule.order(epoch))
        names = self.task.names(positions)
        rate = self._rate.set(bad)
        raise RunError(
            f'the loss is NaN or infinite at step {bad + 1} (epoch {epoch + 1}) with the learning rate {rate:g}; lower '
            f'--lr, clip with --clip-grad, or look at the images of the step: {", ".join(names)}'
        )

    def _add_row(self, kind: str, loss: float | None, figures: dict[str, Any]) -> None:
        self.bad.update(image for part in gather(sorted(self.bad)) for image in part)
        self.log.add(
            {
                'kind': kind,
                'epoch': (self.step - 1) // self.schedule.steps_per_epoch + 1,
                'step': self.step,
                'lr': self._lr,
                'loss': None if loss is None else round(loss, 6),
                **figures,
                'memory_mb': _peak_memory_mb(self._device),
                'bad_images': len(self.bad),
            }
        )

    def _finish_epoch(self) -> None:
        """Validate, keep what is best, log, and save."""
        self._check_losses()
        number, timings = self.epoch + 1, self.meter.epoch_clock.timings()
        figures = self._figures() if number % self._settings.val_interval == 0 or number == self.epochs else {}
        ema = self.stepper.ema
        network: Any = self.task.network if ema is None else ema.module
        value = figures.get(self.task.metric if ema is None else f'ema_{self.task.metric}')
        if value is not None and (not self.best or value > self.best['value']):
            self.best = {'epoch': number, 'value': value, **figures}
            self._on_main(lambda: self._keeper.best(network, self.best))
        self._add_row(EPOCH, self.meter.epoch.take(), timings | figures)
        self._on_main(lambda: self._keeper.epoch(network, number))
        self.epoch = number
        _logger.info('epoch %d of %d: %s', number, self.epochs, self._summary())
        self._save()

    def _figures(self) -> dict[str, Any]:
        ema = self.stepper.ema
        _share_buffers(self.task.network, self._processes, self.task.group)
        try:
            figures = self.task.validate(self.task.network, self._stop)
            if ema is not None:
                _share_buffers(ema.module, self._processes, self.task.group)
                averaged = self.task.validate(ema.module, self._stop)
                names = self.task.columns
                figures |= {f'ema_{name}': averaged[name] for name in averaged if not names or f'ema_{name}' in names}
        except InterruptedRunError:
            # Others may not get to a point where all could agree.
            if self._processes.is_main:
                self._keeper.save(self)
            raise self._interrupted() from None
        return figures

    def _save(self) -> None:
        self._on_main(lambda: self._keeper.save(self))
        self._saved_at = time.monotonic()

    def _on_main(self, work: Callable[[], None]) -> None:
        """Do ``work`` in the main process; if that fails, all processes end."""
        agreed(lambda: work() if self._processes.is_main else None)

    def _interrupted(self) -> InterruptedRunError:
        signal_name = self._stop.signal_name or 'SIGTERM'
        return InterruptedRunError(
            f'stopped by {signal_name} after step {self.step} of {self.epochs * self.schedule.steps_per_epoch}; the '
            'state is saved, and the same command goes on',
            not self._processes.is_main,
            signal_name,
        )

    def _summary(self) -> str:
        row = self.log.rows[-1]
        metric = self.task.metric
        names = ('loss', 'lr', 'val_loss', metric, f'ema_{metric}', 'images_per_sec')
        return ', '.join(f'{name} {row[name]:g}' for name in names if row.get(name) is not None)

    def _show(self, now: float) -> None:
        steps = self.schedule.steps_per_epoch
        within, rate = self.step - self.epoch * steps, self.meter.epoch_clock.timings()['images_per_sec'] or 0.0
        if self._progress is not None and now - self._shown_at >= _SHOW_EVERY:
            self._shown_at = now
            images = min(within * self.schedule.batch_size, self.schedule.count)
            text = f'{rate:g} img/s, lr {self._lr:g}'
            self._progress(Progress(self.epoch + 1, self.epochs, images, self.schedule.count, text))


def _schedule(task: Task, recipe: Recipe, processes: Processes) -> Schedule:
    count = len(task)
    if recipe.batch_size > count:
        raise InputError(
            f'batch_size: {recipe.batch_size} is more than the {count} training images; lower --batch-size'
        )
    if recipe.batch_size < processes.world_size:
        raise InputError(
            f'batch_size: {recipe.batch_size} is fewer than the {processes.world_size} processes; raise it'
        )
    return Schedule(
        count, recipe.batch_size, recipe.seed, recipe.drop_last, processes.world_size, recipe.grad_accum_steps,
        task.kinds() if recipe.group_size > 1 else None, recipe.group_size,
    )  # fmt: skip


def _share_buffers(network: nn.Module, processes: Processes, group: Any) -> None:
    """Give all processes the running statistics of the first one, as they are in its checkpoint."""
    if processes.world_size > 1:
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, 0, group=group)


def _peak_memory_mb(device: torch.device) -> int:
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) // 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
