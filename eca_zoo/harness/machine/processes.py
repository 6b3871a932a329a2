"""Many processes under ``torchrun``: who am I, the shard of each, and exact sums of integers."""

import contextlib
import datetime
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from eca_zoo.errors import EcaZooError, InputError, RunError, one_line
from eca_zoo.harness.machine.connection import connect
from eca_zoo.harness.machine.devices import hardware_id, hardware_name, resolve_device

_logger = logging.getLogger(__name__)

_T = TypeVar('_T')
# A process may wait for the slowest one as long as a run takes; torchrun ends all of them when one dies.
_PATIENCE = datetime.timedelta(days=7)
_while_waiting: ContextVar[Callable[[], contextlib.AbstractContextManager]] = ContextVar(
    'while_waiting', default=contextlib.nullcontext
)


class ErrorElsewhere(EcaZooError):  # noqa: N818
    """An error that the main process reports; the others end with the same exit code and say nothing."""

    is_said_elsewhere = True

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Processes:
    """This process among those of the run: its number, how many there are, and its number on this machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes results."""
        return self.rank == 0


def launched() -> Processes:
    """What ``torchrun`` (or anything that sets its variables) says about this process; alone without it."""
    try:
        rank, size = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))
        return Processes(rank, size, int(os.environ.get('LOCAL_RANK', 0)))
    except ValueError as error:
        raise InputError(f'RANK, WORLD_SIZE and LOCAL_RANK must be numbers: {error}; start with torchrun') from None


def current() -> Processes:
    """This process among those that are connected; alone outside ``process_group``."""
    if dist.is_available() and dist.is_initialized():
        return Processes(dist.get_rank(), dist.get_world_size(), int(os.environ.get('LOCAL_RANK', 0)))
    return Processes()


def local_device(name: str, processes: Processes) -> str:
    """The device of this process: of several on a machine, each takes a GPU of its own.

    A process that sees one GPU takes that: schedulers give each process its own. ``check_own_devices`` finds those that
    were given the same.

    Raises:
        InputError: there are more processes on this machine than GPUs.
    """
    if processes.world_size == 1 or ':' in name:
        return name
    kind = resolve_device(name).type if name == 'auto' else name
    if kind not in ('cuda', 'xpu') or not getattr(torch, kind).is_available():
        return name
    count = getattr(torch, kind).device_count()
    if count == 1:
        return f'{kind}:0'
    if processes.local_rank >= count:
        raise InputError(
            f'process {processes.local_rank} of this machine has no GPU of its own: there are {count}; start with '
            f'torchrun --nproc-per-node {count}'
        )
    return f'{kind}:{processes.local_rank}'


def check_own_devices(device: torch.device) -> None:
    """Refuse processes that share a GPU, or whose GPUs are of different kinds; all processes do so together.

    Raises:
        InputError: two share one, or one count would come from two kinds.
    """
    own = (hardware_id(device), hardware_name(device))
    devices = gather(own)
    for rank, (identity, name) in enumerate(devices):
        if identity is None:
            continue
        first = next(other for other, (known, _) in enumerate(devices) if known == identity)
        if first != rank:
            raise InputError(
                f'processes {first} and {rank} share one GPU ({name}, {identity}); start one process for each GPU, and '
                'with a scheduler give each its own'
            )
        if name != devices[0][1]:
            raise InputError(
                f'process {rank} has another kind of GPU ({name}) than process 0 ({devices[0][1]}), and one count '
                'comes from one kind; choose machines, or GPUs with CUDA_VISIBLE_DEVICES'
            )


