"""On which line does each value of a JSON text stand?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.cluster.located import NotJson, Path, Twice, locate, spelt

TEXT = """\
{
  "version": 1, "nodes": [
    {"name": "a", "host": "h"},

    {
      "name":
        "b{,]\\"",
      "ports": [1,
        2]
    }
  ],
  "": {}
}
"""

TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def test_the_line_of_a_key_and_of_an_item() -> None:
    found = locate(TEXT)
    assert found.tree == json.loads(TEXT)
    told = {spelt(path): line for path, line in found.lines.items()}
    assert told == {
        "": 12,  # the empty key, spelt as the whole is
        "version": 2,
        "nodes": 2,
        "nodes[0]": 3,
        "nodes[0].name": 3,
        "nodes[0].host": 3,
        "nodes[1]": 5,
        "nodes[1].name": 6,
        "nodes[1].ports": 8,
        "nodes[1].ports[0]": 8,
        "nodes[1].ports[1]": 9,
    }
    assert found.lines[()] == 1
    assert found.line(("nodes", 1, "absent", 3)) == 5, "that of what it should stand in"
    assert found.line(("absent",)) == 1


@pytest.mark.parametrize("text", ["3", '"a"', "[]", " \n[[], 1]"])
def test_a_text_need_not_be_an_object(text: str) -> None:
    assert locate(text).tree == json.loads(text)


def test_a_key_that_stands_twice_is_told_with_both_lines() -> None:
    found = locate('{"a": 1,\n "b": {"c": 1, "c": [\n{"d": 1}]},\n"a": 2}')
    assert found.twice == (Twice(("b", "c"), 2, 2), Twice(("a",), 1, 4))


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("", 1, 1),
        ("{\n  'a': 1}", 2, 3),
        ('{\n"a": 1, }', 2, 8),
        ('{"a": 1}\n{', 2, 1),
        ('{"a": "NaN",\n "b": NaN}', 2, 7),
        ('{"a":\n-Infinity}', 2, 1),
        ('{"a": ' + "1" * 5000 + "}", 1, 7),
        ("[" * 100_000, 1, 1),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_is_no_json_is_told_with_line_and_column(text: str, line: int, column: int) -> None:
    with pytest.raises(NotJson) as told:
        locate(text)
    assert told.value.line == line
    assert abs(told.value.column - column) <= 2  # Pythons differ on a comma too many
    assert told.value.what


def paths(tree: Any, path: Path = ()) -> Iterator[Path]:
    yield path
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from paths(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from paths(value, (*path, index))


@given(TREES)
def test_every_value_has_its_line_whatever_it_is(tree: Any) -> None:
    """Written with a value a line, each begins where its key or its item does."""
    text = json.dumps(tree, indent=1, ensure_ascii=False)
    found = locate(text)
    assert found.tree == tree
    assert found.twice == ()
    assert set(found.lines) == set(paths(tree))
    lines = text.split("\n")
    for path in paths(tree):
        if path and isinstance(path[-1], str):
            key = json.dumps(path[-1], ensure_ascii=False)
            assert lines[found.line(path) - 1].strip().startswith(f"{key}:")
