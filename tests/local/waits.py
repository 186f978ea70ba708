"""Where does Hermes wait? Found in the source, by a few plain rules. Equipment of `test_waits.py`.

A *wait* is a call that may return only when somebody else does something, and is given no time for
it; or a loop that pauses (sleeps, polls, waits a moment) and never looks at a clock.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

ALONE = ("wait", "join", "get", "acquire", "result", "accept", "select", "wait_for", "drain")
"""Methods that wait for ever where no argument says for how long. With arguments, `join` joins
strings and `get` looks a key up."""

TIMED = {"wait_for": 2, "select.select": 4, "create_connection": 2}
"""By the end of a name: the number of arguments that makes a wait a bounded one."""

WORD = ("communicate", "subprocess.run", "subprocess.call", "check_output", "check_call", "urlopen")
"""Calls that wait for ever without `timeout=`."""

FOREIGN = ("recv", "recv_into", "recvfrom", "sock_connect", "flock", "lockf", "stdin.readline",
           "stdin.read", "stdout.read", "stdout.readline", "waitpid", "sigwait", "pause")  # fmt: skip
"""Calls whose bound, if they have one, lies elsewhere."""

BUILTINS = ("input",)

PAUSES = ("sleep", "wait", "poll", "fetch", "select")
"""What a loop pauses with."""

CLOCKS = ("monotonic", "monotonic_ns", "perf_counter")


class Wait(NamedTuple):
    """One place."""

    module: str
    function: str
    """`Class.method`, or `function`; "" at the top."""
    what: str
    """The call, without arguments; or `while`, and what it pauses with."""

    def __str__(self) -> str:
        return f"{self.module} {self.function}: {self.what}"


def waits(module: str, source: str) -> Iterator[Wait]:
    """All of a module."""
    yield from _within(module, "", ast.parse(source))


def _within(module: str, function: str, node: ast.AST) -> Iterator[Wait]:
    for child in ast.iter_child_nodes(node):
        inner = function
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{function}.{child.name}".removeprefix(".")
        elif isinstance(child, ast.Call) and is_unbounded(child):
            yield Wait(module, function, f"{ast.unparse(child.func)}()")
        elif isinstance(child, ast.While) and (pauses := clockless(child)):
            yield Wait(module, function, f"while ... {', '.join(sorted(pauses))}")
        yield from _within(module, inner, child)


def is_unbounded(call: ast.Call) -> bool:
    """Whether the call may wait, and is not told for how long."""
    name = ast.unparse(call.func)
    words = {word.arg for word in call.keywords}
    last = name.rpartition(".")[2]
    if words & {"timeout", "timeout_ms"}:
        return False
    if isinstance(call.func, ast.Name):
        return name in BUILTINS or _ends(name, WORD)
    for end, enough in TIMED.items():
        if _ends(name, (end,)):
            return len(call.args) < enough
    if last in ALONE:
        return not call.args and not words
    if _ends(name, ("flock", "lockf")):
        return "LOCK_NB" not in ast.unparse(call)
    return _ends(name, WORD + FOREIGN)


def clockless(loop: ast.While) -> set[str]:
    """What a loop pauses with that never looks at a clock, its condition included; none if it
    does, or does not pause."""
    calls = [node for node in ast.walk(loop) if isinstance(node, ast.Call)]
    names = [ast.unparse(call.func) for call in calls]
    if any(_ends(name, CLOCKS) for name in names):
        return set()
    return {f"{name}()" for name in names if _ends(name, PAUSES)}


def _ends(name: str, ends: tuple[str, ...]) -> bool:
    return any(name == end or name.endswith(f".{end}") for end in ends)
