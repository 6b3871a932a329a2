"""Runs a command of eca-zoo and ends it at a chosen step of its work: ``end_at.py --step 7 -- leaderboard digits``.

A step is a moment just before or just after the disk holds something new: a file's bytes (``os.fsync``) or its name
(``os.replace``). Between two steps nothing changes that another process would find, so that a kill at another moment
leaves what a kill at a step leaves; or a line of a journal that is cut short, which ``test_journal.py`` cuts anywhere.
``--point`` adds steps around the calls of other functions, to end a run within them: ``torch.autograd:backward``.
"""

import argparse
import contextlib
import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class Steps:
    """Counts the steps of this process, and calls ``end`` at the chosen one.

    Attributes:
        names: what each step was around, so far.
    """

    def __init__(self, chosen: int, end: Callable[[str], None], points: Sequence[str] = ()) -> None:
        """Start counting.

        Args:
            chosen: number of the step, from 1; 0 for none.
            end: what ends the process; it is told what the step is around.
            points: further functions, ``MODULE:NAME`` or ``MODULE:CLASS.NAME``.
        """
        self.names: list[str] = []
        self._chosen, self._end, self._process = chosen, end, os.getpid()
        os.fsync = self._watched('fsync', os.fsync)
        os.replace = self._watched('rename', os.replace)
        for point in points:
            module, _, path = point.partition(':')
            *owners, name = path.split('.')
            owner = functools.reduce(getattr, owners, importlib.import_module(module))
            setattr(owner, name, self._watched(name, getattr(owner, name)))

    @property
    def count(self) -> int:
        """Number of steps so far."""
        return len(self.names)

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def watched(*arguments: Any, **options: Any) -> Any:
            self._step(name)
            result = call(*arguments, **options)
            self._step(name)
            return result

        return watched

    def _step(self, name: str) -> None:
        # Those of processes that this one forked are not counted.
        if os.getpid() == self._process:
            self.names.append(name)
            if self.count == self._chosen:
                self._end(name)


def end_at(step: int, number: int = signal.SIGKILL, points: Sequence[str] = ()) -> Steps:
    """Have this process send itself the signal ``number`` at its ``step``; 0 for never."""
    return Steps(step, lambda name: os.kill(os.getpid(), number), points)


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
        '--report', metavar='FILE', type=Path, required=True, help='takes the number of steps, or "ended" and where'
    )
    parser.add_argument('--point', metavar='MODULE:NAME', nargs='*', default=[], help='further functions with steps')
    parser.add_argument('--signal', metavar='NAME', default='SIGKILL', help='(default: SIGKILL)')
    parser.add_argument('command', nargs='+')
    args = parser.parse_args()

    def end(name: str) -> None:
        args.report.write_text(f'ended {name}')
        _kill_all() if args.all else os.kill(os.getpid(), getattr(signal, args.signal))

    counts = int(os.environ.get('RANK', 0)) == args.rank
    steps = Steps(args.step, end, args.point) if counts else None
    from eca_zoo.cli import run_process

    code = run_process(args.command)
    if steps is not None:
        args.report.write_text(str(steps.count))
    sys.exit(code)


if __name__ == '__main__':
    main()
