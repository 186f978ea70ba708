"""How does a person see what is done on many nodes at once? A table that is drawn anew on a
terminal, a line for each step elsewhere, or nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hermes.cluster.faults import plain

COLOURS = {"waits": "dim", "busy": "cyan", "done": "green", "failed": "red"}
MARKS = {"waits": "·", "busy": "…", "done": "✓", "failed": "✗"}


class Row(NamedTuple):
    """What is seen of a node."""

    state: str = "waits"
    text: str = ""
    since: float = 0.0


class Board:
    """A row for each node. May be told from any thread."""

    def __init__(self, names: Sequence[str], console: Console | None) -> None:
        """`console`: None for silence."""
        self._console = console
        self._rows = {name: Row() for name in names}
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._live: Live | None = None
        if console is not None and console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(
                console=console,
                get_renderable=self._table,
                refresh_per_second=8,
                redirect_stdout=False,
                redirect_stderr=False,
            )

    def __enter__(self) -> Board:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def busy(self, name: str, text: str) -> None:
        """It does this now."""
        self._set(name, "busy", text)

    def done(self, name: str, text: str) -> None:
        """It is through."""
        self._set(name, "done", text)

    def failed(self, name: str, text: str) -> None:
        """It is not, and will not be."""
        self._set(name, "failed", text)

    def say(self, name: str, text: str) -> None:
        """A line about a node that is no step of its own."""
        with self._lock:
            if self._console is not None:
                self._print(name, text)

    def _set(self, name: str, state: str, text: str) -> None:
        now = time.monotonic()
        with self._lock:
            self._rows[name] = Row(state, text, now)
            if self._console is not None and self._live is None:
                self._print(name, text)

    def _print(self, name: str, text: str) -> None:
        assert self._console is not None
        seconds = time.monotonic() - self._began
        width = max(map(len, self._rows), default=0)
        lines = "\n".join(plain(line, len(line)) for line in text.split("\n"))
        line = f"{seconds:6.1f} s  {name:<{width}}  {lines}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, style="bold")
        table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_column(no_wrap=True, justify="right", style="dim")
        with self._lock:
            rows = dict(self._rows)
        now = time.monotonic()
        for name, row in rows.items():
            spent = f"{(now if row.state == 'busy' else row.since) - self._began:.0f} s"
            mark = Text(MARKS[row.state], COLOURS[row.state])
            shown = plain(row.text.partition("\n")[0])
            # Text: what a node says is no markup of ours.
            table.add_row(mark, Text(name), Text(shown), spent if row.state != "waits" else "")
        return table
