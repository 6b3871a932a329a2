"""A network that is timed in this process: warmed up at a batch size that fits, then step by step in rounds."""

import itertools
import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from eca_zoo.harness.machine.device_errors import may_be_out_of_memory
from eca_zoo.harness.machine.memory import release_memory
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.speed.runners import Runner, Step
from eca_zoo.harness.speed.settings import ThroughputSettings

_MAX_STEPS = 1000
_logger = logging.getLogger(__name__)


class Timer:
    """A network under one setting.

    Attributes:
        batch_size: of the steps; 0 before ``warm_up``.
        input_size: (channels, height, width) of the images; zeros before ``warm_up``.
        peak_memory_mb: most memory (2^20 bytes) that CUDA tensors took, weights included; None on other devices.
        peak_reserved_mb: most memory (2^20 bytes) that torch took from CUDA for it; None on other devices.
    """

    def __init__(self, spec: ModelSpec, settings: ThroughputSettings) -> None:
        """Name a network; it is built by ``warm_up``.

        Args:
            spec: what to time.
            settings: checked settings. Torch's flags and threads are not set here.
        """
        self.batch_size = 0
        self.input_size = (0, 0, 0)
        self.peak_memory_mb: float | None = None
        self.peak_reserved_mb: float | None = None
        self._spec, self._settings = spec, settings
        self._steps = 1

    def start(self) -> None:
        """Nothing has to be waited for."""

    def warm_up(self) -> None:
        """Build the network, find a batch size that fits, and the number of steps that fill a round."""
        settings, device = self._settings, torch.device(self._settings.device)
        on_cuda = device.type == 'cuda'
        if on_cuda:
            release_memory()
            before = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
        self._runner = Runner(self._spec, settings)
        self.input_size = self._runner.input_size
        self._fit(settings.batch_size or 1)
        seconds = time_steps(self._runner.step, 1, device)
        # A slow network is warm after fewer steps.
        while len(seconds) < settings.warmup_steps and sum(seconds) < 2 * settings.round_seconds:
            seconds += time_steps(self._runner.step, 1, device)
        self._steps = max(1, min(_MAX_STEPS, int(settings.round_seconds / statistics.median(seconds))))
        if on_cuda:
            # Without what cuDNN tried while it chose.
            release_memory()
            torch.cuda.reset_peak_memory_stats(device)
            time_steps(self._runner.step, 1, device)
            self.peak_memory_mb = (torch.cuda.max_memory_allocated(device) - before[0]) / 2**20
            self.peak_reserved_mb = (torch.cuda.max_memory_reserved(device) - before[1]) / 2**20

    def _fit(self, batch_size: int) -> None:
        """Run the first step, with half of the images as often as the memory asks for it."""
        runner = self._runner
        while True:
            self.batch_size = batch_size
            try:
                runner.prepare(batch_size)
                time_steps(runner.step, 1, runner.device)
                return
            except (RuntimeError, MemoryError) as error:
                if batch_size == 1 or not may_be_out_of_memory(error):
                    raise
                _logger.info('%s: batch size %d does not fit, trying %d', self._spec.title, batch_size, batch_size // 2)
            # Outside of except, whose error keeps the tensors of the frames that it went through.
            batch_size //= 2
            release_memory()

    def time_round(self) -> list[float]:
        """Seconds of each step of a round, after one in which what the other networks left goes from the caches."""
        return time_steps(self._runner.step, 1 + self._steps, self._runner.device)[1:]

    def close(self) -> None:
        """Let go of the network."""
        self.__dict__.pop('_runner', None)


def time_steps(step: Step, count: int, device: torch.device) -> list[float]:
    """Seconds of each of ``count`` steps: between events on CUDA, else by the clock, after the device is done."""
    if device.type == 'cuda':
        with torch.cuda.device(device):
            torch.cuda.synchronize()
            events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
            events[0].record()
            for event in events[1:]:
                step()
                event.record()
            torch.cuda.synchronize()
        return [first.elapsed_time(second) / 1e3 for first, second in itertools.pairwise(events)]
    synchronize: Callable[[], Any] = getattr(getattr(torch, device.type), 'synchronize', lambda: None)
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds
