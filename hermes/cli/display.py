"""How does a person see a run go? A live picture on a terminal, lines elsewhere, or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from rich.console import Console

from hermes.cli.lines import PROGRESS, Lines
from hermes.cli.onlooker import Stderr
from hermes.cli.screen import Screen
from hermes.machine.state import MasterState
from hermes.messages import LedgerRecord, LogLine
from hermes.runtime.options import Vitals

__all__ = ["Lines", "Screen", "Show", "Silence", "drawable", "show"]


class Show(Protocol):
    """A `Listener` that is entered before the run and left after it."""

    def opened(self, vitals: Callable[[], Vitals]) -> None: ...
    def took(self, record: LedgerRecord) -> None: ...
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


def show(
    *,
    quiet: bool,
    greeting: Callable[[], str] | None = None,
    expected: tuple[str, ...] = (),
    dead: Callable[[], tuple[str, ...]] = tuple,
    remote: bool = False,
    every: float | None = None,
    console: Console | None = None,
) -> Show:
    """Whoever shows a run: `greeting` gives what to print once workers may come; `expected` are the
    workers that must come, where their names are known; `dead` tells of those whose process is
    known to be gone; `remote`: it is not this process's run; `every`: seconds between two pictures
    or lines of progress; `console`: by default stderr."""
    if quiet:
        return Silence()
    console = console or Stderr()
    shown: Screen | Lines
    if drawable(console):
        shown = Screen(console, greeting, expected, remote=remote, every=every or 0.25)
    else:
        shown = Lines(console, greeting, expected, remote=remote, progress=every or PROGRESS)
    shown.dead = dead
    return shown


def drawable(console: Console) -> bool:
    """Whether a picture can be drawn and drawn over there: not in a file or a pipe, not in a log of
    a build (CI), not where the letters of a curve cannot be printed."""
    if not console.is_terminal or console.is_dumb_terminal or os.environ.get("CI"):
        return False
    return console.encoding.lower().replace("-", "").startswith("utf")


class Silence:
    """Shows nothing."""

    def opened(self, vitals: Callable[[], Vitals]) -> None:
        """Nothing."""

    def took(self, record: LedgerRecord) -> None:
        """Nothing."""

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
