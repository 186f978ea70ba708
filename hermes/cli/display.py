"""How does a person see a run go? A live picture on a terminal, lines elsewhere, or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hermes.machine.state import MasterState
from hermes.messages import LogLine
from hermes.report import words
from hermes.report.tables import worker_rows
from hermes.values import SECOND

REFRESH = 0.2
"""Seconds between two pictures."""

LINES = 3.0
"""Seconds between two lines of progress."""


class Show(Protocol):
    """A `Listener` that is entered before the run and left after it."""

    def uploading(self, sent: int, total: int) -> None: ...
    def ready(self) -> None: ...
    def changed(self, state: MasterState, now: int) -> None: ...
    def line(self, line: LogLine) -> None: ...
    def __enter__(self) -> Show: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def show(*, quiet: bool, greeting: Callable[[], str] | None = None) -> Show:
    """Whoever shows a run: `greeting` gives what to print once workers may come."""
    if quiet:
        return Silence()
    console = Console(stderr=True, highlight=False)
    if console.is_terminal and not console.is_dumb_terminal:
        return Screen(console, greeting)
    return Lines(console, greeting)


class Attention:
    """Which lines of the central log are worth a person's attention as they come?"""

    def __init__(self) -> None:
        self._resized: set[str] = set()

    def wants(self, line: LogLine) -> bool:
        """What the master and the run say (of re-sizings each worker's first), and warnings."""
        worker, resized, _ = line.text.partition(" is re-sized ")
        if resized:
            known = worker in self._resized
            self._resized.add(worker)
            return not known
        return line.source in ("master", "run") or line.level != "info"


def log_text(line: LogLine) -> Text:
    """A line of the central log, for a console."""
    style = "" if line.level == "info" else "yellow"
    return Text(f"{line.at[11:19]} {line.source:<9} {line.text}", style=style)


class Silence:
    """Shows nothing."""

    def uploading(self, sent: int, total: int) -> None:
        """Nothing."""

    def ready(self) -> None:
        """Nothing."""

    def changed(self, state: MasterState, now: int) -> None:
        """Nothing."""

    def line(self, line: LogLine) -> None:
        """Nothing."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing."""


class Lines(Silence):
    """Lines for a file or a pipe: progress every few seconds, and log lines that matter."""

    def __init__(self, console: Console, greeting: Callable[[], str] | None) -> None:
        self._console, self._greeting = console, greeting
        self._attention = Attention()
        self._due = 0.0
        self._sent = False

    def uploading(self, sent: int, total: int) -> None:
        """Told at the end."""
        if sent == total and not self._sent:
            self._sent = True
            self._print(f"model and data are sent: {total} blocks")

    def ready(self) -> None:
        """The greeting."""
        if self._greeting is not None:
            self._print(self._greeting())

    def changed(self, state: MasterState, now: int) -> None:
        """A line of progress, if it is time for one."""
        if state.started is None or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + LINES
        self._print(progress_line(state, now))

    def line(self, line: LogLine) -> None:
        """A line that matters."""
        if self._attention.wants(line):
            self._console.print(log_text(line), soft_wrap=True)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


def progress_line(state: MasterState, now: int) -> str:
    """`  12.3 s  version 34  51 200 of 200 000 samples  loss 0.2340  accuracy 0.9510  4 workers`"""
    known, newest = state.evaluations, state.newest
    seconds = (now - (state.started or now)) / SECOND
    samples, limit = newest.samples if newest else 0, state.settings.stop.samples
    target = f" of {words.count(limit)}" if limit else ""
    return (
        f"{seconds:7.1f} s  version {newest.version if newest else 0}  "
        f"{words.count(samples)}{target} samples  loss {words.score(known.last_loss)}  "
        f"accuracy {words.score(known.last_accuracy)}  {len(state.alive())} workers"
    )


class Screen(Silence):
    """A live picture on a terminal."""

    def __init__(self, console: Console, greeting: Callable[[], str] | None) -> None:
        self._console, self._greeting = console, greeting
        self._attention = Attention()
        # Started at the first picture: --ask has the terminal to itself before.
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._due = 0.0
        self._losses: list[float] = []
        self._accuracies: list[float] = []
        self._evaluated = 0
        self._rounds: dict[str, tuple[int, int]] = {}
        """By worker: rounds, and the run time at which that number was first seen."""

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The picture goes; what was printed above it stays."""
        self._live.stop()

    def uploading(self, sent: int, total: int) -> None:
        """A bar."""
        if time.monotonic() >= self._due or sent == total:
            self._due = time.monotonic() + REFRESH
            self._draw(_bar("sending model and data", sent, total, f"{sent} of {total} blocks"))

    def ready(self) -> None:
        """The greeting, above the picture."""
        if self._greeting is not None:
            self._console.print(self._greeting(), markup=False, soft_wrap=True)

    def changed(self, state: MasterState, now: int) -> None:
        """The picture, if it is time for one."""
        self._notice(state, now)
        if time.monotonic() >= self._due and state.newest is not None:
            self._due = time.monotonic() + REFRESH
            self._draw(self._picture(state, now))

    def line(self, line: LogLine) -> None:
        """A line that matters, above the picture."""
        if self._attention.wants(line):
            self._console.print(log_text(line), soft_wrap=True)

    def _draw(self, picture: RenderableType) -> None:
        self._live.start()
        self._live.update(picture, refresh=True)

    def _notice(self, state: MasterState, now: int) -> None:
        known = state.evaluations
        if known.count > self._evaluated:
            self._evaluated = known.count
            if known.last_loss is not None:
                self._losses.append(known.last_loss)
            if known.last_accuracy is not None:
                self._accuracies.append(known.last_accuracy)
        for name, member in state.members.items():
            if self._rounds.get(name, (-1, 0))[0] != member.rounds:
                self._rounds[name] = (member.rounds, now)

    def _picture(self, state: MasterState, now: int) -> RenderableType:
        ages = {name: (now - at) / SECOND for name, (_, at) in self._rounds.items()}
        return Group(Text(), self._head(state, now), Text(), worker_rows(state, ages=ages))

    def _head(self, state: MasterState, now: int) -> RenderableType:
        known, newest = state.evaluations, state.newest
        assert newest is not None
        curves = Table.grid(padding=(0, 2))
        loss, accuracy = words.score(known.last_loss), words.score(known.last_accuracy)
        curves.add_row("loss", loss, Text(words.sparkline(self._losses), style="cyan"))
        curves.add_row("accuracy", accuracy, Text(words.sparkline(self._accuracies), style="green"))
        if state.started is None:
            assert state.opened is not None
            waiting = f"waiting for workers: {len(state.alive())} of {state.opened.expect}"
            return Text(waiting)
        passed = words.duration((now - state.started) / SECOND)
        limit = state.settings.stop.samples
        title = f"version {newest.version}, {passed}"
        if limit is None:
            return Group(Text(f"{title}, {words.count(newest.samples)} samples"), curves)
        text = f"{words.count(newest.samples)} of {words.count(limit)} samples"
        return Group(_bar(title, newest.samples, limit, text), curves)


def _bar(title: str, done: int, total: int, text: str) -> RenderableType:
    row = Table.grid(padding=(0, 2))
    row.add_row(title, ProgressBar(total=max(total, 1), completed=done, width=30), text)
    return row
