"""A training run from its folder: what it is made of, what it may go on from, what it leaves behind."""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from eca_zoo.errors import InputError
from eca_zoo.files import storage_error, write_atomically
from eca_zoo.harness.accuracy.evaluation import handler_of_children_kept
from eca_zoo.harness.machine.environment import describe_environment
from eca_zoo.harness.machine.flags import numeric_flags
from eca_zoo.harness.machine.processes import Processes, agreed, from_main
from eca_zoo.harness.networks.pretrained import state_sha256
from eca_zoo.harness.resume.journal import differences_between
from eca_zoo.harness.resume.lock import RunLock
from eca_zoo.harness.resume.signals import StopRequest
from eca_zoo.training.data.order import random_state_kept
from eca_zoo.training.loop import Keeper, Loop, LoopSettings, Progress
from eca_zoo.training.recipes.recipe import ChosenRecipe
from eca_zoo.training.record.board import Board
from eca_zoo.training.record.curves import write_curves
from eca_zoo.training.record.log import LOG_FILE, Log, columns_with
from eca_zoo.training.record.state import StateFolder, write_weights
from eca_zoo.training.tasks.task import Task

_logger = logging.getLogger(__name__)

_SHOWN = 3
_VERSIONS = ('python', 'torch', 'torchvision', 'timm', 'numpy', 'pillow')


@dataclass(frozen=True)
class RunSettings:
    """Where a run is kept, and how it goes on.

    Attributes:
        run_dir: its folder.
        loop: how often it saves, logs and validates.
        checkpoint_every: epochs between two checkpoints that stay; 0 for none.
        restart: forget what the folder holds.
        allow_change: go on although something differs that changes bits, and record it.
        command_line: for the record.
        tensorboard: write the rows of the log for TensorBoard too.
    """

    run_dir: Path
    loop: LoopSettings = field(default_factory=LoopSettings)
    checkpoint_every: int = 0
    restart: bool = False
    allow_change: bool = False
    command_line: Sequence[str] = ()
    tensorboard: bool = False

    def __post_init__(self) -> None:
        """Refuse what no run can have.

        Raises:
            InputError: checkpoints are to stay after a negative number of epochs.
        """
        if self.checkpoint_every < 0:
            raise InputError(f'checkpoint_every must be at least 0, not {self.checkpoint_every}')


@dataclass(frozen=True)
class TrainingResult:
    """What a run was.

    Attributes:
        log: rows of its log.
        best: figures of its best epoch; empty without validation.
        files: what it left behind.
    """

    log: list[dict[str, Any]]
    best: dict[str, Any]
    files: list[Path]


