"""Thin launcher of ``eca-zoo validate`` for people who are used to timm's script of this name."""

import sys

from eca_zoo.cli import main

if __name__ == '__main__':
    sys.exit(main(['validate', *sys.argv[1:]]))
