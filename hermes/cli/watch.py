"""`hermes status --watch`: how does somebody see a run go who is not its master?"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from hermes.cli.connect import BRIEF, connected
from hermes.cli.display import Show, Silence, show
from hermes.cli.seen import Seen, see
from hermes.cli.status import Reading, as_json, print_json, tell
from hermes.cli.storage import Used
from hermes.cli.trouble import note
from hermes.errors import BrokerUnreachable, NoSuchTopic, RunError
from hermes.machine.state import MasterState
from hermes.messages import LedgerRecord, LogLine
from hermes.report.live.waits import over, waits
from hermes.runtime.folder import RunFolder, find_run
from hermes.runtime.observe import View, answers, is_running, newest_at
from hermes.runtime.options import Vitals
from hermes.runtime.spectator import Spectator

if TYPE_CHECKING:
    from hermes.transport.kafka import KafkaLog

TURN = 0.25
"""Seconds between two looks, at least."""

LONGEST_LOOK = 0.5
"""Seconds that a look waits for news."""

OPENING = 10.0
"""Seconds that a run on this machine may take from its folder to its ledger."""

LAST = 5.0
"""Seconds without news after which a run that has stopped is over, scored or not."""

BYES = 1.5
"""Seconds without news in which the workers of a run that is over may still say bye."""

PICTURE, OBJECT = 0.5, 1.0
"""Seconds between two pictures, and between two objects of `--json`."""


class Place(NamedTuple):
    """Where a run goes on."""

    run: str
    broker: str
    folder: RunFolder | None
    workers: tuple[str, ...] = ()
    """Names of the workers that its master started."""

    @property
    def gone(self) -> bool:
        """Whether its master is known to be gone: it was a process of this machine."""
        return self.folder is not None and not is_running(self.folder.read_note())


def watch(
    run: str | None, out: Path, broker: str | None, every: float | None, *, json_: bool
) -> None:
    """Show a live run until it is over, then how it stands; of any other run that alone.

    Ctrl-C leaves, with what is known by then; that is how one leaves, and no failure.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    reading = Reading()
    place = _place(run, out, broker)
    if place is None:
        note("This run is over. (One that was started just now is found once its job was tried.)")
    seen = _follow(place, reading, every, json_=json_) if place is not None else None
    if seen is None:
        reading = Reading()
        seen = see(place.run if place else run, out, broker, reading.take)
    tell(seen, reading, json_=json_, resizes=place is None)  # the table is to stay in sight


def _place(run: str | None, out: Path, broker: str | None) -> Place | None:
    """Where to look; None for a run that is not live."""
    if broker is not None:
        with connected(broker, first=BRIEF) as log:
            return Place(run or newest_at(log, broker), broker, None)
    folder = find_run(out, run)
    deadline = time.monotonic() + OPENING
    while (note := folder.read_note()) is None and not folder.ledger.exists():
        if time.monotonic() > deadline:
            return None
        time.sleep(TURN)
    if note is None or not is_running(note) or not answers(note.broker):
        return None
    return Place(folder.run, note.broker, folder, tuple(note.workers))


# --- following ----------------------------------------------------------------------------------


def _follow(place: Place, reading: Reading, every: float | None, *, json_: bool) -> Seen | None:
    """Follow it to its end, or until Ctrl-C; None where its broker has gone with it."""
    with connected(place.broker, first=BRIEF) as log:
        teller = _teller(place, reading, every, json_=json_)
        with contextlib.closing(_spectator(log, place, _Both(reading, teller))) as spectator:
            with teller, contextlib.suppress(KeyboardInterrupt):
                try:
                    _to_the_end(spectator, place)
                except (NoSuchTopic, BrokerUnreachable):
                    if place.folder is None:
                        raise
            ended = over(spectator.state)
            if place.gone and not ended:
                return None
            return _seen(spectator, place)


