"""The parts of every step, read ahead by worker processes that live as long as the run."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from eca_zoo.errors import EcaZooError, RunError, one_line
from eca_zoo.harness.data.batches import prepare_worker, start_method
from eca_zoo.training.data.order import Schedule
from eca_zoo.training.tasks.task import Reader


class StepData(NamedTuple):
    """What one process works on in one step: the parts of its share, and the weights of their mean losses."""

    parts: list[Any]
    weights: list[float]


class _Steps(Dataset):
    """The data of the step with a number, the same whichever process makes it."""

    def __init__(self, reader: Reader, schedule: Schedule, process: int) -> None:
        self._reader, self._schedule, self._process = reader, schedule, process
        self._epoch, self._order = -1, torch.empty(0)

    def __getitem__(self, step: int) -> StepData | EcaZooError:
        """The data, or why there are none: the loader would make another text of an error that is raised."""
        try:
            return self._data(step)
        except EcaZooError as error:
            return error

    def _data(self, step: int) -> StepData:
        schedule = self._schedule
        epoch = step // schedule.steps_per_epoch
        if epoch != self._epoch:
            self._epoch, self._order = epoch, schedule.order(epoch)
        share = schedule.share(schedule.positions(step, self._order), self._process)
        return StepData([self._reader(epoch, part) for part in share.parts], list(share.weights))


def step_data(
    reader: Reader, schedule: Schedule, process: int, steps: range, workers: int, pin_memory: bool
) -> Iterator[StepData]:
    """The data of ``steps`` in turn.

    Args:
        reader: what makes a part from positions.
        schedule: of the run.
        process: number of this process.
        steps: numbers of steps in the run.
        workers: processes that decode; 0 decodes in this one.
        pin_memory: page-locked tensors.

    Raises:
        EcaZooError: what the reader raised.
        RunError: a process that decodes died.
    """
    loader = DataLoader(
        _Steps(reader, schedule, process),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=prepare_worker,
        pin_memory=pin_memory,
        # Without one, the loader would fix the process's own start method for good.
        multiprocessing_context=start_method() if workers else None,
        # Without one, the loader would draw from torch's global random state.
        generator=torch.Generator(),
    )
    try:
        for found in loader:
            if isinstance(found, EcaZooError):
                raise found
            yield found
    except EcaZooError:
        raise
    except RuntimeError as error:
        if 'DataLoader worker' in str(error):
            raise RunError(
                f'a process that decodes images died: {one_line(error)}; try fewer --workers, or more shared memory'
            ) from error
        raise


def _unchanged(data: Any) -> Any:
    return data