class RunFolder(Keeper):
    """The folder of a run: ``last``, ``best`` and states, written by the main process alone."""

    def __init__(self, settings: RunSettings, identity: dict[str, Any]) -> None:
        self.path, self._settings = settings.run_dir, settings
        self._identity, self._changes = identity, list[dict[str, Any]]()
        self._states = StateFolder(settings.run_dir)
        self._lock = RunLock(settings.run_dir / '.lock')

    def open(self) -> dict[str, Any] | None:
        """Take the folder; returns the state to go on from.

        Raises:
            InputError: another process uses it, it holds another run, or its state is damaged.
            StorageError: it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise storage_error(self.path, error, '--run-dir') from None
        if self._settings.restart:
            self._states.clear()
        state = self._states.load()
        if state is None:
            if not self._settings.restart and (self.path / 'last.safetensors').exists():
                raise InputError(
                    f'{self.path}: it holds last.safetensors and no state to go on from; use another folder, or '
                    '--restart to begin anew'
                )
            return None
        self._check_identity(state)
        return state

    def close(self) -> None:
        """Let others use the folder."""
        self._lock.release()

    def _check_identity(self, state: dict[str, Any]) -> None:
        self._changes = list(state['changes'])
        different = differences_between(state['identity'], self._identity)
        if not different:
            return
        if not self._settings.allow_change:
            more = f'; and {len(different) - _SHOWN} more' if len(different) > _SHOWN else ''
            raise InputError(
                f'{self.path}: it holds a run with {"; ".join(different[:_SHOWN])}{more}; use another folder, '
                '--allow-change to go on all the same, or --restart to begin anew'
            )
        _logger.warning('%s: goes on with a change: %s', self.path, '; '.join(different))
        self._changes.append({'step': state['loop']['step'], 'changes': different})

    def save(self, loop: Loop) -> None:
        facts = {'identity': self._identity, 'changes': self._changes, 'loop': loop.state()}
        # The state comes first: a run that ends between the two goes on from it, and writes the other anew.
        self._states.save(loop.step, loop.epoch, facts)
        self._write_last(loop)

    def _write_last(self, loop: Loop) -> None:
        write_weights(self.path / 'last.safetensors', loop.task.network.state_dict())
        if loop.stepper.ema is not None:
            write_weights(self.path / 'last.ema.safetensors', loop.stepper.ema.module.state_dict())

    def best(self, network: torch.nn.Module, figures: dict[str, Any]) -> None:
        figures['sha256'] = write_weights(self.path / 'best.safetensors', network.state_dict())

    def epoch(self, network: torch.nn.Module, epochs: int) -> None:
        every = self._settings.checkpoint_every
        if every and epochs % every == 0:
            write_weights(self.path / f'epoch-{epochs:05d}.safetensors', network.state_dict())

    def write_record(self, chosen: ChosenRecipe, task: Task, loop: Loop) -> None:
        """Write what the run is, and its figures so far, to ``run.json``.

        Raises:
            StorageError: it cannot be written.
        """
        record = {
            'recipe': chosen.name,
            'overridden': dict(chosen.overridden),
            'title': f'{task.title} {chosen.title}',
            'model': task.title,
            'settings': dataclasses.asdict(chosen.recipe),
            'identity': self._identity,
            'changes': self._changes,
            'steps': loop.step,
            'epochs': loop.epoch,
            'best': loop.best,
            'environment': describe_environment(self._settings.command_line),
        }
        write_atomically(
            self.path / 'run.json', json.dumps(record, indent=2, default=str).encode() + b'\n', '--run-dir'
        )

    def complete(self, loop: Loop, title: str) -> list[Path]:
        """Write what belongs to a finished run; returns all its files.

        Raises:
            StorageError: one cannot be written.
        """
        self._write_last(loop)
        write_curves(self.path / 'curves.svg', loop.log.rows, title)
        names = ('last.safetensors', 'last.ema.safetensors', 'best.safetensors', LOG_FILE, 'curves.svg', 'run.json')
        return [self.path / name for name in names if (self.path / name).exists()]


def run_training(
    task: Task,
    chosen: ChosenRecipe,
    settings: RunSettings,
    device: torch.device,
    processes: Processes | None = None,
    stop: StopRequest | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainingResult:
    """Train ``task`` by a recipe, from where its folder was left.

    torch's global flags and all random states are as before afterwards.

    Args:
        task: network, data, loss and validation.
        chosen: the recipe.
        settings: where and how.
        device: of the network.
        processes: of the run; alone by default.
        stop: when it is set, the state is saved and the run ends.
        progress: called a few times a second by the main process.

    Raises:
        InputError: recipe, data or folder cannot be used.
        RunError: a loss is no number, or images cannot be decoded.
        InterruptedRunError: ``stop`` was set.
        StorageError: something cannot be written.
    """
    processes = processes or Processes()
    is_main = processes.is_main
    identity = run_identity(task, chosen, device, processes)
    folder = RunFolder(settings, json.loads(json.dumps(identity, default=str)))
    log = Log(settings.run_dir / LOG_FILE if is_main else None, columns_with(task.columns))
    with contextlib.ExitStack() as during:
        during.enter_context(_deterministic(chosen.recipe.deterministic))
        during.enter_context(random_state_kept())
        during.enter_context(handler_of_children_kept())
        loop = agreed(
            lambda: Loop(
                task, chosen.recipe, settings.loop, device, processes, folder, log, stop, progress if is_main else None
            )
        )
        during.callback(folder.close)
        state = from_main(agreed(lambda: folder.open() if is_main else None))
        if state is not None:
            loop.restore(state['loop'])
            _logger.info('%s: goes on after step %d', settings.run_dir, loop.step)
        if settings.tensorboard:
            agreed(lambda: during.enter_context(_board(settings.run_dir / 'tensorboard', log)) if is_main else None)
        write_record = lambda: folder.write_record(chosen, task, loop) if is_main else None  # noqa: E731
        agreed(write_record)
        loop.train()
        agreed(write_record)
        files = agreed(lambda: folder.complete(loop, f'{task.title} {chosen.title}') if is_main else [])
    return TrainingResult(loop.log.rows, loop.best, files)


def run_identity(task: Task, chosen: ChosenRecipe, device: torch.device, processes: Processes) -> dict[str, Any]:
    """What fixes the bits of a run, as JSON values: the same folder takes no other without being told so."""
    environment = describe_environment(())
    return {
        'model': task.title,
        'recipe': dataclasses.asdict(chosen.recipe),
        'data': task.fingerprints(),
        'first_weights_sha256': state_sha256(task.network),
        'processes': processes.world_size,
        'threads': torch.get_num_threads(),
        'device': torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type,
        'cpu_capability': torch.backends.cpu.get_cpu_capability(),
        'versions': {name: environment['versions'].get(name) for name in _VERSIONS},
    }


@contextlib.contextmanager
def _board(folder: Path, log: Log) -> Iterator[None]:
    board = Board(folder, log.rows)
    log.listener = board.add
    try:
        yield
    finally:
        board.close()


@contextlib.contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """torch's deterministic algorithms, where they are wanted, and cuDNN's."""
    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if wanted:
        torch.use_deterministic_algorithms(True)
    try:
        with numeric_flags('fp32', search=not wanted, deterministic=wanted):
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)
