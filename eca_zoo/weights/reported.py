"""What the authors of a checkpoint reported of it."""

from eca_zoo.strict_yaml import Strict


class ReportedAp(Strict, frozen=True):
    """Average precisions on COCO in percent, for boxes or for masks."""

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float

    def __post_init__(self) -> None:
        for key in self.__struct_fields__:
            _check_percentage(key, getattr(self, key))


class Reported(Strict, frozen=True):
    """What the authors reported: percentages, and ``params_m`` and ``gflops`` in the units of their table.

    A classifier has ``top1`` and ``top5``, a detector ``box`` and, where it has masks, ``mask``.
    """

    source: str
    top1: float | None = None
    top5: float | None = None
    box: ReportedAp | None = None
    mask: ReportedAp | None = None
    params_m: float | None = None
    gflops: float | None = None

    def __post_init__(self) -> None:
        for key in ('top1', 'top5'):
            if getattr(self, key) is not None:
                _check_percentage(key, getattr(self, key))
        if (self.top1 is None) != (self.top5 is None) or (self.top1 is None) == (self.box is None):
            raise ValueError('reported are top1 and top5 of a classifier, or box of a detector')


def _check_percentage(key: str, value: float) -> None:
    if not 0 <= value <= 100:
        raise ValueError(f'{key} is a percentage, not {value}')
