"""Groups of networks measured in other processes, one a device, that may die without taking anything with them."""

import collections
import contextlib
import dataclasses
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from eca_zoo.errors import one_line
from eca_zoo.harness.machine.fresh_process import receive, send
from eca_zoo.harness.networks.baselines import Baseline
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.speed.results import ThroughputResult
from eca_zoo.harness.speed.settings import ThroughputSettings

# A stop is asked for this often while nothing arrives: compiling takes minutes.
_ASK_EVERY_SECONDS = 0.2


class LostDeviceError(Exception):
    """A network after which its process can do nothing more on the device."""

    def __init__(self, title: str, reason: str) -> None:
        super().__init__(title, reason)
        self.title, self.reason = title, reason


class Meter(Protocol):
    """Hears of the work; what it raises ends it."""

    def at(self, title: str) -> None:
        """A network begins to use the device."""

    def advance(self, text: str, by: int = 1) -> None:
        """So many more rounds of a network are done."""


Measure = Callable[[list[ModelSpec], ThroughputSettings, Baseline, Meter], list[ThroughputResult]]


@dataclass
class _Worker:
    """A process with a device, and what it does."""

    device: str
    process: BaseProcess
    pipe: Connection
    group: list[ModelSpec] = field(default_factory=list)
    at: str = ''
    rounds_done: int = 0

    def end(self) -> None:
        """End the process, whatever it does."""
        self.pipe.close()
        self.process.kill()
        self.process.join()


@dataclass
class FanOut:
    """Measures groups on several devices at once; a network that ends its process is a result, and the rest goes on.

    Attributes:
        settings: checked settings; their device is replaced.
        devices: a process each.
        baseline: of each network, in its group.
        meter: hears of the work of all processes.
        measure: what a process does with a group; it raises ``LostDeviceError`` where it can do nothing more.
    """

    settings: ThroughputSettings
    devices: Sequence[str]
    baseline: Baseline
    meter: Meter
    measure: Measure
    _waiting: collections.deque[list[ModelSpec]] = field(default_factory=collections.deque)
    _dead: set[str] = field(default_factory=set)
    _in_groups: collections.Counter[str] = field(default_factory=collections.Counter)
    _workers: dict[str, _Worker] = field(default_factory=dict)

    def run(self, groups: Sequence[list[ModelSpec]]) -> Iterator[list[ThroughputResult]]:
        """The results of each group, in the order in which they are there."""
        self._waiting.extend(groups)
        self._in_groups = collections.Counter(spec.title for group in groups for spec in group)
        try:
            while self._waiting or any(worker.at for worker in self._workers.values()):
                for device in self.devices:
                    if self._waiting and (device not in self._workers or not self._workers[device].at):
                        yield from self._give(device, self._waiting.popleft())
                busy = {worker.pipe: worker for worker in self._workers.values() if worker.at}
                for pipe in wait(list(busy), _ASK_EVERY_SECONDS):
                    yield from self._heard(busy[pipe])  # type: ignore[index]
                self.meter.advance('', 0)
        finally:
            for worker in self._workers.values():
                worker.end()

    def after_loss(
        self, group: list[ModelSpec], others: Sequence[list[ModelSpec]], lost: LostDeviceError
    ) -> Iterator[list[ThroughputResult]]:
        """As ``run``, after this process has lost its device to a network of ``group``."""
        rest = self._without(group, lost.title)
        self.meter.advance(f'{lost.title} failed', 0)
        yield [ThroughputResult(lost.title, self.settings, error=lost.reason)]
        yield from self.run([rest, *others] if rest else others)

    def _without(self, group: list[ModelSpec], title: str) -> list[ModelSpec]:
        """The networks of a group but the one that ended its process, which may be the baseline of other groups."""
        self._dead.add(title)
        return [spec for spec in group if spec.title != title]

    def _give(self, device: str, group: list[ModelSpec]) -> Iterator[list[ThroughputResult]]:
        """Have a group measured on a device."""
        group = [spec for spec in group if spec.title not in self._dead]
        if not group:
            return
        if device not in self._workers:
            here, there = get_context('spawn').Pipe()
            process = get_context('spawn').Process(target=_serve, args=(there, self.measure), daemon=False)
            process.start()
            there.close()
            self._workers[device] = _Worker(device, process, here)
        worker = self._workers[device]
        settings = dataclasses.replace(self.settings, device=device)
        worker.group, worker.at, worker.rounds_done = group, group[0].title, 0
        try:
            send(worker.pipe, (group, settings, self.baseline))
        except OSError:
            worker.process.join()
            yield from self._lost(worker, worker.at, f'its process ended: {_how(worker.process.exitcode)}')
        except Exception as error:  # whatever a user's module raises
            worker.at = ''
            yield self._failed(group, f'it cannot be sent to the process of {device}: {one_line(error)}')

    def _heard(self, worker: _Worker) -> Iterator[list[ThroughputResult]]:
        try:
            kind, *content = receive(worker.pipe)
        except (EOFError, OSError):
            # Who stops a run may end its processes too.
            self.meter.advance('', 0)
            worker.process.join()
            yield from self._lost(worker, worker.at, f'its process ended: {_how(worker.process.exitcode)}')
            return
        if kind == 'at':
            worker.at = content[0]
        elif kind == 'advance':
            worker.rounds_done += content[1]
            self.meter.advance(*content)
        elif kind == 'lost':
            yield from self._lost(worker, *content)
        else:
            results = content[0] if kind == 'results' else self._failed(worker.group, content[0])
            worker.at = ''
            yield results

    def _lost(self, worker: _Worker, title: str, reason: str) -> Iterator[list[ThroughputResult]]:
        """Report the network that ended a process, and have the others of its group measured in a new one."""
        del self._workers[worker.device]
        worker.end()
        rest = self._without(worker.group, title)
        if rest:
            self._waiting.appendleft(rest)
        done = self.settings.turns * (len(worker.group) - len(rest)) - worker.rounds_done
        self.meter.advance(f'{title} failed', done)
        yield [ThroughputResult(title, self.settings, error=reason)]

    def _failed(self, group: list[ModelSpec], reason: str) -> list[ThroughputResult]:
        # A baseline of other groups has a result there.
        alone = [spec for spec in group if self._in_groups[spec.title] == 1]
        return [ThroughputResult(spec.title, self.settings, error=reason) for spec in alone]


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f'exit code {code}'


class _PipeMeter:
    """Tells another process of the work."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def at(self, title: str) -> None:
        send(self._pipe, ('at', title))

    def advance(self, text: str, by: int = 1) -> None:
        send(self._pipe, ('advance', text, by))


def _serve(pipe: Connection, measure: Measure) -> None:
    """Measure groups until nobody is there to ask for more."""
    # They are for the run's own process, which ends this one.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        while True:
            group, settings, baseline = receive(pipe)
            answer: tuple[Any, ...]
            try:
                answer = 'results', measure(group, settings, baseline, _PipeMeter(pipe))
            except LostDeviceError as lost:
                answer = 'lost', lost.title, lost.reason
            except OSError:
                raise
            except Exception as error:
                answer = 'failed', one_line(error)
            send(pipe, answer)
