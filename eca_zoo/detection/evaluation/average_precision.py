"""Average precision and recall of matches: the arrays of COCO's toolbox, and the twelve figures that it prints."""

from dataclasses import dataclass

import numpy as np

from eca_zoo.detection.evaluation.matching import AREAS, IOU_THRESHOLDS, MAX_DETECTIONS, Floats, Ints, Matches

#: Recalls at which the precision is read; the toolbox's values, to the last bit.
RECALLS = np.linspace(0.0, 1.0, 101)
_ALL = list(AREAS).index('all')
_MOST = len(MAX_DETECTIONS) - 1
#: Figure -> whether it is of precision, its threshold (None: the mean of all), area, and detections an image.
FIGURES: dict[str, tuple[bool, float | None, str, int]] = {
    'ap': (True, None, 'all', 100), 'ap50': (True, 0.5, 'all', 100), 'ap75': (True, 0.75, 'all', 100),
    'ap_small': (True, None, 'small', 100), 'ap_medium': (True, None, 'medium', 100),
    'ap_large': (True, None, 'large', 100),
    'ar_1': (False, None, 'all', 1), 'ar_10': (False, None, 'all', 10), 'ar_100': (False, None, 'all', 100),
    'ar_small': (False, None, 'small', 100), 'ar_medium': (False, None, 'medium', 100),
    'ar_large': (False, None, 'large', 100),
}  # fmt: skip


@dataclass(frozen=True)
class Curves:
    """Precision and recall of K categories; -1 where a category has no object that counts.

    Attributes:
        categories: ids, ascending.
        precision: (T, R, K, A, M): at each of ``RECALLS``, the best precision from there on.
        recall: (T, K, A, M): share of the objects that were found.
    """

    categories: tuple[int, ...]
    precision: Floats
    recall: Floats

    def figures(self) -> dict[str, float]:
        """The twelve figures, from 0 to 1; -1 where there is nothing that they could be of, as in the toolbox."""
        return {name: self._figure(*what) for name, what in FIGURES.items()}

    def per_category(self) -> dict[int, dict[str, float]]:
        """``ap``, ``ap50`` and ``ap75`` of each category id; -1 without objects."""
        result = {}
        for index, category in enumerate(self.categories):
            part = Curves((category,), self.precision[:, :, index : index + 1], self.recall[:, index : index + 1])
            result[category] = {name: part._figure(*FIGURES[name]) for name in ('ap', 'ap50', 'ap75')}
        return result

    def _figure(self, of_precision: bool, threshold: float | None, area: str, most: int) -> float:
        values = (self.precision if of_precision else self.recall)[..., list(AREAS).index(area), :]
        values = values[..., MAX_DETECTIONS.index(most)]
        if threshold is not None:
            values = values[threshold == IOU_THRESHOLDS]
        known = values[values > -1]
        return float(np.mean(known)) if len(known) else -1.0


def accumulate(matches: Matches) -> Curves:
    """Precision and recall over the detections of all images, in the order of their scores.

    Only where an object is found do recall and the best precision change, so that the rest is counted and not stored.
    """
    shape = (len(IOU_THRESHOLDS), len(RECALLS), len(matches.categories), len(AREAS), len(MAX_DETECTIONS))
    precision = np.full(shape, -1.0)
    recall = np.full((shape[0], *shape[2:]), -1.0)
    for category in range(len(matches.categories)):
        order = by_score(matches, category)
        objects = matches.object_ignored[:, slice_of(matches.object_category, category)]
        for most, limit in enumerate(MAX_DETECTIONS):
            kept = order[matches.rank[order] < limit]
            for area in range(len(AREAS)):
                wanted = int(np.count_nonzero(~objects[area]))
                if wanted:
                    curve = _curve(matches, kept, area, wanted)
                    precision[:, :, category, area, most], recall[:, category, area, most] = curve
    return Curves(matches.categories, precision, recall)


def by_score(matches: Matches, category: int) -> Ints:
    """Indices of the detections of a category, best first; equal scores stay in the order of the images."""
    start, stop, _ = slice_of(matches.category, category).indices(len(matches.category))
    return start + np.argsort(-matches.scores[start:stop], kind='stable')


def slice_of(values: Ints, value: int) -> slice:
    """Where ``value`` is among ascending ``values``."""
    return slice(*np.searchsorted(values, [value, value + 1]).tolist())


def _curve(matches: Matches, order: Ints, area: int, wanted: int) -> tuple[Floats, Floats]:
    """(T, R) precision and (T,) recall of one category."""
    counts = ~matches.ignored[area][:, order]
    right = matches.found[area][:, order] & counts
    seen = np.cumsum(counts, axis=1, dtype=np.int64)
    precision = np.zeros((len(counts), len(RECALLS)))
    for threshold in range(len(counts)):
        places = np.flatnonzero(right[threshold])
        found = np.arange(1.0, len(places) + 1)
        best = found / (seen[threshold, places] + np.spacing(1))
        best = np.maximum.accumulate(best[::-1])[::-1]
        reached = np.searchsorted(found / wanted, RECALLS, side='left')
        is_reached = reached < len(places)
        precision[threshold, is_reached] = best[reached[is_reached]]
    return precision, right.sum(axis=1) / wanted
