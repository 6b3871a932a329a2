"""Reading recipes: strict YAML, the nearest names for what is unknown, values that are checked before anything runs."""

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eca_zoo.errors import InputError
from eca_zoo.files import read_text
from eca_zoo.resources import packaged_names, packaged_path
from eca_zoo.strict_yaml import RecordError, load_yaml, typed_record
from eca_zoo.training.recipes.recipe import ChosenRecipe, Recipe, keys_without_meaning, recipe_keys
from eca_zoo.vocabulary import with_own_names

VERSION = 1
_POSITIVE = ('epochs', 'batch_size', 'group_size', 'grad_accum_steps', 'lr_base_size', 'recount', 'lr_cycle_limit')
_NOT_NEGATIVE = (
    'warmup_epochs', 'warmup_steps', 'cooldown_epochs', 'mixup_off_epoch', 'weight_decay', 'warmup_lr', 'min_lr',
)  # fmt: skip
_PROBABILITIES = (
    'hflip', 'vflip', 'color_jitter_prob', 'grayscale_prob', 'gaussian_blur_prob', 'reprob', 'mixup_prob',
    'mixup_switch_prob', 'drop', 'drop_path', 'drop_block', 'crop_pct', 'smoothing', 'model_ema_decay',
    'warmup_factor',
)  # fmt: skip


class RecipeError(InputError):
    """A recipe that cannot be used as it is: names the file, the key and the reason."""


def read_recipe(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> ChosenRecipe:
    """Read and check a recipe: a file, or the name of one that comes with the package (``eca_resnet``).

    Args:
        name_or_path: of the recipe.
        overrides: values in the place of the file's; those that are equal to them count as not given.

    Raises:
        RecipeError: there is none, it is no YAML, or a key is unknown, repeated, or of a wrong type or range.
    """
    path = _find(str(name_or_path))
    try:
        raw = load_yaml(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f'{path}: cannot read the recipe: {error}') from None
    except ValueError as error:
        raise RecipeError(f'{path}: not a readable recipe: {error}') from None
    if not isinstance(raw, dict) or raw.pop('version', None) != VERSION:
        raise RecipeError(f'{path}: a recipe is a mapping with version: {VERSION} and keys such as epochs and lr')
    try:
        raw, overrides = with_own_names(raw), with_own_names(overrides or {})
    except ValueError as error:
        raise RecipeError(f'{path}: {error}') from None
    written = _typed(raw, str(path))
    recipe = _typed({**raw, **overrides}, 'the recipe with what was overridden' if overrides else str(path))
    changed = {key: getattr(recipe, key) for key in overrides if getattr(recipe, key) != getattr(written, key)}
    _check(recipe, str(path))
    return ChosenRecipe(path.stem, recipe, changed)


def _find(name: str) -> Path:
    known = packaged_names('recipes')
    path = Path(name)
    if path.suffix in ('.yaml', '.yml') or path.is_file():
        if path.is_file():
            return path
        raise RecipeError(f'{path}: there is no such recipe; the packaged ones are {", ".join(known)}')
    if name in known:
        return packaged_path(f'recipes/{name}.yaml')
    nearest = difflib.get_close_matches(name, known, n=2, cutoff=0.4) or known
    raise RecipeError(f'{name!r} is no recipe; the nearest are {", ".join(nearest)}, or name a .yaml file')


def _typed(raw: Mapping[str, Any], where: str) -> Recipe:
    keys = recipe_keys()
    for key in raw:
        if key not in keys:
            nearest = difflib.get_close_matches(str(key), keys, n=3, cutoff=0.5)
            remedy = f'the nearest are {", ".join(nearest)}' if nearest else 'docs/train.md lists the keys'
            raise RecipeError(f'{where}: {key}: unknown key; {remedy}')
    try:
        return typed_record(dict(raw), Recipe)
    except RecordError as error:
        raise RecipeError(f'{where}: {error}') from None


def _check(recipe: Recipe, where: str) -> None:
    """Refuse values that no training can have.

    Raises:
        RecipeError: one of them; the text names the key.
    """

    def refuse(key: str, expected: str) -> RecipeError:
        return RecipeError(f'{where}: {key}: {expected}, not {getattr(recipe, key)}')

    for key in _POSITIVE:
        if getattr(recipe, key) < 1:
            raise refuse(key, 'must be at least 1')
    for key in _NOT_NEGATIVE:
        if getattr(recipe, key) < 0:
            raise refuse(key, 'must not be negative')
    for key in _PROBABILITIES:
        value = getattr(recipe, key)
        if value is not None and not 0 <= value <= 1:
            raise refuse(key, 'must lie between 0 and 1')
    for key, field in recipe_keys().items():
        choices, value = field.metadata['choices'], getattr(recipe, key)
        if choices and value is not None and value not in choices:
            raise refuse(key, f'must be one of {", ".join(choices)}')
    if recipe.lr is not None and recipe.lr <= 0:
        raise refuse('lr', 'must be above 0')
    if recipe.clip_grad is not None and recipe.clip_grad <= 0:
        raise refuse('clip_grad', 'must be above 0; leave it out for no clipping')
    for key in keys_without_meaning(recipe.system):
        if getattr(recipe, key) != recipe_keys()[key].default:
            what = 'a classifier; system makes it a detector' if recipe.system is None else 'a detector'
            raise RecipeError(f'{where}: {key}: it has no meaning for {what}; leave it out')
    if recipe.system is not None and recipe.clip_mode == 'agc':
        raise refuse('clip_mode', 'must be norm or value for a detector')
    if recipe.data not in (None, 'digits'):
        raise refuse('data', 'must be digits or left out')
    if recipe.sched == 'multistep' and not recipe.decay_milestones:
        raise refuse('decay_milestones', 'multistep needs some')
    if recipe.warmup_epochs >= recipe.epochs and not recipe.warmup_prefix:
        raise refuse('warmup_epochs', f'must be fewer than the {recipe.epochs} epochs')


def as_json(recipe: Recipe) -> dict[str, Any]:
    """All keys of a recipe, ready for JSON."""
    return dataclasses.asdict(recipe)
