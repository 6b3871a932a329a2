"""Models for an evaluation: their transform, known before they are built, and the loaded network."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from timm.models import load_model_config_from_hf
from timm.models._hub import load_model_config_from_path
from torch import nn

import eca_zoo.models  # noqa: F401  (registers the networks)
from eca_zoo.errors import EcaZooError, InputError, RunError
from eca_zoo.harness.batches import PixelTransform, check_channels, fit_channels, one_line
from eca_zoo.harness.checkpoints import load_checkpoint
from eca_zoo.harness.devices import parameter_dtype
from eca_zoo.harness.evaluation import EvalSettings, ModelSpec
from eca_zoo.weights.manifest import load_manifest
from eca_zoo.weights.store import hash_file

_logger = logging.getLogger(__name__)

_HUB = ('hf-hub:', 'hf_hub:')
_FOLDER = 'local-dir:'


@dataclass(frozen=True)
class InputPlan:
    """What a model is fed with, known before it is built.

    Attributes:
        pixels: what models of a pass share.
        mean: of the model's normalisation.
        std: of the model's normalisation.
        test_pool: pool at test time, because the input is larger than in training.
        img_size_argument: for entry points of models that are built for one size.
        num_classes: of the model, where its cfg says so.
    """

    pixels: PixelTransform
    mean: tuple[float, ...]
    std: tuple[float, ...]
    test_pool: bool
    img_size_argument: int | None
    num_classes: int | None


@dataclass
class Network:
    """A network that is ready to run."""

    module: nn.Module
    num_classes: int
    params: int
    weights_sha256: str | None


def plan_input(spec: ModelSpec, settings: EvalSettings, mode: str | None = None) -> InputPlan:
    """The evaluation transform of a model, as timm resolves it from settings and the model's cfg; nothing is built.

    Args:
        spec: the model.
        settings: checked settings.
        mode: Pillow's mode of the images; by default the one with as many channels as the model takes.

    Raises:
        InputError: there is no such model, or no images with its number of channels.
    """
    cfg = _pretrained_cfg(spec)
    arguments = {
        'in_chans': spec.in_chans, 'input_size': settings.input_size, 'img_size': settings.img_size,
        'crop_pct': settings.crop_pct, 'crop_mode': settings.crop_mode, 'interpolation': settings.interpolation,
    }  # fmt: skip
    config = resolve_data_config(arguments, pretrained_cfg=cfg, use_test_size=not settings.use_train_size)
    size = tuple(config['input_size'])
    if spec.in_chans is not None and settings.input_size is None:
        size = (spec.in_chans, *size[1:])
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
    fixed = cfg.get('fixed_input_size') and tuple(size[1:]) != tuple(own[1:])
    num_classes = spec.num_classes if spec.num_classes is not None else cfg.get('num_classes')
    return InputPlan(pixels, mean, std, test_pool, size[-1] if fixed else None, num_classes)


def _pretrained_cfg(spec: ModelSpec) -> dict[str, Any]:
    """timm's cfg of a model with what its keyword arguments change in it, without building it."""
    given = spec.model_kwargs.get('pretrained_cfg')
    cfg = dict(given) if isinstance(given, dict) else _registered_cfg(spec)
    return cfg | dict(spec.model_kwargs.get('pretrained_cfg_overlay') or {})


def _registered_cfg(spec: ModelSpec) -> dict[str, Any]:
    try:
        if spec.name.startswith(_FOLDER):
            return dict(load_model_config_from_path(spec.name.removeprefix(_FOLDER))[0] or {})
        if spec.name.startswith(_HUB):
            return dict(load_model_config_from_hf(spec.name.partition(':')[2])[0] or {})
    except Exception as error:
        raise InputError(f'{spec.name}: its config cannot be read: {one_line(error)}') from error
    cfg = timm.get_pretrained_cfg(spec.name) if timm.is_model(spec.name) else None
    return cfg.to_dict() if cfg is not None else {}


