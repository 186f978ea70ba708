"""The house keeps its walls: who may import what (design, part 4)."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

import hermes

ROOT = Path(hermes.__file__).parent

PURE = ("values", "messages", "codec", "coded", "halves", "packing", "policy", "machine")

WORLD = frozenset(
    [
        "asyncio",
        "ctypes",
        "fcntl",
        "getpass",
        "glob",
        "http",
        "importlib",
        "io",
        "kafka",
        "keras",
        "logging",
        "msvcrt",
        "multiprocessing",
        "os",
        "pathlib",
        "platform",
        "random",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "socketserver",
        "ssl",
        "subprocess",
        "sys",
        "sysconfig",
        "tempfile",
        "threading",
        "time",
        "torch",
        "urllib",
        "uuid",
        "webbrowser",
        "typer",
        "rich",
        "matplotlib",
        "concurrent",
        "contextvars",
        "datetime",
        "sched",
        "queue",
    ]
)
"""Modules that a pure one never imports: clocks, chance, files, sockets, threads, processes."""

CALLS = frozenset({"open", "input", "print", "exec", "eval", "__import__"})
"""Builtins that reach out of a pure module."""


def modules() -> dict[str, Path]:
    """Every module of hermes, by its dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
NODES = {name: list(ast.walk(ast.parse(path.read_text()))) for name, path in MODULES.items()}


@functools.cache
def imports(name: str) -> tuple[str, ...]:
    """What a module imports, as dotted names; `from hermes.x import y` is both, if y is one."""
    return tuple(_imports(name))


def _imports(name: str) -> Iterator[str]:
    for node in NODES[name]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} imports relatively"
            assert node.module is not None
            yield node.module
            inner = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (dotted for dotted in inner if dotted in MODULES)


def within(name: str, *packages: str) -> bool:
    """Whether a module is one of these of ours, or lies in one."""
    return any(name == f"hermes.{p}" or name.startswith(f"hermes.{p}.") for p in packages)


PURE_MODULES = [name for name in MODULES if within(name, *PURE)]


def reached(name: str) -> dict[str, str]:
    """All that a module imports, through hermes's own modules too, and who imports it.

    `hermes/__init__.py` is left out: it is the user's door, and no module of ours goes through it.
    """
    found: dict[str, str] = {}
    todo = [name]
    while todo:
        here = todo.pop()
        for there in imports(here):
            if there not in found and there != "hermes":
                found[there] = here
                todo += [there] if there in MODULES else []
    return found


def test_there_is_something_to_look_at() -> None:
    """The walk finds the pure half, and sees imports where there are some."""
    assert len(PURE_MODULES) > 20
    assert "time" in reached("hermes.transport.memory")
    assert "kafka" in {name.partition(".")[0] for name in reached("hermes.transport.kafka")}


def test_the_pure_half_reaches_for_nothing() -> None:
    """No clock, chance, log, thread, file or socket: not by itself, not through another module."""
    for name in PURE_MODULES:
        for found, by in reached(name).items():
            assert found.partition(".")[0] not in WORLD, f"{name}: {by} imports {found}"
            assert not found.startswith("numpy.random"), f"{name}: {by} imports {found}"


def test_the_pure_half_calls_nothing_outside() -> None:
    """Nor `open`, `print` and the like, nor chance or clocks of NumPy."""
    attributes = ("random", "datetime64", "memmap", "fromfile")
    for name in PURE_MODULES:
        for node in NODES[name]:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in CALLS, f"{name}, line {node.lineno}"
            if isinstance(node, ast.Attribute):
                assert node.attr not in attributes, f"{name}, line {node.lineno}"


@pytest.mark.parametrize(
    ("who", "may_not"),
    [
        ("policy", ("messages", "machine", "codec", "transport", "train", "perform")),
        ("machine", ("codec", "transport", "train", "data", "perform", "runtime", "simulate")),
        ("train", ("policy", "machine", "transport", "perform", "runtime", "simulate")),
        ("transport", ("policy", "machine", "train", "perform", "runtime", "simulate")),
        ("perform", ("runtime", "simulate", "cli", "report")),
        ("runtime", ("simulate",)),
        ("simulate", ("runtime",)),
    ],
)
def test_each_floor_knows_only_those_below(who: str, may_not: tuple[str, ...]) -> None:
    """Policy knows no messages, machines no bytes, training no policy; the ends not each other."""
    for name in MODULES:
        if within(name, who):
            bad = [found for found in imports(name) if within(found, *may_not)]
            assert not bad, f"{name} imports {bad}"


def test_only_one_file_knows_the_client() -> None:
    """`transport/kafka.py` alone imports the Kafka client."""
    knows = {n for n in MODULES for found in imports(n) if found.partition(".")[0] == "kafka"}
    assert knows == {"hermes.transport.kafka"}


def test_nothing_is_unpickled() -> None:
    """No module imports pickle or a cousin of it."""
    cousins = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
    for name in MODULES:
        assert not cousins & {found.partition(".")[0] for found in imports(name)}, name
        for node in NODES[name]:
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), name
                assert node.value.value is False, name
