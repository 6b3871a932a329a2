"""Many processes under ``torchrun``: who am I, the shard of each, and exact sums of integers."""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from eca_zoo.errors import EcaZooError, InputError, RunError

_T = TypeVar('_T')
# A process may wait for the slowest one as long as a run takes; torchrun ends all of them when one dies.
_PATIENCE = datetime.timedelta(days=7)


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

    Raises:
        InputError: there are more processes on this machine than GPUs.
    """
    if processes.world_size == 1 or name not in ('auto', 'cuda') or not torch.cuda.is_available():
        return name
    count = torch.cuda.device_count()
    if processes.local_rank >= count:
        raise InputError(
            f'process {processes.local_rank} of this machine has no GPU of its own: there are {count}; start with '
            f'torchrun --nproc-per-node {count}'
        )
    return f'cuda:{processes.local_rank}'


@contextlib.contextmanager
def process_group() -> Iterator[Processes]:
    """Connect the processes that ``torchrun`` started: NCCL between GPUs, gloo between processors.

    Without ``torchrun``, or within a group that exists already, nothing is done.

    Raises:
        RunError: the processes cannot reach each other.
    """
    processes = launched()
    if processes.world_size == 1 or dist.is_initialized():
        yield current()
        return
    on_cuda = torch.cuda.is_available() and dist.is_nccl_available()
    backend = 'cpu:gloo,cuda:nccl' if on_cuda else 'gloo'
    try:
        if on_cuda:
            torch.cuda.set_device(processes.local_rank % torch.cuda.device_count())
        dist.init_process_group(backend, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        text = ' '.join(str(error).split())
        raise RunError(f'process {processes.rank} cannot reach the others: {text}; start with torchrun') from None
    try:
        yield processes
    finally:
        dist.destroy_process_group()


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
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: _T) -> list[_T]:
    """What each process has for ``value``, by its number."""
    size = current().world_size
    if size == 1:
        return [value]
    values: list[Any] = [None] * size
    dist.all_gather_object(values, value)
    return values


def sum_counts(counts: torch.Tensor) -> torch.Tensor:
    """The sum over all processes of a tensor of integers, on its device."""
    if counts.is_floating_point():
        raise TypeError('counts are integers')
    if current().world_size > 1:
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
