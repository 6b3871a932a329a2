"""Processes for networks that are timed on the CPU: each begins as the last one did, and none waits for an import.

An import of torch and timm takes seconds, for a quick network longer than its measurement. Where processes can be
forked safely, one interpreter imports and forks a child for each network; elsewhere each network has an interpreter.
Neither is a process of ``multiprocessing``, which would run the user's script again.
"""

import contextlib
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import BinaryIO, Protocol

from eca_zoo.errors import RunError

_START = 'import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); import {module}; {call}'
_RUNNING = 1 << 30
_WORD = struct.Struct('i')
_SECONDS_BETWEEN_LOOKS = 0.01


class Child(Protocol):
    """A process that reads requests and writes answers."""

    pid: int
    requests: BinaryIO
    answers: BinaryIO

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit code as of ``subprocess``; None if it has not ended after ``seconds``."""


class Launcher:
    """Starts processes that call a function of a module without arguments; a context, at whose end nothing stays."""

    def __init__(self, module: str, function: str, variables: Mapping[str, str]) -> None:
        """Start nothing yet.

        Args:
            module: what they import.
            function: of the module; it reads standard input and writes standard output.
            variables: of the environment, beside those of this process.
        """
        self._module, self._function, self._variables = module, function, variables
        self._template: _Template | None = None

    def start(self) -> Child:
        """A new process; it has imported the module if this system forks.

        Raises:
            RunError: it cannot be started.
        """
        if sys.platform != 'linux':
            call = f'{self._module}.{self._function}()'
            return _Interpreter(_START.format(module=self._module, call=call), self._variables)
        if self._template is None:
            self._template = _Template(self._module, self._function, self._variables)
        return self._template.fork()

    def __enter__(self) -> 'Launcher':
        return self

    def __exit__(self, *_: object) -> None:
        if self._template is not None:
            self._template.close()
            self._template = None


class _Interpreter:
    """An interpreter of its own."""

    def __init__(self, program: str, variables: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, '-c', program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=os.environ | variables, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self.requests, self.answers = self._process.stdin, self._process.stdout
        # One that has ended by now is noticed by whoever reads an answer.
        with contextlib.suppress(OSError):
            self.requests.write(pickle.dumps(sys.path))
            self.requests.flush()

    def wait(self, seconds: float | None = None) -> int | None:
        """As of ``Child``."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


class _Template:
    """An interpreter that has imported a module and forks."""

    def __init__(self, module: str, function: str, variables: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair()
        call = f'from {__name__} import serve_forks; serve_forks({theirs.fileno()}, {module}.{function})'
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, '-c', _START.format(module=module, call=call)], stdin=subprocess.PIPE,
                env=os.environ | variables, start_new_session=True, pass_fds=[theirs.fileno()],
            )  # fmt: skip
        assert self._process.stdin is not None
        with contextlib.suppress(OSError), self._process.stdin as stdin:
            stdin.write(pickle.dumps(sys.path))

    def fork(self) -> 'Child':
        """A child, once the module is imported."""
        requests_end, requests = os.pipe()
        answers, answers_end = os.pipe()
        try:
            pid = self._ask(0, requests_end, answers_end)
        except RunError:
            for end in (requests, answers):
                os.close(end)
            raise
        finally:
            for end in (requests_end, answers_end):
                os.close(end)
        return _Forked(pid, os.fdopen(requests, 'wb'), os.fdopen(answers, 'rb'), self._ask)

    def _ask(self, pid: int, *descriptors: int) -> int:
        """The process id of a new child, or how the child ``pid`` has ended."""
        try:
            socket.send_fds(self._socket, [_WORD.pack(pid)], list(descriptors))
            answer = self._socket.recv(_WORD.size)
        except OSError:
            answer = b''
        if not answer:
            raise RunError(f'the process that networks are forked from ended with code {self._process.wait()}')
        return _WORD.unpack(answer)[0]

    def close(self) -> None:
        """End it; its children have ended."""
        self._socket.close()
        self._process.wait()


class _Forked:
    """A child of the template."""

    def __init__(self, pid: int, requests: BinaryIO, answers: BinaryIO, ask: Callable[[int], int]) -> None:
        self.pid, self.requests, self.answers, self._ask = pid, requests, answers, ask
        self._code: int | None = None

    def wait(self, seconds: float | None = None) -> int | None:
        """As of ``Child``."""
        end = None if seconds is None else time.monotonic() + seconds
        while self._code is None:
            code = self._ask(self.pid)
            if code != _RUNNING:
                self._code = code
            elif end is not None and time.monotonic() > end:
                return None
            else:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        return self._code


def serve_forks(descriptor: int, function: Callable[[], None]) -> None:
    """The work of the template: fork when it is asked to, and tell how children have ended."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    assert threading.active_count() == 1
    with socket.socket(fileno=descriptor) as asked:
        while True:
            message, descriptors, _, _ = socket.recv_fds(asked, _WORD.size, 2)
            if not message:
                return
            (pid,) = _WORD.unpack(message)
            if pid:
                ended, status = os.waitpid(pid, os.WNOHANG)
                asked.sendall(_WORD.pack(os.waitstatus_to_exitcode(status) if ended else _RUNNING))
                continue
            pid = os.fork()
            if not pid:
                break
            for opened in descriptors:
                os.close(opened)
            asked.sendall(_WORD.pack(pid))
    for number, opened in enumerate(descriptors):
        os.dup2(opened, number)
        os.close(opened)
    function()
    # What the template has imported is not taken down again, which would take longer than many measurements.
    sys.stdout.flush()
    os._exit(0)
