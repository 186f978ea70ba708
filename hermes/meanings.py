"""What does each field of a class mean? The text that stands below it in its source."""

from __future__ import annotations

import ast
import inspect
import textwrap


def of(source: str) -> dict[str, str]:
    """The docstring below each field of a class, on one line.

    Raises `KeyError` at its use where a field has none: every setting is explained.
    """
    (kind,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(kind, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in zip(kind.body, kind.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def of_class(kind: type) -> dict[str, str]:
    """As `of`, for a class."""
    return of(inspect.getsource(kind))
