"""What does a job file use that does not travel with it? Only its text reaches the workers."""

from __future__ import annotations

import ast
import importlib.metadata
import sys
from collections.abc import Collection, Iterator
from pathlib import Path


def only_as_main(text: str) -> dict[str, int]:
    """Names that this source binds under `if __name__ == "__main__":` alone, each with its line."""
    found: dict[str, int] = {}
    elsewhere: set[str] = set()
    for node in _parsed(text).body:
        if isinstance(node, ast.If) and _asks_for_main(node.test):
            for part in node.body:
                found.update((name, line) for name, line in _bound(part) if name not in found)
        else:
            elsewhere |= {name for name, _ in _bound(node)}
    return {name: line for name, line in found.items() if name not in elsewhere}


def beside(
    text: str, filename: str, known: Collection[str] | None = None
) -> tuple[str, int] | None:
    """The first module that this source imports from the folder of the file itself, and its line;
    None where there is none. A package that is installed from there is none of these.

    Looks at what is imported when the file is read; or, where `known` is given, within functions,
    too, but not at the modules that are `known`: those that `data()` may have, which is called on
    the master alone.
    """
    folder = Path(filename).resolve().parent
    imported = _imported(_parsed(text), deep=known is not None)
    for name, line in sorted(imported, key=lambda pair: pair[1]):
        if known is not None and name in known:
            continue
        there = (folder / f"{name}.py").is_file() or (folder / name).is_dir()
        if there and name in sys.modules and _lies_in(name, folder) and not _installed(name):
            return name, line
    return None


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def _asks_for_main(test: ast.expr) -> bool:
    return (
        isinstance(test, ast.Compare)
        and isinstance(test.ops[0], ast.Eq)
        and {ast.unparse(side) for side in (test.left, *test.comparators)}
        == {"__name__", "'__main__'"}
    )


def _bound(node: ast.stmt) -> Iterator[tuple[str, int]]:
    """What a statement of a module binds there, with its line."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name, node.lineno
        return
    if isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield (alias.asname or alias.name).partition(".")[0], node.lineno
        return
    for part in ast.iter_child_nodes(node):
        if isinstance(part, ast.stmt):
            yield from _bound(part)
        else:
            for inner in ast.walk(part):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    yield inner.id, inner.lineno


def _imported(node: ast.AST, *, deep: bool) -> Iterator[tuple[str, int]]:
    """Packages and modules that are imported; `deep`: also within functions."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name.partition(".")[0], node.lineno
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module.partition(".")[0], node.lineno
    if deep or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        for part in ast.iter_child_nodes(node):
            yield from _imported(part, deep=deep)


def _lies_in(name: str, folder: Path) -> bool:
    module = sys.modules[name]
    files = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(file and folder in Path(file).resolve().parents for file in files)


def _installed(name: str) -> bool:
    return name == "hermes" or name in importlib.metadata.packages_distributions()
