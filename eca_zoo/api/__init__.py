"""What people call from Python: paths, strings, numbers and networks in, pandas frames out.

The command line calls the same functions. Every wrong argument is an ``eca_zoo.errors.InputError``, one line with the
remedy; what fails on the way is an ``eca_zoo.errors.RunError``. Nothing is printed; ``progress=True`` shows a bar on
stderr where that is a terminal, and elsewhere lines of the level INFO of the logger ``eca_zoo``.
"""

from eca_zoo.api.accuracy import evaluate
from eca_zoo.api.reports import compare, report
from eca_zoo.api.speed import benchmark, complexity
from eca_zoo.api.tables import leaderboard
from eca_zoo.api.training import train
from eca_zoo.harness.table.frames import read_table
from eca_zoo.harness.table.timm_files import write_timm_files

__all__ = [
    'benchmark', 'compare', 'complexity', 'evaluate', 'leaderboard', 'read_table', 'report', 'train',
    'write_timm_files',
]  # fmt: skip
