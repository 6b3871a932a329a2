"""What the parts of the first hour share: their folder, data, and commands; and why one was not run."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from digits import write_digits
from photographs import MODEL, write_classifier, write_photographs

ROOT = Path(__file__).resolve().parents[2]
DIGITS = 'test_eca_resnet.digits'


class Skipped(Exception):  # noqa: N818
    """Why a part was not run."""


@dataclass
class Hour:
    """What the parts share.

    Attributes:
        folder: for what they write.
        timm: checkout of timm, if there is one.
        gpus: their number.
    """

    folder: Path
    timm: Path | None
    gpus: int = field(default_factory=torch.cuda.device_count)

    def command(self, *arguments: str, processes: int = 0, **variables: str) -> str:
        """What a command of Python prints.

        Args:
            *arguments: of the interpreter.
            processes: under ``torchrun``; 0 without it.
            **variables: of the environment.

        Raises:
            RuntimeError: it failed.
        """
        launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes)]
        command = [sys.executable, *(launcher if processes else []), *arguments]
        environment = os.environ | {'PYTHONPATH': os.pathsep.join(map(str, (ROOT, ROOT / 'scripts')))} | variables
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
        if done.returncode:
            raise RuntimeError(f'{" ".join(arguments)}: exit code {done.returncode}\n{done.stderr[-2000:]}')
        return done.stdout

    def need_gpus(self, count: int) -> None:
        """Skip a part for which there are too few."""
        if self.gpus < count:
            raise Skipped(f'needs {count} GPU{"s" if count > 1 else ""}, and there are {self.gpus}')

    def need_timm(self) -> Path:
        """timm's checkout; skips a part without one."""
        if self.timm is None:
            raise Skipped("needs timm's scripts: --timm CHECKOUT_OF_TIMM")
        return self.timm

    def data(self) -> dict[str, tuple[Path, dict]]:
        """The digits and 240 photographs, each with the arguments that name its model."""
        digits, photographs = self.folder / 'digits', self.folder / 'photographs'
        checkpoint = self.folder / f'{MODEL}.safetensors'
        if not checkpoint.exists():
            write_digits(digits)
            write_photographs(photographs / 'validation', 240)
            write_classifier(checkpoint)
        return {
            'digits': (digits, {'models': DIGITS}),
            'photographs': (photographs, {'models': MODEL, 'checkpoint': checkpoint}),
        }


def fenced(text: str) -> str:
    """Text of a command, for Markdown."""
    return f'```\n{text.rstrip()}\n```'
