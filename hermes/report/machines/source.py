"""What can a handler of a machine give? Read off its source, through every function that it calls.

Nothing is listed by hand: a handler's syntax tree is walked, and with it those of the functions of
`hermes.machine` that it calls. What is found is what it *can* give, not what it does each time.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from hermes.machine import events
from hermes.machine.draft import Draft
from hermes.machine.rules import PROTOCOL_RULES, Rules
from hermes.machine.worker import Hand
from hermes.messages import Entry

Function = Callable[..., Any]
Table = dict[type, Function]

ENTRY_TYPES: tuple[type, ...] = typing.get_args(Entry)

CLASSES = (Draft, Hand)
"""What handlers are given; calls of their methods are followed, too."""


class Gives(NamedTuple):
    """What a function can give, each in the order of its first appearance."""

    entries: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    """Of `machine.rules.Rules`: those it asks."""
    phases: tuple[str, ...] = ()
    """Phases of a worker that it can begin."""
    consumes: bool = False
    """The position of an input is consumed."""
    tables: tuple[str, ...] = ()
    """Tables of handlers that it goes on with."""


class Move(NamedTuple):
    """Where a source begins a phase, and the actions that stand beside it."""

    phase: str
    actions: tuple[str, ...]


def gives(function: Function) -> Gives:
    """All that a function can give, by itself or through those it calls."""
    found: dict[str, dict[str, None]] = {name: {} for name in Gives._fields}
    for here in reached(function):
        for kind, name in _given(here):
            found[kind][name] = None
    lists = {name: tuple(found[name]) for name in Gives._fields if name != "consumes"}
    return Gives(**lists, consumes=bool(found["consumes"]))


def reached(function: Function) -> list[Function]:
    """The function and all of `hermes.machine` that it calls, each once, callers first."""
    found: dict[Function, None] = {}
    todo = [function]
    while todo:
        here = todo.pop()
        if here not in found:
            found[here] = None
            calls = (_resolve(node.func, here) for node in ast.walk(tree(here)) if _is_call(node))
            todo += [it for it in calls if _is_ours(it)][::-1]
    return list(found)


def moves(function: Function) -> list[Move]:
    """Where this function itself begins a phase."""
    return [
        Move(phase, _asked(block, function))
        for block in _blocks(tree(function))
        for statement in block
        for phase in _begun(statement)
    ]


def _asked(block: list[ast.stmt], function: Function) -> tuple[str, ...]:
    """Actions that a block asks for itself, not in blocks within it."""
    plain = [it for it in block if isinstance(it, (ast.Expr, ast.Assign, ast.Return))]
    nodes = [node for statement in plain for node in ast.walk(statement)]
    built = [found for node in nodes for found in _built(node, function)]
    return tuple(name for kind, name in built if kind == "actions")


def called_in_order(function: Function) -> list[Function]:
    """Functions of its own module that a function calls, one after the other, in its body and in
    the branches of that."""
    statements = _flat(tree(function).body)
    calls = [s.value.func for s in statements if _is_statement_call(s)]  # type: ignore
    found = [_resolve(call, function) for call in calls]
    return [it for it in found if _is_ours(it)]


def _flat(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements in order; in the place of an `if` what it has done."""
    for statement in body:
        if isinstance(statement, ast.If):
            yield from _flat([*statement.body, *statement.orelse])
        else:
            yield statement


def table_of(function: Function, name: str) -> Table:
    """The table of handlers of this name that a function's module knows."""
    return typing.cast(Table, function.__globals__[name])


