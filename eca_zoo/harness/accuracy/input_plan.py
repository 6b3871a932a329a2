"""What a model is fed with, known before it is built."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from timm.data import resolve_data_config

import eca_zoo.models  # noqa: F401  (registers the networks)
from eca_zoo.errors import InputError
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.batches import PixelTransform, check_channels, fit_channels
from eca_zoo.harness.networks.building import input_channels
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.networks.pretrained import check_classifier, pretrained_cfg

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InputPlan:
    """What a model is fed with, known before it is built.

    Attributes:
        pixels: what models of a pass share.
        mean: of the model's normalisation.
        std: of the model's normalisation.
        test_pool: pool at test time, because the input is larger than in training.
        img_size_argument: for entry points of models that are built for one size.
        num_classes: of the model, where it is known before its weights are read.
        cfg: timm's cfg of the model.
    """

    pixels: PixelTransform
    mean: tuple[float, ...]
    std: tuple[float, ...]
    test_pool: bool
    img_size_argument: int | None
    num_classes: int | None
    cfg: Mapping[str, Any]


def plan_input(spec: ModelSpec, settings: EvalSettings, mode: str | None = None) -> InputPlan:
    """The evaluation transform of a model, as timm resolves it from settings and the model's cfg; nothing is built.

    Args:
        spec: the model; what it says of its input goes before the settings.
        settings: checked settings.
        mode: Pillow's mode of the images; by default the one with as many channels as the model takes.

    Raises:
        InputError: there is no such model, or no images with its number of channels.
    """
    cfg = pretrained_cfg(spec)
    check_classifier(spec, cfg)
    settings = _settings_of(spec, settings)
    arguments = {
        'in_chans': spec.in_chans, 'input_size': settings.input_size, 'img_size': settings.img_size,
        'crop_pct': settings.crop_pct, 'crop_mode': settings.crop_mode, 'interpolation': settings.interpolation,
    }  # fmt: skip
    config = resolve_data_config(arguments, pretrained_cfg=cfg, use_test_size=not settings.use_train_size)
    if spec.module is not None and not cfg:
        _logger.warning(
            '%s: it has no pretrained_cfg, so that its input is assumed: %s pixels, crop %s, %s, mean %s, std %s; give '
            'img_size, crop_pct, interpolation, mean and std', spec.title, config['input_size'], config['crop_pct'],
            config['interpolation'], config['mean'], config['std'],
        )  # fmt: skip
    size = tuple(config['input_size'])
    channels = spec.in_chans if spec.module is None else input_channels(spec.module, size[0])
    if channels is not None and settings.input_size is None:
        size = (channels, *size[1:])
    elif channels is not None and channels != size[0]:
        raise InputError(
            f'{spec.title}: it takes {channels} channels and --input-size has {size[0]}; make them one number'
        )
    mean, std = (
        fit_channels(given if given is not None else config[key], size[0])
        for key, given in (('mean', settings.mean), ('std', settings.std))
    )
    own = cfg.get('input_size') or size
    test_pool = settings.test_pool and size[-1] > own[-1] and size[-2] > own[-2]
    crop_pct = 1.0 if test_pool else config['crop_pct']
    pixels = PixelTransform(
        size, crop_pct, config['crop_mode'], config['interpolation'], check_channels(size[0], mode),
        settings.crop_border_pixels,
        mean if config['crop_mode'] == 'border' or settings.normalize_in_workers else None,
        std if settings.normalize_in_workers else None,
        settings.preprocess,
    )  # fmt: skip
    if pixels.preprocess == 'gpu':
        _check_left_encoded(spec, pixels)
    fixed = cfg.get('fixed_input_size') and tuple(size[1:]) != tuple(own[1:])
    num_classes = spec.num_classes
    if num_classes is None and spec.checkpoint is None:
        # A module's cfg is of the weights that its name stands for, whose classes may be others.
        num_classes = getattr(spec.module, 'num_classes', None) or cfg.get('num_classes')
    return InputPlan(pixels, mean, std, test_pool, size[-1] if fixed else None, num_classes, cfg)


def _check_left_encoded(spec: ModelSpec, pixels: PixelTransform) -> None:
    try:
        pixels.left_encoded()
    except InputError as error:
        raise InputError(f'{spec.title}: {error}') from None


def _settings_of(spec: ModelSpec, settings: EvalSettings) -> EvalSettings:
    """``settings`` with what a model says of its input itself."""
    own = spec.own_input()
    if 'img_size' in own and settings.input_size is not None:
        own['input_size'] = (settings.input_size[0], spec.img_size, spec.img_size)
    return dataclasses.replace(settings, **own)
