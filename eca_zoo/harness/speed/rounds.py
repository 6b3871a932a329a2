"""Throughput of networks that are timed in turn, round by round, so that a drifting machine cancels out."""

import contextlib
import dataclasses
import logging
import statistics
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from eca_zoo.errors import InputError, RunError
from eca_zoo.harness.machine.device_errors import device_answers, is_device_lost
from eca_zoo.harness.machine.devices import as_current, hardware_name, resolve_device, visible_devices
from eca_zoo.harness.machine.flags import compiled_alone, numeric_flags
from eca_zoo.harness.machine.memory import release_memory
from eca_zoo.harness.networks.baselines import Baseline, baseline_of
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.speed.failures import reason
from eca_zoo.harness.speed.fan_out import FanOut, LostDeviceError, Meter
from eca_zoo.harness.speed.launcher import Launcher
from eca_zoo.harness.speed.own_process import OTHER_WAY, OwnProcess, UnknownThereError, launcher_of, runs_apart
from eca_zoo.harness.speed.results import ThroughputResult
from eca_zoo.harness.speed.settings import ThroughputSettings
from eca_zoo.harness.speed.timer import Timer

# Networks that are resident, and timed in turn, at once.
_GROUP = 8
_logger = logging.getLogger(__name__)


@dataclass
class _TimedNetwork:
    """A network while it is measured: seconds of its steps, and images a second, by round."""

    spec: ModelSpec
    timer: Timer | OwnProcess | None = None
    batch_size: int = 0
    rounds: list[list[float]] = field(default_factory=list)
    error: str | None = None

    def rates(self) -> list[float]:
        """Images a second of each round."""
        return [self.batch_size * len(seconds) / sum(seconds) for seconds in self.rounds]


#: Called with the work that is done, all of it (both in rounds of a network), and what is done now.
Progress = Callable[[int, int, str], None]


def measure_throughput(
    specs: Sequence[ModelSpec],
    settings: ThroughputSettings,
    baseline: Baseline = None,
    progress: Progress | None = None,
) -> list[ThroughputResult]:
    """All results of ``throughput_groups`` on the one device that ``settings`` name."""
    groups = throughput_groups(specs, settings, baseline, [str(resolve_device(settings.device))], progress)
    return [result for group in groups for result in group]


