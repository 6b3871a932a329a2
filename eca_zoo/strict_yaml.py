"""Strict YAML: a mapping becomes typed records, and every mistake is an error that names its key."""

import dataclasses
import re
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
        raise RecordError(*key_and_reason(error)) from None


def typed_record(raw: dict[str, Any], kind: type[_T], left_out: tuple[str, ...] = ()) -> _T:
    """The dataclass ``kind`` from a mapping, see ``typed``; fields that are ``left_out`` are unknown keys."""
    hints = get_type_hints(kind)
    fields = [
        (f.name, hints[f.name], f.default)
        for f in dataclasses.fields(kind)  # type: ignore[arg-type]
        if f.name not in left_out
    ]
    strict: Any = msgspec.defstruct(kind.__name__, fields, forbid_unknown_fields=True)
    return kind(**msgspec.structs.asdict(typed(raw, strict)))


def _decode(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    raise TypeError(f'expected {kind.__name__}, got {value!r}')


def key_and_reason(error: Exception) -> tuple[str, str]:
    """The key (dotted, may be empty) and the reason in an error of ``msgspec.convert``."""
    text, _, where = str(error).partition(' - at `')
    key = where.rstrip('`').removeprefix('$').removeprefix('.')
    unknown = re.search(r'unknown field `([^`]*)`', text)
    if unknown:
        key, text = '.'.join(filter(None, [key, unknown.group(1)])), 'unknown key'
    return key, text
