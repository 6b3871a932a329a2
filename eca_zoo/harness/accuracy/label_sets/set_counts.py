"""What was counted on each of several data sets that lie in one folder."""

from collections.abc import Sequence

import numpy as np

from eca_zoo.harness.accuracy.label_sets.corruptions import SetCounts
from eca_zoo.harness.accuracy.label_sets.right_images import from_text
from eca_zoo.harness.data.datasets import OpenData
from eca_zoo.harness.data.images import BadImage
from eca_zoo.harness.data.listing import set_of


def counts_by_set(data: OpenData, right: str, bad: Sequence[BadImage]) -> tuple[SetCounts, ...]:
    """The counts of each data set in the folder of ``data``, by name; nothing where it is one data set.

    Args:
        data: the images.
        right: which of them are right, see ``right_images``.
        bad: those that could not be decoded.
    """
    if data.spec.sets is None:
        return ()
    names = data.images.names()
    sets = [set_of(name) for name in names]
    known = sorted(set(sets))
    number = {name: index for index, name in enumerate(known)}
    of_image = np.array([number[name] for name in sets])
    unread = {image.name for image in bad}
    readable = np.array([data.images.name(at) not in unread for at in range(len(names))]) if bad else slice(None)
    images = np.bincount(of_image[readable], minlength=len(known))
    hits = np.bincount(of_image[from_text(right, len(names)).numpy()], minlength=len(known))
    return tuple(SetCounts(*row) for row in zip(known, images.tolist(), hits.tolist(), strict=True))
