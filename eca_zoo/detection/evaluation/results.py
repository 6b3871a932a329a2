"""What an evaluation of detectors reports: how far it is, and what was found of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eca_zoo.detection.complexity import DetectorComplexity
from eca_zoo.detection.evaluation.detections import Detections, Task
from eca_zoo.detection.evaluation.matching import Matches


@dataclass(frozen=True)
class Progress:
    """How far an evaluation is: what is done now, units that are done, all of them, and their name."""

    part: str
    done: int
    total: int
    unit: str


@dataclass(frozen=True)
class TaskResult:
    """Figures of one task.

    Attributes:
        figures: the twelve of COCO's toolbox by their names, from 0 to 1; -1 where there is nothing that they are of.
        per_category: ``ap``, ``ap50`` and ``ap75`` of each category id, likewise.
        ap_ci95: half width of the 95 % interval of ``ap``; None without resamples.
        difference: ``ap`` less that of the baseline, and half the width of its interval; None without a baseline.
        matches: which detection found which object, in the main process alone.
    """

    figures: Mapping[str, float]
    per_category: Mapping[int, Mapping[str, float]]
    ap_ci95: float | None = None
    difference: tuple[float, float] | None = None
    matches: Matches | None = None


@dataclass(frozen=True)
class DetectorResult:
    """What one detector found in a set.

    Attributes:
        model: its title.
        dataset: name of the set.
        num_images: images that it was run on.
        weights_sha256: of the file that the weights were loaded from; None where there is none.
        tasks: figures of boxes and, where it has masks, of these.
        detections: all, in the order of the images, in the main process alone.
        complexity: its parameters and multiply-adds.
        checkpoint: file that was loaded; None for the detector's own weights.
        remarks: what a user has to know, a line each.
        error: why there are no figures; None if there are.
        exit_code: of the command line for this error; 0 without.
    """

    model: str
    dataset: str
    num_images: int = 0
    weights_sha256: str | None = None
    tasks: Mapping[Task, TaskResult] = field(default_factory=dict)
    detections: Detections | None = None
    complexity: DetectorComplexity | None = None
    checkpoint: Path | None = None
    remarks: Sequence[str] = ()
    error: str | None = None
    exit_code: int = 0
