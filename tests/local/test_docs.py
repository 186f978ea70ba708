"""Do the pages say what is there? Their links, commands, scripts, exit codes, rules, messages."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import hermes.errors
from hermes.cli.app import app
from hermes.errors import HermesError
from hermes.job import Job
from hermes.machine import rules
from hermes.machine.ledger import Counting

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
WRITTEN = [page for page in PAGES if page.name != "messages.md"]
"""Pages that are written, not printed by a run."""

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
written = pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(text: str) -> set[str]:
    """What a code host calls the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", prose(text), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@page
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert ROOT in target.parents, link
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), link


def test_every_page_is_linked_from_another() -> None:
    links = {
        (path.parent / link.partition("#")[0]).resolve()
        for path in PAGES
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text("utf-8")))
    }
    pages = {path for path in PAGES if path.parent == ROOT / "docs"}
    assert pages <= links


# --- commands and scripts -----------------------------------------------------------------------


def commands() -> dict[str, set[str]]:
    """Each command, with the commands within it."""
    group = typer.main.get_command(app)
    found: dict[str, set[str]] = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        found[name] = set(getattr(command, "commands", {}))
    return found


def codes(text: str) -> Iterator[str]:
    """Lines of code of a page: inline, and in blocks."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, flags=re.M | re.S):
        yield from block.splitlines()
    yield from re.findall(r"`([^`\n]+)`", prose(text))


def named(line: str) -> list[tuple[str, str]]:
    """(command, what follows it), for each `hermes COMMAND` in a line of code."""
    return re.findall(r"(?:^|[$(:;,] ?|or |then )hermes ([a-z]+)\b(?: ([a-z]+)\b)?", line)


@page
def test_commands_that_a_page_names_exist(path: Path) -> None:
    known = commands()
    for line in codes(path.read_text("utf-8")):
        for command, inner in named(line):
            assert command in known, line
            if known[command] and inner:
                assert inner in known[command], line


@written
def test_tests_that_a_page_names_exist(path: Path) -> None:
    """With their folder or, beside another one, without."""
    known = {test.name for test in (ROOT / "tests").rglob("test_*.py")}
    for folder, name in re.findall(r"(tests/[\w/]+/)?(test_\w+\.py)", path.read_text("utf-8")):
        assert (ROOT / folder / name).is_file() if folder else name in known, folder + name


@written
def test_benchmarks_that_a_page_names_can_be_run(path: Path) -> None:
    runs = (ROOT / "scripts" / "benchmark").read_text("utf-8")
    known = set(re.findall(r"[\w-]+", runs.partition('"${1:-}" in')[2].partition(")")[0]))
    for name in re.findall(r"scripts/benchmark ([a-z]+)\b", path.read_text("utf-8")):
        assert name in known, name
        assert (ROOT / "benchmarks" / f"{name}.py").is_file(), name


@written
def test_scripts_that_a_page_names_exist(path: Path) -> None:
    for name in re.findall(r"(?<![\w/])(?:\./)?scripts/([\w-]+)", path.read_text("utf-8")):
        script = ROOT / "scripts" / name
        assert script.is_file(), name
        assert os.access(script, os.X_OK), name


def test_commands_and_scripts_are_found_at_all() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    found = {command for line in codes(text) for command, _ in named(line)}
    assert {"run", "master", "worker", "broker", "clean"} <= found
    table = (ROOT / "docs" / "commands.md").read_text("utf-8")
    told = {command for line in codes(table) for command, _ in named(line)}
    assert told >= commands().keys(), "each command is told"
    assert named("from hermes import nn") == []
    assert named("hermes broker start") == [("broker", "start")]


# --- exit codes and messages --------------------------------------------------------------------


def test_exit_codes_are_those_of_the_classes() -> None:
    text = (ROOT / "docs" / "exit-codes.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| .* \| ?(.*?) ?\|$", text, flags=re.M)
    told = {name: int(code) for code, names in rows for name in re.findall(r"`(\w+)`", names)}
    known = {
        name: kind.exit_code
        for name, kind in inspect.getmembers(hermes.errors, inspect.isclass)
        if issubclass(kind, HermesError)
    }
    assert told == known
    readme = (ROOT / "README.md").read_text("utf-8").partition("## Exit codes")[2]
    expected = [code for code, _ in rows]
    assert expected == ["0", "1", "2", "3", "4", "5", "130"]
    assert re.findall(r"^\| (\d+) \| ", readme, flags=re.M) == expected
    assert all(f"**{code}**" in text for code in expected[1:]), "each has an example"


def transcript() -> str:
    text = (ROOT / "docs" / "messages.md").read_text("utf-8")
    schedules = (ROOT / "docs" / "schedules.md").read_text("utf-8")
    return " ".join((text + schedules).split())


def test_examples_of_exit_codes_are_real_messages() -> None:
    """But for a defect's, which no test of bad input may provoke."""
    text = (ROOT / "docs" / "exit-codes.md").read_text("utf-8")
    blocks = re.findall(r"^```\n(.*?)^```", text, flags=re.M | re.S)
    examples = [" ".join(block.split()) for block in blocks]
    assert len(examples) == 6
    for example in examples[1:]:
        assert example in transcript()


def test_what_the_readme_shows_was_seen() -> None:
    """Each text of its first column stands in the transcript (`…` for anything)."""
    text = (ROOT / "README.md").read_text("utf-8")
    section = text.partition("## What you see")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    count = re.search(r"<summary>(\d+) messages</summary>", section)
    assert count
    assert len(rows) == int(count[1]) >= 20
    seen = transcript()
    for row in rows:
        cells = row.strip("| ").split(" | ")
        assert len(cells) == 3, row
        for shown in re.findall(r"`([^`]+)`", cells[0].partition(" in `")[0]):
            pattern = ".{1,120}?".join(re.escape(part.strip()) for part in shown.split("…"))
            assert re.search(pattern, seen), shown


# --- jobs ---------------------------------------------------------------------------------------


def test_what_the_readme_says_to_edit_is_the_example() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    blocks = [part.partition("```")[0] for part in text.split("```python\n")[1:]]
    for name, shown in zip(("master.py", "master_keras.py"), blocks, strict=False):
        example = (ROOT / "examples" / name).read_text("utf-8")
        assert shown.strip()
        assert example.endswith(shown), "but for what stands at its top"


def test_every_field_of_a_job_is_told() -> None:
    text = (ROOT / "docs" / "jobs.md").read_text("utf-8")
    told = re.findall(r"^\| `(\w+)` \|", text, flags=re.M)
    assert told == [field.name for field in dataclasses.fields(Job) if field.init]


# --- rules --------------------------------------------------------------------------------------


def test_every_rule_of_the_protocol_is_told_and_is_there() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    table = text.partition("## Rules")[2].partition("\n## ")[0]
    told = set(re.findall(r"`(?:\w+\.)?(\w+)`", table))
    assert {*rules.Rules._fields, *Counting._fields} - {"counting"} <= told
    for name in re.findall(r"`rules\.(\w+)`", table):
        assert callable(getattr(rules, name)), name
