"""What does a JSON text say, and on which line does each of its values stand?

A path is a tuple of keys and indices: `("nodes", 1, "port")`, spelt `nodes[1].port`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Path = tuple[str | int, ...]

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
"""What JSON consists of, in a text that is known to be JSON."""


DIGITS = 4000
"""A number of more is none that anybody wrote."""


class NotJson(Exception):
    """The text is no JSON: the line, the column, and what is wrong there."""

    def __init__(self, line: int, column: int, what: str) -> None:
        super().__init__(what)
        self.line, self.column, self.what = line, column, what


class Twice(NamedTuple):
    """A key that stands twice in one object: JSON readers silently take the last."""

    path: Path
    first: int
    second: int


class Located(NamedTuple):
    """A JSON text that was read."""

    tree: Any
    lines: Mapping[Path, int]
    """Where each key stands, and where each item of a list begins; counted from 1."""
    twice: tuple[Twice, ...]

    def line(self, path: Path) -> int:
        """The line of a value; of one that is not there, that of what it should stand in."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def spelt(path: Path) -> str:
    """`nodes[1].port`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in path]
    return "".join(parts).removeprefix(".")


def locate(text: str) -> Located:
    """Read a text. Raises `NotJson`."""
    try:
        tree = json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise NotJson(error.lineno, error.colno, error.msg) from None
    except RecursionError:
        raise NotJson(1, 1, "objects and lists stand in one another too deep") from None
    except ValueError as error:  # NaN, or a number of thousands of digits
        raise _odd_number(text, str(error)) from None
    lines: dict[Path, int] = {}
    twice = tuple(_walk(text, lines))
    return Located(tree, lines, twice)


def _odd_number(text: str, what: str) -> NotJson:
    """Where the first number stands that is none, or is too long to be read."""
    for match in _TOKEN.finditer(text):
        if match[0].lstrip("-") in ("NaN", "Infinity") or len(match[0].lstrip("-")) > DIGITS:
            if match[0].startswith('"'):
                continue
            start = text.rfind("\n", 0, match.start()) + 1
            return NotJson(text.count("\n", 0, start) + 1, match.start() - start + 1, what)
    return NotJson(1, 1, what)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


class _Open:
    """An object or a list that has begun and not ended."""

    def __init__(self, path: Path, is_list: bool) -> None:
        self.path = path
        self.is_list = is_list
        self.index = 0
        self.key: str | None = None
        """Of an object: the key whose value comes next; None: a key comes next."""

    def inner(self) -> Path:
        """The path of the value that comes next."""
        return (*self.path, self.index if self.is_list else self.key or "")


def _walk(text: str, lines: dict[Path, int]) -> Iterator[Twice]:
    """Note the line of each value; yields the keys that stand twice."""
    stack: list[_Open] = []
    line, seen = 1, 0
    lines[()] = 1
    for match in _TOKEN.finditer(text):
        line += text.count("\n", seen, match.start())
        seen, word = match.start(), match[0]
        top = stack[-1] if stack else None
        if word in "}]":
            stack.pop()
        elif word == ",":
            assert top is not None
            top.index += 1
            top.key = None
        elif top is not None and not top.is_list and top.key is None:
            top.key = json.loads(word)
            path = top.inner()
            if path in lines:
                yield Twice(path, lines[path], line)
            lines[path] = line
        elif word != ":":
            path = () if top is None else top.inner()
            lines.setdefault(path, line)
            if word in "{[":
                stack.append(_Open(path, word == "["))