def throughput_groups(
    specs: Sequence[ModelSpec],
    settings: ThroughputSettings,
    baseline: Baseline = None,
    devices: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Iterator[list[ThroughputResult]]:
    """Time ``specs`` and their baselines in turn, eight or nine in a group so that any number of them fits into memory.

    Groups run one after the other, or on several devices at once in a process for each, with one group at a time. On
    the CPU each network has processes of its own, see ``own_process``. A network's baseline is in its group, and in the
    results once. A network that fails is a result with an ``error`` and does not stop the others. torch's global flags
    and random state are as before afterwards.

    Args:
        specs: what to time.
        settings: how; its device stands for ``devices``.
        baseline: the network that ``relative`` refers to, or by title each network's own.
        devices: names; by default all visible GPUs of the kind of ``settings.device``, or that one if it has an index.
        progress: called now and then.

    Yields:
        The results of a group, as soon as there are any.

    Raises:
        InputError: the settings are not possible on this machine, or a network is named twice.
    """
    checked = settings.checked()
    if devices is None:
        own = torch.device(checked.device)
        devices = [checked.device] if ':' in settings.device else [str(device) for device in visible_devices(own)]
    groups = _groups(specs, baseline, len(devices))
    total = sum(map(len, groups)) * checked.turns
    meter = _Meter(total, progress)
    seen: set[str] = set()
    for results in _measured(groups, checked, baseline, devices, meter):
        yield [result for result in results if result.model not in seen]
        seen |= {result.model for result in results}


@dataclass
class _Meter:
    """Reports progress in rounds of a network."""

    total: int
    report: Progress | None
    done: int = 0
    text: str = ''

    def at(self, title: str) -> None:
        """Nothing is shown of it."""

    def advance(self, text: str, by: int = 1) -> None:
        """Report; without a text the last one."""
        self.done, self.text = self.done + by, text or self.text
        if self.report is not None:
            self.report(self.done, self.total, self.text)


def _measured(
    groups: list[list[ModelSpec]],
    settings: ThroughputSettings,
    baseline: Baseline,
    devices: Sequence[str],
    meter: _Meter,
) -> Iterator[list[ThroughputResult]]:
    """Results by group: here on one device, as long as this process has it, else in a process for each device."""
    elsewhere = FanOut(settings, devices, baseline, meter, _measure_group)
    if len(devices) > 1 or not device_answers(torch.device(devices[0])):
        yield from elsewhere.run(groups)
        return
    here = dataclasses.replace(settings, device=devices[0])
    for index, group in enumerate(groups):
        try:
            results = _measure_group(group, here, baseline, meter)
        except LostDeviceError as lost:
            yield from elsewhere.after_loss(group, groups[index + 1 :], lost)
            return
        yield results


def _groups(specs: Sequence[ModelSpec], baseline: Baseline, workers: int = 1) -> list[list[ModelSpec]]:
    """``specs`` in groups of equal size, enough for every worker; each ends with the baselines of its networks."""
    names = [spec.title for spec in specs]
    if len(set(names)) != len(names):
        raise InputError(f'a network is named twice: {", ".join(names)}')
    baselines = {spec.title: reference for spec in specs if (reference := baseline_of(spec, baseline)) is not None}
    of_others = {reference.title for title, reference in baselines.items() if title != reference.title}
    rest = [spec for spec in specs if spec.title not in of_others]
    size = _GROUP if len(of_others) <= 1 else _GROUP // 2
    size = max(1, min(size, -(-len(rest) // max(workers, 1))))
    groups = []
    for start in range(0, len(rest), size):
        group = {spec.title: spec for spec in rest[start : start + size]}
        references = [baselines[title] for title in group if title in baselines]
        groups.append(list((group | {reference.title: reference for reference in references}).values()))
    return groups


def _measure_group(
    group: list[ModelSpec], settings: ThroughputSettings, baseline: Baseline, meter: Meter
) -> list[ThroughputResult]:
    timed_networks = [_TimedNetwork(spec) for spec in group]
    with contextlib.ExitStack() as during:
        during.enter_context(as_current(torch.device(settings.device)))
        during.enter_context(numeric_flags(settings.precision, settings.threads))
        during.enter_context(compiled_alone(bool(settings.compile)))
        during.callback(_close, timed_networks, Timer)
        for span in settings.spans:
            with launcher_of(settings) as launcher:
                try:
                    _time_span(timed_networks, span, settings, launcher, meter)
                finally:
                    _close(timed_networks, OwnProcess)
    release_memory()
    results = []
    for timed in timed_networks:
        reference = baseline_of(timed.spec, baseline)
        of_it = next((other for other in timed_networks if reference and other.spec.title == reference.title), None)
        results.append(_result(timed, settings, of_it))
    return results


def _time_span(
    timed_networks: list[_TimedNetwork], span: range, settings: ThroughputSettings, launcher: Launcher, meter: Meter
) -> None:
    """Some of the rounds; networks that are timed in processes of their own have new ones for them."""
    for timed in timed_networks:
        if not isinstance(timed.timer, Timer) and timed.error is None:
            apart = runs_apart(timed.spec, settings)
            # What it has found out in its first process.
            same = dataclasses.replace(settings, batch_size=timed.batch_size or settings.batch_size)
            timed.timer = OwnProcess(timed.spec, same, launcher) if apart else Timer(timed.spec, settings)
    for timed in timed_networks:
        if timed.error is None:
            _guarded(timed, settings, _start)
    for timed in timed_networks:
        if timed.error is None and (isinstance(timed.timer, OwnProcess) or not timed.batch_size):
            meter.at(timed.spec.title)
            _guarded(timed, settings, lambda c: _warm_up(c, settings))
        meter.advance(f'warmed up {timed.spec.title}')
    running = [timed for timed in timed_networks if timed.error is None]
    for index in span:
        # Each round starts with another network, so that none always follows the same one.
        start = index % max(len(running), 1)
        for timed in running[start:] + running[:start]:
            if timed.error is None:
                meter.at(timed.spec.title)
                _guarded(timed, settings, _time_round)
        meter.advance(f'round {index + 1} of {settings.rounds}', len(timed_networks))


def _close(timed_networks: list[_TimedNetwork], kind: type[Timer] | type[OwnProcess]) -> None:
    for timed in timed_networks:
        if isinstance(timed.timer, kind):
            timed.timer.close()


def _guarded(timed: _TimedNetwork, settings: ThroughputSettings, work: Callable[[_TimedNetwork], None]) -> None:
    """Do ``work``; what goes wrong is kept as the timed's error, and its memory is given back.

    Raises:
        LostDeviceError: this process can do nothing more on its device.
    """
    try:
        work(timed)
    except Exception as error:
        timed.error = reason(error, settings, timed.timer.batch_size if timed.timer is not None else 0)
        _logger.debug('%s failed\n%s', timed.spec.title, traceback.format_exc())
        if is_device_lost(error):
            raise LostDeviceError(timed.spec.title, timed.error) from None
    if timed.error is not None:
        _logger.warning('%s: %s', timed.spec.title, timed.error)
        if timed.timer is not None:
            timed.timer.close()
        release_memory()


def _start(timed: _TimedNetwork) -> None:
    assert timed.timer is not None
    timed.timer.start()


def _warm_up(timed: _TimedNetwork, settings: ThroughputSettings) -> None:
    assert timed.timer is not None
    try:
        timed.timer.warm_up()
    except UnknownThereError:
        if settings.keep_freed_memory:
            raise InputError(f'only this process knows it; {OTHER_WAY}') from None
        timed.timer.close()
        timed.timer = Timer(timed.spec, settings)
        timed.timer.warm_up()
    if timed.batch_size not in (0, timed.timer.batch_size):
        raise RunError(
            f'batch size {timed.batch_size} fitted into memory once, and later only {timed.timer.batch_size}'
        )
    timed.batch_size = timed.timer.batch_size


def _time_round(timed: _TimedNetwork) -> None:
    assert timed.timer is not None
    timed.rounds.append(timed.timer.time_round())


def _result(timed: _TimedNetwork, settings: ThroughputSettings, baseline: _TimedNetwork | None) -> ThroughputResult:
    if timed.error is not None or timed.timer is None:
        return ThroughputResult(timed.spec.title, settings, error=timed.error)
    rates = timed.rates()
    median = statistics.median(rates)
    seconds = sorted(second for round_ in timed.rounds for second in round_)
    p95 = statistics.quantiles(seconds, n=20, method='inclusive')[-1] if len(seconds) > 1 else seconds[0]
    relative = None
    if baseline is not None and baseline.error is None and _takes_same_images(timed, baseline):
        relative = statistics.median(rate / other for rate, other in zip(rates, baseline.rates(), strict=True))
    return ThroughputResult(
        model=timed.spec.title,
        settings=settings,
        batch_size=timed.batch_size,
        img_size=timed.timer.input_size[-1],
        samples_per_sec=median,
        spread_percent=spread_percent(rates),
        step_time_ms=1e3 * timed.batch_size / median,
        step_time_p95_ms=1e3 * p95,
        steps=len(seconds),
        relative=relative,
        baseline=baseline.spec.title if baseline is not None else None,
        peak_memory_mb=timed.timer.peak_memory_mb,
        peak_reserved_mb=timed.timer.peak_reserved_mb,
        gpu=hardware_name(torch.device(settings.device)),
    )


def spread_percent(rates: Sequence[float]) -> float | None:
    """Interquartile range of the rounds' rates in percent of their median; None of one round, which has none."""
    if len(rates) < 2:
        return None
    low, median, high = statistics.quantiles(rates, n=4, method='inclusive')
    return 100 * (high - low) / median


def _takes_same_images(timed: _TimedNetwork, other: _TimedNetwork) -> bool:
    return timed.timer is not None and other.timer is not None and timed.timer.input_size == other.timer.input_size
