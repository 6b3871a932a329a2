"""Images a second of detectors, which are timed in turn, round by round, on one image."""

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from eca_zoo.detection.complexity import DetectorComplexity
from eca_zoo.detection.evaluation.detector_spec import DetectorSettings, DetectorSpec, load_detector
from eca_zoo.detection.networks.detectors import Detector, RetinaNet
from eca_zoo.detection.networks.registry import create_detector
from eca_zoo.errors import EcaZooError, InputError, one_line
from eca_zoo.harness.machine.devices import autocast
from eca_zoo.harness.machine.flags import numeric_flags
from eca_zoo.harness.speed.rounds import spread_percent
from eca_zoo.harness.speed.timer import time_steps
from eca_zoo.weights.checkpoint_names import expand_checkpoint_names
from eca_zoo.weights.manifest import usable_manifest

# Spread of the logits of random weights, so that about as many boxes as in a photograph pass the score threshold.
_SPREAD = {True: 0.6, False: 1.5}


@dataclass(frozen=True)
class SpeedSettings:
    """How detectors are timed.

    Attributes:
        image_size: (height, width) in pixels of the image.
        rounds: how often each detector is timed, in turn with the others.
        round_seconds: a round has as many images as fit into this time, one at least, after one that is not timed.
        warmup_steps: untimed images before the first round.
        threads: of the CPU; torch's choice by default.
    """

    image_size: tuple[int, int] = (800, 1216)
    rounds: int = 10
    round_seconds: float = 0.5
    warmup_steps: int = 2
    threads: int | None = None

    def __post_init__(self) -> None:
        if min(self.image_size) < 1 or self.rounds < 1 or (self.threads is not None and self.threads < 1):
            raise InputError('image_size, rounds and threads must be at least 1')
        if self.warmup_steps < 0 or self.round_seconds < 0:
            raise InputError('warmup_steps and round_seconds must not be negative')


@dataclass(frozen=True)
class DetectorSpeed:
    """What was timed of one detector.

    Attributes:
        model: title of the detector.
        samples_per_sec: images a second from decoded pixels to boxes and run-length codes, the median of the rounds.
        spread_percent: interquartile range of the rounds' images a second, in percent of the median; None of one round.
        relative: median over the rounds of images a second over the baseline's in the same round; None without.
        peak_memory_mb: most memory (2^20 bytes) that CUDA tensors took, weights included; None on other devices.
        detections: that were found in the image.
        complexity: its parameters and multiply-adds.
        error: why it was not timed; None if it was.
    """

    model: str
    samples_per_sec: float | None = None
    spread_percent: float | None = None
    relative: float | None = None
    peak_memory_mb: float | None = None
    detections: int | None = None
    complexity: DetectorComplexity | None = None
    error: str | None = None


@dataclass
class _Timed:
    spec: DetectorSpec
    module: Any = None
    complexity: DetectorComplexity | None = None
    count: int = 1
    detections: int = 0
    peak_memory_mb: float | None = None
    rates: list[float] = field(default_factory=list)
    error: str | None = None


