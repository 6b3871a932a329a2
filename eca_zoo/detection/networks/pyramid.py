"""The backbone of a detector: any of timm's feature extractors, and a feature pyramid on it."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from eca_zoo.errors import InputError, one_line

_FEATURE_STRIDES = (4, 8, 16, 32)


class TwoMoreConvolved(ExtraFPNBlock):
    """RetinaNet's levels P6 and P7: convolutions with stride 2, of the body's last map and of P6.

    As in mmdetection v1 the first reads the body and not the pyramid, whatever its channels, and no ReLU stands before
    the second.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1)
        conv: Any
        for conv in (self.p6, self.p7):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(
        self, results: list[torch.Tensor], x: list[torch.Tensor], names: list[str]
    ) -> tuple[list[torch.Tensor], list[str]]:
        """The pyramid's maps ``results`` and ``names`` with two more, for the body's maps ``x``."""
        p6 = self.p6(x[-1])
        return [*results, p6, self.p7(p6)], [*names, 'p6', 'p7']


class Halved(ExtraFPNBlock):
    """The level P6 of proposals: every other row and column of P5."""

    def forward(
        self, results: list[torch.Tensor], x: list[torch.Tensor], names: list[str]
    ) -> tuple[list[torch.Tensor], list[str]]:
        """The pyramid's maps ``results`` and ``names`` with one more."""
        return [*results, nn.functional.max_pool2d(results[-1], 1, stride=2)], [*names, 'pool']


@dataclass(frozen=True)
class Body:
    """A feature extractor and what a pyramid has to know of it.

    Attributes:
        module: maps (N, 3, H, W) to a list or dict of features.
        channels: of each feature.
        strides: of each feature, in pixels.
    """

    module: nn.Module
    channels: tuple[int, ...]
    strides: tuple[int, ...]