def _to_the_end(spectator: Spectator, place: Place) -> None:
    began = time.monotonic()
    while not _is_over(spectator, place):
        time.sleep(max(0.0, TURN - (time.monotonic() - began)))
        began = time.monotonic()
        spectator.look(LONGEST_LOOK)


def _is_over(spectator: Spectator, place: Place) -> bool:
    if not spectator.caught_up:
        return False
    silent = spectator.silent
    if spectator.state.stopped is not None and silent > LAST:
        return True
    if over(spectator.state) and not spectator.state.alive():
        return True
    return silent > BYES and (over(spectator.state) or place.gone)


def _spectator(log: KafkaLog, place: Place, listener: Show) -> Spectator:
    """A run whose master has just been started may have no topics yet."""
    deadline = time.monotonic() + OPENING
    while True:
        try:
            return Spectator(log, place.run, listener)
        except RunError:
            if place.folder is None or place.gone or time.monotonic() > deadline:
                raise
        time.sleep(TURN)


def _seen(spectator: Spectator, place: Place) -> Seen:
    from hermes.runtime.quarantine import read_quarantine

    vitals, state = spectator.vitals(), spectator.state
    view = View(place.run, state, place.broker, live=True)
    lives = state.stopped is None and not place.gone and spectator.silent < LAST
    aside = read_quarantine(place.folder.quarantine) if place.folder is not None else None
    storage = Used(vitals.used, vitals.limit) if vitals.used else None
    return Seen(view, lives, place.broker, place.folder, storage, aside, vitals.traffic)


# --- telling ------------------------------------------------------------------------------------


def _teller(place: Place, reading: Reading, every: float | None, *, json_: bool) -> Show:
    if json_:
        return _Objects(place, reading, every or OBJECT)
    console = Console(highlight=False)
    pause = every or (PICTURE if console.is_terminal else None)
    dead = place.folder.dead_workers if place.folder is not None else tuple
    return show(
        quiet=False, expected=place.workers, dead=dead, remote=True, every=pause, console=console
    )


class _Both(Silence):
    """Passes on to whoever shows the run, and reads for the status at its end."""

    def __init__(self, reading: Reading, teller: Show) -> None:
        self._reading, self._teller = reading, teller

    def opened(self, vitals: Callable[[], Vitals]) -> None:
        """Passed on."""
        self._teller.opened(vitals)

    def took(self, record: LedgerRecord) -> None:
        """Read, and passed on."""
        self._reading.take(record)
        self._teller.took(record)

    def changed(self, state: MasterState, now: int) -> None:
        """Passed on."""
        self._teller.changed(state, now)

    def line(self, line: LogLine) -> None:
        """Passed on."""
        self._teller.line(line)


class _Objects(Silence):
    """One JSON object a line, where the ledger has news; the last one is printed by `tell`."""

    def __init__(self, place: Place, reading: Reading, every: float) -> None:
        self._place, self._reading, self._every = place, reading, every
        self._vitals: Callable[[], Vitals] = Vitals
        self._due, self._next = 0.0, -1

    def opened(self, vitals: Callable[[], Vitals]) -> None:
        """Keep it."""
        self._vitals = vitals

    def changed(self, state: MasterState, now: int) -> None:
        """An object, if there is news and it is time for one."""
        place, vitals, authority = self._place, self._vitals(), state.authority
        if authority.next_n == self._next or time.monotonic() < self._due or over(state):
            return
        self._next, self._due = authority.next_n, time.monotonic() + self._every
        recent = self._reading.recent
        recent.hear(vitals.traffic, now)
        storage = Used(vitals.used, vitals.limit) if vitals.used else None
        view = View(place.run, state, place.broker, live=True)
        seen = Seen(view, True, place.broker, place.folder, storage, None, vitals.traffic)
        told = [wait._asdict() | {"text": wait.text} for wait in waits(state, recent, now)]
        print_json({**as_json(seen, self._reading), "waits": told})
