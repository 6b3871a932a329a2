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
from eca_zoo.training.recipes.checks import check
from eca_zoo.training.recipes.recipe import ChosenRecipe, Recipe, recipe_keys
from eca_zoo.vocabulary import with_own_names

VERSION = 1


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
    try:
        check(recipe)
    except InputError as error:
        raise RecipeError(f'{path}: {error}') from None
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


def as_json(recipe: Recipe) -> dict[str, Any]:
    """All keys of a recipe, ready for JSON."""
    return dataclasses.asdict(recipe)