def weights_identity(spec: ModelSpec) -> dict[str, Any]:
    """What identifies the weights of a model before they are loaded: a hash where one is known, else their place.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    place: dict[str, Any] = {'name': spec.name, 'pretrained': spec.pretrained, 'weights_sha256': weights_sha256(spec)}
    if place['weights_sha256'] is None and spec.pretrained:
        cfg = _pretrained_cfg(spec)
        place |= {key: str(cfg[key]) for key in ('url', 'file', 'hf_hub_id', 'hf_hub_filename') if cfg.get(key)}
    return place | {
        'num_classes': spec.num_classes,
        'in_chans': spec.in_chans,
        'model_kwargs': {key: repr(value) for key, value in sorted(spec.model_kwargs.items())},
    }


def weights_sha256(spec: ModelSpec) -> str | None:
    """SHA-256 of the file that the weights of a model come from; None if nobody knows it, or if they are random.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    if spec.checkpoint is not None:
        return _hash(spec.checkpoint)
    if not spec.pretrained:
        return None
    if spec.name.startswith(_FOLDER):
        file = Path(spec.name.removeprefix(_FOLDER)) / 'model.safetensors'
        return _hash(file) if file.is_file() else None
    cfg = _pretrained_cfg(spec)
    name = f'{cfg.get("architecture") or spec.name.partition(".")[0]}.{cfg.get("tag") or ""}'
    entry = load_manifest().models.get(name)
    return entry.checkpoint.sha256 if entry is not None and entry.checkpoint is not None else None


def _hash(path: Path) -> str:
    try:
        return hash_file(path)[0]
    except OSError as error:
        raise InputError(f'{path}: cannot read the checkpoint: {error.strerror}') from None


def load_network(spec: ModelSpec, settings: EvalSettings, plan: InputPlan) -> Network:
    """Build a model with its weights and put it on the device.

    Args:
        spec: the model.
        settings: checked settings.
        plan: of the model.

    Raises:
        InputError: there are no such weights, or they do not fit.
        RunError: the model cannot be built.
    """
    kwargs = dict(spec.model_kwargs)
    if plan.img_size_argument is not None:
        kwargs.setdefault('img_size', plan.img_size_argument)
    if spec.in_chans is not None or settings.input_size is not None:
        kwargs.setdefault('in_chans', plan.pixels.input_size[0])
    pretrained = spec.pretrained and spec.checkpoint is None
    try:
        with _seeded(settings.seed):
            module: Any = timm.create_model(
                spec.name,
                pretrained=pretrained,
                num_classes=spec.num_classes,
                global_pool=settings.global_pool,
                scriptable=settings.torchscript or None,
                **kwargs,
            )
    except EcaZooError:
        raise
    except Exception as error:
        raise _not_built(spec, error) from error
    sha256 = weights_sha256(spec) if spec.checkpoint is None else None
    if spec.checkpoint is not None:
        sha256 = load_checkpoint(module, spec.checkpoint, spec.title, settings.use_ema)
    num_classes = spec.num_classes if spec.num_classes is not None else getattr(module, 'num_classes', None)
    if not num_classes:
        raise InputError(f'{spec.title}: it has no classifier; build it with --num-classes and a --checkpoint')
    if settings.reparameterize:
        module = timm.utils.reparameterize_model(module)
    params = sum(parameter.numel() for parameter in module.parameters())
    return Network(_placed(module.eval(), settings, plan), num_classes, params, sha256)


def _not_built(spec: ModelSpec, error: Exception) -> EcaZooError:
    reason = one_line(error)
    if 'No pretrained weights exist' in reason or 'Invalid pretrained tag' in reason:
        return InputError(f'{spec.title}: timm has no weights for it; name a tag that has some, or a --checkpoint FILE')
    return RunError(f'{spec.title}: cannot be loaded: {reason}')


def _placed(module: Any, settings: EvalSettings, plan: InputPlan) -> nn.Module:
    if plan.test_pool:
        module, _ = timm.layers.apply_test_time_pool(module, {'input_size': plan.pixels.input_size})
    module = module.to(device=settings.device, dtype=parameter_dtype(settings.precision))
    if settings.channels_last:
        module = module.to(memory_format=torch.channels_last)
    if settings.torchscript:
        return torch.jit.script(module)
    if settings.compile:
        module.compile(backend=settings.compile, mode=settings.compile_mode or None, dynamic=False)
    return module


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Layers without weights get the same values in every process; torch's random state is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
