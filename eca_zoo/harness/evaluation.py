"""What is evaluated and how: a model with its weights, the settings, and the result."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from eca_zoo.errors import InputError
from eca_zoo.harness.counts import IMAGES, TOP1, TOP5, percent, wilson_half_width
from eca_zoo.harness.devices import check_precision, parse_precision, resolve_device
from eca_zoo.harness.memory import processes_here
from eca_zoo.harness.preprocess import PREPROCESS_MODES, PreprocessMode

_BATCH_SIZE, _BATCH_SIZE_ON_CPU = 256, 16
_MOST_WORKERS = 16
INTERPOLATIONS = ('bilinear', 'bicubic', 'nearest', 'lanczos', 'box', 'hamming')
CROP_MODES = ('center', 'squash', 'border')


@dataclass(frozen=True)
class ModelSpec:
    """A model to evaluate.

    Attributes:
        name: timm's name, or what timm loads by schema (``hf-hub:ORG/NAME``, ``local-dir:DIR``).
        pretrained: load the weights that the name stands for; random ones otherwise.
        checkpoint: file with the weights in their place.
        num_classes: of the model, if it is not what the name stands for.
        in_chans: channels of the input, if they are not what the name stands for.
        model_kwargs: further arguments of the model's entry point.
        label: name in tables; the model's, with the checkpoint's file name if there is one, if it is empty.
    """

    name: str
    pretrained: bool = True
    checkpoint: Path | None = None
    num_classes: int | None = None
    in_chans: int | None = None
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    label: str = ''

    @property
    def title(self) -> str:
        """What tables and messages call it."""
        return self.label or (f'{self.name}@{self.checkpoint.name}' if self.checkpoint is not None else self.name)


@dataclass(frozen=True)
class EvalSettings:
    """How models are evaluated; None leaves a choice to the model or the machine.

    Attributes:
        batch_size: images a step; by default 256, and 16 on the CPU, where larger ones are slower. A model that does
            not fit halves its own.
        workers: processes that decode images; 0 decodes in the main one.
        img_size: height and width of the input in pixels.
        input_size: (channels, height, width) of the input in pixels.
        crop_pct: share of the resized image that the crop keeps.
        crop_mode: one of ``CROP_MODES``.
        crop_border_pixels: trimmed from the image before anything else.
        mean: subtracted from the channels, for values in [0, 1].
        std: the channels are divided by, for values in [0, 1].
        interpolation: one of ``INTERPOLATIONS``.
        use_train_size: take the input size that the model was trained with, not the one it is tested with.
        test_pool: pool at test time as timm does when the input is larger than in training.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``xpu``.
        precision: one of ``eca_zoo.harness.devices.PRECISIONS``.
        channels_last: memory format of parameters and input; by default channels-last on the CPU and on CUDA.
        compile: backend of ``torch.compile``; empty for eager.
        compile_mode: mode of ``torch.compile``; empty for its default.
        torchscript: compile with ``torch.jit.script``.
        global_pool: kind of pooling before the classifier.
        reparameterize: fold the branches of models that are made to be folded, with timm.
        use_ema: load the averaged weights of a training checkpoint.
        normalize_in_workers: normalise images one by one, as timm does without its prefetcher.
        pin_memory: page-locked batches, on CUDA; by default there.
        seed: of random weights, where a model has some.
        preprocess: ``exact`` gives timm's pixels, ``fast`` nearly the same ones in less time.
    """

    batch_size: int | None = None
    workers: int | None = None
    img_size: int | None = None
    input_size: tuple[int, int, int] | None = None
    crop_pct: float | None = None
    crop_mode: str | None = None
    crop_border_pixels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    use_train_size: bool = False
    test_pool: bool = False
    device: str = 'auto'
    precision: str = 'fp32'
    channels_last: bool | None = None
    compile: str = ''
    compile_mode: str = ''
    torchscript: bool = False
    global_pool: str | None = None
    reparameterize: bool = False
    use_ema: bool = False
    normalize_in_workers: bool = False
    pin_memory: bool | None = None
    seed: int = 42
    preprocess: PreprocessMode = 'exact'

    def checked(self) -> 'EvalSettings':
        """The settings with every choice of the machine made.

        Raises:
            InputError: a value is out of range, does not exist here, or contradicts another.
        """
        device = resolve_device(self.device)
        precision = parse_precision(self.precision)
        check_precision(precision, device)
        self._check_values()
        on_cpu = device.type == 'cpu'
        return dataclasses.replace(
            self,
            device=str(device),
            precision=precision,
            batch_size=self.batch_size or (_BATCH_SIZE_ON_CPU if on_cpu else _BATCH_SIZE),
            workers=default_workers(on_cpu) if self.workers is None else self.workers,
            pin_memory=device.type == 'cuda' and self.pin_memory is not False,
            channels_last=device.type in ('cpu', 'cuda') if self.channels_last is None else self.channels_last,
        )

    def _check_values(self) -> None:
        for name in ('batch_size', 'img_size', 'crop_border_pixels'):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f'{name} must be at least 1, not {value}')
        if self.workers is not None and self.workers < 0:
            raise InputError(f'workers must not be negative, not {self.workers}')
        if self.input_size is not None and (len(self.input_size) != 3 or min(self.input_size) < 1):
            raise InputError(f'input_size is channels, height and width, not {list(self.input_size)}')
        if self.crop_pct is not None and not 0 < self.crop_pct <= 1:
            raise InputError(f'crop_pct must be above 0 and at most 1, not {self.crop_pct}')
        choices: tuple[tuple[str, tuple[str, ...]], ...] = (
            ('crop_mode', CROP_MODES),
            ('interpolation', INTERPOLATIONS),
            ('preprocess', PREPROCESS_MODES),
        )
        for name, known in choices:
            choice = getattr(self, name)
            if choice is not None and choice not in known:
                raise InputError(f'{name} {choice!r} is unknown; use one of {", ".join(known)}')
        if self.normalize_in_workers and self.preprocess != 'exact':
            raise InputError('normalize_in_workers (--no-prefetcher) goes with the exact preprocessing alone')
        if self.torchscript and self.compile:
            raise InputError('torchscript and compile exclude each other; choose one')
        if self.compile and self.compile not in torch.compiler.list_backends(exclude_tags=()):
            backends = ', '.join(torch.compiler.list_backends())
            raise InputError(f'compile backend {self.compile!r} is unknown; use one of {backends}')


def default_workers(on_cpu: bool) -> int:
    """Processes that decode images, for one process of the run.

    Beside a GPU they are this process's share of the machine's processors; on a CPU, which runs the model too, a
    quarter of that.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    share = count // processes_here()
    return min(_MOST_WORKERS, max(1, share // 4 if on_cpu else share))


@dataclass(frozen=True)
class Progress:
    """How far a pass is: images done, all images of the pass, and the titles of its models."""

    done: int
    total: int
    models: Sequence[str]


class BadImage(NamedTuple):
    """An image that could not be decoded: its name and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class AccuracyResult:
    """What was counted of one model.

    Attributes:
        model: its title.
        dataset: name of the data set.
        weights_sha256: of the file that the weights were loaded from; None where nobody knows it.
        num_images: images that were counted.
        top1_count: of them, those whose class is the first guess.
        top5_count: of them, those whose class is among the first five guesses (all, if there are fewer classes).
        loss: mean cross-entropy.
        per_class: for each class of the model its images, right first and first five guesses, and how often it was
            guessed first.
        img_size: height and width of the input in pixels.
        crop_pct: share of the resized image that the crop keeps.
        interpolation: of the resize.
        params: number of parameters.
        batch_size: images a step, after halving.
        skipped: images that could not be decoded.
        checkpoint: file that was loaded; None for the model's own weights.
        error: why there is no accuracy; None if there is one.
        exit_code: of the command line for this error; 0 without.
    """

    model: str
    dataset: str
    weights_sha256: str | None = None
    num_images: int = 0
    top1_count: int = 0
    top5_count: int = 0
    loss: float | None = None
    per_class: tuple[tuple[int, ...], ...] = ()
    img_size: int | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    params: int | None = None
    batch_size: int | None = None
    skipped: tuple[BadImage, ...] = ()
    checkpoint: Path | None = None
    error: str | None = None
    exit_code: int = 0

    @property
    def top1(self) -> float | None:
        """Top-1 accuracy in percent, rounded as timm rounds it; None without any image."""
        return self._percent(self.top1_count)

    @property
    def top5(self) -> float | None:
        """Top-5 accuracy in percent, rounded as timm rounds it; None without any image."""
        return self._percent(self.top5_count)

    @property
    def top1_err(self) -> float | None:
        """100 - top-1, rounded as timm rounds it."""
        return self._percent(self.num_images - self.top1_count)

    @property
    def top5_err(self) -> float | None:
        """100 - top-5, rounded as timm rounds it."""
        return self._percent(self.num_images - self.top5_count)

    @property
    def top1_ci95(self) -> float | None:
        """Half width of the 95 % Wilson interval of top-1, in percent."""
        return round(wilson_half_width(self.top1_count, self.num_images), 4) if self.num_images else None

    @property
    def param_count(self) -> float | None:
        """Parameters in 10^6, rounded as timm rounds them."""
        return None if self.params is None else round(self.params / 1e6, 2)

    def _percent(self, count: int) -> float | None:
        return round(percent(count, self.num_images), 4) if self.num_images else None

    def class_accuracies(self) -> list[tuple[float, float] | None]:
        """Top-1 and top-5 in percent of each class; None for one without images."""
        return [
            (percent(row[TOP1], row[IMAGES]), percent(row[TOP5], row[IMAGES])) if row[IMAGES] else None
            for row in self.per_class
        ]

    def to_json(self) -> dict[str, Any]:
        """As JSON, for a journal."""
        row = dataclasses.asdict(self)
        return row | {'checkpoint': str(self.checkpoint) if self.checkpoint is not None else None}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> 'AccuracyResult':
        """The result that ``to_json`` wrote."""
        return cls(
            **row
            | {
                'checkpoint': Path(row['checkpoint']) if row['checkpoint'] is not None else None,
                'per_class': tuple(tuple(counts) for counts in row['per_class']),
                'skipped': tuple(BadImage(*image) for image in row['skipped']),
            }
        )
