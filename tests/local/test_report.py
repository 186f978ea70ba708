"""Does a run's page say what its ledger says, whatever state it is in and whatever stands in it?"""

from __future__ import annotations

import json
import re
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from benchmarks.synthetic import SyntheticRun, synthetic_run
from hermes.cli.entry import run
from hermes.codec import decode
from hermes.machine.state import MasterState
from hermes.messages import (
    LedgerRecord,
    RoundNoted,
    ShardResized,
    UpdateTaken,
    VersionEvaluated,
    VersionPublished,
    WorkerLeft,
)
from hermes.report import words
from hermes.report.page.facts import Beside
from hermes.report.page.page import page
from hermes.report.story import Story
from hermes.runtime import reporter
from hermes.runtime.archive import read_archive
from hermes.runtime.folder import RunFolder
from hermes.runtime.observe import saved
from hermes.runtime.reporter import Reporter

WRITTEN = "2026-01-01T12:30:00.000Z"
LIMIT = 3_000_000
"""Bytes of the page of twelve workers and a thousand versions."""


class Reading(HTMLParser):
    """What stands in a page: elements, tables by the heading of their first column, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.texts: list[str] = []
        self._cell = self._silent = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._silent = tag in ("style", "script")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        self._cell = tag in ("td", "th")
        if self._cell:
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._silent = self._silent and tag not in ("style", "script")
        self._cell = self._cell and tag not in ("td", "th", "table")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.texts.append(data.replace("\N{NO-BREAK SPACE}", " "))
        if self._cell:
            self.tables[-1][-1][-1] += data

    def table(self, *columns: str) -> list[list[str]]:
        """The rows of the first table whose headings begin with these."""
        return next(t[1:] for t in self.tables if tuple(t[0][: len(columns)]) == columns)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def records(folder: RunFolder) -> list[LedgerRecord]:
    found = [decode(raw.value) for raw in read_archive(folder.ledger)]
    return [record for record in found if isinstance(record, LedgerRecord)]


def told(folder: RunFolder, **beside: Any) -> str:
    story = Story()
    view = saved(folder, story.read)
    return page(story, view.state, Beside(folder.run, str(folder.path), WRITTEN, **beside))


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return synthetic_run(RunFolder(tmp_path_factory.mktemp("long"), "long"))


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = RunFolder(tmp_path_factory.mktemp("short"), "short")
    return synthetic_run(folder, workers=3, versions=12)


# --- numbers ------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_ledger(long_run: RunFolder) -> None:
    """Counted again from the records, by nothing that the page uses."""
    entries = [entry for record in records(long_run) for entry in record.entries]
    shown = Reading(told(long_run))

    noted = [entry for entry in entries if isinstance(entry, RoundNoted)]
    lanes = {row[0]: row[1:] for row in shown.table("worker", "rounds", "pushes", "quiet")}
    assert len(lanes) == 12
    for worker, row in lanes.items():
        own = [entry for entry in noted if entry.worker == worker]
        verdicts = [entry.verdict for entry in own]
        counts = [len(own), *(verdicts.count(kind) for kind in ("push", "quiet", "veto"))]
        assert row[:4] == [words.count(n) for n in counts]
        busy = sum(entry.busy for entry in own) / 1e9
        moved = sum(entry.moved for entry in own) / 1e9
        waited = sum(entry.waited for entry in own) / 1e9 - moved
        assert row[5:8] == [words.duration(s) for s in (busy, moved, waited)]

    updates = [entry.update for entry in entries if isinstance(entry, UpdateTaken)]
    sent = sum(update.payload.length for update in updates)
    every = round(len(noted) * sent / len(updates))
    everyone = shown.table("worker", "rounds", "pushes", "sent")[0]
    assert everyone[1:5] == [
        words.count(len(noted)),
        words.count(len(updates)),
        words.size(sent),
        words.size(every),
    ]
    assert f"{100 * (1 - sent / every):.0f} % ({words.size(every - sent)}) was not sent" in (
        shown.text
    )

    resized = [entry for entry in entries if isinstance(entry, ShardResized)]
    rows = shown.table("worker", "time", "before", "after")
    assert [(row[0], row[3]) for row in rows] == [(e.worker, words.count(e.size)) for e in resized]


def test_the_versions_are_those_of_the_ledger(long_run: RunFolder) -> None:
    entries = [entry for record in records(long_run) for entry in record.entries]
    published = [entry for entry in entries if isinstance(entry, VersionPublished)]
    scored = {e.version: e for e in entries if isinstance(e, VersionEvaluated)}
    shown = Reading(told(long_run)).table("version", "time", "samples", "loss")
    assert len(shown) == len(published) == 1001
    for row, entry in zip(shown[:-1], published[:-1], strict=True):  # the last is scored again
        score = scored.get(entry.version)
        assert row[0] == str(entry.version)
        assert row[2] == words.count(entry.samples)
        assert row[3] == words.score(score.loss if score else None)
        assert row[8] == entry.payload.digest[:12]
        for member in entry.members:
            assert f"{member.worker} ({member.weight:.3g})" in row[6]


def test_bytes_by_process_are_those_that_were_told(short_run: RunFolder) -> None:
    traffic = {"worker-1": tuple(range(0, 10_000, 1000)), "master": (5,) * 10}
    shown = Reading(told(short_run, traffic=traffic))
    rows = {row[0]: row[1:] for row in shown.table("process", "data sent")}
    assert rows["worker-1"] == [words.size(n) for n in (*traffic["worker-1"], 45_000)]
    assert f"bytes moved{words.size(45_050)}" in shown.text


# --- the page -----------------------------------------------------------------------------------


def test_a_long_run_is_a_small_page(long_run: RunFolder) -> None:
    assert len(told(long_run).encode()) < LIMIT


def test_nothing_is_fetched_and_every_chart_is_named(short_run: RunFolder) -> None:
    text = told(short_run, traffic={"master": (7,) * 10}, lives=True, reload=5.0)
    shown = Reading(text)
    for tag, attrs in shown.tags:
        assert tag not in ("iframe", "object", "embed", "img", "base", "form")
        for name in ("src", "href", "action", "xlink:href", "style"):
            value = attrs.get(name)
            assert value is None or value.startswith("#") or value == "data:,", (tag, value)
    assert "@import" not in text
    assert re.findall(r"url\((?!#hatch-)", text) == []
    identities = [attrs["id"] for _, attrs in shown.tags if "id" in attrs]
    assert len(identities) == len(set(identities))
    pictures = [attrs for tag, attrs in shown.tags if tag == "svg" and "data-chart" in attrs]
    assert len(pictures) == 2 * 12
    for attrs in pictures:
        assert attrs["role"] == "img"
        assert set((attrs["aria-labelledby"] or "").split()) <= set(identities)
    policy = next(a for t, a in shown.tags if t == "meta" and "http-equiv" in a)
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_what_a_run_says_is_text_and_never_markup(tmp_path: Path) -> None:
    evil = "</script></title><img src=x onerror=alert(1)><script>alert(1)</script>"
    made = SyntheticRun(RunFolder(tmp_path, "evil"), 2, 3, 0)
    made.train()
    made.say(made.ledger.state.time, WorkerLeft("worker-2", evil))
    made.close()
    clean = Reading(told(synthetic_run(RunFolder(tmp_path, "good"), workers=2, versions=3)))
    shown = Reading(told(RunFolder(tmp_path, "evil"), storage=evil))
    kinds = [tag for tag, _ in shown.tags]
    assert kinds.count("script") == [tag for tag, _ in clean.tags].count("script") == 2
    assert "img" not in kinds
    assert shown.text.count(evil) >= 2, "it is told"
    for attrs in (attrs for _, attrs in shown.tags):
        assert not [name for name in attrs if name.startswith("on")]


def test_a_status_of_somebody_elses_ledger_is_text_too(short_run: RunFolder) -> None:
    story = Story()
    state = saved(short_run, story.read).state
    status = "finished'\"><img src=x onerror=alert(1)>"
    beside = Beside("r", "somewhere", WRITTEN, False, {}, "", 0, 0.0)
    shown = Reading(page(story, replace(state, status=status), beside))
    assert "img" not in [tag for tag, _ in shown.tags]
    assert '"><img src=x' in shown.text


def is_state(attrs: dict[str, str | None]) -> bool:
    return (attrs.get("class") or "").startswith("state ")


def test_every_beginning_of_a_run_is_a_page(short_run: RunFolder, tmp_path: Path) -> None:
    data = short_run.ledger.read_bytes()
    places, place = [0], 0
    for raw in read_archive(short_run.ledger):
        place += 12 + len(raw.value)
        places.append(place)
    cut = RunFolder(tmp_path, "cut")
    cut.create()
    said = set()
    for number in [*range(10), *range(10, len(places), 9), len(places) - 1]:
        cut.ledger.write_bytes(data[: places[number]] + data[places[number] :][:7])
        for lives in (True, False):
            shown = Reading(told(cut, lives=lives))
            said |= {str(attrs["class"]) for _, attrs in shown.tags if is_state(attrs)}
            assert not re.search(r"\b(nan|inf|None)\b", shown.text)
    kinds = ("unopened", "waiting", "running", "broken", "finished")
    assert said == {f"state {kind}" for kind in kinds}


@pytest.mark.parametrize("hole", [1, 13, 500])
def test_a_ledger_that_is_torn_in_the_middle_is_told_up_to_there(
    short_run: RunFolder, tmp_path: Path, hole: int
) -> None:
    data = short_run.ledger.read_bytes()
    torn = RunFolder(tmp_path, "torn")
    torn.create()
    half = len(data) // 2
    torn.ledger.write_bytes(data[:half] + data[half + hole :])
    shown = Reading(told(torn))
    assert "Broken off" in shown.text
    assert 1 < len(shown.table("version", "time", "samples", "loss")) < 13


# --- the command --------------------------------------------------------------------------------


def test_the_command(
    short_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(short_run.runs.parent)
    assert run(["report", "--out", out]) == 0
    assert capsys.readouterr().out == f"{short_run.report}\n"
    assert "Finished" in short_run.report.read_text("utf-8")
    places = ["--png", str(tmp_path / "p"), "--svg", str(tmp_path / "s"), "--json"]
    assert run(["report", "short", "--out", out, "--to", str(tmp_path / "x.html"), *places]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["run"] == "short"
    assert found["report"] == str(tmp_path / "x.html")
    charts = [Path(path) for path in found["charts"]]
    assert {path.stem for path in charts} >= {"accuracy-time", "timeline", "shards", "gate"}
    for path in charts:
        head = path.read_bytes()[:300]
        assert head.startswith(b"\x89PNG") if path.suffix == ".png" else b"<svg" in head


def test_runs_that_are_not_there(
    short_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", "nobody", "--out", str(short_run.runs.parent)]) == 2
    assert "there is no run 'nobody'" in capsys.readouterr().err
    RunFolder(tmp_path, "bare").create()
    assert run(["report", "--out", str(tmp_path)]) == 2
    assert "has no records here" in capsys.readouterr().err


def test_places_that_cannot_be_written(
    short_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for flag, name in (
        ("--to", "file/x.html"),
        ("--to", "."),
        ("--png", "file"),
        ("--svg", "file"),
    ):
        place = str(tmp_path / name)
        assert run(["report", "--out", str(short_run.runs.parent), flag, place]) == 2, flag
        said = capsys.readouterr().err
        assert "cannot be written" in said
        assert flag in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# --- while it goes ------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "EVERY", 0.01)
    monkeypatch.setattr(reporter, "DRAIN", 0.01)
    monkeypatch.setattr(reporter, "SHARE", 0)


def fed(short_run: RunFolder, folder: RunFolder, warned: list[str], count: int) -> Reporter:
    made = Reporter(folder, "the ledger", dict, warned.append)
    for record in records(short_run)[:count]:
        made.take(record, MasterState())
    return made


def until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.usefixtures("quick")
def test_the_page_is_rewritten_while_the_run_goes_and_finished(
    short_run: RunFolder, tmp_path: Path
) -> None:
    folder, warned = RunFolder(tmp_path, "live"), []
    folder.create()
    made = fed(short_run, folder, warned, 40)
    until(folder.report.exists)
    first = folder.report.stat().st_ino
    until(lambda: folder.report.stat().st_ino != first)
    assert "data-reload" in folder.report.read_text("utf-8")
    for record in records(short_run)[40:]:
        made.take(record, MasterState())
    state = saved(short_run).state
    made.finish(state, {"master": (1,) * 10}, {"used": 5, "limit": 10, "of": "memory"}, 3)
    last = Reading(folder.report.read_text("utf-8"))
    assert "Finished" in last.text
    assert "5 B of 10 B of the broker's memory" in last.text
    assert "data-reload" not in folder.report.read_text("utf-8")
    assert len(last.table("version", "time", "samples", "loss")) == 13
    assert warned == []
    assert not [one for one in threading.enumerate() if one.name == "reporter"]


@pytest.mark.usefixtures("quick")
def test_a_page_that_cannot_be_written_is_told_once(short_run: RunFolder, tmp_path: Path) -> None:
    folder, warned = RunFolder(tmp_path, "live"), []
    made = fed(short_run, folder, warned, 40)  # its folder was never made
    until(lambda: warned)
    made.finish(MasterState(), {}, {}, 0)
    made.stop()
    assert len(warned) == 1
    assert "the report is not written" in warned[0]


def test_a_story_that_cannot_be_told_costs_the_page_alone(tmp_path: Path) -> None:
    """A defect of the report's own: the run is told once, and its end comes all the same."""
    warned: list[str] = []
    folder = RunFolder(tmp_path, "r")
    folder.create()
    made = Reporter(folder, "the ledger", dict, warned.append)
    made.take(None, MasterState())  # type: ignore[arg-type]
    made.finish(MasterState(), {}, {}, 0)
    assert len(warned) == 1
    assert "the report is not written: AttributeError" in warned[0]