def time_detectors(
    models: Sequence[DetectorSpec],
    settings: DetectorSettings | None = None,
    speed: SpeedSettings | None = None,
    baseline: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[DetectorSpeed]:
    """Time detectors in turn; those that fail are results with an ``error`` and do not stop the others.

    A detector without published weights runs with random ones whose scores are spread so that it finds as much as a
    trained one: what follows the networks, and the masks, belong to the time of an image.

    Args:
        models: titles must differ; ``checkpoint`` is not needed.
        settings: how they run.
        speed: how they are timed.
        baseline: title of the detector that ``relative`` refers to.
        progress: called with the rounds of all detectors that are done, all of them, and what is done now.

    Raises:
        InputError: a setting does not exist here.
    """
    checked, speed = (settings or DetectorSettings()).checked(), speed or SpeedSettings()
    titles = [spec.title for spec in models]
    if len(set(titles)) < len(titles):
        raise InputError(f'a detector is named twice: {", ".join(titles)}')
    if baseline is not None and baseline not in titles:
        raise InputError(f'the baseline {baseline} is none of the detectors: {", ".join(titles)}')
    pixels = torch.randint(
        0, 256, (3, *speed.image_size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    timed, total, done = [_Timed(spec) for spec in models], len(models) * (speed.rounds + 1), 0
    with numeric_flags(checked.precision, speed.threads), torch.inference_mode():
        for one, number in _turns(timed, speed.rounds):
            if one.error is None:
                try:
                    if number == 0:
                        _warm_up(one, pixels, checked, speed)
                    else:
                        # The first one is cold from the other detectors.
                        seconds = time_steps(_step(one, pixels, checked), 1 + one.count, torch.device(checked.device))[
                            1:
                        ]
                        one.rates.append(len(seconds) / sum(seconds))
                except Exception as error:
                    one.error, one.module = one_line(error), None
                    if not isinstance(error, EcaZooError):
                        one.error = f'{type(error).__name__}: {one.error}'
            done += 1
            if progress is not None:
                progress(done, total, one.spec.title)
    reference = next((one.rates for one in timed if one.spec.title == baseline and one.error is None), None)
    return [_result(one, reference) for one in timed]


def _turns(timed: Sequence[_Timed], rounds: int) -> Iterator[tuple[_Timed, int]]:
    """Each detector in turn: number 0 to warm up, then the rounds."""
    for number in range(rounds + 1):
        for one in timed:
            yield one, number


def _warm_up(one: _Timed, pixels: torch.Tensor, settings: DetectorSettings, speed: SpeedSettings) -> None:
    device = torch.device(settings.device)
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    loaded = load_detector(_with_weights(one.spec, pixels), settings)
    one.module, one.complexity = loaded.module, loaded.complexity
    step = _step(one, pixels, settings)
    seconds = time_steps(step, max(1, speed.warmup_steps), device)
    one.detections = len(step()['scores'])
    one.count = max(1, int(speed.round_seconds / statistics.median(seconds)))
    if device.type == 'cuda':
        one.peak_memory_mb = (torch.cuda.max_memory_allocated(device) - before) / 2**20


def _step(one: _Timed, pixels: torch.Tensor, settings: DetectorSettings) -> Callable[[], Any]:
    def step() -> Any:
        with autocast(settings.precision, torch.device(settings.device)):
            return one.module.detect(one.module.transform.resize(pixels))

    return step


def _with_weights(spec: DetectorSpec, pixels: torch.Tensor) -> DetectorSpec:
    """``spec``, with a module of random weights where there are no published ones."""
    if spec.module is not None or spec.checkpoint is not None:
        return spec
    manifest = usable_manifest()
    name = expand_checkpoint_names([spec.name], manifest)[0]
    entry = manifest.models[name]
    if entry.checkpoint is not None and spec.options.get('num_classes', entry.num_classes) == entry.num_classes:
        return spec
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = create_detector(name, **spec.options).eval()
    spread_scores(module, pixels)
    return dataclasses.replace(spec, module=module, label=spec.title)


def spread_scores(detector: Detector, pixels: torch.Tensor) -> None:
    """Scale the weights of the last layer of random scores so that their logits on an image differ as if trained.

    Args:
        detector: with random weights; those of the layer are changed.
        pixels: (3, H, W) uint8.
    """
    resized = detector.transform.resize(pixels)
    batch = detector.transform.batch([detector.transform.normalise(resized.pixels, torch.float32)])
    features = detector.backbone(batch)
    if isinstance(detector, RetinaNet):
        layer: Any = detector.head.classification_head.cls_logits
        logits = detector.head(features)['cls_logits']
    else:
        two_stage: Any = detector
        layer = two_stage.roi_heads.box_predictor.cls_score
        sides = torch.tensor([32.0, 64, 128, 256])
        boxes = torch.stack([sides, sides, 2 * sides, 2 * sides], dim=1)
        logits, _ = two_stage.roi_heads(features, [boxes])
    spread = _SPREAD[isinstance(detector, RetinaNet)]
    with torch.no_grad():
        layer.weight *= spread / (logits - logits.mean()).std().clamp(min=1e-6)


def _result(one: _Timed, reference: list[float] | None) -> DetectorSpeed:
    if one.error is not None:
        return DetectorSpeed(one.spec.title, complexity=one.complexity, error=one.error)
    median = statistics.median(one.rates)
    relative = None
    if reference is not None:
        relative = statistics.median(own / other for own, other in zip(one.rates, reference, strict=True))
    return DetectorSpeed(
        one.spec.title, median, spread_percent(one.rates), relative, one.peak_memory_mb,
        one.detections, one.complexity,
    )  # fmt: skip
