"""Do those who show a run show it, on a terminal and without one, and never make it wait?"""

from __future__ import annotations

import io
import re
import sys
import threading
import time
from collections.abc import Callable

import pytest
from rich.console import Console
from rich.text import Text
from steps import Step, whole_run

from hermes.cli import onlooker
from hermes.cli.display import Lines, Screen, Silence, drawable, show
from hermes.messages import LogLine
from hermes.report import words
from hermes.runtime.logs import utc_now
from hermes.runtime.options import Vitals


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """A whole run."""
    return whole_run("hermes-paper", tmp_path_factory.mktemp("simulated"))


def console(terminal: bool, width: int = 140, file: io.StringIO | None = None) -> Console:
    file = io.StringIO() if file is None else file
    return Console(file=file, force_terminal=terminal, width=width, height=40, highlight=False)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("kind", [Lines, Screen])
def test_progress(kind: type[Lines] | type[Screen], records: list[Step]) -> None:
    out = console(kind is Screen)
    assert isinstance(out.file, io.StringIO)
    state = records[-1].state
    with kind(out, lambda: "a greeting [y/N]") as listener:
        for step in records:
            listener.took(step.record)
        listener.changed(state, state.time)
        listener.uploading(3, 10)
        listener.uploading(10, 10)
        listener.ready()
        for size in (10, 20):
            text = f"worker-4 is re-sized from 314 to {size} samples"
            listener.line(LogLine("master", "info", utc_now(), text))
        listener.line(LogLine("worker-1", "info", utc_now(), "round 7: push"))
        listener.line(LogLine("worker-1", "warning", utc_now(), "\x1b[2Jclears"))
        assert state.newest is not None
        samples = words.count(state.newest.samples)
        until(lambda: samples in plain(out.file.getvalue()))
    shown = plain(out.file.getvalue())
    assert "a greeting [y/N]" in shown
    assert "to 10 samples" in shown
    assert "to 20 samples" not in shown, "each worker's first re-sizing only"
    assert "round 7" not in shown
    assert "\x1b[2J" not in out.file.getvalue(), "a peer's text drives no terminal"
    if kind is Screen:
        assert "finished: samples" in shown
        assert out.file.getvalue().rindex("\x1b[?25h") > out.file.getvalue().rindex("\x1b[?25l")


def test_a_question_finds_what_was_said_before_it() -> None:
    """--ask reads the terminal before anything is drawn there."""
    out = console(True)
    screen = Screen(out)
    screen.line(LogLine("master", "info", utc_now(), "512 kB will be sent"))
    assert "512 kB will be sent" in out.file.getvalue()  # type: ignore[attr-defined]


def test_long_waits_are_told_once(records: list[Step]) -> None:
    out = console(False)
    waiting = next(step for step in records if step.state.newest is not None)
    with Lines(out, None, ("worker-1", "worker-2")) as listener:
        for step in records[: records.index(waiting) + 1]:
            listener.took(step.record)
        told = out.file.getvalue  # type: ignore[attr-defined]
        for _ in range(3):
            listener.changed(waiting.state, waiting.record.time + 6 * 10**9)
            until(lambda: "waiting for workers: 0 of" in told())
            listener.show()
    assert told().count("waiting for workers: 0 of") == 1
    assert "without worker-1 and worker-2" in told()


class Stuck(io.StringIO):
    """A terminal that was stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()
        self.wrote = False

    def write(self, text: str) -> int:
        self.goes_on.wait(60)
        self.wrote = True
        return super().write(text)


@pytest.mark.parametrize("kind", [Lines, Screen])
def test_a_terminal_that_is_stuck_stops_no_run(
    kind: type[Lines] | type[Screen], records: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onlooker, "LEAVING", 0.1)
    file = Stuck()
    state = records[-1].state
    began = time.monotonic()
    try:
        with kind(console(kind is Screen, file=file)) as listener:
            listener.opened(lambda: Vitals(1, 2, {"worker-1": (1, 2)}))
            for step in records:
                listener.took(step.record)
                listener.changed(state, state.time)
                listener.line(LogLine("master", "info", utc_now(), "a line"))
        assert not file.wrote, "it is stuck still"
        assert time.monotonic() - began < 10
    finally:
        file.goes_on.set()
    until(lambda: not any(t.name == "display" for t in threading.enumerate()))


def test_a_terminal_made_narrower_is_drawn_anew(records: list[Step]) -> None:
    out = console(True, 150)
    state = records[-1].state
    screen = Screen(out)
    for step in records:
        screen.took(step.record)
    screen.state = state
    screen.show()
    before = plain(out.file.getvalue()).split("\n")  # type: ignore[attr-defined]
    out.width = 60
    mark = len(out.file.getvalue())  # type: ignore[attr-defined]
    screen.show()
    anew = out.file.getvalue()[mark:]  # type: ignore[attr-defined]
    screen.show(last=True)
    assert max(len(line) for line in plain(anew).splitlines()) < 60
    rows = sum(max(1, -(-len(line) // 60)) for line in before)
    assert rows > len(before), "lines were broken in two"
    assert anew.count("\x1b[1A") == rows - 1, "from the last row to the first one"


# --- which of them ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terminal", "variables", "drawn"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "dumb"}, False),
        (True, {"TERM": "xterm", "CI": "true"}, False),
        (False, {"TERM": "xterm"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, True),
    ],
)
def test_a_picture_only_where_one_can_be_drawn(
    terminal: bool, variables: dict[str, str], drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    out = console(terminal)
    out._environ = {**out._environ, **variables}
    assert drawable(out) == drawn
    assert isinstance(show(quiet=False, console=out), Screen if drawn else Lines)
    assert isinstance(show(quiet=True, console=out), Silence)


def test_no_color_is_respected(records: list[Step], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = console(True)
    screen = Screen(out)
    screen.took(records[0].record)
    screen.state = records[-1].state
    screen.show()
    screen.show(last=True)
    codes = re.findall(r"\x1b\[([0-9;]*)m", out.file.getvalue())  # type: ignore[attr-defined]
    assert codes
    assert not any(re.search(r"(^|;)(3[0-8]|4[0-8]|9\d|10\d)(;|$)", code) for code in codes)


def test_a_line_that_nobody_can_read_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`hermes run ... 2>&1 | head -1`: the reader has gone, the run goes on."""
    told: list[str] = []

    class Gone(io.StringIO):
        def write(self, text: str, /) -> int:
            told.append(text)
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    with show(quiet=False) as listener:
        assert isinstance(listener, Lines)
        listener.say(Text("to nobody"))
    assert "to nobody" in told[0]
