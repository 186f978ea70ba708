"""docs/settings.md tells every setting as it is declared."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes.cli.settings_doc import ABOUT, document, meanings_of, shown, type_name
from hermes.policy.presets import known_keys

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_current() -> None:
    """If this fails: scripts/settings-doc."""
    assert PAGE.read_text() == document()


def test_every_setting_has_a_row_and_a_meaning() -> None:
    """Each key once, with its type, its default and what it means."""
    settings, _, _ = document().partition("## What a strategy")
    rows = [line.split(" | ") for line in settings.splitlines() if line.startswith("| `")]
    assert {len(row) for row in rows} == {4}
    keys = [row[0].strip("| `") for row in rows]
    assert sorted(keys) == [key for key in known_keys() if key != "strategy"]
    assert all(len(row[3]) > 10 for row in rows)


def test_every_section_says_what_it_asks() -> None:
    """No section is without its question, and no question without its section."""
    assert set(ABOUT) == {key.split(".")[0] for key in known_keys() if key != "strategy"}


def test_meanings_are_read_off_the_source() -> None:
    """The text below a field, on one line; a field without one is a `KeyError` for the page."""
    source = 'class A:\n    """Doc."""\n    a: int = 1\n    """One\n    | two."""\n    b: int = 2\n'
    assert meanings_of(source) == {"a": "One \\| two."}


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "off"), ("x", "x"), (True, "true"), (-1.5, "-1.5"), (3, "3")],
)
def test_defaults_are_shown_as_they_are_typed(value: object, text: str) -> None:
    """So that `--set KEY=` and the text give the default."""
    assert shown(value) == text


def test_types_are_words() -> None:
    """What people say, not what Python says."""
    assert type_name(int | None) == "whole number or off"
    assert type_name(bool) == "true or false"
