"""What is evaluated and how: a model with its weights, the settings, and the result."""

import dataclasses
import math
import os
from dataclasses import dataclass

import torch

from eca_zoo.errors import InputError
from eca_zoo.harness.data.gpu_decoding.device_decoder import check_decoding_device
from eca_zoo.harness.data.preprocess import PREPROCESS_MODES, PreprocessMode
from eca_zoo.harness.machine.devices import check_precision, parse_precision, resolve_device
from eca_zoo.harness.machine.memory import processes_here

_BATCH_SIZE, _BATCH_SIZE_ON_CPU = 256, 16
_MOST_WORKERS = 16
INTERPOLATIONS = ('bilinear', 'bicubic', 'nearest', 'lanczos', 'box', 'hamming')
CROP_MODES = ('center', 'squash', 'border')


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
        crop_mode: ``center``, ``squash`` or ``border``.
        crop_border_pixels: trimmed from the image before anything else.
        mean: subtracted from the channels, for values in [0, 1].
        std: the channels are divided by, for values in [0, 1].
        interpolation: ``bilinear``, ``bicubic``, ``nearest``, ``lanczos``, ``box`` or ``hamming``.
        use_train_size: take the input size that the model was trained with, not the one it is tested with.
        test_pool: pool at test time as timm does when the input is larger than in training.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``xpu``.
        precision: ``fp32``, ``tf32``, ``fp16``, ``bf16``, ``amp`` or ``amp_bf16``.
        channels_last: memory format of parameters and input; by default channels-last on the CPU and on CUDA.
        compile: backend of ``torch.compile``; empty for eager.
        compile_mode: mode of ``torch.compile``; empty for its default.
        torchscript: compile with ``torch.jit.script``.
        global_pool: kind of pooling before the classifier.
        reparameterize: fold the branches of models that are made to be folded, with timm.
        fuse: run the form for inference that ``eca_zoo.optimize_for_inference`` makes: batch norms folded.
        use_ema: load the averaged weights of a training checkpoint.
        normalize_in_workers: normalise images one by one, as timm does without its prefetcher.
        pin_memory: page-locked batches, on CUDA; by default there.
        prefetch: batches that each process that decodes makes ahead; by default two.
        cudnn_benchmark: let cuDNN choose its algorithms by a race, on CUDA: faster, but digits may differ between runs;
            by default by rules, so that a run that is continued gives the same digits.
        seed: of random weights, where a model has some.
        preprocess: ``exact`` gives timm's pixels, ``fast`` nearly the same ones in less time; with ``gpu``, on CUDA
            alone, the GPU decodes and resizes JPEG files, and the pixels are those of its decoder.
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
    fuse: bool = False
    use_ema: bool = False
    normalize_in_workers: bool = False
    pin_memory: bool | None = None
    prefetch: int | None = None
    cudnn_benchmark: bool = False
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
        self.check_values()
        if self.preprocess == 'gpu':
            check_decoding_device(device)
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

    def check_values(self) -> None:
        """Check what does not depend on the machine.

        Raises:
            InputError: a value is out of range, unknown, or contradicts another.
        """
        for name in ('batch_size', 'img_size', 'crop_border_pixels', 'prefetch'):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f'{name} must be at least 1, not {value}')
        if self.workers is not None and self.workers < 0:
            raise InputError(f'workers must not be negative, not {self.workers}')
        if self.input_size is not None and (len(self.input_size) != 3 or min(self.input_size) < 1):
            raise InputError(f'input_size is channels, height and width, not {list(self.input_size)}')
        if self.crop_pct is not None and not 0 < self.crop_pct <= 1:
            raise InputError(f'crop_pct must be above 0 and at most 1, not {self.crop_pct}')
        for name, smallest in (('mean', -math.inf), ('std', 0.0)):
            stats = getattr(self, name)
            if stats is not None and not all(smallest < one < math.inf for one in stats):
                raise InputError(f'{name} must be finite{" and above 0" * (name == "std")}, not {list(stats)}')
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
