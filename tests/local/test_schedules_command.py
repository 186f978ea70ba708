"""`./scripts/schedules`: what it prints, its exit codes, and that Ctrl-C leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from hermes.simulate import search
from hermes.simulate.__main__ import main
from hermes.simulate.schedules import KINDS
from hermes.simulate.without import CASES

ROOT = Path(__file__).parents[2]

PATIENCE = 30.0
"""Seconds until what must happen has happened."""


def test_schedules_that_hold(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0; every kind of fault has its line, and the sum says what was checked."""
    assert main(["--count", "60", "--processes", "2"]) == 0
    shown = capsys.readouterr()
    for kind in (*KINDS, "join-late"):
        assert f"\n{kind} " in shown.out
    assert "60 schedules: every invariant holds after each of " in shown.out
    assert "schedules: 60 of 60" in shown.err


def test_the_processes_end_whatever_the_first_one_does_at_sigterm() -> None:
    """They are its forks, and have its handlers: with this one they would wait for ever."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        chunks = [range(first, first + 2) for first in range(0, 80, 2)]
        work = partial(search.run_chunk, None, None)
        with closing(search._in_order(work, chunks, 2)) as results:
            assert next(results).schedules == 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_one_schedule_that_holds_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """`--seed` shows what was drawn."""
    assert main(["--seed", "4711", "--strategy", "bsp"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("seed 4711: bsp up to version ")
    assert "Every invariant holds." in out


def test_a_rule_taken_out_ends_with_code_5(capsys: pytest.CaptureFixture[str]) -> None:
    """The shrunk schedule, the end of the ledger, the invariant, and how to run it again: the same
    command shows the same failure."""
    assert main(["--without", "order", "--count", "20", "--processes", "1"]) == 5
    first = capsys.readouterr()
    assert "shrunk to 1:" in first.out
    assert "MasterStarted" in first.out
    assert "error: seed 2: round 2 is noted where 3 comes (worker-1)" in first.err
    command = first.err.rpartition("Run it again: ")[2].strip()
    assert command == "./scripts/schedules --seed 2 --without order"
    assert main(command.split()[1:]) == 5
    again = capsys.readouterr()
    assert again.out == first.out
    assert again.err.splitlines()[-2:] == first.err.splitlines()[-2:]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--without", "gravity"], "there is no rule 'gravity'"),
        (["--strategy", "luck"], "there is no strategy 'luck'"),
        (["--count", "0"], "count"),
    ],
)
def test_wrong_usage_ends_with_code_2(
    args: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said in one message, with what there is instead."""
    assert main(args) == 2
    assert says in capsys.readouterr().err


def test_the_table_of_rules_is_markdown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row for each rule: what breaks without it, and how small the schedule became."""
    few = {name: CASES[name] for name in ("chain", "exclusive", "next-number")}
    monkeypatch.setattr("hermes.simulate.__main__.CASES", few)
    assert main(["--without", "all", "--markdown"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].startswith("| rule | part |")
    assert [row.split("|")[1].strip() for row in rows[2:]] == [
        "chain", "exclusive", "next-number, chain",
    ]  # fmt: skip
    assert " -> " in rows[2]


def test_the_page_tells_of_every_rule() -> None:
    """docs/schedules.md holds the table that `--without all --markdown` prints."""
    page = (ROOT / "docs" / "schedules.md").read_text("utf-8")
    for name, case in CASES.items():
        label = f"{name}, {case.second}" if case.second else name
        assert f"| {label} | {case.part} | {case.instead} | " in page


def test_the_same_schedules_over_any_number_of_processes() -> None:
    """Seeds decide; processes only share the work."""
    tallies = [search.search(range(50), processes, lambda _: None) for processes in (1, 2)]
    assert tallies[0].fired == tallies[1].fired
    assert tallies[0].entries == tallies[1].entries
    assert tallies[0].checks == tallies[1].checks > 0


def heeding() -> None:
    """Tests that run in the background inherit deafness to Ctrl-C; what a user starts does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_leaves_nothing_behind() -> None:
    """Exit 130 without a traceback; the processes that shared the work are gone."""
    command = [sys.executable, "-m", "hermes.simulate", "--count", "100000", "--processes", "2"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=heeding,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert "100000 schedules" in process.stdout.readline()
            wait_for(lambda: len(group(process.pid)) >= 3)
            os.killpg(process.pid, signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE)
            assert process.returncode == 130
            assert "Traceback" not in err
            wait_for(lambda: not group(process.pid))
        finally:
            for pid in group(process.pid):
                os.kill(pid, signal.SIGKILL)


def wait_for(what: object) -> None:
    """Poll until it holds."""
    assert callable(what)
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.05)


def group(leader: int) -> list[int]:
    """Processes of a process group that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended just now
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found
