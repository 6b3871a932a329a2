"""Strict YAML: a mapping becomes typed records, and every mistake is an error that names its key."""

import re
from typing import Any

import msgspec
import yaml


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


def key_and_reason(error: Exception) -> tuple[str, str]:
    """The key (dotted, may be empty) and the reason in an error of ``msgspec.convert``."""
    text, _, where = str(error).partition(' - at `')
    key = where.rstrip('`').removeprefix('$').removeprefix('.')
    unknown = re.search(r'unknown field `([^`]*)`', text)
    if unknown:
        key, text = '.'.join(filter(None, [key, unknown.group(1)])), 'unknown key'
    return key, text
