"""Work in a process of its own, for what this one cannot do any more."""

import pickle
import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from eca_zoo.errors import RunError, one_line

_T = TypeVar('_T')
_ASK_EVERY_SECONDS = 0.2


def in_fresh_process(work: Callable[..., _T], *arguments: Any, ask: Callable[[], None] = lambda: None) -> _T:
    """What ``work`` returns in a new process.

    Args:
        work: a function of a module.
        *arguments: of it, which can be pickled.
        ask: called again and again meanwhile; what it raises ends the process.

    Raises:
        RunError: the work failed, or its process ended.
    """
    here, there = get_context('spawn').Pipe()
    process = get_context('spawn').Process(target=_answer, args=(there,))
    try:
        process.start()
        there.close()
        try:
            send(here, (work, arguments))
            while not here.poll(_ASK_EVERY_SECONDS):
                ask()
            is_done, content = receive(here)
        except (EOFError, OSError):
            ask()
            process.join()
            raise RunError(f'its process ended with exit code {process.exitcode}') from None
    finally:
        here.close()
        if process.pid is not None:
            process.kill()
            process.join()
    if not is_done:
        raise RunError(content)
    return content


def send(pipe: Connection, message: Any) -> None:
    """Send a message as plain bytes: torch's own way moves tensors of the sender into shared memory."""
    pipe.send_bytes(pickle.dumps(message))


def receive(pipe: Connection) -> Any:
    """The next message of ``send``."""
    return pickle.loads(pipe.recv_bytes())


def _answer(pipe: Connection) -> None:
    # They are for the run's own process, which ends this one.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        work, arguments = receive(pipe)
        answer = True, work(*arguments)
    except Exception as error:
        answer = False, one_line(error)
    send(pipe, answer)
