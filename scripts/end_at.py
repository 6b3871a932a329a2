"""Runs a command of eca-zoo and ends it at a chosen step of its work: ``end_at.py --step 7 -- leaderboard digits``.

A step is a moment just before or just after the disk holds something new: a file's bytes (``os.fsync``) or its name
(``os.replace``). Between two steps nothing changes that another process would find, so that a kill at another moment
leaves what a kill at a step leaves; or a line of a journal that is cut short, which ``test_journal.py`` cuts anywhere.
"""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Steps:
    """Counts the steps of this process, and calls ``end`` at the chosen one."""

    def __init__(self, chosen: int, end: Callable[[], None]) -> None:
        """Start counting.

        Args:
            chosen: number of the step, from 1; 0 for none.
            end: what ends the process.
        """
        self.count = 0
        self._chosen, self._end = chosen, end
        os.fsync = self._watched(os.fsync)
        os.replace = self._watched(os.replace)

    def _watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            self._step()
            result = call(*arguments, **options)
            self._step()
            return result

        return watched

    def _step(self) -> None:
        self.count += 1
        if self.count == self._chosen:
            self._end()


def end_at(step: int, number: int = signal.SIGKILL) -> None:
    """Have this process send itself the signal ``number`` at its ``step``; 0 for never."""
    Steps(step, lambda: os.kill(os.getpid(), number))


def _kill_all() -> None:
    """SIGKILL for ``torchrun`` and all that it started, this process last."""
    parent = os.getppid()
    others = Path(f'/proc/{parent}/task/{parent}/children').read_text(encoding='ascii').split()
    for victim in [parent, *(int(other) for other in others if int(other) != os.getpid()), os.getpid()]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--step', type=int, default=0, help='number of the step, from 1 (default: run to the end)')
    parser.add_argument('--rank', type=int, default=0, help='the process that counts, of several (default: 0)')
    parser.add_argument('--all', action='store_true', help='end torchrun and all of its processes at once (Linux)')
    parser.add_argument(
        '--report', metavar='FILE', type=Path, required=True, help='takes the number of steps, or "ended"'
    )
    parser.add_argument('command', nargs='+')
    args = parser.parse_args()

    def end() -> None:
        args.report.write_text('ended')
        _kill_all() if args.all else os.kill(os.getpid(), signal.SIGKILL)

    counts = int(os.environ.get('RANK', 0)) == args.rank
    steps = Steps(args.step, end) if counts else None
    from eca_zoo.cli import run_process

    code = run_process(args.command)
    if steps is not None:
        args.report.write_text(str(steps.count))
    sys.exit(code)


if __name__ == '__main__':
    main()
