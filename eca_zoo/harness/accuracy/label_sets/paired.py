"""Two models on the same images: the difference of their accuracies, its interval, and a test of it.

Both saw the same images, so the images on which they agree say nothing of the difference; what says something are the
two counts of the others.
"""

import math
from dataclasses import dataclass

from eca_zoo.harness.accuracy.counts import Z95

_HALVINGS = 60


@dataclass(frozen=True)
class PairedCounts:
    """How two models did on the same images.

    Attributes:
        images: that both were counted on.
        gained: images that the baseline got wrong and the model right.
        lost: images that the baseline got right and the model wrong.
    """

    images: int
    gained: int
    lost: int

    def __post_init__(self) -> None:
        if min(self.gained, self.lost) < 0 or self.gained + self.lost > self.images:
            raise ValueError(f'{self.gained} gained and {self.lost} lost are no counts of {self.images} images')

    @property
    def difference(self) -> float | None:
        """Accuracy of the model minus that of the baseline, in percentage points; None without images."""
        return 100 * (self.gained - self.lost) / self.images if self.images else None

    def interval95(self) -> tuple[float, float] | None:
        """The 95 % interval of the difference in percentage points; None without images.

        It is the score interval: the differences at which the score test of two paired proportions does not reject.
        Source: T. Tango, Equivalence test and confidence interval for the difference in proportions for the
        paired-sample design, Statistics in Medicine 17 (1998), 891-908.
        """
        if not self.images:
            return None
        estimate = (self.gained - self.lost) / self.images
        return 100 * self._bound(estimate, -1.0), 100 * self._bound(estimate, 1.0)

    def _bound(self, inside: float, outside: float) -> float:
        """The difference between ``inside`` and ``outside`` at which the score test begins to reject."""
        if abs(self._score(outside)) <= Z95:
            return outside
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if abs(self._score(middle)) <= Z95 else (inside, middle)
        return inside

    def _score(self, difference: float) -> float:
        """Tango's score statistic of the hypothesis that the difference of the accuracies is ``difference``."""
        n, gained, lost = self.images, self.gained, self.lost
        distance = gained - lost - n * difference
        linear = (2 * n - gained + lost) * difference - gained - lost
        root = math.sqrt(max(linear**2 + 8 * n * lost * difference * (1 - difference), 0.0))
        share_lost = max((root - linear) / (4 * n), 0.0)
        variance = n * (2 * share_lost + difference * (1 - difference))
        if variance <= 0:
            return math.copysign(math.inf, distance) if distance else 0.0
        return distance / math.sqrt(variance)

    def p_value(self) -> float | None:
        """Two-sided p-value of McNemar's exact test that both are equally accurate; None without images.

        The sum of the binomial distribution is taken in integers, whatever the counts are. Source: Q. McNemar, Note on
        the sampling error of the difference between correlated proportions or percentages, Psychometrika 12 (1947),
        153-157.
        """
        if not self.images:
            return None
        discordant, fewer = self.gained + self.lost, min(self.gained, self.lost)
        if self.gained == self.lost:
            return 1.0
        term = tail = 1
        for k in range(fewer):
            term = term * (discordant - k) // (k + 1)
            tail += term
        return min(1.0, 2 * tail / 2**discordant)
