"""What the class indices of a model are called."""

import re
from collections.abc import Mapping, Sequence

from eca_zoo.harness.data.datasets import OpenData

_WORDNET_ID = re.compile(r'n\d{8}')


def names_of_classes(
    data: OpenData, indices: Sequence[int], num_classes: int, label_names: Mapping[int, str] | None
) -> tuple[str, ...]:
    """A name for each class index of a model: the data set's, else the model's, else its WordNet id, else none.

    Args:
        data: the data set.
        indices: the class index of each of its labels.
        num_classes: of the model.
        label_names: names of its class indices, where its config has them.

    Returns:
        ``num_classes`` names; empty where nobody names a class.
    """
    own = dict(zip(indices, data.class_names or (), strict=False))
    names = {**_wordnet_ids(own, num_classes), **(label_names or {}), **own}
    return tuple(names.get(index, '') for index in range(num_classes))


def _wordnet_ids(own: Mapping[int, str], num_classes: int) -> dict[int, str]:
    """The ids of all classes of an ImageNet model, where the data set's classes have such names."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({'num_classes': num_classes})
    if subset is None or not own or not all(_WORDNET_ID.fullmatch(name) for name in own.values()):
        return {}
    return dict(enumerate(ImageNetInfo(subset).label_names()))
