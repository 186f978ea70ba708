"""Who looks on while a run goes, and never makes it wait? A thread of its own that shows what the
run's thread has told."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.text import Text

from hermes.machine.state import MasterState
from hermes.messages import LedgerRecord, LogLine
from hermes.report.live.picture import Moment
from hermes.report.live.recent import Recent
from hermes.report.live.waits import Around
from hermes.runtime.logs import plain
from hermes.runtime.options import Vitals
from hermes.values import SECOND

KEPT = 1000
"""Lines that wait for a terminal that is stuck; older ones go."""

LEAVING = 2.0
"""Seconds that a terminal may take for the last lines."""


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
    return Text(f"{line.at[11:19]} {plain(line.source):<9} {plain(line.text)}", style=style)


class Stderr(Console):
    """Where a run is shown. A reader that has gone is an error like others: rich would end the
    program, and take stdout with it."""

    def __init__(self) -> None:
        super().__init__(stderr=True, highlight=False)

    def on_broken_pipe(self) -> None:
        """Raise it."""
        raise BrokenPipeError


class Onlooker:
    """Keeps what it is told, and shows it every `every` seconds; how, its heirs know.

    Nothing that a run's thread calls here waits for the terminal: a pipe that nobody reads, or a
    terminal that was stopped, stops the picture and not the run.
    """

    every = 0.25

    def __init__(
        self,
        console: Console,
        greeting: Callable[[], str] | None = None,
        expected: tuple[str, ...] = (),
        run: str = "",
        *,
        remote: bool = False,
    ) -> None:
        """`expected`: the names of workers that must come, where they are known; `remote`: the run
        is not this process's own."""
        self.console = console
        self.state: MasterState | None = None
        self.recent = Recent()
        self._greeting, self._expected, self._run, self._remote = greeting, expected, run, remote
        self.dead: Callable[[], tuple[str, ...]] = tuple
        """Tells the names of the workers whose process is known to be gone."""
        self._attention = Attention()
        self._vitals: Callable[[], Vitals] = Vitals
        self._now, self._told = 0, time.monotonic()
        self._lines: deque[Text] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self._news, self._over = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    # --- told by the run ------------------------------------------------------------------------

    def opened(self, vitals: Callable[[], Vitals]) -> None:
        """Keep it."""
        self._vitals = vitals

    def took(self, record: LedgerRecord) -> None:
        """Keep what is shown of it."""
        with self._lock:
            self.recent.read(record)

    def uploading(self, sent: int, total: int) -> None:
        """From now on there is something to show."""
        del sent, total
        self.begin()

    def ready(self) -> None:
        """The greeting."""
        if self._greeting is not None:
            self.say(Text(self._greeting()))

    def changed(self, state: MasterState, now: int) -> None:
        """Keep it."""
        self.state, self._now, self._told = state, now, time.monotonic()
        self.begin()

    def line(self, line: LogLine) -> None:
        """A line that matters is shown."""
        if self._attention.wants(line):
            self.say(log_text(line))

    def say(self, text: Text) -> None:
        """Show a line; at once, as long as nothing else is shown: a question may follow it."""
        self._lines.append(text)
        if self._thread is None:
            with contextlib.suppress(OSError):  # nobody looks: the run goes on
                self.print_lines()

    # --- shown by our thread --------------------------------------------------------------------

    def show(self, *, last: bool = False) -> None:
        """Show what there is; `last`: for the last time."""
        raise NotImplementedError

    def leave(self) -> None:
        """Leave the terminal as it was found."""

    def begin(self) -> None:
        """Start to show things, if that has not begun."""
        if self._thread is None and not self._over.is_set():
            self._thread = threading.Thread(target=self._watch, name="display", daemon=True)
            self._thread.start()

    def print_lines(self) -> None:
        """Print the lines that wait."""
        while self._lines:
            with contextlib.suppress(IndexError):
                self.console.print(self._lines.popleft(), soft_wrap=True)

    def moment(self) -> Moment | None:
        """The run as it is now; None before anything is known."""
        state, told = self.state, self._told
        if state is None:
            return None
        vitals, passed = self._vitals(), time.monotonic() - told
        now = self._now + int(passed * SECOND)
        self.recent.hear(vitals.traffic, now)
        busy = 0.0 if self._remote else passed
        around = Around(vitals.away, vitals.silent, busy, self._expected, self._dead(state))
        run = self._run or (state.opened.run if state.opened else "")
        return Moment(run, state, self.recent, now, around, vitals.used, vitals.limit)

    def _dead(self, state: MasterState) -> tuple[str, ...]:
        return self.dead() if state.stopped is None else ()

    def _watch(self) -> None:
        with contextlib.suppress(OSError):  # nobody looks any more: the run goes on
            try:
                while not self._over.wait(self.every):
                    self.show()
                self.show(last=True)
            except OSError:
                raise
            except Exception as error:  # noqa: BLE001  (a run never ends for its picture)
                self.console.print(f"the display has ended: {type(error).__name__}: {error}")
            finally:
                self.leave()

    # --- entered before the run, left after it --------------------------------------------------

    def __enter__(self) -> Onlooker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Everything that was told is shown, if the terminal takes it."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(LEAVING)