@contextlib.contextmanager
def process_group(
    while_waiting: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> Iterator[Processes]:
    """Connect the processes that ``torchrun`` started, by gloo: what they exchange are a few numbers on the CPU.

    NCCL would have to be started on the GPUs, and would make a process that is done wait there for the others. Without
    ``torchrun``, or within a group that exists already, nothing is done.

    Args:
        while_waiting: makes what is entered whenever this process waits for others, a call that no handler interrupts.

    Raises:
        RunError: the processes cannot reach each other.
    """
    processes = launched()
    if processes.world_size == 1 or dist.is_initialized():
        yield current()
        return
    try:
        with while_waiting():
            connect(processes.rank, processes.world_size, _PATIENCE)
    except RunError as error:
        # Once a machine: each has a log of its own.
        if processes.local_rank:
            raise ErrorElsewhere(str(error), error.exit_code) from error
        raise
    _logger.info('process %d of %d on %s: %s', processes.rank, processes.world_size, socket.gethostname(), _affinity())
    before = _while_waiting.set(while_waiting)
    try:
        yield processes
    finally:
        _while_waiting.reset(before)
        dist.destroy_process_group()


def _affinity() -> str:
    """The cores that this process may use, as ``taskset`` lists them."""
    if not hasattr(os, 'sched_getaffinity'):
        return f'{os.cpu_count()} cores'
    cores = sorted(os.sched_getaffinity(0))
    starts = [core for core in cores if core - 1 not in cores]
    ends = [core for core in cores if core + 1 not in cores]
    listed = ','.join(str(a) if a == b else f'{a}-{b}' for a, b in zip(starts, ends, strict=True))
    return f'{len(cores)} cores ({listed})'


@contextlib.contextmanager
def _exchange() -> Iterator[None]:
    """Around all that waits for other processes.

    Raises:
        RunError: one of them has ended.
    """
    with _while_waiting.get()():
        try:
            yield
        except RuntimeError as error:
            raise RunError(
                f'process {current().rank} has lost the others ({one_line(error)}); the one that ended first says why'
            ) from error


def shard(items: Sequence[_T], processes: Processes) -> Sequence[_T]:
    """The consecutive part of ``items`` that is this process's; the parts are disjoint and differ by one at most."""
    size, extra = divmod(len(items), processes.world_size)
    start = processes.rank * size + min(processes.rank, extra)
    return items[start : start + size + (processes.rank < extra)]


def from_main(value: _T) -> _T:
    """What the main process has for ``value``."""
    if current().world_size == 1:
        return value
    box: list[Any] = [value]
    with _exchange():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: _T) -> list[_T]:
    """What each process has for ``value``, by its number."""
    size = current().world_size
    if size == 1:
        return [value]
    values: list[Any] = [None] * size
    with _exchange():
        dist.all_gather_object(values, value)
    return values


def sum_counts(counts: torch.Tensor) -> torch.Tensor:
    """The sum over all processes of a tensor of integers, on the CPU."""
    if counts.is_floating_point():
        raise TypeError('counts are integers')
    counts = counts.cpu()
    if current().world_size > 1:
        with _exchange():
            dist.all_reduce(counts)
    return counts


def agreed(work: Callable[[], _T]) -> _T:
    """Do ``work`` in each process; if it is wrong in one of them, all stop.

    Raises:
        EcaZooError: in the main process, the error of the first process that had one.
        ErrorElsewhere: in the others.
    """
    error: EcaZooError | None = None
    result: Any = None
    try:
        result = work()
    except EcaZooError as own:
        error = own
    if current().world_size == 1:
        if error is not None:
            raise error
        return result
    errors = gather((type(error), str(error)) if error is not None else None)
    first = next((found for found in errors if found is not None), None)
    if first is not None:
        kind, text = first
        raise kind(text) if current().is_main else ErrorElsewhere(text, kind.exit_code)
    return result


def described(error: Exception | None) -> tuple[type, str] | None:
    """An exception so that it can be sent to other processes."""
    return None if error is None else (type(error), one_line(error))


def raised(found: tuple[type, str], title: str | None = None) -> EcaZooError | RuntimeError:
    """The exception that ``described`` made ``found`` of; with the title of a model, one for the user."""
    kind, text = found
    text = f'{title}: {text}' if title is not None and not text.startswith(title) else text
    return kind(text) if issubclass(kind, EcaZooError) else RunError(text) if title is not None else RuntimeError(text)
