"""A network in an evaluation: built and loaded, and its logits for a batch that may not fit into memory."""

import contextlib
import copy
import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import nn

import eca_zoo.models  # noqa: F401  (registers the networks)
from eca_zoo.errors import EcaZooError, InputError, RunError, one_line
from eca_zoo.harness.accuracy.input_plan import InputPlan
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.batches import Normalization
from eca_zoo.harness.machine.device_errors import may_be_out_of_memory
from eca_zoo.harness.machine.devices import autocast, parameter_dtype
from eca_zoo.harness.machine.memory import release_memory
from eca_zoo.harness.networks.building import fused
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.networks.pretrained import pretrained_cfg, weights_sha256
from eca_zoo.harness.networks.user_checkpoint import fill, head_classes, read_checkpoint

_logger = logging.getLogger(__name__)


@dataclass
class LoadedNetwork:
    """A network that is ready to run."""

    module: nn.Module
    num_classes: int
    params: int
    weights_sha256: str | None


def load_network(spec: ModelSpec, settings: EvalSettings, plan: InputPlan) -> LoadedNetwork:
    """Build a model with its weights and put it on the device.

    Args:
        spec: the model.
        settings: checked settings.
        plan: of the model.

    Raises:
        InputError: there are no such weights, or they do not fit.
        RunError: the model cannot be built.
    """
    file = read_checkpoint(spec.checkpoint, settings.use_ema) if spec.checkpoint is not None else None
    if file is not None and spec.num_classes is None:
        spec = dataclasses.replace(spec, num_classes=head_classes(file.state, pretrained_cfg(spec)))
    module = copy.deepcopy(spec.module) if spec.module is not None else _built(spec, settings, plan)
    if file is not None and spec.checkpoint is not None:
        fill(module, file, spec.checkpoint, spec.title)
    sha256 = weights_sha256(spec) if file is None else file.sha256
    num_classes = spec.num_classes if spec.num_classes is not None else getattr(module, 'num_classes', None)
    if not num_classes:
        raise InputError(f'{spec.title}: it has no classifier; build it with --num-classes and a --checkpoint')
    if settings.reparameterize:
        module = timm.utils.reparameterize_model(module)
    params = sum(parameter.numel() for parameter in module.parameters())
    module.eval()
    if settings.fuse:
        module = fused(module, plan.pixels.input_size, spec.title)
    return LoadedNetwork(_placed(module, settings, plan), num_classes, params, sha256)


def _built(spec: ModelSpec, settings: EvalSettings, plan: InputPlan) -> Any:
    """The network that timm makes of the spec, with the weights that its name stands for."""
    kwargs = dict(spec.model_kwargs)
    if plan.img_size_argument is not None:
        kwargs.setdefault('img_size', plan.img_size_argument)
    if spec.in_chans is not None or settings.input_size is not None:
        kwargs.setdefault('in_chans', plan.pixels.input_size[0])
    pretrained = spec.pretrained and spec.checkpoint is None
    try:
        with _seeded(settings.seed):
            return timm.create_model(
                spec.name,
                pretrained=pretrained,
                num_classes=spec.num_classes,
                global_pool=settings.global_pool,
                scriptable=settings.torchscript or None,
                **kwargs,
            )
    except EcaZooError:
        raise
    except Exception as error:
        raise _not_built(spec, error) from error


def _not_built(spec: ModelSpec, error: Exception) -> EcaZooError:
    reason = one_line(error)
    if 'No pretrained weights exist' in reason or 'Invalid pretrained tag' in reason:
        return InputError(f'{spec.title}: timm has no weights for it; name a tag that has some, or a --checkpoint FILE')
    return RunError(f'{spec.title}: cannot be loaded: {reason}')


