"""A model as a user names it: what is built, and where its weights come from."""

from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

from torch import nn

from eca_zoo.errors import InputError

#: What timm puts before the folder of a network that it loads with its config.
LOCAL_DIR = 'local-dir:'


@dataclass(frozen=True)
class ModelSpec:
    """A model to evaluate.

    Attributes:
        name: timm's name, or what timm loads by schema (``hf-hub:ORG/NAME``, ``local-dir:DIR``).
        pretrained: load the weights that the name stands for; random ones otherwise.
        checkpoint: file with the weights in their place.
        num_classes: of the model, if it is not what the name stands for.
        in_chans: channels of the input, if they are not what the name stands for.
        model_kwargs: further arguments of the model's entry point; ``num_classes`` and ``in_chans`` among them become
            the fields.
        img_size: height and width of its images in pixels, in the place of what holds for all models.
        crop_pct: share of the resized image that the crop keeps, likewise.
        interpolation: of the resize, likewise.
        mean: subtracted from the channels, for values in [0, 1], likewise.
        std: the channels are divided by, for values in [0, 1], likewise.
        label: name in tables; the model's, or that of the training that made the checkpoint, with the checkpoint's file
            name if there is one, if it is empty.
        module: a network that is built already, in the place of what ``name`` stands for; it is copied, not changed.
    """

    name: str
    pretrained: bool = True
    checkpoint: Path | None = None
    num_classes: int | None = None
    in_chans: int | None = None
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    img_size: int | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    label: str = ''
    module: nn.Module | None = None

    def __post_init__(self) -> None:
        """Give ``num_classes`` and ``in_chans`` one place.

        Raises:
            InputError: they are given twice, and differ, or are no such numbers.
        """
        kwargs = dict(self.model_kwargs)
        for name in ('num_classes', 'in_chans'):
            given, own = kwargs.pop(name, None), getattr(self, name)
            if given is not None and own is not None and given != own:
                flag = f'--{name.replace("_", "-")}'
                raise InputError(
                    f'{self.title}: {flag} {own} and --model-kwargs {name}={given} differ; give one of them'
                )
            object.__setattr__(self, name, own if given is None else given)
        for name, smallest in (('num_classes', 0), ('in_chans', 1)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, Integral) or isinstance(value, bool) or value < smallest):
                raise InputError(f'{self.title}: {name} must be an integer from {smallest}, not {value!r}')
        object.__setattr__(self, 'model_kwargs', kwargs)

    @property
    def title(self) -> str:
        """What tables and messages call it."""
        return self.label or (f'{self.name}@{self.checkpoint.name}' if self.checkpoint is not None else self.name)

    def own_input(self) -> dict[str, Any]:
        """What its images are by its own account, under the names of the fields."""
        given = {name: getattr(self, name) for name in ('img_size', 'crop_pct', 'interpolation', 'mean', 'std')}
        return {name: value for name, value in given.items() if value is not None}


def network_arguments(spec: ModelSpec) -> dict[str, Any]:
    """Arguments of the entry point of a network; which weights it has makes no difference to a measurement."""
    given = {'num_classes': spec.num_classes, 'in_chans': spec.in_chans}
    return {**{key: value for key, value in given.items() if value is not None}, **spec.model_kwargs}
