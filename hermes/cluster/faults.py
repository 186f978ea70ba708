"""How are mistakes in files told? With file, line, key, what was found and what is allowed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from hermes.errors import UsageError

SHOWN = 60
"""Characters of a value, at most."""


class Fault(NamedTuple):
    """One mistake in a file."""

    file: str
    line: int
    """0: the file as a whole."""
    what: str
    """`nodes[1].port is 70000`."""
    remedy: str
    """`It is a whole number of at least 1 and at most 65535.`"""

    @property
    def place(self) -> str:
        """`conf/config.json:7`."""
        return f"{self.file}:{self.line}" if self.line else self.file


class ConfError(UsageError):
    """Mistakes in files, all of them."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(sorted(set(faults), key=lambda fault: (fault.file, fault.line)))
        if len(self.faults) == 1:
            (one,) = self.faults
            super().__init__(one.what, where=one.place, remedy=one.remedy)
            return
        told = (f"{fault.place}: {fault.what}\n    {fault.remedy}" for fault in self.faults)
        super().__init__(
            f"{len(self.faults)} mistakes",
            where=", ".join(dict.fromkeys(fault.file for fault in self.faults)),
            remedy="\n  ".join(told),
        )


def told(value: Any) -> str:
    """A value as JSON, short, fit for a terminal whatever it holds."""
    return plain(json.dumps(value, ensure_ascii=False), SHOWN)


def plain(text: str, most: int = 4 * SHOWN) -> str:
    """A text of others, short, fit for a terminal whatever it holds."""
    text = text if len(text) <= most else f"{text[:most]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def nearest(word: str, words: Iterable[str], also: dict[str, str] | None = None) -> str:
    """`Did you mean host?`, or all that there is; `also`: what others call these things."""
    known = list(words)
    low = word.lower().replace("-", "_")
    meant = (also or {}).get(low)
    found = [meant] if meant in known else difflib.get_close_matches(low, known, n=1)
    return f"Did you mean {found[0]}?" if found else f"It is one of: {', '.join(known)}."
