"""What does `data()` leave in the job file that workers then miss? They never call it: a constant
that it sets, and the model reads, has another value there, or none.

Told from the file's text alone, so that it is told before anything is sent. A name that the model's
own part sets as well is none of these: workers set it, too.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from hermes.errors import JobError
from hermes.job import Job

THEIRS = (
    *("model", "optimizer", "loss", "step", "metric", "clip", "autocast", "schedule"),
    "callbacks",
)
"""Fields of a job that workers call."""

CHANGES = frozenset(
    [
        *("adapt", "add", "append", "extend", "fit", "fit_transform", "insert", "partial_fit"),
        *("setdefault", "update"),
    ]
)
"""Methods that change what they are called on."""

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def check_leavings(job: Job, text: str, filename: str) -> None:
    """Raise `JobError` where something that workers call reads what `data()` sets."""
    found = _left(job, text, filename)
    if found is None:
        return
    raise JobError(
        f"{found.reader} uses {found.name!r}, which line {found.set_at} sets as data() is called: "
        "workers never call data()",
        where=f"{filename}:{found.read_at}",
        remedy=f"Write {found.name!r} down as a constant, or let data() apply it to the samples: "
        "those travel.",
    )


class Left(NamedTuple):
    """A name of the file's top level, who reads it, and the lines."""

    name: str
    reader: str
    set_at: int
    read_at: int


def _left(job: Job, text: str, filename: str) -> Left | None:
    try:
        file = _File(ast.parse(text), filename)
    except (SyntaxError, ValueError):
        return None
    set_there: dict[str, int] = {}
    for node in file.reached(file.of(job.data)):
        for name, line in _changed(node):
            set_there.setdefault(name, line)
    for field in THEIRS if set_there else ():
        nodes = list(file.reached(file.of(getattr(job, field))))
        own = {name for node in nodes for name, _ in _changed(node)}
        read = [(line, name) for node in nodes for name, line in _read(node) if name not in own]
        for line, name in sorted(read):
            if name in set_there and name in file.bound:
                return Left(name, f"{field}()", set_there[name], line)
    return None


class _File:
    """A job file: what its top level binds, by name."""

    def __init__(self, tree: ast.Module, filename: str) -> None:
        self._tree, self._filename = tree, filename
        self.bound: dict[str, list[ast.AST]] = {}
        for node in tree.body:
            for name in _names_bound(node):
                self.bound.setdefault(name, []).append(node)

    def of(self, value: Any) -> list[ast.AST]:
        """Functions and classes of this file that a field of the job is made of."""
        while isinstance(value, functools.partial):
            value = value.func
        if not inspect.isroutine(value) and not isinstance(value, type):
            value = type(value)
        if isinstance(value, type):
            return [n for n in self.bound.get(value.__name__, []) if isinstance(n, ast.ClassDef)]
        code = getattr(value, "__code__", None)
        if code is None or code.co_filename != self._filename:
            return []
        return [
            node
            for node in ast.walk(self._tree)
            if isinstance(node, FUNCTIONS) and _first_line(node) == code.co_firstlineno
        ]

    def reached(self, nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
        """These functions and classes, and those of the file that they use."""
        waiting, seen = list(nodes), set()
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            made = isinstance(node, (*FUNCTIONS, ast.ClassDef))
            if made:
                yield node
            used = _read(node) if made else _loaded(node)
            waiting += [there for name, _ in used for there in self.bound.get(name, [])]


def _first_line(node: ast.AST) -> int:
    """As code objects have it: decorators count."""
    first: Any = next(iter(getattr(node, "decorator_list", ())), node)
    return int(first.lineno)


def _names_bound(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                yield part.id


def _loaded(node: ast.AST) -> Iterator[tuple[str, int]]:
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load):
            yield part.id, part.lineno


def _read(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Names of the file's top level that it reads, and where; those of its own are none."""
    own = _own(node)
    return ((name, line) for name, line in _loaded(node) if name not in own)


def _changed(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Names of the file's top level that it binds anew, or whose values it changes."""
    own = _own(node)
    shared = _shared(node)
    for part in ast.walk(node):
        name = None
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store) and part.id in shared:
            name = part.id
        elif isinstance(part, ast.Subscript | ast.Attribute) and isinstance(part.ctx, ast.Store):
            name = _root(part)
        elif isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
            name = _root(part.func) if part.func.attr in CHANGES else None
        if name is not None and name not in own:
            yield name, part.lineno  # type: ignore[attr-defined]


def _root(node: ast.expr) -> str | None:
    """The name that a place such as A.b[1] begins with."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _shared(node: ast.AST) -> set[str]:
    return {n for part in ast.walk(node) if isinstance(part, ast.Global) for n in part.names}


def _own(node: ast.AST) -> set[str]:
    """Names that it binds for itself: arguments, and what it assigns to. One that is bound in some
    function within counts, too."""
    found: set[str] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            found.add(part.id)
        elif isinstance(part, ast.arg):
            found.add(part.arg)
        elif part is not node and isinstance(part, ast.FunctionDef | ast.ClassDef):
            found.add(part.name)
    return found - _shared(node)
