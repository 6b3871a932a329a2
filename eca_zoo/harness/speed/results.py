"""What was measured of one network under one setting."""

from dataclasses import dataclass

from eca_zoo.harness.speed.settings import ThroughputSettings


@dataclass(frozen=True)
class ThroughputResult:
    """What was measured of one network under one setting; times are per step of ``batch_size`` images.

    Attributes:
        model: title of the network.
        settings: how it was measured; its batch size is the one that was asked for.
        batch_size: images a step, after halving.
        img_size: height and width in pixels.
        samples_per_sec: images a second, the median of the rounds.
        spread_percent: interquartile range of the rounds' images a second, in percent of the median; None of one round.
        step_time_ms: time of a step that corresponds to ``samples_per_sec``.
        step_time_p95_ms: 95th percentile of all steps.
        steps: timed steps in all rounds.
        relative: median over the rounds of images a second divided by the baseline's in the same round; None without,
            and for another input size than the baseline's.
        peak_memory_mb: most memory (2^20 bytes) that CUDA tensors took, weights included; None on other devices.
        peak_reserved_mb: most memory (2^20 bytes) that torch took from CUDA for it, unused parts of blocks included.
        error: why there is no measurement; None if there is one.
        baseline: title of the network that ``relative`` refers to.
        gpu: its name; None for the CPU.
    """

    model: str
    settings: ThroughputSettings
    batch_size: int | None = None
    img_size: int | None = None
    samples_per_sec: float | None = None
    spread_percent: float | None = None
    step_time_ms: float | None = None
    step_time_p95_ms: float | None = None
    steps: int = 0
    relative: float | None = None
    peak_memory_mb: float | None = None
    peak_reserved_mb: float | None = None
    error: str | None = None
    baseline: str | None = None
    gpu: str | None = None
