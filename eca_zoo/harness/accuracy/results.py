"""What an evaluation reports: how far it is, and what was counted of each model."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eca_zoo.harness.accuracy.counts import IMAGES, TOP1, TOP5, percent, wilson_half_width
from eca_zoo.harness.accuracy.label_sets.corruptions import SetCounts, mean_corruption_error, mean_top1
from eca_zoo.harness.data.images import BadImage


@dataclass(frozen=True)
class Progress:
    """How far a pass is: images done, all images of the pass, and the titles of its models."""

    done: int
    total: int
    models: Sequence[str]


@dataclass(frozen=True)
class AccuracyResult:
    """What was counted of one model.

    Attributes:
        model: its title.
        name: what timm builds it by, without its checkpoint.
        dataset: name of the data set.
        weights_sha256: of the file that the weights were loaded from; None where nobody knows it.
        num_images: images that were counted.
        top1_count: of them, those whose class is the first guess.
        top5_count: of them, those whose class is among the first five guesses (all, if there are fewer classes).
        loss: mean cross-entropy.
        per_class: for each class of the model its images, right first and first five guesses, and how often it was
            guessed first.
        class_names: of each class of the model; empty where it has none.
        confusion: class, first guess and number of images of each pair that occurs, where guesses were kept.
        img_size: height and width of the input in pixels.
        crop_pct: share of the resized image that the crop keeps.
        interpolation: of the resize.
        preprocess: how images were prepared: ``exact``, ``fast`` or ``gpu``; None where nobody noted it.
        gpu_decoded: images that the GPU decoded, with ``preprocess`` gpu.
        cpu_decoded: with it, those that the CPU decoded, in timm's way.
        params: number of parameters.
        batch_size: images a step, after halving.
        skipped: images that could not be decoded.
        checkpoint: file that was loaded; None for the model's own weights.
        fuse: the network ran in its form for inference.
        gpu: its name; None for the CPU.
        right: a bit for each image, whether its first guess is right, see ``label_sets.right_images``; None where that
            is not known.
        sets: what was counted on each of the data sets that the folder holds, where it holds several.
        error: why there is no accuracy; None if there is one.
        exit_code: of the command line for this error; 0 without.
    """

    model: str
    dataset: str
    name: str = ''
    weights_sha256: str | None = None
    num_images: int = 0
    top1_count: int = 0
    top5_count: int = 0
    loss: float | None = None
    per_class: tuple[tuple[int, ...], ...] = ()
    class_names: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    img_size: int | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    preprocess: str | None = None
    gpu_decoded: int | None = None
    cpu_decoded: int | None = None
    params: int | None = None
    batch_size: int | None = None
    skipped: tuple[BadImage, ...] = ()
    checkpoint: Path | None = None
    fuse: bool = False
    gpu: str | None = None
    right: str | None = None
    sets: tuple[SetCounts, ...] = ()
    error: str | None = None
    exit_code: int = 0

    @property
    def top1(self) -> float | None:
        """Top-1 accuracy in percent, rounded as timm rounds it; None without any image."""
        return self._percent(self.top1_count)

    @property
    def top5(self) -> float | None:
        """Top-5 accuracy in percent, rounded as timm rounds it; None without any image."""
        return self._percent(self.top5_count)

    @property
    def top1_err(self) -> float | None:
        """100 - top-1, rounded as timm rounds it."""
        return self._percent(self.num_images - self.top1_count)

    @property
    def top5_err(self) -> float | None:
        """100 - top-5, rounded as timm rounds it."""
        return self._percent(self.num_images - self.top5_count)

    @property
    def top1_ci95(self) -> float | None:
        """Half width of the 95 % Wilson interval of top-1, in percent."""
        return round(wilson_half_width(self.top1_count, self.num_images), 4) if self.num_images else None

    @property
    def mean_top1(self) -> float | None:
        """Mean of the top-1 accuracies of the data sets that the folder holds, in percent; None for a single one."""
        return mean_top1(self.sets)

    @property
    def mce(self) -> float | None:
        """Mean corruption error of ImageNet-C in percent; None for other data sets."""
        return mean_corruption_error(self.sets)

    @property
    def param_count(self) -> float | None:
        """Parameters in 10^6, rounded as timm rounds them."""
        return None if self.params is None else round(self.params / 1e6, 2)

    def _percent(self, count: int) -> float | None:
        return round(percent(count, self.num_images), 4) if self.num_images else None

    def class_accuracies(self) -> list[tuple[float, float] | None]:
        """Top-1 and top-5 in percent of each class; None for one without images."""
        return [
            (percent(row[TOP1], row[IMAGES]), percent(row[TOP5], row[IMAGES])) if row[IMAGES] else None
            for row in self.per_class
        ]

    def to_json(self) -> dict[str, Any]:
        """As JSON, for a journal."""
        row = dataclasses.asdict(self)
        return row | {'checkpoint': str(self.checkpoint) if self.checkpoint is not None else None}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> 'AccuracyResult':
        """The result that ``to_json`` wrote."""
        return cls(
            **row
            | {
                'checkpoint': Path(row['checkpoint']) if row['checkpoint'] is not None else None,
                'per_class': tuple(tuple(counts) for counts in row['per_class']),
                'class_names': tuple(row.get('class_names', ())),
                'confusion': tuple(tuple(counts) for counts in row.get('confusion', ())),
                'sets': tuple(SetCounts(*counts) for counts in row.get('sets', ())),
                'skipped': tuple(BadImage(*image) for image in row['skipped']),
            }
        )