def changes(function: Function) -> tuple[str, ...]:
    """Which fields of the master's state, and of its members, an `apply` function replaces."""
    found: dict[str, None] = {}
    for here in reached(function):
        for node in ast.walk(tree(here)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                target = node.args[0] if node.args else None
                of = target.id if isinstance(target, ast.Name) else ""
                whose = {"replace": of, "_member": "member", "Member": "member"}.get(node.func.id)
                keys = [key.arg for key in node.keywords if key.arg]
                if whose == "state":
                    found |= dict.fromkeys(k for k in keys if k != "members")
                elif whose in ("member", "old"):
                    found |= dict.fromkeys(f"member.{key}" for key in keys)
    return tuple(found)


def first_sentence(thing: object) -> str:
    """What a docstring says, up to its first full stop."""
    text = " ".join((inspect.getdoc(thing) or "").split())
    end = min((at + 1 for at in (text.find(". "), text.find(".")) if at >= 0), default=len(text))
    return text[:end].strip()


def outcomes(action: type) -> tuple[str, ...]:
    """The events that an action's docstring names."""
    text = inspect.getdoc(action) or ""
    known = [name for name, it in vars(events).items() if _is_subclass(it, events.Event)]
    return tuple(sorted((n for n in known if f"`{n}`" in text), key=lambda n: text.index(f"`{n}`")))


# --- syntax trees -------------------------------------------------------------------------------


@functools.cache
def tree(function: Function) -> ast.FunctionDef:
    """The syntax tree of a function."""
    (found,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(found, ast.FunctionDef)
    return found


def _given(function: Function) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree(function)):
        yield from _built(node, function)
        if isinstance(node, ast.Call) and _dotted(node.func) == "draft.take":
            yield "consumes", "input"
        if isinstance(node, ast.Call) and _dotted(node.func) == "draft.add":
            yield from _added(node, function)
        if isinstance(node, ast.Attribute) and _dotted(node.value).endswith(".rules"):
            yield from (("rules", name) for name in [node.attr] if hasattr(Rules, name))
        if isinstance(node, ast.Name) and _is_table(function, node.id):
            yield "tables", node.id
    for move in moves(function):
        yield "phases", move.phase


def _built(node: ast.AST, function: Function) -> Iterator[tuple[str, str]]:
    """What is constructed by this very node: an entry, an action, or nothing."""
    it = _resolve(node.func, function) if isinstance(node, ast.Call) else None
    if _is_entry(it):
        yield "entries", it.__name__
    elif _is_subclass(it, events.Action):
        yield "actions", it.__name__


def _added(call: ast.Call, function: Function) -> Iterator[tuple[str, str]]:
    """`draft.add(event.run)`: what an event brings is itself the entry."""
    for argument in call.args:
        if isinstance(argument, ast.Attribute) and isinstance(argument.value, ast.Name):
            kind = _hints(function).get(argument.value.id)
            it = _hints(kind).get(argument.attr) if kind else None
            for one in typing.get_args(it) or (it,):
                if _is_entry(one):
                    yield "entries", one.__name__


def _blocks(top: ast.AST) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(top):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                yield block


def _begun(statement: ast.stmt) -> list[str]:
    """Phases that this statement begins: `hand.become(phase=...)`."""
    if not _is_statement_call(statement):
        return []
    call = statement.value  # type: ignore[attr-defined]
    values = [key.value for key in call.keywords if key.arg == "phase"]
    choices = [[v.body, v.orelse] if isinstance(v, ast.IfExp) else [v] for v in values]
    return [str(ast.literal_eval(choice)) for some in choices for choice in some]


def _resolve(node: ast.expr, function: Function) -> object:
    """What a name in a function's source stands for; None if that cannot be told."""
    dotted = _dotted(node)
    head, _, rest = dotted.partition(".")
    if rest.startswith("rules."):
        return getattr(PROTOCOL_RULES, rest.removeprefix("rules."), None)
    given = _hints(function).get(head) if rest else None
    place = given if given in CLASSES else function.__globals__.get(head)
    return getattr(place, rest, None) if rest and "." not in rest else None if rest else place


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return f"{_dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def _is_call(node: ast.AST) -> typing.TypeGuard[ast.Call]:
    return isinstance(node, ast.Call)


def _is_statement_call(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)


def _is_ours(it: object) -> typing.TypeGuard[Function]:
    return isinstance(it, types.FunctionType) and it.__module__.startswith("hermes.machine.")


def _is_table(function: Function, name: str) -> bool:
    """Whether this is a table of handlers: what a draft or a hand is given to."""
    it = function.__globals__.get(name)
    if not isinstance(it, dict) or not it or not all(_is_ours(value) for value in it.values()):
        return False
    first = [next(iter(_hints(value).values())) for value in it.values()]
    return set(first) <= set(CLASSES)


def _is_entry(it: object) -> typing.TypeGuard[type]:
    return it in ENTRY_TYPES


def _is_subclass(it: object, kind: type) -> typing.TypeGuard[type]:
    return isinstance(it, type) and issubclass(it, kind) and it is not kind


def _hints(thing: Any) -> dict[str, Any]:
    """The types of its parts or arguments; some modules know `Draft` for the type checker alone."""
    return typing.get_type_hints(thing, localns={Draft.__name__: Draft})
