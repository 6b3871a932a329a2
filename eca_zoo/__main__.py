"""``python -m eca_zoo`` is the command ``eca-zoo``; ``torchrun -m eca_zoo ...`` starts it on many processes."""

import sys

from eca_zoo.cli import run_process

if __name__ == '__main__':
    sys.exit(run_process())
