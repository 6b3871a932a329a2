"""How a throughput is measured."""

import dataclasses
import math
from dataclasses import dataclass

import torch

from eca_zoo.errors import InputError
from eca_zoo.harness.machine.devices import check_precision, parse_precision, resolve_device
from eca_zoo.harness.machine.memory import allocator_variables, can_keep_freed_memory
from eca_zoo.harness.networks.export import check_installed

BACKENDS = ('torch', 'onnxruntime', 'openvino')


@dataclass(frozen=True)
class ThroughputSettings:
    """How a throughput is measured.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``xpu``.
        precision: ``fp32``, ``tf32``, ``fp16``, ``bf16``, ``amp`` or ``amp_bf16``.
        channels_last: memory format of parameters and input; by default contiguous, as a network is built.
        compile: backend of ``torch.compile``; empty for eager.
        compile_mode: mode of ``torch.compile``; empty for its default.
        backend: ``torch``, ``onnxruntime`` or ``openvino`` (both on the CPU).
        reparameterize: fold the branches of models that are made to be folded, with timm.
        fuse: time the form for inference that ``eca_zoo.optimize_for_inference`` makes: batch norms folded.
        batch_size: images a step, halved as long as they do not fit; 256 on a GPU and 16 on the CPU by default.
        img_size: height and width in pixels; the network's own by default.
        train: time training steps (forward, backward, SGD) in place of inference.
        rounds: how often each network is timed, in turn with the others.
        rounds_per_process: on the CPU a network goes on in a new process after so many rounds, since where its tensors
            fall into the memory of a process changes its speed; 0 for one process. It has one anyway where freed memory
            is kept, with other backends, and where it is compiled, which takes minutes.
        round_seconds: a round has as many steps as fit into this time, one at least, after one that is not timed.
        warmup_steps: untimed steps before the first round; fewer of a network whose steps take longer than rounds.
        threads: of the CPU; torch's choice by default.
        keep_freed_memory: on the CPU, measure in processes whose C library (glibc) keeps the memory of freed tensors
            for the next ones, see ``harness.machine.memory.KEEPING_VARIABLES``; by default the allocator is left alone.
    """

    device: str = 'auto'
    precision: str = 'fp32'
    channels_last: bool | None = None
    compile: str = ''
    compile_mode: str = ''
    backend: str = 'torch'
    reparameterize: bool = False
    fuse: bool = False
    batch_size: int | None = None
    img_size: int | None = None
    train: bool = False
    rounds: int = 10
    rounds_per_process: int = 2
    round_seconds: float = 0.5
    warmup_steps: int = 5
    threads: int | None = None
    keep_freed_memory: bool = False

    @property
    def allocator(self) -> str | None:
        """How memory of the CPU is given out: ``default``, ``kept``, or ``environment``; None for other devices."""
        if torch.device(self.device).type != 'cpu':
            return None
        return 'kept' if self.keep_freed_memory else 'environment' if allocator_variables() else 'default'

    @property
    def spans(self) -> list[range]:
        """The rounds of a network in one process each."""
        in_one = self.keep_freed_memory or self.compile or self.backend != 'torch'
        if in_one or torch.device(self.device).type != 'cpu' or not self.rounds_per_process:
            return [range(self.rounds)]
        starts = range(0, self.rounds, self.rounds_per_process)
        return [range(start, min(start + self.rounds_per_process, self.rounds)) for start in starts]

    @property
    def turns(self) -> int:
        """How often it is a network's turn: its rounds, and its warm-up in each process."""
        return self.rounds + len(self.spans)

    def checked(self) -> 'ThroughputSettings':
        """The settings with the device and the precision under their full names.

        Raises:
            InputError: a value is out of range, does not exist here, or contradicts another.
        """
        device = resolve_device(self.device)
        precision = parse_precision(self.precision)
        check_precision(precision, device)
        for name in ('batch_size', 'rounds', 'img_size', 'threads'):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f'{name} must be at least 1, not {value}')
        if self.rounds_per_process < 0:
            raise InputError(f'rounds_per_process must be at least 1 (0: one process), not {self.rounds_per_process}')
        if self.warmup_steps < 0 or not 0 <= self.round_seconds < math.inf:
            raise InputError('warmup_steps and round_seconds must not be negative')
        if self.backend not in BACKENDS:
            raise InputError(f'backend {self.backend!r} is unknown; use one of {", ".join(BACKENDS)}')
        if self.train and (self.fuse or self.reparameterize or self.backend != 'torch'):
            raise InputError(
                'training steps run in torch and with their batch norms and branches; leave out fuse, reparameterize '
                'and backend'
            )
        if self.backend != 'torch':
            self._check_foreign_backend(device, precision)
        if self.keep_freed_memory:
            self._check_allocator(device)
        if self.compile and self.compile not in torch.compiler.list_backends(exclude_tags=()):
            known = ', '.join(torch.compiler.list_backends())
            raise InputError(f'compile backend {self.compile!r} is unknown; use one of {known}')
        batch_size = self.batch_size or (16 if device.type == 'cpu' else 256)
        return dataclasses.replace(
            self, device=str(device), precision=precision, batch_size=batch_size, channels_last=bool(self.channels_last)
        )

    def _check_allocator(self, device: torch.device) -> None:
        if device.type != 'cpu' or not can_keep_freed_memory():
            raise InputError("keep_freed_memory is about glibc's allocator on the CPU; leave it out here")
        if variables := allocator_variables():
            raise InputError(
                f'keep_freed_memory: {next(iter(variables))} in the environment tunes the allocator already; leave one '
                'of them out'
            )

    def _check_foreign_backend(self, device: torch.device, precision: str) -> None:
        check_installed((self.backend, 'onnx', 'onnxscript', 'onnxruntime'))
        if device.type != 'cpu' or precision != 'fp32' or self.compile or self.channels_last:
            raise InputError(
                f'backend {self.backend} is measured on the CPU in fp32, with its own compiler and memory format: '
                'use --device cpu and leave out --precision, --compile and --channels-last'
            )
