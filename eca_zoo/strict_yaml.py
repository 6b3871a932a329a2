"""Strict YAML: a mapping becomes typed records, and every mistake is an error that names its key."""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec
import yaml

_T = TypeVar('_T')


class Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """Base of the records: an unknown key is an error, a record never changes."""


class UniqueKeyLoader(getattr(yaml, 'CSafeLoader', yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader, except that a repeated key is an error and not the last one wins."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, 'a key must be a name', node.start_mark)
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f'key {key_node.value!r} occurs twice', node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    """The value that ``text`` holds.

    Raises:
        ValueError: it is no YAML, or repeats a key; the message is one line.
    """
    try:
        return yaml.load(text, Loader=UniqueKeyLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(' '.join(str(error).split())) from None


class RecordError(ValueError):
    """A value that does not fit its record: its key (dotted, may be empty), and the reason."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f'{key}: {reason}' if key else reason)
        self.key = key
        self.reason = reason


def typed(raw: Any, kind: type[_T]) -> _T:
    """``raw`` (mappings, lists, texts, numbers) as a ``kind``, whose unknown keys are errors.

    Raises:
        RecordError: a key is unknown or missing, or a value is of another type.
    """
    try:
        return msgspec.convert(raw, kind, dec_hook=_decode)
    except (msgspec.ValidationError, TypeError, OverflowError) as error:
        raise RecordError(*key_and_reason(error, kind)) from None


def typed_record(
    raw: Mapping[str, Any], kind: type[_T], left_out: Sequence[str] = (), keys: Mapping[str, str] | None = None
) -> _T:
    """The dataclass ``kind`` from a mapping, see ``typed``.

    Args:
        raw: the mapping.
        kind: the dataclass.
        left_out: fields that are unknown keys.
        keys: of fields whose key is not their name.
    """
    hints = get_type_hints(kind)
    fields = [
        (field.name, hints[field.name], *_default(field))
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if field.name not in left_out
    ]
    strict: Any = msgspec.defstruct(kind.__name__, fields, forbid_unknown_fields=True, rename=dict(keys or {}))
    return kind(**msgspec.structs.asdict(typed(raw, strict)))


def _default(field: dataclasses.Field) -> tuple[Any, ...]:
    if field.default_factory is not dataclasses.MISSING:
        return (msgspec.field(default_factory=field.default_factory),)
    return () if field.default is dataclasses.MISSING else (field.default,)


def _decode(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    raise TypeError(f'expected {kind.__name__}, got {value!r}')


def key_and_reason(error: Exception, kind: Any) -> tuple[str, str]:
    """The key (dotted, may be empty) and the reason in an error of ``msgspec.convert`` to ``kind``."""
    text, _, where = str(error).partition(' - at `')
    key = where.rstrip('`').removeprefix('$').removeprefix('.')
    unknown = re.search(r'unknown field `([^`]*)`', text)
    if unknown:
        text = unknown_key(unknown.group(1), _keys_at(msgspec.inspect.type_info(kind), key))
        key = '.'.join(filter(None, [key, unknown.group(1)]))
    return key, text


def unknown_key(name: str, known: Iterable[str]) -> str:
    """What is wrong with a key that is none of ``known``: the nearest of them, and all."""
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f'the nearest is {nearest[0]}; ' if nearest else ''
    return f'unknown key; {hint}there are {", ".join(known)}'


def _keys_at(info: Any, key: str) -> Iterator[str]:
    """The keys of the records that ``key`` (``a.b[0].c``, empty for the whole) leads to in a type."""
    records = [info]
    for step in [None, *re.findall(r'\w+|\[', key)]:
        if step is not None and not step.isdigit():
            records = [found for record in records for found in _step(record, step)]
        records = [part for record in records for part in getattr(record, 'types', [record])]
    for record in records:
        yield from (field.encode_name for field in getattr(record, 'fields', ()))


def _step(info: Any, step: str) -> Iterator[Any]:
    """The types at a key of a record, or of the items of a list or mapping."""
    if step == '[':
        yield from (getattr(info, name) for name in ('item_type', 'value_type') if hasattr(info, name))
    else:
        yield from (field.type for field in getattr(info, 'fields', ()) if field.encode_name == step)
