"""The subcommands of ``eca-zoo`` for leaderboard."""

import argparse
from typing import Any


def add_commands(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add this module's subcommands."""
