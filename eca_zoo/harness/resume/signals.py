"""SIGINT and SIGTERM as a wish to stop at the next good moment, so that finished work is saved first."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from eca_zoo.errors import EcaZooError

_SIGNALS = ('SIGINT', 'SIGTERM')


class InterruptedRunError(EcaZooError):
    """A run that a signal ended; the text says what was saved and how to go on."""

    exit_code = 130

    def __init__(self, text: str, is_said_elsewhere: bool = False) -> None:
        super().__init__(text)
        self.is_said_elsewhere = is_said_elsewhere


class StopRequest:
    """Whether a signal asked the process to stop, and which one."""

    signal_name: str | None = None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """While the body runs, the first SIGINT or SIGTERM is noted; a second one ends the process at once.

    Outside the main thread, where signals cannot be handled, nothing is done.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        request.signal_name = signal.Signals(number).name
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    before = {name: signal.signal(getattr(signal, name), note) for name in _SIGNALS}
    try:
        yield request
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
