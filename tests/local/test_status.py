"""Does a status say how a run stands, and does whoever watches see what its master sees?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from steps import Step, whole_run

from hermes.broker.process import identity
from hermes.cli.entry import run
from hermes.codec import encode
from hermes.errors import RunError
from hermes.machine.state import MasterState
from hermes.messages import LedgerRecord, LogLine, MasterBeat, MasterStarted
from hermes.report import words
from hermes.runtime import spectator
from hermes.runtime.archive import Archive
from hermes.runtime.folder import RunFolder, RunNote
from hermes.runtime.logs import utc_now
from hermes.runtime.options import Vitals
from hermes.runtime.spectator import RunClock, Spectator
from hermes.transport import names
from hermes.transport.memory import MemoryLog
from hermes.values import SECOND

NOBODY = "127.0.0.1:9"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """A whole run."""
    return whole_run("hermes-paper", tmp_path_factory.mktemp("simulated"))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HERMES_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def save(records: list[Step], run: str, pid: int = 0) -> None:
    folder = RunFolder(Path(), run)
    folder.create()
    archive = Archive(folder.ledger)
    for step in records:
        archive.add(step.raw)
    archive.settle()
    archive.close()
    if pid:
        folder.take_note(RunNote(run, NOBODY, pid, identity(pid) or "", utc_now()))


def gone() -> int:
    """The pid of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


# --- once ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("--watch",)])
def test_a_run_that_is_over(
    more: tuple[str, ...], records: list[Step], capsys: pytest.CaptureFixture[str]
) -> None:
    save(records, "over")
    assert run(["status", *more]) == 0
    shown = capsys.readouterr().out
    state = records[-1].state
    trained = sum(member.trained for member in state.members.values())
    assert "finished: samples" in shown
    assert f" merged, {words.count(trained)} trained" in shown
    assert f"test         loss {state.scores['test_loss']:.4f}, accuracy" in shown
    for column in ("samples/s", "push/quiet/veto", "waited", "last decision"):
        assert column in shown
    assert "314→32" in shown


