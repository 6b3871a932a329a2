"""What no training can have: values out of their range, keys that contradict each other, policies that timm lacks."""

import math
import re
from typing import Any

from timm.data import create_transform

from eca_zoo.errors import InputError, one_line
from eca_zoo.training.recipes.recipe import Recipe, keys_without_meaning, recipe_keys

_AT_LEAST_ONE = (
    'epochs', 'batch_size', 'group_size', 'grad_accum_steps', 'lr_base_size', 'recount', 'lr_cycle_limit', 'img_size',
    'val_img_size', 'num_classes',
)  # fmt: skip
_ABOVE_ZERO = (
    'lr', 'lr_base', 'opt_eps', 'bn_eps', 'layer_decay', 'decay_rate', 'decay_epochs', 'lr_cycle_mul', 'lr_k_decay',
    'bce_pos_weight',
)  # fmt: skip
_NOT_NEGATIVE = (
    'warmup_epochs', 'warmup_steps', 'cooldown_epochs', 'mixup_off_epoch', 'weight_decay', 'warmup_lr', 'min_lr',
    'lr_cycle_decay', 'lr_noise_pct', 'lr_noise_std', 'color_jitter', 'mixup', 'cutmix',
)  # fmt: skip
_FRACTIONS = (
    'hflip', 'vflip', 'color_jitter_prob', 'grayscale_prob', 'gaussian_blur_prob', 'reprob', 'mixup_prob',
    'mixup_switch_prob', 'drop', 'drop_path', 'drop_block', 'crop_pct', 'smoothing', 'model_ema_decay',
    'warmup_factor', 'momentum', 'bn_momentum', 'layer_decay_min_scale', 'bce_target_thresh',
)  # fmt: skip
_RANGES = ('scale', 'ratio', 'cutmix_minmax')


def check(recipe: Recipe) -> None:
    """Refuse values that no training can have.

    Raises:
        InputError: one of them; the text begins with the key.
    """
    _check_numbers(recipe)
    _check_sequences(recipe)
    for key, field in recipe_keys().items():
        choices, value = field.metadata['choices'], getattr(recipe, key)
        if choices and value is not None and value not in choices:
            raise _error(recipe, key, f'must be one of {", ".join(choices)}')
    for key in keys_without_meaning(recipe.system):
        if getattr(recipe, key) != recipe_keys()[key].default:
            what = 'a classifier; system makes it a detector' if recipe.system is None else 'a detector'
            raise InputError(f'{key}: it has no meaning for {what}; leave it out')
    if recipe.system is not None and recipe.clip_mode == 'agc':
        raise _error(recipe, 'clip_mode', 'must be norm or value for a detector')
    if recipe.data not in (None, 'digits'):
        raise _error(recipe, 'data', 'must be digits or left out')
    if recipe.sched == 'multistep' and not recipe.decay_milestones:
        raise _error(recipe, 'decay_milestones', 'multistep needs some')
    if recipe.warmup_epochs >= recipe.epochs and not recipe.warmup_prefix:
        raise _error(recipe, 'warmup_epochs', f'must be fewer than the {recipe.epochs} epochs')
    if recipe.global_pool == '':
        raise InputError('global_pool: a classifier needs one; name it, such as avg, or leave it out')
    if recipe.aa:
        _check_policy(recipe)


def _error(recipe: Recipe, key: str, expected: str) -> InputError:
    return InputError(f'{key}: {expected}, not {getattr(recipe, key)}')


def _check_numbers(recipe: Recipe) -> None:
    def numbers(*keys: str) -> list[tuple[str, Any]]:
        return [(key, value) for key in keys if (value := getattr(recipe, key)) is not None]

    for key, value in numbers(*recipe_keys()):
        if any(
            isinstance(one, float) and not math.isfinite(one) for one in (value if type(value) is tuple else [value])
        ):
            raise _error(recipe, key, 'must be finite')
    for key, value in numbers(*_AT_LEAST_ONE):
        if value < 1:
            raise _error(recipe, key, 'must be at least 1')
    for key, value in numbers(*_ABOVE_ZERO):
        if value <= 0:
            raise _error(recipe, key, 'must be above 0')
    for key, value in numbers(*_NOT_NEGATIVE):
        if value < 0:
            raise _error(recipe, key, 'must not be negative')
    for key, value in numbers(*_FRACTIONS):
        if not 0 <= value <= 1:
            raise _error(recipe, key, 'must lie between 0 and 1')
    if recipe.clip_grad is not None and recipe.clip_grad <= 0:
        raise _error(recipe, 'clip_grad', 'must be above 0; leave it out for no clipping')


def _check_sequences(recipe: Recipe) -> None:
    for key in _RANGES:
        value = getattr(recipe, key)
        if value is not None and not 0 < value[0] <= value[1]:
            raise _error(recipe, key, 'must be two numbers above 0, the smaller one first')
    noise = recipe.lr_noise
    if noise is not None and not (
        len(noise) in (1, 2) and list(noise) == sorted(noise) and 0 <= noise[0] <= noise[-1] <= 1
    ):
        raise _error(recipe, 'lr_noise', 'must be one or two fractions of the schedule, the smaller one first')
    milestones = list(recipe.decay_milestones)
    if milestones != sorted(set(milestones)) or (milestones and milestones[0] < 1):
        raise _error(recipe, 'decay_milestones', 'must be epochs from 1 that rise')
    if recipe.std is not None and min(recipe.std, default=0) <= 0:
        raise _error(recipe, 'std', 'must be above 0')
    if recipe.mean is not None and not recipe.mean:
        raise _error(recipe, 'mean', 'must be a number for each channel')


def _check_policy(recipe: Recipe) -> None:
    kind, *sections = str(recipe.aa).split('-')
    for section in sections:
        # timm passes over what has no number in it, but for names of RandAugment's transforms.
        if not re.search(r'\d', section) and not (kind == 'rand' and section.startswith('t')):
            raise _error(recipe, 'aa', f"timm's policies have no section {section!r}; such are m9, mstd0.5, inc1, n2")
    try:
        create_transform(32, is_training=True, auto_augment=recipe.aa)
    except (AssertionError, ValueError, KeyError) as error:
        raise _error(recipe, 'aa', f'timm has no such policy ({one_line(error)})') from None