def _placed(module: Any, settings: EvalSettings, plan: InputPlan) -> nn.Module:
    if plan.test_pool:
        module, _ = timm.layers.apply_test_time_pool(module, {'input_size': plan.pixels.input_size})
    module = module.to(device=settings.device, dtype=parameter_dtype(settings.precision))
    if settings.channels_last:
        module = module.to(memory_format=torch.channels_last)
    if settings.torchscript:
        return torch.jit.script(module)
    if settings.compile:
        module.compile(backend=settings.compile, mode=settings.compile_mode or None, dynamic=False)
    return module


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Layers without weights get the same values in every process; torch's random state is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@dataclass
class Runnable:
    """What is run: a network, with what it is fed with and how many images it takes at a time.

    Attributes:
        title: of the model.
        network: ready to run.
        plan: of its input.
        chunk: images a step, after halving.
    """

    title: str
    network: LoadedNetwork
    plan: InputPlan
    chunk: int


@dataclass
class Forward:
    """Runs networks on batches of pixels; a normalised batch serves all networks with the same mean and deviation."""

    settings: EvalSettings
    _shared: dict[tuple, torch.Tensor] = field(default_factory=dict)
    _normalizations: dict[tuple, Normalization] = field(default_factory=dict)

    def start_batch(self) -> None:
        """Forget the batch before."""
        self._shared.clear()

    def logits(self, member: Runnable, pixels: torch.Tensor) -> torch.Tensor:
        """(N, C) logits of a batch; a model that runs out of memory takes half as many images at a time from then on.

        Args:
            member: what is run; its ``chunk`` is changed.
            pixels: (N, C, H, W) bytes, or numbers if they are normalised; the same for all members of a batch.

        Raises:
            RuntimeError: what the network raises, with one image too if it may be a lack of memory.
        """
        while True:
            try:
                return self._in_parts(member, pixels)
            except (RuntimeError, MemoryError) as error:
                if not may_be_out_of_memory(error) or min(member.chunk, len(pixels)) == 1:
                    raise
                reason = one_line(error)
            # Outside of except, whose error keeps the tensors of the frames that it went through.
            member.chunk = max(1, (member.chunk if self.settings.compile else min(member.chunk, len(pixels))) // 2)
            self._shared.clear()
            _logger.warning('%s: %s; trying %d images at a time', member.title, reason, member.chunk)
            release_memory()

    def _in_parts(self, member: Runnable, pixels: torch.Tensor) -> torch.Tensor:
        if member.chunk >= len(pixels):
            key = (member.plan.mean, member.plan.std)
            if key not in self._shared:
                self._shared[key] = self._normalized(member.plan, pixels)
            return self._forward(member, self._shared[key])
        # What others share would take the place that is wanting.
        self._shared.clear()
        parts = pixels.split(member.chunk)
        return torch.cat([self._forward(member, self._normalized(member.plan, part)) for part in parts])

    def _normalized(self, plan: InputPlan, pixels: torch.Tensor) -> torch.Tensor:
        dtype = parameter_dtype(self.settings.precision)
        if pixels.dtype != torch.uint8:
            return pixels.to(dtype)
        key = (plan.mean, plan.std)
        if key not in self._normalizations:
            self._normalizations[key] = Normalization(plan.mean, plan.std, pixels.shape[1], pixels.device, dtype)
        return self._normalizations[key](pixels)

    def _forward(self, member: Runnable, images: torch.Tensor) -> torch.Tensor:
        settings, count = self.settings, len(images)
        if settings.compile:
            if count < member.chunk:
                # One shape alone is compiled.
                images = torch.cat([images, images[-1:].expand(member.chunk - count, -1, -1, -1)])
                images = images.contiguous(
                    memory_format=torch.channels_last if settings.channels_last else torch.contiguous_format
                )
            torch.compiler.cudagraph_mark_step_begin()
        with autocast(settings.precision, images.device):
            logits = member.network.module(images)
        if isinstance(logits, tuple | list):
            logits = logits[0]
        # The next replay of a CUDA graph writes over the output of this one.
        return logits[:count].clone() if settings.compile else logits
