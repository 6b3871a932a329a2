"""Building a network of timm's registry, and the image size that it is evaluated at."""

import contextlib
from collections.abc import Iterator
from typing import Any

import timm
from torch import nn

from eca_zoo.errors import InputError
from eca_zoo.models.inference_form import optimize_for_inference


def create_network(
    name: str, img_size: int | None = None, model_kwargs: dict[str, Any] | None = None, pretrained: bool = False
) -> nn.Module:
    """The network ``name``, made for images of ``img_size`` pixels where its layers depend on their size."""
    model_kwargs = dict(model_kwargs or {})
    cfg = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if img_size and cfg is not None and cfg.fixed_input_size and img_size not in cfg.input_size:
        model_kwargs.setdefault('img_size', img_size)
    return timm.create_model(name, pretrained=pretrained, **model_kwargs)


def default_input_size(model: nn.Module) -> tuple[int, int, int]:
    """(channels, height, width) that ``model`` is evaluated at by default: timm's test size where it has one.

    timm's cfg says how many channels the network's weights were trained for; the network itself, how many it takes.
    """
    channels, height, width = timm.data.resolve_model_data_config(model, use_test_size=True)['input_size']
    return input_channels(model, channels), height, width


def input_channels(model: nn.Module, default: int) -> int:
    """Channels of the images that a built network takes; ``default`` where timm has not noted them."""
    channels = getattr(model, 'in_chans', None)
    return channels if isinstance(channels, int) else default


def fused(model: nn.Module, input_size: tuple[int, int, int], title: str) -> nn.Module:
    """The form of ``model`` for inference, see ``eca_zoo.optimize_for_inference``; ``title`` is for the error.

    Raises:
        InputError: the network has no such form.
    """
    try:
        return optimize_for_inference(model, input_size)
    except InputError as error:
        raise InputError(f'{title}: {error} (leave out fuse)') from error


@contextlib.contextmanager
def in_evaluation(model: nn.Module) -> Iterator[nn.Module]:
    """``model`` in evaluation mode; afterwards each of its modules has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield model.eval()
    finally:
        for module, training in modes:
            module.training = training
