"""Which values may a setting have, and how is one told that it may not? Pure.

Each module of the policy declares what its own settings allow, beside the code that they govern.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from hermes.errors import SettingError

AUTO = "auto"
"""What is typed where Hermes is to find the number."""

LARGEST = 2**53
"""Whole numbers at most: what every reader of JSON keeps exactly."""

LONGEST = 1e9
"""Seconds at most: 31 years."""


class Allowed(NamedTuple):
    """What a setting may be."""

    words: str
    """For people: "a whole number of at least 1, or off"."""
    fits: Callable[[Any], bool]
    """Whether a value, of whatever type, is one of these."""
    whole: bool = False
    """Whether 1e3 is meant as 1000."""
    schema: Mapping[str, Any] = MappingProxyType({})
    """The same for an editor, in words of JSON Schema: no narrower than `fits`."""


def whole(least: int, most: int = LARGEST, *, off: bool = False) -> Allowed:
    """A whole number from `least` to `most`; with `off`, also None."""
    words = f"a whole number of at least {least}"

    def fits(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    if most < LARGEST:
        words += f" and at most {most}"
    schema = {"type": "integer", "minimum": least, "maximum": most}
    return _maybe(Allowed(words, fits, whole=True, schema=schema), off)


def number(
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
    off: bool = False,
) -> Allowed:
    """A finite number within these bounds; with `off`, also None."""
    bounds = {"of at least": least, "above": above, "of at most": most, "below": below}
    told = [f"{word} {bound:.10g}" for word, bound in bounds.items() if math.isfinite(bound)]
    words = " ".join(["a number", " and ".join(told)]).strip()

    def fits(value: Any) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return math.isfinite(value) and least <= value <= most and above < value < below

    names = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
    limits = {
        name: bound
        for name, bound in zip(names, (least, above, most, below), strict=True)
        if math.isfinite(bound)
    }
    return _maybe(Allowed(words, fits, schema={"type": "number", **limits}), off)


def auto_or(allowed: Allowed) -> Allowed:
    """As allowed, or the word auto."""
    return allowed._replace(
        words=f"auto, or {allowed.words}",
        fits=lambda value: value == AUTO or allowed.fits(value),
        schema={"anyOf": [{"const": AUTO}, allowed.schema]},
    )


def one_of(*words: str) -> Allowed:
    """One of these texts."""
    return Allowed(
        f"one of {', '.join(words)}",
        lambda value: value in words,
        schema={"enum": list(words)},
    )


SWITCH = Allowed("true or false", lambda value: isinstance(value, bool), schema={"type": "boolean"})


def _maybe(allowed: Allowed, off: bool) -> Allowed:
    if not off:
        return allowed
    return allowed._replace(
        words=f"{allowed.words}, or off",
        fits=lambda value: value is None or allowed.fits(value),
        schema={"anyOf": [allowed.schema, {"enum": ["off", None]}]},
    )


def shown(value: Any) -> str:
    """A value as it is typed: texts in quotes, None as off."""
    if value is None:
        return "off"
    if isinstance(value, float) and (not math.isfinite(value) or value.is_integer()):
        return f"{value:g}"
    try:
        return json.dumps(value, ensure_ascii=False)[:80]
    except (TypeError, ValueError):
        return repr(value)[:80]


def settled(allowed: Allowed, value: Any) -> Any:
    """The value in the setting's own type: 1e3 is 1000 where a whole number is meant."""
    if allowed.whole and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def check_value(key: str, value: Any, allowed: Allowed, where: str = "") -> None:
    """Raise `SettingError` that says what it is, where it was set, and what it may be."""
    if not allowed.fits(value):
        raise SettingError(
            f"{key} is {shown(value)}", where=where, remedy=f"It is {allowed.words}."
        )


def check_section(section: str, values: msgspec.Struct, ranges: Mapping[str, Allowed]) -> None:
    """Raise `SettingError` for the first value of a section that is not allowed."""
    for field in msgspec.structs.fields(values):
        allowed = ranges.get(field.encode_name)
        if allowed is not None:
            key = f"{section}.{field.encode_name}"
            check_value(key, getattr(values, field.name), allowed)
