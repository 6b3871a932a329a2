"""Which detectors a user means, and how they run: names and patterns, checkpoints, settings, the loaded network."""

import dataclasses
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from eca_zoo.detection.complexity import DetectorComplexity, detector_complexity
from eca_zoo.detection.networks.detectors import Detector
from eca_zoo.detection.networks.registry import (
    create_detector,
    list_detectors,
)
from eca_zoo.errors import InputError
from eca_zoo.files import hash_file
from eca_zoo.harness.machine.devices import check_precision, parameter_dtype, parse_precision, resolve_device
from eca_zoo.harness.networks.pretrained import state_sha256
from eca_zoo.harness.networks.user_checkpoint import read_checkpoint
from eca_zoo.models import optimize_for_inference
from eca_zoo.weights.checkpoint_names import expand_checkpoint_names
from eca_zoo.weights.convert.recognition import recognise
from eca_zoo.weights.errors import CheckpointError
from eca_zoo.weights.manifest import load_manifest

_COCO_CLASSES = 80


@dataclass(frozen=True)
class DetectorSpec:
    """A detector to run.

    Attributes:
        name: of the registry, with or without the tag of a checkpoint.
        checkpoint: file with the weights in place of those that the name stands for.
        options: further arguments of ``create_detector``, such as ``score_threshold``.
        label: name in tables; made from the above if it is empty.
        module: a detector that is built already, in the place of what ``name`` stands for.
    """

    name: str
    checkpoint: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ''
    module: Detector | None = None

    @property
    def title(self) -> str:
        """What tables and messages call it."""
        return self.label or (f'{self.name}@{self.checkpoint.name}' if self.checkpoint is not None else self.name)


@dataclass(frozen=True)
class DetectorSettings:
    """How detectors run; None leaves a choice to the machine.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``xpu``.
        precision: one of ``eca_zoo.harness.machine.devices.PRECISIONS``.
        channels_last: memory format of parameters and input; by default channels-last on the CPU and on CUDA.
        fuse: run the form for inference that ``eca_zoo.optimize_for_inference`` makes.
        workers: processes that decode and resize images; 0 does so in the main one.
    """

    device: str = 'auto'
    precision: str = 'fp32'
    channels_last: bool | None = None
    fuse: bool = False
    workers: int | None = None

    def checked(self) -> 'DetectorSettings':
        """The settings with every choice of the machine made.

        Raises:
            InputError: a value does not exist here.
        """
        device = resolve_device(self.device)
        precision = parse_precision(self.precision)
        check_precision(precision, device)
        if self.workers is not None and self.workers < 0:
            raise InputError(f'workers must not be negative, not {self.workers}')
        return dataclasses.replace(
            self,
            device=str(device),
            precision=precision,
            channels_last=device.type in ('cpu', 'cuda') if self.channels_last is None else self.channels_last,
            workers=self.workers if self.workers is not None else 0 if device.type == 'cpu' else 4,
        )


def expand_detector_names(patterns: Iterable[str]) -> list[str]:
    """The detectors that ``patterns`` stand for, in the order given and without repetition.

    A pattern is a detector, one with the tag of a checkpoint, or a shell pattern over these (``maskrcnn_*``).

    Raises:
        InputError: it stands for none.
    """
    names: list[str] = []
    for pattern in patterns:
        if any(sign in pattern for sign in '*?['):
            known = _detector_checkpoints() if '.' in pattern else list_detectors()
            found = [name for name in known if fnmatch.fnmatch(name, pattern)]
            if not found:
                raise InputError(f'no detector matches {pattern!r}; there are {", ".join(list_detectors())}')
            names += found
        elif pattern.partition('.')[0] in list_detectors():
            names += expand_checkpoint_names([pattern], load_manifest()) if '.' in pattern else [pattern]
        else:
            raise InputError(f'no detector is called {pattern!r}; there are {", ".join(list_detectors())}')
    return list(dict.fromkeys(names))


@dataclass(frozen=True)
class LoadedDetector:
    """A detector that is ready to run, the SHA-256 of its weights' file, and what it costs; None if unknown."""

    module: Any
    weights_sha256: str | None
    complexity: DetectorComplexity | None


def load_detector(
    spec: DetectorSpec,
    settings: DetectorSettings,
    categories: Mapping[int, str] | None = None,
    with_complexity: bool = True,
) -> LoadedDetector:
    """A detector with its weights on its device.

    Args:
        spec: the detector.
        settings: checked settings.
        categories: of the data set; a ``checkpoint`` of as many classes is taken to have these.
        with_complexity: count what it costs.

    Raises:
        InputError: there are no such weights, or they are of another network.
    """
    detector, sha256 = _with_weights(spec, categories)
    # Before its parameters are frozen, and its norms folded.
    complexity = detector_complexity(detector) if with_complexity else None
    module: Any = detector.eval().requires_grad_(False)
    if settings.fuse:
        module = optimize_for_inference(module)
    module = module.to(device=settings.device, dtype=parameter_dtype(settings.precision))
    if settings.channels_last:
        module = module.to(memory_format=torch.channels_last)
    return LoadedDetector(module, sha256, complexity)


def weights_identity(spec: DetectorSpec) -> dict[str, Any]:
    """What identifies the weights of a detector before they are loaded."""
    identity: dict[str, Any] = {'name': spec.name, 'options': {key: repr(v) for key, v in sorted(spec.options.items())}}
    if spec.module is not None:
        return identity | {'state_sha256': state_sha256(spec.module)}
    if spec.checkpoint is not None:
        return identity | {'sha256': hash_file(spec.checkpoint)[0] if spec.checkpoint.is_file() else None}
    return identity | {'sha256': _published_sha256(spec.name)}


def _published_sha256(name: str) -> str | None:
    manifest = load_manifest()
    entry = manifest.models[expand_checkpoint_names([name], manifest)[0]]
    return entry.checkpoint.sha256 if entry.checkpoint is not None else None


def _with_weights(spec: DetectorSpec, categories: Mapping[int, str] | None) -> tuple[Detector, str | None]:
    if spec.module is not None:
        # A copy: the caller's stays as it is.
        import copy

        return copy.deepcopy(spec.module), None
    if spec.checkpoint is None:
        return create_detector(spec.name, pretrained=True, **spec.options), _published_sha256(spec.name)
    file = read_checkpoint(spec.checkpoint)
    base = spec.name.partition('.')[0]
    try:
        found = recognise(file.state, base)
    except CheckpointError as error:
        raise CheckpointError(f'{spec.checkpoint}: {error}') from None
    classes = found.num_classes
    named = categories if categories is not None and len(categories) == classes != _COCO_CLASSES else None
    module = create_detector(
        base, num_classes=classes, categories=named, kernel_sizes=found.kernel_sizes or None, **spec.options
    )  # fmt: skip
    module.load_state_dict(found.state)
    return module, file.sha256


def _detector_checkpoints() -> Sequence[str]:
    return [name for name, entry in load_manifest().models.items() if entry.is_detector]
