"""SIGINT and SIGTERM as a wish to stop at the next good moment, so that finished work is saved first.

Schedulers, ``timeout`` and terminals send them to all processes of a run, and often twice: to the process and to its
group. What works for a run leaves them to it (``leave_signals_to_parent``), and a run takes what follows at once for
the same wish.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from eca_zoo.errors import EcaZooError, InputError, Terminated, one_line

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A second Ctrl-C within these seconds is no impatience: a terminal sends it to the group, and torchrun passes it on.
_ONE_WISH = 1.0


class InterruptedRunError(EcaZooError):
    """A run that a signal ended; the text says what was saved and how to go on.

    Its exit code is the shell's for that signal: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, text: str, is_said_elsewhere: bool = False, signal_name: str = 'SIGINT') -> None:
        super().__init__(text)
        self.is_said_elsewhere = is_said_elsewhere
        self.exit_code = 128 + signal.Signals[signal_name]


class StopRequest:
    """Whether a signal asked the process to stop, and which one."""

    signal_name: str | None = None

    @contextlib.contextmanager
    def ends_waiting(self) -> Iterator[None]:
        """While the body waits for other processes, in a call that no handler interrupts, a signal ends this one.

        What was counted has been recorded before.

        Raises:
            InterruptedRunError: a signal has come already.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, signal.SIG_DFL) for number in _SIGNALS}
        try:
            if self.signal_name is not None:
                raise InterruptedRunError(
                    f'stopped by {self.signal_name}, before the other processes were done; with a run directory the '
                    'same command continues',
                    signal_name=self.signal_name,
                )
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def stop_on_signals(one_wish: float = _ONE_WISH) -> Iterator[StopRequest]:
    """While the body runs, the first SIGINT or SIGTERM is noted; another SIGINT, later, ends it at once.

    What goes wrong after a signal has come is taken for its consequence: other processes of the run got it too. Outside
    the main thread, where signals cannot be handled, nothing is noted.

    Args:
        one_wish: seconds in which another SIGINT is part of the first wish.

    Raises:
        InterruptedRunError: the body failed after a signal had come.
        KeyboardInterrupt: Ctrl-C was pressed again.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    came = 0.0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if request.signal_name is None:
            request.signal_name, came = signal.Signals(number).name, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - came >= one_wish:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield request
    except Exception as error:
        if request.signal_name is None or isinstance(error, InputError | InterruptedRunError):
            raise
        text = f'stopped by {request.signal_name} ({one_line(error)}); with a run directory the same command continues'
        said = isinstance(error, EcaZooError) and error.is_said_elsewhere
        raise InterruptedRunError(text, said, request.signal_name) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """While the body runs, SIGTERM raises ``Terminated`` where SIGINT raises ``KeyboardInterrupt``.

    Raises:
        Terminated: SIGTERM came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def leave_signals_to_parent() -> None:
    """Let this process, which works for its parent, be ended by it alone, and not by what its group is sent.

    A process of ``multiprocessing`` calls it first of all. Where a signal does not say who sent it (macOS, Windows),
    any SIGTERM ends the process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, 'sigwaitinfo'):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Threads that begin later, such as those of queues, block it too.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_by_parent, name='SIGTERM', daemon=True).start()


def _end_by_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