@pytest.mark.parametrize("more", [(), ("--watch",)])
def test_a_run_that_was_left_alone(
    more: tuple[str, ...], records: list[Step], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody knows what its workers do, and nobody waits for news of it."""
    save(records[: len(records) // 2], "cut", gone())
    assert run(["status", *more]) == 0
    shown = capsys.readouterr().out
    assert "broken off: no sign of its master" in shown
    assert shown.count(" unknown ") == 4
    assert run(["status", *more, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {worker["doing"] for worker in found["workers"].values()} == {"unknown"}


def test_keys_of_the_json(records: list[Step], capsys: pytest.CaptureFixture[str]) -> None:
    save(records, "over")
    assert run(["status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    workers = found["workers"]
    assert found["trained"] == sum(worker["trained"] for worker in workers.values())
    assert found["best"]["loss"] <= found["loss"]["validation"]
    assert workers["worker-4"]["first_shard"] == 314 > workers["worker-4"]["shard"]
    fast, slow = (workers[name]["samples_per_second"] for name in ("worker-1", "worker-4"))
    assert fast / slow == pytest.approx(10, rel=0.1)


def test_a_worker_whose_process_is_gone_is_dead(
    records: list[Step], capsys: pytest.CaptureFixture[str]
) -> None:
    """Where its process was this machine's, since this one was started (which Linux tells): of
    another machine's only silence would tell."""
    known = ["dead", "quiet"] if Path("/proc/self/stat").exists() else ["unknown"] * 2
    here = identity(os.getpid()) or ""
    workers = {"worker-1": gone(), "worker-2": os.getpid()}
    for born, expected in ((here, known), (f"another-{here}", ["unknown"] * 2)):
        save(records[: len(records) // 2], "cut")
        note = RunNote("cut", NOBODY, os.getpid(), born, utc_now(), workers)
        RunFolder(Path(), "cut").take_note(note)
        assert run(["status", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["workers"]
        assert [found[name]["health"] for name in workers] == expected


# --- following ----------------------------------------------------------------------------------


class Seen:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[LedgerRecord] = []
        self.lines: list[str] = []
        self.states: list[MasterState] = []
        self.vitals: Callable[[], Vitals] = Vitals

    def opened(self, vitals: Callable[[], Vitals]) -> None:
        self.vitals = vitals

    def took(self, record: LedgerRecord) -> None:
        self.records.append(record)

    def uploading(self, sent: int, total: int) -> None: ...
    def ready(self) -> None: ...

    def changed(self, state: MasterState, now: int) -> None:
        self.states.append(state)

    def line(self, line: LogLine) -> None:
        self.lines.append(line.text)


class Sick(MemoryLog):
    """A log that can be away."""

    why = ""

    def complaint(self) -> str:
        return self.why


LEDGER, LOGS = names.physical("a-run", "ledger"), names.physical("a-run", "logs")


def test_from_the_log_alone(records: list[Step], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectator, "MISSED", 1e9)
    monkeypatch.setattr(spectator, "ASK", 0.0)
    seen, half = Seen(), len(records) // 2
    with Sick() as log:
        with pytest.raises(RunError, match="there is no run 'a-run'"):
            Spectator(log, "a-run", seen)
        log.create([LEDGER, LOGS])
        for step in records[:half]:
            log.append(LEDGER, step.raw.value)
        log.append(LEDGER, b"of somebody else")
        log.append(LOGS, encode(LogLine("master", "info", utc_now(), "before we came")))
        log.append(LOGS, encode(MasterBeat(1, "", 1, 10, 20, {"worker-1": (1, 2)})))
        watching = Spectator(log, "a-run", seen)
        while not watching.caught_up:
            watching.look(1.0)
        watching.look(0.0)
        assert watching.state.newest == records[half - 1].state.newest
        assert seen.vitals() == Vitals(10, 20, {"worker-1": (1, 2)})
        assert (seen.lines, seen.states[-1]) == ([], watching.state)

        monkeypatch.setattr(spectator, "MISSED", 0.05)
        log.why = "nothing listens there"
        while not seen.vitals().away:
            watching.look(0.0)
        assert seen.vitals().away == pytest.approx(watching.silent, abs=0.5)
        log.why = ""
        while seen.vitals().away:
            watching.look(0.0)
        assert seen.vitals().silent > 0, "the broker answers, the master does not"

        log.append(LOGS, encode(LogLine("master", "info", utc_now(), "after")))
        while not seen.lines:
            watching.look(1.0)
        assert (seen.lines, seen.vitals().silent) == (["after"], 0.0)
        # A void record leaves a gap in the offsets, so what follows it is another fold: the
        # records themselves are what counts.
        for step in records[half:]:
            log.append(LEDGER, step.raw.value)
        deadline = time.monotonic() + 5
        while watching.state.stopped is None:
            watching.look(0.5)
            assert time.monotonic() < deadline
        assert seen.records == [step.record for step in records]
        watching.close()


def test_the_clock_of_another_process() -> None:
    clock = RunClock()
    assert clock.now(5 * SECOND) == 0

    def record(time: int, *entries: MasterStarted) -> LedgerRecord:
        return LedgerRecord(1, "", 0, b"", time * SECOND, (), entries)

    clock.heard(record(100), 1000 * SECOND)
    assert clock.now(1001 * SECOND) == 101 * SECOND
    clock.heard(record(103), 1002 * SECOND)  # the one before came late
    assert clock.now(1002 * SECOND) == 103 * SECOND
    clock.heard(record(104), 1009 * SECOND)  # and so did this
    assert clock.now(1009 * SECOND) == 110 * SECOND
    clock.heard(record(104, MasterStarted(2, "")), 2000 * SECOND)
    assert clock.now(2001 * SECOND) == 105 * SECOND, "a run stands still without a master"
