"""How is a part of a comparison's file read, so that an error names file and key? Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from hermes.errors import SettingError
from hermes.policy.ranges import Allowed, shown, whole

REMEDY = "See docs/compare.md."


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file may hold, and nothing else."""


Read = TypeVar("Read", bound=Struct)


def converted(tree: Any, kind: type[Read], file: str, place: str) -> Read:
    """This tree as what it is to be; `place`: its key in the file. Raises `SettingError`."""
    where = f"{file}: {place}" if place else file
    known = [field.name for field in msgspec.structs.fields(kind)]
    for key in tree if isinstance(tree, Mapping) else ():
        if key not in known:
            near = difflib.get_close_matches(key.lower(), known, n=1)
            meant = f"Did you mean {near[0]}?" if near else f"It is one of: {', '.join(known)}."
            raise SettingError(f"unknown key {key!r}", where=where, remedy=meant)
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        key = ".".join(part for part in (place, path.strip("`.")) if part)
        raise SettingError(text, where=f"{file}: {key}" if key else file, remedy=REMEDY) from None


def refused(file: str, key: str, what: str, remedy: str) -> SettingError:
    """An error about a key of the file."""
    return SettingError(what, where=f"{file}: {key}", remedy=remedy)


def check_numbers(file: str, checks: Sequence[tuple[str, Any, Allowed]]) -> None:
    """Raise `SettingError` for the first (key, value) that is not what it may be."""
    for key, value, allowed in checks:
        if not allowed.fits(value):
            raise refused(file, key, f"it is {shown(value)}", f"It is {allowed.words}.")


def check_all(file: str, key: str, values: Sequence[Any]) -> None:
    """Raise `SettingError` where there is none, or one twice."""
    if not values:
        raise refused(file, key, "there is none", "At least one is needed.")
    twice = [one for one in values if values.count(one) > 1]
    if twice:
        raise refused(file, key, f"{twice[0]!r} is there twice", "Name each once.")


def check_seeds(file: str, key: str, seeds: Sequence[int]) -> None:
    """Raise `SettingError` for seeds that are none, twice there, or no whole numbers."""
    check_all(file, key, seeds)
    check_numbers(file, [(f"{key}[{i}]", seed, whole(0)) for i, seed in enumerate(seeds)])
