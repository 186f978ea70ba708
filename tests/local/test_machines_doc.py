"""docs/machines.md and its pictures are drawn from the tables, and tell what the machines do."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hermes.machine import duties, events, master, worker
from hermes.machine.events import BeatDue, Began, DataStored, HelloReceived, Merge, RoundFinished
from hermes.messages import Bye, Round, RunStopped, VersionPublished
from hermes.perform import decider
from hermes.report.machines import page
from hermes.report.machines.moves import DUE, Moved, seen
from hermes.report.machines.source import (
    called_in_order,
    changes,
    first_sentence,
    gives,
    moves,
    outcomes,
)
from hermes.report.machines.write import files
from hermes.simulate.schedules import draw, run

DOCS = Path(__file__).parents[2] / "docs"
CHANCE = ("### Moves", "## Actions")
"""What stands between these is counted: it may differ by a rare move."""


@pytest.fixture(scope="module")
def found() -> Counter[Moved]:
    return seen()


def tables(text: str) -> str:
    """The page without what is counted."""
    before, _, rest = text.partition(CHANCE[0])
    assert rest
    return before + rest.partition(CHANCE[1])[2]


def test_the_page_and_the_pictures_are_current(found: Counter[Moved]) -> None:
    """If this fails: ./scripts/machines-doc."""
    for name, text in files(found).items():
        kept = (DOCS / name).read_text("utf-8")
        if name.endswith(".md"):
            kept, text = tables(kept), tables(text)
        assert kept == text, name


def test_what_the_page_counts_is_what_was_seen(found: Counter[Moved]) -> None:
    """Every move that is not rare is told; each that the source can make is told, seen or not."""
    text = (DOCS / "machines.md").read_text("utf-8")
    counted, _, unseen = text.partition(CHANCE[0])[2].partition("### Moves that were not seen")
    told = set(re.findall(r"\| `(\w+)` \| [`*]([\w: ]+)[`*] \| `(\w+)` \| \d+ \|", counted))
    assert {tuple(move) for move, times in found.items() if times >= page.RARE} <= told
    made = page.did([Moved(*move) for move in told])
    left = set(re.findall(r"\| `(\w+)` \| `(\w+)` \|", unseen.partition(CHANCE[1])[0]))
    assert made | left >= page.can()
    assert not made & left


def test_nothing_moves_a_worker_that_the_source_does_not_show(found: Counter[Moved]) -> None:
    """What was seen is among what can be: the reader of the source misses nothing."""
    can = page.can()
    for cause, phase in page.did(found):
        assert (cause, phase) in can or ("LedgerSeen", phase) in can, (cause, phase)
    assert {move.before for move in found} == {
        "knocking", "idle", "loading", "training", "stepped", "pushing", "waiting", "scoring"
    }  # fmt: skip


def watched(monkeypatch: pytest.MonkeyPatch, caller: Any) -> dict[str, set[str]]:
    """By event: the names of the entries and actions that a machine really gave for it."""
    given: dict[str, set[str]] = {}
    plain: Callable[..., Any] = caller.decide

    def decide(*args: Any, **more: Any) -> Any:
        answer = plain(*args, **more)
        (event,) = [it for it in args if isinstance(it, events.Event)]
        things = (*getattr(answer, "entries", ()), *answer.actions)
        given.setdefault(type(event).__name__, set()).update(type(it).__name__ for it in things)
        return answer

    monkeypatch.setattr(caller, "decide", decide)
    return given


@pytest.mark.parametrize("module", [master, worker], ids=["master", "worker"])
def test_nothing_is_given_that_the_tables_do_not_show(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 100 schedules: every entry and action is one that the event's row, or a duty's, names."""
    given = watched(monkeypatch, decider if module is master else worker)
    for seed in range(100):
        run(draw(seed))
    due = (
        [gives(duty) for duty in called_in_order(duties.perform)]
        if module is master
        else [gives(worker._go_on)]
    )
    always = {name for it in due for name in (*it.entries, *it.actions)}
    can: dict[str, set[str]] = {}
    event = ""
    for part in page.parts_of(module.HANDLERS):
        event = event if part.table else part.kind.__name__
        can.setdefault(event, set(always)).update(part.gives.entries, part.gives.actions)
    assert len(given) >= 9
    for event, names in given.items():
        assert names <= can[event], event


