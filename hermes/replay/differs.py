"""What came out otherwise than the run recorded it? The first of it, by name. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from hermes.verify.findings import Finding


class Differs(Exception):
    """The first thing that came out otherwise: nothing after it is looked at."""

    def __init__(self, offset: int, entry: str, says: str, follows: str) -> None:
        """`offset`: of the ledger record; `entry`: which part of it, in words."""
        super().__init__(offset, entry, says, follows)
        self.finding = Finding("replay", offset, entry, says, follows)


def unlike(recorded: Any, again: Any) -> tuple[str, Any, Any] | None:
    """The first field in which two entries differ: its name and both values; of structs within
    them, too (`update.samples`). None where they do not."""
    if isinstance(recorded, dict) and isinstance(again, dict):
        for key in sorted({*recorded, *again}):
            found = unlike(recorded.get(key), again.get(key))
            if found is not None:
                return (f"{key}.{found[0]}".rstrip("."), *found[1:])
        return None
    if type(recorded) is not type(again) or not isinstance(recorded, msgspec.Struct):
        return None if recorded == again else ("", recorded, again)
    for name in recorded.__struct_fields__:
        found = unlike(getattr(recorded, name), getattr(again, name))
        if found is not None:
            return (f"{name}.{found[0]}".rstrip("."), *found[1:])
    return None


def compare(offset: int, entry: str, recorded: Any, again: Any) -> None:
    """Raise `Differs` where two entries do, by the first field that does."""
    found = unlike(recorded, again)
    if found is not None:
        field, said, follows = found
        says = f"{field} is {_told(said)}" if field else f"it is {_told(said)}"
        raise Differs(offset, entry, says, f"again: {_told(follows)}")


def _told(value: Any) -> str:
    text = value[:12] if isinstance(value, str) and len(value) == 64 else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