class PyramidBackbone(nn.Module):
    """A body and a feature pyramid: (N, 3, H, W) to a list of maps (N, C, H / stride, W / stride)."""

    def __init__(
        self,
        body: Body,
        lowest_stride: int,
        out_channels: int,
        extra: type[ExtraFPNBlock] | None,
        has_fixed_statistics: bool,
    ) -> None:
        """Put a pyramid on ``body``.

        Args:
            body: with features at strides of ``lowest_stride`` to 32.
            lowest_stride: of the pyramid, 4 or 8.
            out_channels: of all the pyramid's maps.
            extra: kind of levels beyond stride 32.
            has_fixed_statistics: batch norms of the body use their running statistics in training too.

        Raises:
            InputError: the body lacks a stride.
        """
        super().__init__()
        wanted = _FEATURE_STRIDES[_FEATURE_STRIDES.index(lowest_stride) :]
        self.body = body.module
        self.chosen = [_position(body.strides, stride) for stride in wanted]
        channels = [body.channels[position] for position in self.chosen]
        block: Any = extra and (extra(channels[-1], out_channels) if extra is TwoMoreConvolved else extra())
        self.fpn = FeaturePyramidNetwork(channels, out_channels, extra_blocks=block)
        self.has_fixed_statistics = has_fixed_statistics
        self.strides = (*wanted, *{None: (), Halved: (64,), TwoMoreConvolved: (64, 128)}[extra])
        self.train(self.training)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Maps of the pyramid, the finest first, for normalised images (N, 3, H, W)."""
        features = self.body(x)
        features = list(features.values()) if isinstance(features, dict) else list(features)
        if str(getattr(self.body, 'output_fmt', 'NCHW')).endswith('NHWC'):
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        levels = self.fpn(OrderedDict((str(level), features[i]) for level, i in enumerate(self.chosen)))
        return list(levels.values())

    def train(self, mode: bool = True) -> 'PyramidBackbone':
        """As for every module, but for the norms whose statistics are fixed."""
        super().train(mode)
        if mode and self.has_fixed_statistics:
            for module in self.body.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def _position(strides: Sequence[int], stride: int) -> int:
    return len(strides) - 1 - strides[::-1].index(stride)


def create_body(name: str, lowest_stride: int, pretrained: bool, **kwargs: Any) -> Body:
    """A network of timm's registry as a feature extractor for a pyramid from ``lowest_stride`` on.

    Raises:
        InputError: there is no such network, or it has no features at the strides that a pyramid needs.
    """
    try:
        with torch.device('meta'):
            info: Any = timm.create_model(name, features_only=True, **kwargs).feature_info
    except InputError:
        raise
    except Exception as error:
        raise InputError(f'backbone {name!r} is no network that timm gives features of: {one_line(error)}') from error
    strides = tuple(info.get('reduction', list(range(len(info.info)))))
    _check_strides(strides, lowest_stride, name)
    chosen = [_position(strides, stride) for stride in _FEATURE_STRIDES if stride >= lowest_stride]
    module = timm.create_model(name, features_only=True, out_indices=chosen, pretrained=pretrained, **kwargs)
    info = module.feature_info
    return Body(module, tuple(info.channels()), tuple(info.reduction()))


def given_body(module: nn.Module, lowest_stride: int) -> Body:
    """A user's own feature extractor, described by its ``feature_info`` as timm's are.

    Raises:
        InputError: it has none, or lacks a stride.
    """
    info: Any = getattr(module, 'feature_info', None)
    if not (callable(getattr(info, 'channels', None)) and callable(getattr(info, 'reduction', None))):
        raise InputError(
            f'the backbone {type(module).__name__} has no feature_info with channels() and reduction(), '
            'from which a pyramid is built; make it with timm.create_model(NAME, features_only=True)'
        )
    body = Body(module, tuple(info.channels()), tuple(info.reduction()))
    _check_strides(body.strides, lowest_stride, type(module).__name__)
    return body


def _check_strides(strides: Sequence[int], lowest_stride: int, name: str) -> None:
    wanted = [stride for stride in _FEATURE_STRIDES if stride >= lowest_stride]
    if missing := [stride for stride in wanted if stride not in strides]:
        raise InputError(
            f'backbone {name} has features at strides {", ".join(map(str, dict.fromkeys(strides)))}; a pyramid needs '
            f'{", ".join(map(str, wanted))}, of which it lacks {", ".join(map(str, missing))}'
        )


def freeze_stages(body: Body, trainable_stages: int) -> None:
    """Leave the last ``trainable_stages`` of a body to training: 4 are all but its stem, 5 with it.

    Raises:
        InputError: a number out of range, or the body does not say which of its modules are stages.
    """
    if not 0 <= trainable_stages <= 5:
        raise InputError(f'trainable_stages is from 0 to 5, not {trainable_stages}')
    if trainable_stages == 5:
        return
    if trainable_stages == 0:
        body.module.requires_grad_(False)
        return
    info: Any = getattr(body.module, 'feature_info', None)
    ends = {entry['reduction']: entry['module'] for entry in getattr(info, 'info', ())}
    last = _FEATURE_STRIDES[3 - trainable_stages] if trainable_stages < 4 else 2
    modules = dict(body.module.named_modules())
    frozen = _up_to(list(modules), ends.get(last))
    if last == 2 and not frozen:  # the stem is what precedes the first stage
        frozen = _before(list(modules), ends.get(_FEATURE_STRIDES[0]))
    if not frozen:
        raise InputError(
            f'the backbone {type(body.module).__name__} does not say which module ends at stride {last}, so its stages '
            'cannot be frozen; use trainable_stages=5 and set requires_grad yourself'
        )
    for name in frozen:
        for parameter in modules[name].parameters(recurse=False):
            parameter.requires_grad_(False)


def _up_to(names: list[str], stage: str | None) -> list[str]:
    """Names of modules, in order, up to those in ``stage``; none if it is not there."""
    found = _found(names, stage)
    places = [i for i, name in enumerate(names) if found and f'{name}.'.startswith(f'{found}.')]
    return names[: places[-1] + 1] if places else []


def _before(names: list[str], stage: str | None) -> list[str]:
    """Names of modules, in order, before ``stage``; none if it is not there."""
    found = _found(names, stage)
    return names[: names.index(found)] if found else []


def _found(names: list[str], stage: str | None) -> str | None:
    """What the module ``stage`` is called: timm's extractors join names by underscores, or wrap the network."""
    if stage is None:
        return None
    spellings = (stage, stage.replace('.', '_'))
    wrapped = (name for name in names if name.endswith(tuple(f'.{spelling}' for spelling in spellings)))
    return next((spelling for spelling in spellings if spelling in names), next(wrapped, None))
