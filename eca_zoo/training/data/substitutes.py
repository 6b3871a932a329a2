"""What stands in the places of images that could not be decoded, so that a step keeps its size."""

from collections.abc import Sequence
from typing import TypeVar

from eca_zoo.errors import RunError
from eca_zoo.harness.data.images import BadImage

_Sample = TypeVar('_Sample')


def with_substitutes(found: Sequence[_Sample | None], bad: Sequence[BadImage]) -> list[_Sample]:
    """The samples of a part, each that is missing replaced by the next one; after the last comes the first.

    Args:
        found: in order; None where an image could not be decoded.
        bad: these images.

    Raises:
        RunError: none of them could be decoded.
    """
    good = [sample for sample in found if sample is not None]
    if not good:
        raise RunError(
            f'{bad[0].name}: cannot be decoded ({bad[0].reason}), nor any other image of its step; repair them'
        )
    filled, following = [], good[0]
    for sample in reversed(found):
        following = following if sample is None else sample
        filled.append(following)
    return filled[::-1]
