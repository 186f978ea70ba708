"""Does a value fit a JSON Schema? As much of it as ours use."""

from __future__ import annotations

import re
from typing import Any

TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}

NOTES = {"description", "default", "title", "$schema"}


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Raises `KeyError` for a word of a schema that this knows nothing of."""
    return all(CHECKS[word](value, schema) for word in schema if word not in NOTES)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    whole = kind == "integer" and isinstance(value, float) and value.is_integer()
    return whole or isinstance(value, TYPES[kind])


def _same(value: Any, other: Any) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


CHECKS: dict[str, Any] = {
    "type": lambda value, schema: _is(value, schema["type"]),
    "const": lambda value, schema: _same(value, schema["const"]),
    "enum": lambda value, schema: any(_same(value, one) for one in schema["enum"]),
    "anyOf": lambda value, schema: any(fits(value, one) for one in schema["anyOf"]),
    "pattern": lambda value, schema: (
        not isinstance(value, str) or re.search(schema["pattern"], value) is not None
    ),
    "minimum": lambda value, schema: not _number(value) or value >= schema["minimum"],
    "maximum": lambda value, schema: not _number(value) or value <= schema["maximum"],
    "exclusiveMinimum": lambda value, schema: (
        not _number(value) or value > schema["exclusiveMinimum"]
    ),
    "exclusiveMaximum": lambda value, schema: (
        not _number(value) or value < schema["exclusiveMaximum"]
    ),
    "items": lambda value, schema: (
        not isinstance(value, list) or all(fits(one, schema["items"]) for one in value)
    ),
    "uniqueItems": lambda value, schema: (
        not isinstance(value, list) or len({str(one) for one in value}) == len(value)
    ),
    "properties": lambda value, schema: (
        not isinstance(value, dict)
        or all(fits(value[key], one) for key, one in schema["properties"].items() if key in value)
    ),
    "additionalProperties": lambda value, schema: (
        not isinstance(value, dict) or value.keys() <= schema["properties"].keys()
    ),
    "required": lambda value, schema: (
        not isinstance(value, dict) or value.keys() >= set(schema["required"])
    ),
}
