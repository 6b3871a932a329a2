"""Which differences between two rows are real: of accuracy, of throughput, of complexity."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from eca_zoo.harness.accuracy.counts import wilson_bounds
from eca_zoo.harness.accuracy.label_sets.paired import PairedCounts

Outcome = Literal['equal', 'better', 'worse', 'undecidable', 'different']
_INPUT = ('img_size', 'crop_pct', 'interpolation', 'preprocess')
_TIMED = ('infer_batch_size', 'infer_img_size', 'device', 'precision', 'memory_format', 'compile', 'backend', 'fused')
_COUNTED = ('params', 'infer_gmacs', 'infer_macts')


@dataclass(frozen=True)
class Verdict:
    """What is known of one difference.

    Attributes:
        outcome: whether the new figure is better or worse beyond doubt, equal, or not decidable; of complexities
            whether they are equal or different.
        text: the figures and the reason, in words.
        change: new minus old in percentage points, or new divided by old; None where one is missing.
    """

    outcome: Outcome
    text: str
    change: float | None = None


def accuracy_verdict(
    old: pd.Series, new: pd.Series, same_data: bool, paired: PairedCounts | None = None
) -> Verdict | None:
    """The verdict on top-1; None where one of both has none.

    Args:
        old: row of the old run.
        new: row of the new run.
        same_data: both saw the same images, as far as their fingerprints say.
        paired: counts of both on the same images, where they are known.
    """
    if pd.isna(old['top1']) or pd.isna(new['top1']):
        return None
    change = float(new['top1'] - old['top1'])
    figures = f'top-1 {_digits(old["top1"])} -> {_digits(new["top1"])} %'
    if not _equal(old, new, ('dataset',)):
        return Verdict('undecidable', f'{figures}; not decidable: on {old["dataset"]} and on {new["dataset"]}', change)
    weights = _both(old, new, 'weights_sha256')
    if weights and weights[0] == weights[1] and same_data and _equal(old, new, (*_INPUT, 'precision', 'fused')):
        return _of_same_weights(old, new, figures, change)
    if paired is not None and paired.images:
        interval = paired.interval95()
        assert interval is not None
        return _decided(change, interval, f'{figures}; paired, p = {paired.p_value():.3g}')
    margins = [_margins(row) for row in (old, new)]
    known = [margin for margin in margins if margin is not None]
    if not known:
        if change == 0:
            return Verdict('equal', figures, change)
        return Verdict('undecidable', f'{figures}; no interval: the number of images is not known', change)
    # Of figures without a number of images, such as published ones, nothing is known but the figure.
    (below_old, above_old), (below_new, above_new) = (margin or (0.0, 0.0) for margin in margins)
    interval = (change - math.hypot(below_new, above_old), change + math.hypot(above_new, below_old))
    how = (
        'unpaired: what each did with each image is not known'
        if len(known) == 2
        else 'the interval is of one of both alone'
    )
    return _decided(change, interval, f'{figures}; {how}')


def _margins(row: pd.Series) -> tuple[float, float] | None:
    """How far the bounds of the 95 % Wilson interval of top-1 are below and above it; None without images."""
    if pd.isna(row['num_images']) or not row['num_images']:
        return None
    low, high = wilson_bounds(count_of(row), int(row['num_images']))
    return float(row['top1']) - low, high - float(row['top1'])


def count_of(row: pd.Series) -> int:
    """Right first guesses of a row."""
    return round(float(row['top1']) * int(row['num_images']) / 100)


def _of_same_weights(old: pd.Series, new: pd.Series, figures: str, change: float) -> Verdict:
    counts = [count_of(row) for row in (old, new)] if _both(old, new, 'num_images') else None
    if change == 0 and (counts is None or counts[0] == counts[1]):
        return Verdict('equal', f'{figures}; same weights and data', change)
    named = f'{counts[0]} -> {counts[1]} right' if counts else 'other figures'
    outcome: Outcome = 'better' if change > 0 else 'worse'
    return Verdict(outcome, f'{figures}; {named} for the same weights, data and settings', change)


def _decided(change: float, interval: tuple[float, float], text: str) -> Verdict:
    low, high = interval
    outcome: Outcome = 'better' if low > 0 else 'worse' if high < 0 else 'undecidable'
    if change == 0:
        outcome = 'equal'
    return Verdict(outcome, f'{text}; difference {change:+.3f} [{low:+.3f}, {high:+.3f}]', change)


def throughput_verdict(old: pd.Series, new: pd.Series, same_machine: bool | None, scatter: float) -> Verdict | None:
    """The verdict on images/s; None where one of both has none.

    It is decided only on one machine, with equal settings, and where the ratio is beyond the noise of both runs and
    beyond what the runs' other networks scatter.

    Args:
        old: row of the old run.
        new: row of the new run.
        same_machine: whether both ran on one; None where that is not known.
        scatter: factor within which ratios of the runs' networks lie by chance, see ``scatter_of``.
    """
    figures = _both(old, new, 'infer_samples_per_sec')
    if figures is None:
        return None
    ratio = figures[1] / figures[0] if figures[0] else math.inf
    text = f'{figures[0]:.2f} -> {figures[1]:.2f} images/s ({100 * (ratio - 1):+.1f} %)'
    if same_machine is not True:
        reason = 'another machine' if same_machine is False else 'the machine of one is not known'
        return Verdict('undecidable', f'{text}; not decidable: {reason}', ratio)
    if not _equal(old, new, _TIMED):
        names = ', '.join(name for name in _TIMED if not _equal(old, new, (name,)))
        return Verdict('undecidable', f'{text}; not decidable: other settings ({names})', ratio)
    within = _noise_factor(old, new)
    if within is None:
        return Verdict('undecidable', f'{text}; not decidable: the spread of one is not known', ratio)
    if max(ratio, 1 / ratio) <= within:
        return Verdict('undecidable', f'{text}; within the noise of both ({100 * (within - 1):.1f} %)', ratio)
    if max(ratio, 1 / ratio) <= scatter:
        chance = 'do not agree on any' if math.isinf(scatter) else f'differ by chance up to x{scatter:.2f} in their'
        return Verdict('undecidable', f"{text}; not decidable: the runs' networks {chance} change", ratio)
    return Verdict('better' if ratio > 1 else 'worse', text, ratio)


def noise_of(row: pd.Series) -> float | None:
    """Noise of a throughput in percent: the spread of its rounds, or how far slow batches are from the median.

    On a busy machine the rounds may agree and the batches not.
    """
    if pd.isna(row['infer_spread']):
        return None
    noise = float(row['infer_spread'])
    slow = (row['infer_step_time_p95'], row['infer_step_time'])
    if not any(pd.isna(one) for one in slow) and slow[1] > 0:
        noise = max(noise, 100 * (float(slow[0]) / float(slow[1]) - 1))
    return noise


def _noise_factor(old: pd.Series, new: pd.Series) -> float | None:
    noise = [noise_of(row) for row in (old, new)]
    if any(one is None for one in noise):
        return None
    return math.prod(1 + float(one or 0) / 100 for one in noise)


def ratio_of(old: pd.Series, new: pd.Series) -> tuple[float, float] | None:
    """New by old throughput and the factor that is noise; None where they cannot be compared."""
    figures, within = _both(old, new, 'infer_samples_per_sec'), _noise_factor(old, new)
    if figures is None or within is None or not _equal(old, new, _TIMED) or min(figures) <= 0:
        return None
    return figures[1] / figures[0], within


def scatter_of(ratios: list[tuple[float, float]]) -> float:
    """Factor within which the ratios of two runs' throughputs lie by chance.

    The networks of one run are timed in turn, so what slows the machine down for a while slows all of them. Ratios that
    disagree with each other beyond their noise are of two runs that the machine treated differently: where most do,
    nothing can be decided. Otherwise it is three robust standard deviations; the centre is 1, so that a shift that all
    share counts in full.

    Args:
        ratios: new by old of all networks that both runs timed under the same settings, and the noise of each.
    """
    if len(ratios) < 2:
        return 1.0
    logs = [math.log(ratio) for ratio, _ in ratios]
    centre = _median(sorted(logs))
    disagreeing = min(
        sum(abs(one - common) > math.log(within) for one, (_, within) in zip(logs, ratios, strict=True))
        for common in (0.0, centre)
    )
    if 2 * disagreeing > len(ratios):
        return math.inf
    return math.exp(3 * 1.4826 * _median(sorted(abs(one - centre) for one in logs)))


def _median(values: list[float]) -> float:
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


def complexity_verdict(old: pd.Series, new: pd.Series) -> Verdict | None:
    """Whether the counts are equal; None where there is none in both."""
    known = [name for name in _COUNTED if _both(old, new, name) is not None]
    if (
        not known
        or (_both(old, new, 'infer_img_size') or (0, 0))[0] != (_both(old, new, 'infer_img_size') or (0, 0))[1]
    ):
        return None
    changed = [name for name in known if old[name] != new[name]]
    if not changed:
        return Verdict('equal', 'complexity is equal')
    return Verdict('different', ', '.join(f'{name} {old[name]} -> {new[name]}' for name in changed))


def _both(old: pd.Series, new: pd.Series, name: str) -> tuple[Any, Any] | None:
    pair = (old[name], new[name])
    return None if any(pd.isna(one) for one in pair) else pair


def _equal(old: pd.Series, new: pd.Series, names: tuple[str, ...]) -> bool:
    """Whether two rows agree in what both have."""
    return all(pair is None or pair[0] == pair[1] for pair in (_both(old, new, name) for name in names))


def _digits(value: float) -> str:
    return f'{value:.3f}'
