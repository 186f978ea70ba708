"""How does a run look where there is no terminal? Lines for a file or a pipe: progress every few
seconds, log lines that matter, and each long wait once."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from hermes.cli.onlooker import Onlooker
from hermes.machine.state import MasterState
from hermes.report import words
from hermes.report.live.picture import Moment
from hermes.report.live.waits import Wait, waits
from hermes.report.scores import in_words, metric_of
from hermes.values import SECOND

PROGRESS = 3.0
"""Seconds between two lines of progress."""

LONG = 5.0
"""Seconds after which a wait is told."""

REMEMBERED = 1000
"""Waits that were told, at most; then they may be told again."""


class Lines(Onlooker):
    """Lines of text."""

    def __init__(
        self,
        console: Console,
        greeting: Callable[[], str] | None = None,
        expected: tuple[str, ...] = (),
        run: str = "",
        *,
        remote: bool = False,
        progress: float = PROGRESS,
    ) -> None:
        """As `Onlooker`; `progress`: seconds between two lines of progress."""
        super().__init__(console, greeting, expected, run, remote=remote)
        self._progress = progress
        self._due = 0.0
        self._sent = False
        self._waits: set[str] = set()

    def uploading(self, sent: int, total: int) -> None:
        """Told at the end."""
        if sent == total and not self._sent:
            self._sent = True
            self.say(Text(f"model and data are sent: {words.counted(total, 'block')}"))

    def show(self, *, last: bool = False) -> None:
        """What there is to tell."""
        self.print_lines()
        with self._lock:
            moment = self.moment()
            told = waits(moment.state, moment.recent, moment.now, moment.around) if moment else []
        if moment is None:
            return
        if moment.state.started is not None and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._progress
            self._print(progress_line(moment.state, moment.now))
        if not last:
            self._tell_waits(moment, [wait for wait in told if wait.seconds >= LONG])

    def _tell_waits(self, moment: Moment, told: list[Wait]) -> None:
        if len(self._waits) > REMEMBERED:
            self._waits.clear()
        seconds = moment.recent.seconds(moment.now)
        for wait in told:
            if wait.key not in self._waits:
                self._waits.add(wait.key)
                self._print(f"{seconds:7.1f} s  {wait.text}")

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)


def progress_line(state: MasterState, now: int) -> str:
    """`  12.3 s  version 34  51 200 of 200 000 samples  loss 0.2340  accuracy 0.9510  4 workers`"""
    known, newest = state.evaluations, state.newest
    seconds = (now - (state.started or now)) / SECOND
    samples, limit = newest.samples if newest else 0, state.settings.stop.samples
    target = f" of {words.count(limit)}" if limit else ""
    alive = words.counted(len(state.alive()), "worker")
    scores = in_words(known.last_loss, known.last_accuracy, metric_of(state.data), "  ")
    behind = newest is not None and 0 <= known.last_version < newest.version
    scored = f" (version {known.last_version})" if behind else ""
    return (
        f"{seconds:7.1f} s  version {newest.version if newest else 0}  "
        f"{words.count(samples)}{target} samples  "
        f"{scores}{scored}  {alive}"
    )
