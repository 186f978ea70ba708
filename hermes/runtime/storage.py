"""How many bytes has this run at its broker, and what does its master say and do about it?

What the broker reports is asked for every few seconds by a thread of its own; what was written
since is counted. The embedded broker reports nothing: there all of it is counted.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from hermes.errors import HermesError
from hermes.machine.events import StopAsked
from hermes.machine.state import MasterState
from hermes.policy import storage
from hermes.policy.allocate import fitting_batch
from hermes.policy.codecs import SHARE
from hermes.policy.presets import Settings
from hermes.policy.storage import Pace
from hermes.report.words import duration, size
from hermes.transport import names
from hermes.transport.counting import size_of
from hermes.transport.held import Held
from hermes.transport.log import Log, Record
from hermes.values import SECOND, Facts, Reason

EVERY = 5.0
"""Seconds between two questions to the broker."""

LEAVING = 2.0
"""Seconds that a question under way is waited for at the end."""

OVERHEAD = 120
"""Bytes that a record costs beside its value and headers: its framing, and what the broker keeps
of it (measured on the embedded one: 117)."""

SETTLED = (60.0, 20, 10.0)
"""The pace is measured after so many seconds of training; or so many versions, and seconds."""


class Meter:
    """Bytes of one run at its broker. `appended` may be called from any thread."""

    def __init__(self, log: Log, run: str) -> None:
        self._log, self._run, self._prefix = log, run, names.prefix_of(run)
        self._logs = names.physical(run, names.LOGS)
        self._lock = threading.Lock()
        self._counted: Counter[str] = Counter()
        """Bytes by topic since the broker was asked last."""
        self._places: dict[str, int] = {}
        self._told: dict[str, int] = {}
        """What the broker said last, by topic; or the run's master before this one."""

    def appended(self, topic: str, length: int) -> None:
        """This process has sent a record. (Lines of the log are counted as they come back, with
        those of the others.)"""
        if not topic.startswith(self._logs):
            with self._lock:
                self._counted[topic] += length + OVERHEAD

    def begin(self, topics: Mapping[str, int]) -> None:
        """What lay in the topics (short names) when the master before this one said so last."""
        with self._lock:
            for short, size in topics.items():
                self._told.setdefault(f"{self._prefix}{short}", size)

    def gone(self, topics: Iterable[str]) -> None:
        """These topics were deleted."""
        with self._lock:
            for topic in topics:
                self._counted.pop(topic, None)
                self._told.pop(topic, None)

    def seen(self, record: Record) -> None:
        """A record has come by that others (or lines that we) have sent; counted once."""
        with self._lock:
            if record.offset >= self._places.get(record.topic, 0):
                self._places[record.topic] = record.offset + 1
                self._counted[record.topic] += size_of(record.value, record.headers) + OVERHEAD

    def others(self) -> int:
        """Runs beside this one at the broker. Raises `BrokerUnreachable`."""
        found = {name.run for topic in self._log.topics("hermes.") if (name := names.parse(topic))}
        return len(found - {self._run})

    def ask(self) -> Held | None:
        """Ask the broker, if it says. Raises `BrokerUnreachable`."""
        with self._lock:
            counted = Counter(self._counted)
        held = self._log.held(self._prefix)
        if held is not None:
            with self._lock:
                self._told = dict(held.topics)
                self._counted -= counted  # what was counted before the question is in the answer
        return held

    def used(self) -> int:
        """Bytes, as of now."""
        with self._lock:
            return sum(self._told.values()) + self._counted.total()

    def topics(self) -> dict[str, int]:
        """The same, by topic: short names, all generations together."""
        with self._lock:
            sizes = Counter(self._told) + self._counted
        found: Counter[str] = Counter()
        for topic, count in sizes.items():
            name = names.parse(topic)
            found[name.short if name is not None else topic] += count
        return dict(found)