# --- the reader of the source -------------------------------------------------------------------


def test_a_handler_is_read_through_what_it_calls() -> None:
    hello = gives(master.HANDLERS[HelloReceived])
    assert set(hello.entries) == {
        "WorkerAdmitted",  # in admission.py
        "WorkerRefused",
        "BlocksReturned",  # in rules.py, through the table of rules
        "WorkerLeft",
    }
    assert hello.actions == ("FollowWorker",)
    assert set(hello.rules) == {"hello", "running", "resume", "release"}
    assert hello.consumes
    assert gives(master.BODIES[Bye]).entries == ("WorkerLeft", "BlocksReturned")
    assert "ShardResized" in gives(master.BODIES[Round]).entries, "in sizing.py"
    stored = gives(master.HANDLERS[DataStored])
    assert stored.entries == ("DataPublished",), "what the event brings is the entry"
    assert not stored.consumes


def test_phases_and_tables_are_read() -> None:
    assert set(gives(worker.HANDLERS[RoundFinished]).phases) == {"pushing", "stepped", "idle"}
    assert gives(worker.HANDLERS[events.LedgerSeen]).tables == ("ENTRIES", "ANSWERS")
    assert gives(worker.ENTRIES[RunStopped]).phases == ("gone",)
    assert gives(worker.HANDLERS[BeatDue]).phases == ()
    due = {move.phase: move.actions for move in moves(worker._begin)}
    assert {phase: due[phase] for phase in ("loading", "training")} == {
        "loading": ("LoadVersion",),
        "training": ("Train",),
    }
    called = [duty.__name__ for duty in called_in_order(duties.perform)]
    assert called[:3] == ["prepare", "settle", "start"]


def test_changes_and_words_are_read() -> None:
    from hermes.machine.apply import APPLY

    assert {"newest", "versions", "pending", "member.applied"} <= set(
        changes(APPLY[VersionPublished])
    )
    assert outcomes(Merge) == ("VersionStored", "MergeFailed")
    assert outcomes(events.Finish) == ()
    assert first_sentence(Began).startswith("The process is up")
    assert all(row[1] for row in page_rows("### Standing duties")), "a duty without a docstring"


def page_rows(head: str) -> list[list[str]]:
    text = (DOCS / "machines.md").read_text("utf-8").partition(head)[2].partition("\n#")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [line.strip("|").split(" | ") for line in lines[2:]]


# --- the pictures -------------------------------------------------------------------------------


class Area(NamedTuple):
    """Where a text stands, about."""

    text: str
    left: float
    right: float
    top: float
    bottom: float


def areas(path: Path) -> list[Area]:
    space = "{http://www.w3.org/2000/svg}"
    root = ElementTree.fromstring(path.read_text("utf-8"))
    found = []
    for it in root.iter(f"{space}text"):
        size, x, y = (float(it.attrib[key]) for key in ("font-size", "x", "y"))
        wide = len(it.text or "") * size * 0.6
        left = x - {"start": 0.0, "middle": wide / 2, "end": wide}[it.attrib["text-anchor"]]
        found.append(Area(it.text or "", left, left + wide, y - size * 0.75, y + size * 0.2))
    return found


@pytest.mark.parametrize("name", ["master", "worker", "topics"])
def test_no_word_of_a_picture_lies_on_another_or_outside(name: str) -> None:
    """Whatever the tables bring."""
    path = DOCS / "pictures" / f"{name}.svg"
    words = areas(path)
    assert len(words) > 15
    for a, b in itertools.combinations(words, 2):
        apart = a.right <= b.left or b.right <= a.left or a.bottom <= b.top or b.bottom <= a.top
        assert apart, (a.text, b.text)
    root = ElementTree.fromstring(path.read_text("utf-8"))
    wide, high = float(root.attrib["width"]), float(root.attrib["height"])
    for it in words:
        assert it.left >= 0, it.text
        assert it.right <= wide, it.text
        assert it.bottom <= high, it.text


def test_what_is_due_is_told_by_what_it_asks_for(found: Counter[Moved]) -> None:
    text = page.draw_worker(found)
    assert f"{DUE}: LoadVersion" in text
    assert f"{DUE}: Train" in text
