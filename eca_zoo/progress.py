"""How far long work is: a bar with rate and time left on a terminal, elsewhere a line a minute in the log."""

import logging
import sys
import time
from typing import Any

_TEXT = 40
_SECONDS = 60.0
_logger = logging.getLogger(__name__)


class ProgressBars:
    """One bar after the other, for the parts of a run; where stderr is no terminal, lines of the level INFO."""

    def __init__(self, enabled: bool = True, seconds: float = _SECONDS) -> None:
        """No bar yet.

        Args:
            enabled: show any; False for processes beside the main one.
            seconds: between two lines.
        """
        self._enabled = enabled
        self._seconds = seconds
        self._part = ''
        self._bar: Any = None

    def __enter__(self) -> 'ProgressBars':
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar away; the next thing that is shown gets a new one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def show(self, part: str, done: int, total: int, text: str = '', unit: str = 'it') -> None:
        """Show how much of a part is done.

        Args:
            part: what is done; a new one gets a bar of its own.
            done: units that are done.
            total: all of them; 0 where nobody knows.
            text: what is done now.
            unit: of the two numbers.
        """
        if not self._enabled:
            return
        if self._bar is None or part != self._part:
            self.close()
            self._bar = self._made(part, done, total, unit)
            self._part = part
        self._bar.total = total or None
        if text:
            self._bar.set_postfix_str(text if len(text) <= _TEXT else f'{text[: _TEXT - 3]}...', refresh=False)
        self._bar.update(done - self._bar.n)

    def _made(self, part: str, done: int, total: int, unit: str) -> Any:
        if sys.stderr is None or not sys.stderr.isatty():
            return _Lines(part, done, total, unit, self._seconds)
        from tqdm import tqdm

        return tqdm(desc=part, total=total or None, initial=done, unit=unit, leave=False)


class _Lines:
    """Lines in the log, with the part of tqdm's interface that is used above."""

    def __init__(self, part: str, done: int, total: int, unit: str, seconds: float) -> None:
        self.n = self._first = done
        self.total: int | None = total
        self._part, self._unit, self._seconds = part, unit, seconds
        self._text = ''
        self._began = self._said = time.monotonic()

    def set_postfix_str(self, text: str, refresh: bool) -> None:
        self._text = text

    def update(self, count: int) -> None:
        self.n += count
        now = time.monotonic()
        if now - self._said >= self._seconds:
            self._said = now
            _logger.info('%s', self._line(now - self._began))

    def close(self) -> None:
        pass

    def _line(self, seconds: float) -> str:
        from tqdm import tqdm

        line = f'{self._part}: {self.n:,}'
        if self.total:
            line += f' of {self.total:,} {self._unit} ({100 * self.n // self.total} %)'
        else:
            line += f' {self._unit}'
        if self.n > self._first and seconds > 0:
            rate = (self.n - self._first) / seconds
            line += f', {rate:,.{1 if rate >= 1 else 3}f} {self._unit}/s'
            if self.total:
                line += f', {tqdm.format_interval((self.total - self.n) / rate)} left'
        return f'{line} ({self._text})' if self._text else line
