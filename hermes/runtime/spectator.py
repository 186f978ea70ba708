"""How does somebody follow a live run, from the log alone? By its ledger and its master's beats,
with one reader; nothing is ever written."""

from __future__ import annotations

import time

from hermes.codec import decode
from hermes.errors import BrokerError, DecodeError
from hermes.machine.state import MasterState
from hermes.messages import LedgerRecord, LogLine, MasterBeat, MasterStarted, Rotated
from hermes.perform.ledger import Void, read_record
from hermes.runtime.join import ledger_of
from hermes.runtime.observe import TAIL, logs_of
from hermes.runtime.options import Listener, Vitals
from hermes.transport import names
from hermes.transport.log import Log, Record

MISSED = 4.5
"""Seconds without a beat or a record after which the broker is asked whether it is there; a master
beats every 2 s."""

ASK = 3.0
"""Seconds between two such questions."""


class RunClock:
    """What time is it in a run that is not ours? Never later than its master has it, but for what
    passes while nothing is written."""

    def __init__(self) -> None:
        self._ahead: int | None = None
        """Run time less our own clock, nanoseconds: the most that any record has shown."""
        self._last = 0

    def heard(self, record: LedgerRecord, here: int) -> None:
        """A record came at `here` on our own clock, nanoseconds."""
        ahead, self._last = record.time - here, record.time
        anew = any(isinstance(entry, MasterStarted) for entry in record.entries)
        if anew or self._ahead is None or ahead > self._ahead:  # a new master goes on where one was
            self._ahead = ahead

    def now(self, here: int) -> int:
        """Run time, nanoseconds."""
        return max(self._last, here + self._ahead) if self._ahead is not None else 0


class Spectator:
    """Follows one run and tells a listener, as its master would."""

    def __init__(self, log: Log, run: str, listener: Listener) -> None:
        """Raises `RunError` where the broker has no such run, `UsageError` for a bad run id."""
        self._run, self._ledger = run, ledger_of(log, run)
        self.state = MasterState()
        self._log, self._listener = log, listener
        self._clock, self._beat = RunClock(), MasterBeat(0, "", 0)
        self._heard = self._asked = time.monotonic()
        self._away = self._doubted = False
        logs = logs_of(log, run)[-1]
        self._ends = log.ends([self._ledger, logs])
        self._place = 0
        self._reader = log.reader()
        self._reader.follow(self._ledger, 0)
        self._reader.follow(logs, max(log.starts([logs])[logs], self._ends[logs] - TAIL))
        listener.opened(self.vitals)

    @property
    def caught_up(self) -> bool:
        """Whether all is read that was there when we came."""
        return self._place >= self._ends[self._ledger]

    def close(self) -> None:
        """Nothing is read any more."""
        self._reader.close()

    def now(self) -> int:
        """Run time, nanoseconds, as far as one can tell from here."""
        return self._clock.now(time.monotonic_ns())

    @property
    def silent(self) -> float:
        """Seconds since anything was heard."""
        return time.monotonic() - self._heard

    def vitals(self) -> Vitals:
        """As the last beat has it; whose silence it is, once that is known."""
        beat, silent = self._beat, self.silent if self._doubted else 0.0
        away = silent if self._away else 0.0
        return Vitals(beat.used, beat.limit, beat.traffic, away, silent)

    def look(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for news, and tell them; whether the ledger had any.

        Raises `NoSuchTopic` once the run is gone from its broker.
        """
        records = self._reader.poll(timeout, limit=2000)
        found = [self._take(record) for record in records]
        if records:
            self._heard, self._away, self._doubted = time.monotonic(), False, False
        else:
            self._doubt()
        if self.caught_up:
            self._listener.changed(self.state, self.now())
        return any(found)

    def _take(self, raw: Record) -> bool:
        if raw.topic == self._ledger:
            self._place = raw.offset + 1
            found = read_record(self.state, raw)
            if isinstance(found, Void):
                return False
            self.state, record = found
            self._clock.heard(record, time.monotonic_ns())
            self._listener.took(record)
            self._perhaps_move_on(record)
            return True
        try:
            message = decode(raw.value)
        except DecodeError:
            return False
        if isinstance(message, MasterBeat):
            self._beat = message
        elif isinstance(message, LogLine) and raw.offset >= self._ends.get(raw.topic, 0):
            self._listener.line(message)
        return False

    def _perhaps_move_on(self, record: LedgerRecord) -> None:
        """The central log goes on in another generation: read that, too, once we are up to date."""
        for entry in record.entries if self.caught_up else ():
            if isinstance(entry, Rotated) and entry.topic == names.LOGS:
                older = names.physical(self._run, names.LOGS, entry.generation - 1)
                self._reader.drop(older)
                self._reader.follow(names.physical(self._run, names.LOGS, entry.generation), 0)

    def _doubt(self) -> None:
        """Nothing came for long: is it the master, or the broker?"""
        now = time.monotonic()
        if now - self._heard > MISSED and now - self._asked > ASK and self.state.stopped is None:
            self._asked = now
            try:
                self._away = bool(self._log.complaint())
            except BrokerError:
                self._away = True
            self._doubted = True
