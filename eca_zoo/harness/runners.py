"""What is timed: one step of a network in PyTorch, ONNX Runtime or OpenVINO, with given settings."""

import contextlib
import dataclasses
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eca_zoo.errors import InputError
from eca_zoo.harness.complexity import create_network, default_input_size
from eca_zoo.harness.devices import autocast, check_precision, parameter_dtype, parse_precision, resolve_device
from eca_zoo.harness.evaluation import ModelSpec
from eca_zoo.harness.export import check_installed, onnx_session, write_onnx
from eca_zoo.harness.fuse import fuse_batch_norms

BACKENDS = ('torch', 'onnxruntime', 'openvino')
Step = Callable[[], Any]


@dataclass(frozen=True)
class ThroughputSettings:
    """How a throughput is measured.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``xpu``.
        precision: one of ``eca_zoo.harness.devices.PRECISIONS``.
        channels_last: memory format of parameters and input.
        compile: backend of ``torch.compile``; empty for eager.
        compile_mode: mode of ``torch.compile``; empty for its default.
        backend: ``torch``, ``onnxruntime`` or ``openvino`` (both on the CPU).
        fuse: fold batch norms into convolutions, in a copy.
        batch_size: images a step, halved as long as they do not fit; 256 on a GPU and 16 on the CPU by default.
        img_size: height and width in pixels; the network's own by default.
        train: time training steps (forward, backward, SGD) in place of inference.
        rounds: how often each network is timed, in turn with the others.
        round_seconds: a round has as many steps as fit into this time, one at least.
        warmup_steps: untimed steps before the first round; fewer of a network whose steps take longer than rounds.
        threads: of the CPU; torch's choice by default.
    """

    device: str = 'auto'
    precision: str = 'fp32'
    channels_last: bool = False
    compile: str = ''
    compile_mode: str = ''
    backend: str = 'torch'
    fuse: bool = False
    batch_size: int | None = None
    img_size: int | None = None
    train: bool = False
    rounds: int = 10
    round_seconds: float = 0.5
    warmup_steps: int = 5
    threads: int | None = None

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
        if self.warmup_steps < 0 or self.round_seconds < 0:
            raise InputError('warmup_steps and round_seconds must not be negative')
        if self.backend not in BACKENDS:
            raise InputError(f'backend {self.backend!r} is unknown; use one of {", ".join(BACKENDS)}')
        if self.train and (self.fuse or self.backend != 'torch'):
            raise InputError('training steps run in torch and with their batch norms; leave out fuse and backend')
        if self.backend != 'torch':
            self._check_foreign_backend(device, precision)
        if self.compile and self.compile not in torch.compiler.list_backends(exclude_tags=()):
            known = ', '.join(torch.compiler.list_backends())
            raise InputError(f'compile backend {self.compile!r} is unknown; use one of {known}')
        batch_size = self.batch_size or (16 if device.type == 'cpu' else 256)
        return dataclasses.replace(self, device=str(device), precision=precision, batch_size=batch_size)

    def _check_foreign_backend(self, device: torch.device, precision: str) -> None:
        check_installed((self.backend, 'onnx', 'onnxscript', 'onnxruntime'))
        if device.type != 'cpu' or precision != 'fp32' or self.compile or self.channels_last:
            raise InputError(
                f'backend {self.backend} is measured on the CPU in fp32, with its own compiler and memory format: '
                'use --device cpu and leave out --precision, --torchcompile and --channels-last'
            )


def network_arguments(spec: ModelSpec) -> dict[str, Any]:
    """Arguments of the entry point of a network; which weights it has makes no difference to a measurement."""
    given = {'num_classes': spec.num_classes, 'in_chans': spec.in_chans}
    return {**{key: value for key, value in given.items() if value is not None}, **spec.model_kwargs}


class Runner:
    """One network under one setting: ``step()`` runs a batch of ``batch_size`` images of ``input_size``."""

    def __init__(self, spec: ModelSpec, settings: ThroughputSettings) -> None:
        """Build the network.

        Args:
            spec: what to time.
            settings: checked settings.
        """
        self.settings = settings
        self.device = torch.device(settings.device)
        self._model, self.input_size = _build_network(spec, settings)
        self.batch_size = 0
        if settings.backend == 'torch':
            self._place()

    def prepare(self, batch_size: int) -> None:
        """Make ``step`` run batches of ``batch_size`` images."""
        self.batch_size = batch_size
        self.step: Step = _STEPS[self.settings.backend](self)

    def images(self) -> torch.Tensor:
        """Random images of the set batch size, in the type and memory format of the parameters."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(self.batch_size, *self.input_size, generator=generator)
        memory_format = torch.channels_last if self.settings.channels_last else torch.contiguous_format
        dtype = parameter_dtype(self.settings.precision)
        return images.to(self.device, dtype).contiguous(memory_format=memory_format)

    def _place(self) -> None:
        settings = self.settings
        self._model.to(self.device, parameter_dtype(settings.precision))
        if settings.channels_last:
            self._model.to(memory_format=torch.channels_last)
        if settings.compile:
            self._model.compile(backend=settings.compile, mode=settings.compile_mode or None)

    def _torch_step(self) -> Step:
        model, images = self._model, self.images()
        precision, device = self.settings.precision, self.device
        if not self.settings.train:

            def infer() -> torch.Tensor:
                with torch.inference_mode(), autocast(precision, device):
                    return model(images)

            return infer

        target = torch.zeros(self.batch_size, dtype=torch.long, device=device)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)

        def train() -> None:
            optimizer.zero_grad()
            with autocast(precision, device):
                loss = nn.functional.cross_entropy(model(images).float(), target)
            loss.backward()
            optimizer.step()

        return train

    def _onnxruntime_step(self) -> Step:
        images = self.images().numpy()
        with self._onnx_file() as path:
            session = onnx_session(path, self.settings.threads or torch.get_num_threads())
        return lambda: session.run(None, {'input': images})

    def _openvino_step(self) -> Step:
        import openvino

        options = {
            'INFERENCE_NUM_THREADS': self.settings.threads or torch.get_num_threads(),
            # OpenVINO would choose bfloat16 by itself where the processor has it.
            'INFERENCE_PRECISION_HINT': 'f32',
            'PERFORMANCE_HINT': 'LATENCY',
        }
        images = self.images().numpy()
        with self._onnx_file() as path:
            compiled = openvino.Core().compile_model(path, 'CPU', options)
        request = compiled.create_infer_request()
        return lambda: request.infer({0: images}, share_inputs=True, share_outputs=True)

    @contextlib.contextmanager
    def _onnx_file(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix='eca-zoo-') as folder, warnings.catch_warnings():
            warnings.simplefilter('ignore')
            path = Path(folder) / 'model.onnx'
            write_onnx(self._model, torch.randn(2, *self.input_size), path)
            yield path


_STEPS: dict[str, Callable[[Runner], Step]] = {
    'torch': Runner._torch_step,
    'onnxruntime': Runner._onnxruntime_step,
    'openvino': Runner._openvino_step,
}


def _build_network(spec: ModelSpec, settings: ThroughputSettings) -> tuple[nn.Module, tuple[int, int, int]]:
    """The network in float32 on the CPU, and its input size; torch's random state is as before."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the generators of all GPUs too.
        torch.default_generator.manual_seed(0)
        model = create_network(spec.name, settings.img_size, network_arguments(spec))
    channels, height, width = default_input_size(model)
    if settings.img_size:
        height = width = settings.img_size
    model.train(settings.train)
    if settings.fuse:
        model = fuse_batch_norms(model, (channels, height, width))
    return model, (channels, height, width)
