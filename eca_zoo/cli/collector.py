"""The garbage collector of a process that is a command."""

import gc

_USUAL = gc.get_threshold()


def collect_seldom() -> None:
    """Let the collector look seldom: importing torch and timm makes some hundred thousand objects that all stay."""
    gc.set_threshold(10_000)


def collect_as_usual() -> None:
    """Give the collector the interpreter's own threshold, which a throughput is measured with."""
    gc.set_threshold(*_USUAL)
