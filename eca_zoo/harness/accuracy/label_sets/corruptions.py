"""Accuracies over several data sets of one kind, such as the corruptions and severities of ImageNet-C."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

#: Mean top-1 error of AlexNet over the five severities of each corruption, for the mean corruption error.
#: Source: D. Hendrycks and T. Dietterich, Benchmarking neural network robustness to common corruptions and
#: perturbations, ICLR 2019; in the digits of google-research/augmix, imagenet.py, which has them from
#: hendrycks/robustness.
ALEXNET_ERRORS: Mapping[str, float] = {
    'gaussian_noise': 0.886428,
    'shot_noise': 0.894468,
    'impulse_noise': 0.922640,
    'defocus_blur': 0.819880,
    'glass_blur': 0.826268,
    'motion_blur': 0.785948,
    'zoom_blur': 0.798360,
    'snow': 0.866816,
    'frost': 0.826572,
    'fog': 0.819324,
    'brightness': 0.564592,
    'contrast': 0.853204,
    'elastic_transform': 0.646056,
    'pixelate': 0.717840,
    'jpeg_compression': 0.606500,
}
SEVERITIES = ('1', '2', '3', '4', '5')


class SetCounts(NamedTuple):
    """What was counted on one of the data sets: the path of its folder, its images, and right first guesses."""

    name: str
    images: int
    top1_count: int


def mean_top1(sets: Sequence[SetCounts]) -> float | None:
    """Mean of the top-1 accuracies of data sets, in percent; None without any, or where one has no image."""
    if not sets or any(not one.images for one in sets):
        return None
    return 100 * sum(one.top1_count / one.images for one in sets) / len(sets)


def mean_corruption_error(sets: Sequence[SetCounts]) -> float | None:
    """ImageNet-C's mCE in percent; None where a corruption or severity is missing, or there twice.

    The error of each corruption, a mean over the severities, is divided by AlexNet's. Folders are
    ``corruption/severity``, in other folders or not. Source: as ``ALEXNET_ERRORS``.
    """
    errors: dict[tuple[str, str], float] = {}
    for one in sets:
        corruption, _, severity = one.name.rpartition('/')
        key = corruption.rpartition('/')[2], severity
        if key in errors:
            return None
        if one.images:
            errors[key] = 1 - one.top1_count / one.images
    ratios = []
    for corruption, alexnet in ALEXNET_ERRORS.items():
        own = [errors.get((corruption, severity)) for severity in SEVERITIES]
        if None in own:
            return None
        ratios.append(sum(filter(None, own)) / len(SEVERITIES) / alexnet)
    return 100 * sum(ratios) / len(ratios)
