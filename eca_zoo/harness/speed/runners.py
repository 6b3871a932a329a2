"""What is timed: one step of a network in PyTorch, ONNX Runtime or OpenVINO, with given settings."""

import contextlib
import copy
import dataclasses
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from timm.utils import reparameterize_model
from torch import nn

from eca_zoo.harness.machine.devices import autocast, parameter_dtype
from eca_zoo.harness.networks.building import create_network, default_input_size, fused
from eca_zoo.harness.networks.export import onnx_session, write_onnx
from eca_zoo.harness.networks.model_spec import ModelSpec, network_arguments
from eca_zoo.harness.speed.settings import ThroughputSettings

Step = Callable[[], Any]


class Runner:
    """One network under one setting: ``step()`` runs a batch of ``batch_size`` images of ``input_size``."""

    def __init__(self, spec: ModelSpec, settings: ThroughputSettings) -> None:
        """Build the network.

        Args:
            spec: what to time.
            settings: checked settings; the image size that ``spec`` says itself goes before theirs.
        """
        settings = dataclasses.replace(settings, img_size=spec.img_size or settings.img_size)
        self.settings = settings
        self.device = torch.device(settings.device)
        self._model, self.input_size = _build_network(spec, settings)
        self.batch_size = 0
        if settings.backend == 'torch':
            self._place()

    def prepare(self, batch_size: int) -> None:
        """Make ``step`` run batches of ``batch_size`` images."""
        self.batch_size = batch_size
        # With it go the images of the batch size before.
        self.__dict__.pop('step', None)
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
            # Else a second batch size, or network of the class, would be compiled for any.
            self._model.compile(backend=settings.compile, mode=settings.compile_mode or None, dynamic=False)

    def _torch_step(self) -> Step:
        model, images = self._model, self.images()
        precision, device = self.settings.precision, self.device
        # CUDA graphs may then write over the outputs of the step before.
        begin = torch.compiler.cudagraph_mark_step_begin if self.settings.compile else lambda: None
        if not self.settings.train:

            def infer() -> torch.Tensor:
                begin()
                with torch.inference_mode(), autocast(precision, device):
                    return model(images)

            return infer

        target = torch.zeros(self.batch_size, dtype=torch.long, device=device)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)

        def train() -> None:
            begin()
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
            write_onnx(self._model, torch.zeros(2, *self.input_size), path)
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
        if spec.module is not None:
            model = copy.deepcopy(spec.module).float()
        else:
            model = create_network(spec.name, settings.img_size, network_arguments(spec))
    channels, height, width = default_input_size(model)
    if settings.img_size:
        height = width = settings.img_size
    if settings.reparameterize:
        model = reparameterize_model(model)
    model.train(settings.train)
    if settings.fuse:
        model = fused(model, (channels, height, width), spec.title)
    return model, (channels, height, width)
