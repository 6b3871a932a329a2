"""The network of a training: built by timm, the authors' first weights, frozen parts, norms over all processes."""

import fnmatch
import math
import re
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import EfficientNet, ResNet
from torch import nn

import eca_zoo.models  # noqa: F401  (registers the networks)
from eca_zoo.errors import EcaZooError, InputError, RunError, one_line
from eca_zoo.harness.networks.building import create_network
from eca_zoo.harness.networks.user_checkpoint import is_counter, misfits, read_checkpoint
from eca_zoo.training.data.order import random_state_kept, seed_all
from eca_zoo.training.recipes.recipe import Recipe
from eca_zoo.weights.convert.recognition import is_of_detector, rename_to_fit
from eca_zoo.weights.load import shortened

_CLASSIFIER_DEVIATION = 0.01


def build_network(name: str, num_classes: int, recipe: Recipe, checkpoint: Path | None = None) -> nn.Module:
    """The network ``name`` with the first weights that the recipe asks for, on the CPU; equal seeds give equal ones.

    Args:
        name: timm's.
        num_classes: of the classifier.
        recipe: how.
        checkpoint: file whose weights are loaded, the classifier's only where it has as many classes.

    Raises:
        InputError: there is no such network, it does not take an argument, or its first weights are not known.
        RunError: it cannot be built.
    """
    kwargs: dict[str, Any] = {
        'num_classes': num_classes, 'drop_rate': recipe.drop, 'drop_path_rate': recipe.drop_path,
        'drop_block_rate': recipe.drop_block, 'global_pool': recipe.global_pool, 'bn_momentum': recipe.bn_momentum,
        'bn_eps': recipe.bn_eps, **(recipe.model_kwargs or {}),
    }  # fmt: skip
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    pretrained = recipe.pretrained or checkpoint is not None
    with random_state_kept():
        seed_all(recipe.seed)
        if checkpoint is None:
            network = _created(name, recipe, kwargs, pretrained)
        else:
            network = _created_from(checkpoint, name, recipe, kwargs)
        if recipe.init == 'authors' and not pretrained:
            _check_authors(network, name)
            if isinstance(network, EfficientNet):
                init_as_authors_mobilenetv2(network)
    if recipe.head_init_scale is not None:
        _scale_head(network, recipe.head_init_scale)
    if recipe.grad_checkpointing:
        try:
            network.set_grad_checkpointing(True)
        except AssertionError as error:
            raise InputError(f'grad_checkpointing: {name} cannot do it; leave it out') from error
    freeze(network, recipe)
    return network


def _created(name: str, recipe: Recipe, kwargs: dict[str, Any], pretrained: bool) -> Any:
    try:
        if recipe.init == 'authors' and not pretrained:
            try:
                return create_network(name, recipe.img_size, {**kwargs, 'zero_init_last': False})
            except TypeError as error:
                if 'zero_init_last' not in str(error):
                    raise
        return create_network(name, recipe.img_size, kwargs, pretrained)
    except EcaZooError:
        raise
    except (TypeError, ValueError, AssertionError) as error:
        if (unknown := re.search(r"unexpected keyword argument '(\w+)'", str(error))) is not None:
            raise InputError(f'{name}: the network takes no {unknown[1]}; leave it out') from error
        raise InputError(
            f"{name}: cannot be built so: {one_line(error)}; check model_kwargs and the recipe's keys of the network"
        ) from error
    except Exception as error:
        check_known(name)
        raise RunError(f'{name}: cannot be built: {one_line(error)}') from error


def _created_from(checkpoint: Path, name: str, recipe: Recipe, kwargs: dict[str, Any]) -> Any:
    """The network with the weights of a file; a classifier of other classes, or none, leaves the first weights there.

    timm loads them as its own weights, so that what depends on channels and image size is adapted.

    Raises:
        InputError: the file is missing, damaged, would run code, or holds another network.
    """
    state = read_checkpoint(checkpoint, setting='--initial-checkpoint').state
    first = _created(name, recipe, kwargs, pretrained=False)
    own = first.state_dict()
    if is_of_detector(state) and not is_of_detector(own):
        raise InputError(f'{checkpoint}: it holds a detector, and {name} is a classifier; name one of a classifier')
    state = rename_to_fit(state, own)
    heads = first.pretrained_cfg.get('classifier') or ()
    heads = tuple(f'{head}.' for head in ([heads] if isinstance(heads, str) else heads))
    for key, tensor in own.items():
        is_head, is_there = key.startswith(heads), key in state
        if (is_head and not (is_there and state[key].shape == tensor.shape)) or (is_counter(key) and not is_there):
            state[key] = tensor
    overlay = {'state_dict': state, 'source': '', 'num_classes': kwargs['num_classes'], 'label_offset': 0}
    try:
        network = create_network(name, recipe.img_size, {**kwargs, 'pretrained_cfg_overlay': overlay}, pretrained=True)
    except RuntimeError as error:
        reason = shortened(misfits(state, own)) or one_line(error)
        raise InputError(f'{checkpoint}: these are not weights of {name}: {reason}') from error
    network.pretrained_cfg = network.default_cfg = first.pretrained_cfg  # without the tensors
    return network


def check_known(name: str) -> None:
    """Refuse a name that timm does not know; those of hubs and folders (``hf-hub:ORG/NAME``) are found out later.

    Raises:
        InputError: there is no such network.
    """
    if not timm.is_model(name) and '/' not in name:
        raise InputError(f'--model {name}: timm has no such network; eca-zoo list shows ours') from None


def _check_authors(network: nn.Module, name: str) -> None:
    if not isinstance(network, ResNet | EfficientNet):
        raise InputError(
            f"init: authors: their first weights are known for ResNets and MobileNetV2, not for {name}; use timm's "
            'with --init timm'
        )


def init_as_authors_mobilenetv2(network: nn.Module) -> None:
    """First weights as in the authors' MobileNetV2, drawn from torch's default generator.

    Convolutions are normal with the variance 2 / (k * k * output channels), depthwise ones too; the classifier's
    weights have the deviation 0.01 and its bias is 0; norms begin as the identity.
    """
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                module.weight.normal_(0, math.sqrt(2.0 / fan_out))
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(1)
                module.bias.zero_()
            elif isinstance(module, nn.Linear):
                module.weight.normal_(0, _CLASSIFIER_DEVIATION)
                module.bias.zero_()


def _scale_head(network: Any, factor: float) -> None:
    head = network.get_classifier()
    with torch.no_grad():
        head.weight.mul_(factor)
        if head.bias is not None:
            head.bias.mul_(factor)


def freeze(network: nn.Module, recipe: Recipe) -> None:
    """Take the frozen modules out of the training.

    Raises:
        InputError: a pattern names no module.
    """
    for pattern in recipe.freeze:
        names = [name for name, _ in network.named_modules() if fnmatch.fnmatchcase(name, pattern)]
        if not names:
            top = ', '.join(name for name, _ in network.named_children())
            raise InputError(f'freeze: {pattern}: the network has no such module; it has {top}')
        for name in names:
            network.get_submodule(name).requires_grad_(False)


def set_training_mode(network: nn.Module, recipe: Recipe) -> None:
    """Training mode, with norms whose statistics are kept in evaluation mode."""
    network.train()
    for name, module in network.named_modules():
        frozen = any(fnmatch.fnmatchcase(name, pattern) for pattern in recipe.freeze)
        if frozen or (recipe.freeze_norms and isinstance(module, nn.modules.batchnorm._BatchNorm)):
            module.eval()
