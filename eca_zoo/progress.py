"""A progress bar with rate and time left, on a terminal alone."""

from typing import Any

_TEXT = 40


class ProgressBars:
    """One bar after the other, for the parts of a run; nothing is shown where stderr is no terminal."""

    def __init__(self, enabled: bool = True) -> None:
        """No bar yet.

        Args:
            enabled: show any; False for processes beside the main one.
        """
        self._enabled = enabled
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
        from tqdm import tqdm

        if self._bar is None or part != self._part:
            self.close()
            # disable=None: no bar where stderr is no terminal.
            self._bar = tqdm(desc=part, total=total or None, initial=done, unit=unit, disable=None, leave=False)
            self._part = part
        self._bar.total = total or None
        if text:
            self._bar.set_postfix_str(text if len(text) <= _TEXT else f'{text[: _TEXT - 3]}...', refresh=False)
        self._bar.update(done - self._bar.n)
