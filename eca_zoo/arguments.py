"""What callers give from Python, as the records of the harness: keywords, paths, models; wrong ones are named."""

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from torch import nn

from eca_zoo.errors import InputError
from eca_zoo.harness.networks.model_names import expand_model_names, expand_one
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.networks.user_checkpoint import checkpoint_files, distinct_names, training_title
from eca_zoo.strict_yaml import RecordError, typed_record
from eca_zoo.vocabulary import name_of

_Function = TypeVar('_Function', bound=Callable[..., Any])
_Record = TypeVar('_Record')


def takes(
    *kinds: type, without: Sequence[str] = (), earlier: Mapping[str, str] | None = None
) -> Callable[[_Function], _Function]:
    """Let a function take the fields of dataclasses as keywords: any other one is an error that names the nearest.

    Args:
        kinds: the dataclasses.
        without: fields that are no keywords.
        earlier: other names of the function's own arguments; those of ``vocabulary`` are understood besides.
    """

    def decorate(function: _Function) -> _Function:
        own = inspect.signature(function).parameters
        named = [parameter for parameter in own.values() if parameter.kind is not parameter.VAR_KEYWORD]
        options = {
            field.name: inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=_default_of(field))
            for kind in kinds
            for field in dataclasses.fields(kind)
            if field.name not in without and field.name not in own
        }
        known = [*own, *options]

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            kwargs = _under_own_names(kwargs, known, earlier or {})
            for key in kwargs:
                if key not in known or key == 'options':
                    nearest = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
                    remedy = f'the nearest are {", ".join(nearest)}' if nearest else f'there are {", ".join(known)}'
                    raise InputError(f'{function.__name__}() takes no {key!r}; {remedy}')
            return function(*args, **kwargs)

        signature = inspect.Signature([*named, *options.values()], return_annotation=pd.DataFrame)
        checked.__signature__ = signature  # type: ignore[attr-defined]
        return checked  # type: ignore[return-value]

    return decorate


def _under_own_names(kwargs: Mapping[str, Any], known: Sequence[str], earlier: Mapping[str, str]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for key, value in kwargs.items():
        name = key if key in known else earlier.get(key, name_of(key))
        if name in named:
            raise InputError(f'{key} and {name} are one argument; give one')
        named[name] = value
    return named


def _default_of(field: dataclasses.Field) -> Any:
    factory = field.default_factory
    return factory() if factory is not dataclasses.MISSING else field.default


def path_of(given: str | Path | None) -> Path | None:
    if given is None or isinstance(given, str | Path):
        return None if given is None else Path(given)
    raise InputError(f'a path is a string or a pathlib.Path, not {given!r}')


def several(given: str | Sequence[str]) -> Sequence[str]:
    return [given] if isinstance(given, str) else given


def record(kind: type[_Record], options: Mapping[str, Any], **more: Any) -> _Record:
    """The dataclass ``kind`` from those of the ``options`` that are its fields.

    Raises:
        InputError: a value is of the wrong type.
    """
    fields = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    try:
        return typed_record({key: value for key, value in {**options, **more}.items() if key in fields}, kind)
    except RecordError as error:
        raise InputError(f'{error.key}: {error.reason}') from None


def one_model(model: Any) -> ModelSpec:
    if isinstance(model, nn.Module):
        return ModelSpec(_name_of(model), module=model)
    if isinstance(model, str):
        return ModelSpec(expand_one(model))
    raise InputError(f'a model is a name or a network (torch.nn.Module), not {model!r}')


def _name_of(module: nn.Module) -> str:
    cfg = getattr(module, 'pretrained_cfg', None) or {}
    return str(cfg.get('architecture') or type(module).__name__)


def model_specs(
    models: Any,
    checkpoint: str | Path | Sequence[str | Path] | None,
    pretrained: bool,
    num_classes: int | None,
    in_chans: int | None,
    model_kwargs: Mapping[str, Any] | None,
) -> list[ModelSpec]:
    """Specs of what was given as ``models``, with the arguments that all share."""
    if isinstance(models, Mapping):
        named = [dataclasses.replace(one_model(model), label=str(label)) for label, model in models.items()]
    else:
        given = [models] if isinstance(models, str | Path | nn.Module) else models
        if not isinstance(given, Iterable):
            raise InputError(f'models are names, networks (torch.nn.Module) or a list of them, not {models!r}')
        named = []
        for model in given:
            known = isinstance(model, str | Path)
            specs = [ModelSpec(name) for name in expand_model_names([str(model)])] if known else [one_model(model)]
            # Patterns may overlap; a network of the user's own that is there twice is not known to be meant once.
            named += [spec for spec in specs if not known or spec not in named]
    if not named:
        raise InputError('no model is named; give at least one, such as eca_resnet50')
    given_anew = {'num_classes': num_classes, 'in_chans': in_chans, 'model_kwargs': dict(model_kwargs or {}) or None}
    shared: dict[str, Any] = {key: value for key, value in given_anew.items() if value is not None}
    for spec in named:
        if spec.module is not None and shared:
            raise InputError(f'{spec.title}: {", ".join(shared)} cannot change a network that is built; build it so')
    specs = [
        spec if spec.module is not None else dataclasses.replace(spec, pretrained=pretrained, **shared)
        for spec in named
    ]
    if checkpoint is None:
        return specs
    paths = [checkpoint] if isinstance(checkpoint, str | Path) else checkpoint
    return with_checkpoints(specs, [Path(path) for path in paths])


def with_checkpoints(specs: Sequence[ModelSpec], checkpoints: Sequence[Path]) -> list[ModelSpec]:
    """The one model of ``specs`` with the weights of each file; a folder stands for all checkpoints in it.

    Raises:
        InputError: there are several models, or no file.
    """
    if len(specs) > 1:
        raise InputError(f'--checkpoint goes with one model, not with {len(specs)}; name the one it belongs to')
    files = [file for path in checkpoints for file in checkpoint_files(path)]
    titles = [training_title(file) or specs[0].title for file in files]
    names = distinct_names(files)
    labels = titles if len(files) == 1 else [f'{title}@{name}' for title, name in zip(titles, names, strict=True)]
    return [
        dataclasses.replace(specs[0], checkpoint=file, label=label) for file, label in zip(files, labels, strict=True)
    ]
