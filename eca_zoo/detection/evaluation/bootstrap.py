"""How sure an average precision is: intervals by the bootstrap over images, of one detector and of a difference.

A resample draws as many images as there are, with replacement. Which detection finds which object stays, so that images
are matched once and then weighted by how often they were drawn: sums of integers, without any image being read again.

The interval is 1.96 standard errors to either side. Quantiles of the resamples would lie too high: the precision at a
recall is the best one from there on, and that best is taken over fewer different images.

Source: B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapter 6 and section 13.2.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from eca_zoo.detection.evaluation.average_precision import RECALLS, by_score, slice_of
from eca_zoo.detection.evaluation.matching import AREAS, Bools, Floats, Ints, Matches

#: Resamples that an interval is made of by default.
RESAMPLES = 1000
# Two-sided 95 % quantile of the normal distribution.
_Z95 = 1.959963984540054
_ALL = list(AREAS).index('all')
# Resamples that are worked out at a time: their weights stay in the processor's cache.
_AT_A_TIME = 32

#: Called with the resamples that are done, and all of them.
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Interval:
    """A figure of the images as they are, and half the width of its 95 % interval; both as shares of 1."""

    value: float
    half_width: float

    @property
    def low(self) -> float:
        """Lower end."""
        return self.value - self.half_width

    @property
    def high(self) -> float:
        """Upper end."""
        return self.value + self.half_width


def ap_interval(
    matches: Matches, resamples: int = RESAMPLES, seed: int = 0, report: Report | None = None
) -> Interval | None:
    """AP (mean of all thresholds and categories, all areas) with its interval; None where there is no AP.

    Args:
        matches: of one detector and task.
        resamples: how many.
        seed: of the draws.
        report: called now and then.
    """
    value = float(ap_of_resamples(matches, np.ones((1, matches.images), dtype=np.int32))[0])
    return _interval(value, _resampled(matches, resamples, seed, report))


def difference_interval(
    matches: Matches, baseline: Matches, resamples: int = RESAMPLES, seed: int = 0, report: Report | None = None
) -> Interval | None:
    """AP of ``matches`` less that of ``baseline``, with its interval; both are resampled with the same images.

    Args:
        matches: of one detector.
        baseline: of another one, on the same annotations.
        resamples: how many.
        seed: of the draws.
        report: called now and then.
    """
    if (matches.images, matches.categories) != (baseline.images, baseline.categories):
        raise ValueError('a paired interval is of two detectors on the same images and categories')
    once = np.ones((1, matches.images), dtype=np.int32)
    value = float(ap_of_resamples(matches, once)[0] - ap_of_resamples(baseline, once)[0])
    resampled = _resampled(matches, resamples, seed, report) - _resampled(baseline, resamples, seed, report)
    return _interval(value, resampled)


def ap_of_resamples(matches: Matches, weights: Ints) -> Floats:
    """AP of resampled images; nan where no object was drawn.

    It is what the evaluation of a set gives in which each image stands as often as it was drawn (but for detections of
    one image and category with equal scores, which would alternate there).

    Args:
        matches: of one detector.
        weights: (B, images) int32: how often each was drawn.

    Returns:
        (B,) float64.
    """
    total, categories = np.zeros(len(weights)), np.zeros(len(weights), dtype=np.int64)
    for category in range(len(matches.categories)):
        objects = slice_of(matches.object_category, category)
        wanted_images = matches.object_image[objects][~matches.object_ignored[_ALL, objects]]
        wanted = weights[:, wanted_images].sum(axis=1)
        order = by_score(matches, category)
        own = _category_ap(
            weights[:, matches.image[order]], matches.found[_ALL][:, order], matches.ignored[_ALL][:, order], wanted
        )
        total += np.where(wanted > 0, own, 0.0)
        categories += wanted > 0
    with np.errstate(invalid='ignore'):
        return total / categories


def _category_ap(weights: Ints, found: Bools, ignored: Bools, wanted: Ints) -> Floats:
    """(B,) AP of one category.

    Args:
        weights: (B, D) of the image of each detection, best first.
        found: (T, D) whether it found an object.
        ignored: (T, D) whether it does not count.
        wanted: (B,) objects.
    """
    seen = np.cumsum(weights, axis=1, dtype=np.int32)
    none = np.zeros((len(weights), 1), dtype=np.int32)
    total = np.zeros(len(weights))
    for right, left_out in zip(found & ~ignored, ignored, strict=True):
        places, gaps = np.flatnonzero(right), np.flatnonzero(left_out)
        if not len(places):
            continue
        counted = seen[:, places]
        if len(gaps):
            missing = np.hstack([none, np.cumsum(weights[:, gaps], axis=1, dtype=np.int32)])
            counted = counted - missing[:, np.searchsorted(gaps, places)]
        hits = np.cumsum(weights[:, places], axis=1, dtype=np.int32)
        precision = hits / (counted + np.spacing(1))
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # The recalls up to the one that is reached here; those since the place before have this precision.
        reached = np.searchsorted(RECALLS, hits / np.maximum(wanted, 1)[:, None], side='right')
        total += (best * np.diff(reached, axis=1, prepend=0)).sum(axis=1)
    return total / (len(found) * len(RECALLS))


def _resampled(matches: Matches, resamples: int, seed: int, report: Report | None) -> Floats:
    values, done = [], 0
    for weights in _weights(matches.images, resamples, seed):
        values.append(ap_of_resamples(matches, weights))
        done += len(weights)
        if report is not None:
            report(done, resamples)
    return np.concatenate(values) if values else np.zeros(0)


def _weights(images: int, resamples: int, seed: int) -> Iterator[Ints]:
    """How often images are drawn; a resample depends on the seed and its number alone."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _AT_A_TIME):
        weights = np.zeros((min(_AT_A_TIME, resamples - start), images), dtype=np.int32)
        for row in weights if images else ():
            row[:] = np.bincount(rng.integers(0, images, images), minlength=images)
        yield weights


def _interval(value: float, resampled: Floats) -> Interval | None:
    known = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or len(known) < 2:
        return None
    return Interval(value, _Z95 * float(known.std(ddof=1)))
