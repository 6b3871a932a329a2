"""A network that is timed on the CPU in a process of its own, so that no figure depends on what ran before.

What tensors cost on the CPU depends on the heap that earlier work of the process has left behind. The process has
imported what it needs and nothing more, see ``launcher``.
"""

import contextlib
import dataclasses
import os
import pickle
import signal
import sys
from typing import Any, BinaryIO

import timm
import torch

from eca_zoo.errors import RunError, one_line
from eca_zoo.harness.machine.flags import compiled_alone, numeric_flags
from eca_zoo.harness.machine.memory import KEEPING_VARIABLES
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.speed.failures import reason
from eca_zoo.harness.speed.launcher import Child, Launcher
from eca_zoo.harness.speed.settings import ThroughputSettings
from eca_zoo.harness.speed.timer import Timer

#: What to do where a network cannot be had in a process that keeps freed memory.
OTHER_WAY = 'leave out keep_freed_memory, or start your own process with ' + ' '.join(
    f'{name}={value}' for name, value in KEEPING_VARIABLES.items()
)


class UnknownThereError(Exception):
    """The process does not know a network that this one has registered."""


def runs_apart(spec: ModelSpec, settings: ThroughputSettings) -> bool:
    """Whether a network is timed in a process of its own: on the CPU, if that process can build it.

    A module, and a network that the user's own code registers, are timed where they are.
    """
    if torch.device(settings.device).type != 'cpu':
        return False
    if settings.keep_freed_memory:
        return True
    if spec.module is not None:
        return False
    architecture = spec.name.partition('.')[0]
    if not timm.is_model(architecture):
        return True
    return timm.model_entrypoint(architecture).__module__.partition('.')[0] in ('timm', 'eca_zoo')


class OwnProcess:
    """A ``Timer`` in a process of its own, with its attributes and methods."""

    def __init__(self, spec: ModelSpec, settings: ThroughputSettings, launcher: Launcher) -> None:
        """Start nothing yet.

        Args:
            spec: what to time.
            settings: checked settings, for the CPU.
            launcher: of ``launcher_of`` the settings.
        """
        settings = dataclasses.replace(settings, threads=settings.threads or torch.get_num_threads())
        self.batch_size = 0
        self.input_size = (0, 0, 0)
        self.peak_memory_mb: float | None = None
        self.peak_reserved_mb: float | None = None
        self._request: Any = spec, settings
        self._is_idle = False
        self._launcher = launcher
        self._process: Child | None = None

    def start(self) -> None:
        """Wait until the process has imported what it needs, so that no network is timed meanwhile.

        Raises:
            RunError: it ended.
        """
        self._process = self._launcher.start()
        self._receive()

    @property
    def pid(self) -> int:
        """Of the process, which has started."""
        assert self._process is not None
        return self._process.pid

    def warm_up(self) -> None:
        """As of ``Timer``.

        Raises:
            UnknownThereError: the network is not known there.
            RunError: it cannot be built or run, or the process ended.
        """
        self._send(self._request)
        self.batch_size, self.input_size = self._receive()

    def time_round(self) -> list[float]:
        """As of ``Timer``.

        Raises:
            RunError: the network cannot be run, or the process ended.
        """
        self._send(None)
        return self._receive()

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        for pipe in (self._process.requests, self._process.answers):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        # One that waits for a request ends by itself; another would first finish what nobody asks for any more.
        if not self._is_idle and self._process.wait(0) is None:
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _send(self, message: Any) -> None:
        assert self._process is not None
        try:
            content = pickle.dumps(message)
        except Exception as error:  # whatever a user's module raises
            raise RunError(f'it cannot be sent to a process of its own ({one_line(error)}); {OTHER_WAY}') from error
        try:
            self._process.requests.write(content)
            self._process.requests.flush()
            self._is_idle = False
        except OSError:
            raise self._ended() from None

    def _receive(self) -> Any:
        assert self._process is not None
        try:
            kind, content = pickle.load(self._process.answers)
        except (EOFError, pickle.UnpicklingError, OSError):
            raise self._ended() from None
        self._is_idle = True
        if kind == 'unknown':
            raise UnknownThereError(content)
        if kind == 'failed':
            raise RunError(content)
        return content

    def _ended(self) -> RunError:
        assert self._process is not None
        code = self._process.wait()
        assert code is not None
        how = f'was killed by {signal.Signals(-code).name}' if code < 0 else f'ended with code {code}'
        return RunError(f'the process that timed it {how}; memory may be short: try a smaller batch size')


def launcher_of(settings: ThroughputSettings) -> Launcher:
    """For the processes of networks that are timed with ``settings``."""
    return Launcher(__name__, serve.__name__, KEEPING_VARIABLES if settings.keep_freed_memory else {})


def serve() -> None:
    """The work of the process: one network, whose rounds are asked for on the standard input."""
    # The run's own process is told to stop, and ends this one; it has a session of its own for the same reason.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), 'wb')
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        _serve(answers)
    except BrokenPipeError:
        os._exit(0)  # nobody listens any more; what is left in the buffer would fail again


def _serve(answers: BinaryIO) -> None:
    _tell(answers, 'started', None)
    try:
        spec, settings = pickle.load(sys.stdin.buffer)
    except Exception as error:
        _tell(answers, 'failed', f'it cannot be sent to a process of its own ({one_line(error)}); {OTHER_WAY}')
        return
    architecture = spec.name.partition('.')[0]
    if spec.module is None and ':' not in architecture and not timm.is_model(architecture):
        _tell(answers, 'unknown', architecture)
        return
    timer = Timer(spec, settings)
    with numeric_flags(settings.precision, settings.threads), compiled_alone(bool(settings.compile)):
        try:
            timer.warm_up()
            _tell(answers, 'ready', (timer.batch_size, timer.input_size))
            while True:
                pickle.load(sys.stdin.buffer)
                _tell(answers, 'seconds', timer.time_round())
        except EOFError:
            pass
        except BrokenPipeError:
            raise
        except Exception as error:
            _tell(answers, 'failed', reason(error, settings, timer.batch_size))


def _tell(answers: BinaryIO, kind: str, content: Any) -> None:
    pickle.dump((kind, content), answers)
    answers.flush()
