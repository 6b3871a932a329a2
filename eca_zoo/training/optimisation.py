"""Optimiser and learning rate by timm's factories; the rate is a function of the epoch or the step alone."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from timm.models import model_parameters
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.utils import dispatch_clip_grad
from torch import nn

from eca_zoo.errors import InputError, one_line
from eca_zoo.training.recipes.recipe import Recipe


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """timm's optimiser over the parameters of ``network`` that are trained.

    Raises:
        InputError: there is no such optimiser, it does not take these arguments, or nothing is trained.
    """
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise InputError(f'freeze: {", ".join(recipe.freeze)} leaves nothing to train; freeze less')
    if recipe.opt.lower().removeprefix('lookahead_') not in list_optimizers():
        raise InputError(f'opt: timm has no optimiser {recipe.opt!r}; timm.optim.list_optimizers() lists them')
    optional: dict[str, Any] = {
        'eps': recipe.opt_eps,
        'betas': recipe.opt_betas,
        'layer_decay': recipe.layer_decay,
        'layer_decay_min_scale': recipe.layer_decay_min_scale if recipe.layer_decay is not None else None,
    }
    try:
        optimizer = create_optimizer_v2(
            network,
            opt=recipe.opt,
            lr=learning_rate(recipe),
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
            filter_bias_and_bn=recipe.filter_bias_and_bn,
            **{key: value for key, value in optional.items() if value is not None},
            **(recipe.opt_kwargs or {}),
        )
    except (TypeError, ValueError, AssertionError, IndexError) as error:
        raise InputError(f'opt: {recipe.opt} cannot be made so: {one_line(error)}') from None
    _check_betas(optimizer, recipe)
    return optimizer


def _check_betas(optimizer: torch.optim.Optimizer, recipe: Recipe) -> None:
    if recipe.opt_betas is None:
        return
    inner = getattr(optimizer, '_base_optimizer', optimizer)
    wanted = inspect.signature(type(inner)).parameters.get('betas')
    if wanted is None:
        raise InputError(f'opt_betas: {recipe.opt} has none; leave it out')
    if isinstance(wanted.default, tuple) and len(wanted.default) != len(recipe.opt_betas):
        raise InputError(
            f'opt_betas: {recipe.opt} has {len(wanted.default)}, such as {wanted.default}, not {recipe.opt_betas}'
        )


def learning_rate(recipe: Recipe) -> float:
    """The rate that the schedule starts from: ``lr``, or ``lr_base`` scaled to the batch as timm's script does."""
    if recipe.lr is not None:
        return recipe.lr
    ratio = recipe.batch_size / recipe.lr_base_size
    scale = recipe.lr_base_scale or (
        'sqrt' if any(name in recipe.opt.lower() for name in ('ada', 'lamb')) else 'linear'
    )
    return recipe.lr_base * (ratio**0.5 if scale == 'sqrt' else ratio)


class LearningRate:
    """Sets the learning rate of every step."""

    def __init__(self, optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int) -> None:
        """Make timm's scheduler; the optimiser has not been resumed yet.

        Args:
            optimizer: whose groups it sets.
            recipe: with the schedule.
            steps_per_epoch: of the run.

        Raises:
            InputError: the keys of the schedule contradict each other.
        """
        self._optimizer, self._steps_per_epoch = optimizer, steps_per_epoch
        self._by_step = recipe.sched_on_updates
        self._warmup_steps, self._warmup_factor = recipe.warmup_steps, recipe.warmup_factor
        try:
            self._scheduler, self.epochs = create_scheduler_v2(
                optimizer, updates_per_epoch=steps_per_epoch, **_arguments(recipe)
            )
        except (ValueError, AssertionError) as error:
            raise InputError(f'sched: {one_line(error)}') from None

    def set(self, step: int) -> float:
        """Set the rate of ``step`` (from 0) in all groups; returns that of the first group with the largest scale."""
        scheduler: Any = self._scheduler
        if self._by_step:
            scheduler.step_update(step)
        else:
            scheduler.step(step // self._steps_per_epoch)
        if step < self._warmup_steps:
            # As mmdetection v1's runner computes it.
            less = (1 - step / self._warmup_steps) * (1 - self._warmup_factor)
            for group in self._optimizer.param_groups:
                group['lr'] *= 1 - less
        return max(group['lr'] for group in self._optimizer.param_groups)


def _arguments(recipe: Recipe) -> dict[str, Any]:
    """The arguments of timm's factory."""
    return {
        'sched': recipe.sched,
        'num_epochs': recipe.epochs,
        'decay_epochs': recipe.decay_epochs,
        'decay_milestones': list(recipe.decay_milestones),
        'cooldown_epochs': recipe.cooldown_epochs,
        'decay_rate': recipe.decay_rate,
        'min_lr': recipe.min_lr,
        'warmup_lr': recipe.warmup_lr,
        'warmup_epochs': recipe.warmup_epochs,
        'warmup_prefix': recipe.warmup_prefix,
        'noise': list(recipe.lr_noise) if recipe.lr_noise else None,
        'noise_pct': recipe.lr_noise_pct,
        'noise_std': recipe.lr_noise_std,
        'noise_seed': recipe.seed,
        'cycle_mul': recipe.lr_cycle_mul,
        'cycle_decay': recipe.lr_cycle_decay,
        'cycle_limit': recipe.lr_cycle_limit,
        'k_decay': recipe.lr_k_decay,
        'step_on_epochs': not recipe.sched_on_updates,
    }


def lay_out_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Give what the optimiser keeps of each parameter the parameter's memory format, which a file does not hold.

    A sum over a tensor depends on the order of its elements in memory.
    """
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                kept[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def clip_gradients(network: nn.Module, recipe: Recipe) -> None:
    """Clip the gradients as the recipe says; adaptive clipping leaves out the classifier, as in timm."""
    if recipe.clip_grad is not None:
        parameters: Sequence[torch.Tensor] = list(model_parameters(network, exclude_head='agc' in recipe.clip_mode))
        dispatch_clip_grad(parameters, recipe.clip_grad, mode=recipe.clip_mode)