class Asker:
    """A thread that asks the broker every few seconds, until it is stopped."""

    def __init__(self, meter: Meter) -> None:
        self._meter, self._over = meter, threading.Event()
        self._thread = threading.Thread(target=self._serve, name="storage", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No more questions."""
        self._over.set()
        self._thread.join(LEAVING)

    def _serve(self) -> None:
        while not self._over.wait(EVERY):
            try:
                self._meter.ask()
            except HermesError:
                continue  # an outage: until it is over, what we send is counted


class Line(NamedTuple):
    """Something to say in the central log."""

    text: str
    level: str = "info"


class StorageWatch:
    """Holds one run to its limit. Belongs to the master's thread."""

    def __init__(self, meter: Meter, asked: int | str | None, pace: Pace, first: int) -> None:
        """`asked` is `storage.max`; `first`: bytes of data and first version, sent at once.
        Raises `BrokerError`."""
        held = meter.ask()
        self.free = held.free if held is not None else None
        self.limit = storage.limit_of(asked, self.free, meter.used())
        self.measured: int | None = None
        """Bytes an hour, once training has gone on for a while."""
        self._meter, self._pace, self._first = meter, pace, first
        self._started: int | None = None
        self._warned = self._stopped = self._settled = False
        self._others = meter.others() if held is None else 0
        self._asker = Asker(meter) if held is not None else None

    @property
    def of(self) -> str:
        """What is used: the broker's "disk"; its "memory", where it says nothing (the embedded
        one); or its "storage" (it says what it holds, and not where: before Kafka 3.3)."""
        if self.free is not None:
            return "disk"
        return "storage" if self._asker is not None else "memory"

    def opening(self) -> Line:
        """What is expected, and the limit: said at the start."""
        pace, hourly = self._pace, self._pace.bytes
        pushed = f"1 in {pace.rounds / pace.pushes:.0f}" if pace.pushes < pace.rounds else "all"
        now = f"{size(self._first)} of data and model are sent now; then " if self._first else ""
        text = (
            f"Storage: {now}about {size(hourly)} an hour "
            f"are expected (a guess: model {size(pace.model)}, "
            f"{pace.workers} workers, {pace.rounds / 3600:.3g} rounds a second, {pushed} pushed). "
        )
        if self.limit is None:
            return Line(f"{text}There is no limit (storage.max=off).")
        text += f"The limit is {size(self.limit)} of the broker's {self.of} (storage.max)"
        if self.free is not None:
            text += f", which has {size(self.free)} free"
        left = self.limit - self._meter.used() - self._first
        enough = f"about {duration(3600 * left / hourly)}" if left > 0 else "not even the data"
        return Line(f"{text}: enough for {enough}.{self._shared()}")

    def no_room(self) -> StopAsked | None:
        """The end of a run whose data alone do not fit; asked before they are sent."""
        if self.limit is None or self._meter.used() + self._first <= self.limit:
            return None
        return self._stop({"needed": self._first})

    def look(self, state: MasterState) -> tuple[list[Line], StopAsked | None]:
        """What is to be said now, and whether the run is to stop. Costs little: for every turn."""
        used = self._meter.used()
        lines = self._measure(state, used)
        level = storage.level(used, self.limit)
        if not level or self.limit is None or state.stopped is not None or self._stopped:
            return lines, None
        if level == "near":
            return [*lines, *self._warn(used)], None
        return lines, self._stop({})

    def close(self) -> None:
        """Nothing is asked any more."""
        if self._asker is not None:
            self._asker.stop()

    def facts(self) -> tuple[int, int]:
        """(used, limit) for the master's beat; 0 for no limit. From any thread."""
        return self._meter.used(), self.limit or 0

    def by_topic(self) -> tuple[dict[str, int], int]:
        """Bytes by topic, and bytes an hour as measured (0: not yet), for the master's beat. From
        any thread."""
        return self._meter.topics(), self.measured or 0

    def result(self) -> dict[str, Any]:
        """`storage` of `result.json`; sizes in bytes."""
        return {
            "limit": self.limit,
            "used": self._meter.used(),
            "topics": self._meter.topics(),
            "of": self.of,
            "expected_per_hour": self._pace.bytes,
            "measured_per_hour": self.measured,
        }

    # Within.

    def _shared(self) -> str:
        if not self._others:
            return ""
        runs = "Another run lies" if self._others == 1 else f"{self._others} other runs lie"
        return f" {runs} in that memory, too, not counted here: hermes clean OLD-RUN."

    def _stop(self, more: dict[str, int]) -> StopAsked:
        self._stopped = True
        assert self.limit is not None
        facts: Facts = {"used": self._meter.used(), "limit": self.limit, "of": self.of, **more}
        return StopAsked("stopped", Reason("storage", facts))

    def _warn(self, used: int) -> list[Line]:
        if self._warned:
            return []
        self._warned = True
        assert self.limit is not None
        rate = self.measured or self._pace.bytes
        lasts = duration(3600 * (self.limit - used) / rate)
        text = (
            f"Storage: {size(used)} of {size(self.limit)} (storage.max) are used; in about {lasts} "
            "the run stops, its model saved"
        )
        return [Line(text, "warning")]

    def _measure(self, state: MasterState, used: int) -> list[Line]:
        """The true pace, once; said where it is another order than what was expected."""
        if state.started is None or state.newest is None or state.stopped is not None:
            return []
        if self._started is None:
            self._started = used
        seconds = (state.time - state.started) / SECOND
        alone, versions, at_least = SETTLED
        if seconds < at_least or (seconds < alone and state.newest.version < versions):
            return []
        self.measured = int(3600 * (used - self._started) / seconds)
        if self._settled:
            return []
        self._settled = True
        if not storage.far_off(self._pace.bytes, self.measured) or not self.measured:
            return []
        text = f"Storage: it is {size(self.measured)} an hour, not {size(self._pace.bytes)}"
        if self.limit is not None:
            lasts = duration(3600 * max(0, self.limit - used) / self.measured)
            text += f"; the limit of {size(self.limit)} is reached in about {lasts}"
        return [Line(text)]


def round_steps(settings: Settings, size: int, batch: int) -> int:
    """Optimiser steps of a round over a shard of `size` samples."""
    batch = fitting_batch(size, batch)
    return settings.round.steps or settings.round.epochs * math.ceil(size / batch)


def first_rounds(settings: Settings, size: int, batch: int, steps: Sequence[float]) -> list[float]:
    """Seconds of a round by worker, where each has `size` samples; `steps`: seconds of a step."""
    a_round = round_steps(settings, size, batch)
    return [a_round * seconds for seconds in steps]


def watch_over(
    meter: Meter, settings: Settings, model: int, rounds: Sequence[float], first: int
) -> StorageWatch:
    """Whoever holds a run to its limit: `model` bytes a version, `rounds` seconds of a round by
    worker, `first` bytes that are sent at once. Raises `BrokerError`."""
    update = round(model * SHARE[settings.codec.up] / SHARE[settings.codec.down])
    pace = storage.pace(model, rounds, settings.gate.rule, settings.close, update)
    return StorageWatch(meter, settings.storage.max, pace, first)
