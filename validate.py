"""Thin launcher of ``eca-zoo validate`` for people who are used to timm's script of this name."""

import sys

from eca_zoo.cli import run_process

if __name__ == '__main__':
    sys.exit(run_process(['validate', *sys.argv[1:]]))
