"""How does a run of real processes go through faults? Apache Kafka, a master and its workers, each
started again one second after its death, while a schedule strikes them.

Every fault is seen to have hit a living process. What was done, and what came of it, is kept in a
journal. Whatever happens, nothing that was started is left.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import msgspec

from hermes.broker.places import free_port
from hermes.messages import LedgerRecord, VersionPublished, WorkerAdmitted
from tests.broker.link import Fired, Link, Outage
from tests.faults.actors import Actor, Broker, Command, environment, go_on, kill, pause
from tests.faults.ledger import LedgerWatch
from tests.faults.schedule import Fault, Schedule

RESTART = 1.0
"""Seconds from a death to the new start."""

LOOK = 0.02
"""Seconds between two looks at everything."""

FAST = 1e9
"""Bytes a second that a link carries."""

ENDLESS = ("stop.samples=off", "stop.patience=off", "stop.accuracy=off")


class Setting(NamedTuple):
    """What is to be run."""

    job: Path
    workers: int = 4
    strategy: str = "hermes-paper"
    set_: tuple[str, ...] = ()
    step_seconds: float = 0.02
    speeds: tuple[float, ...] = (1.0, 1.0, 1.0, 0.5)
    run: str = "faults"
    patience: float = 300.0
    seed: int = 0


class Struck(msgspec.Struct, kw_only=True):
    """A fault that has fired."""

    fault: Fault
    at: float
    """Seconds since the start, when the process was dead (stood, was cut off)."""
    pid: int = 0
    born: str = ""
    offset: int = -1
    """Of the last record of the ledger then."""
    version: int = -1
    term: int = 0
    leading: bool = True
    """Of a master: whether it had claimed the run, or was still starting."""
    waited: float = 0.0
    """Seconds by which it was late since its target was not there."""
    back: float | None = None
    """Seconds until the broker answered, a later master had claimed the run, the worker was taken
    in again."""
    recovered: float | None = None
    """Seconds from a master's death to the next version that a later one published."""


class Ended(msgspec.Struct):
    """A process that ended without being struck, before the run had stopped."""

    who: str
    at: float
    code: int
    said: str


class Journal(msgspec.Struct):
    """What happened."""

    struck: list[Struck]
    ended: list[Ended]
    versions: int = 0
    seconds: float = 0.0


class Supervisor:
    """Starts everything on entry, and ends it on exit."""

    def __init__(self, folder: Path, setting: Setting, *, link: bool = False) -> None:
        """`link`: clients reach the broker by way of a link that faults can strike."""
        self.folder, self.setting = folder, setting
        self.journal = Journal([], [])
        self.environment = environment(folder)
        port = free_port()
        self.link = Link(FAST) if link else None
        self.address = self.link.address if self.link is not None else f"127.0.0.1:{port}"
        if self.link is not None:
            self.link.lead_to(port)
        self.broker = Broker(folder / "kafka", port, self.link.address if self.link else None)
        self.master = self._command("master")
        self.workers = [self._command(f"worker-{n + 1}") for n in range(setting.workers)]
        self.actors: dict[str, Actor] = {
            one.name: one for one in (self.broker, self.master, *self.workers)
        }
        ledger = folder / "runs" / setting.run / "log" / "ledger.records"
        self.watch = LedgerWatch(ledger, self._seen)
        self._begun = time.monotonic()
        self._due: dict[str, float] = {}
        """Actors that have died: when each is started again."""
        self._paused: dict[str, tuple[float, Struck]] = {}
        self._down = contextlib.ExitStack()
        self._down_until = 0.0
        self._fired: list[Fired] = []

    def _command(self, name: str) -> Command:
        return Command(name, self.folder, self.environment)

    def __enter__(self) -> Supervisor:
        try:
            self.broker.start()
            self._until(lambda: bool(self.broker.pid()), 60, "the broker is up")
            for actor in (self.master, *self.workers):
                self._start(actor)
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.ExitStack() as ends:
            if self.link is not None:
                ends.callback(self.link.close)
            for actor in self.actors.values():
                ends.callback(actor.close)
            ends.callback(self._down.close)
        self.keep()

    # --- commands -------------------------------------------------------------------------------

    def _start(self, actor: Actor) -> None:
        if isinstance(actor, Command):
            known = self.watch.has_data
            actor.arguments = self._master(known) if actor is self.master else self._worker(actor)
        actor.start()

    def _at(self) -> list[str]:
        return ["--broker", self.address, "--patience", str(self.setting.patience), "--quiet"]

    def _master(self, known: bool) -> list[str]:
        """First with the job; once its data are sent, by its name alone."""
        wanted = self.setting
        if known:
            return ["resume", wanted.run, *self._at()]
        settings = [part for one in (*ENDLESS, *wanted.set_) for part in ("--set", one)]
        named = ["--run", wanted.run, "--expect", str(wanted.workers), "--seed", str(wanted.seed)]
        first = ["master", str(wanted.job), *named, "--strategy", wanted.strategy]
        return [*first, *settings, *self._at()]

    def _worker(self, worker: Command) -> list[str]:
        wanted = self.setting
        speed = wanted.speeds[int(worker.name.removeprefix("worker-")) - 1]
        pace = ["--speed", str(speed), "--step-seconds", str(wanted.step_seconds)]
        named = ["--run", wanted.run, "--name", worker.name]
        return ["worker", *named, *pace, "--threads", "1", *self._at()]

    # --- time -----------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begun

    def _until(self, reached: Callable[[], bool], timeout: float, what: str) -> None:
        end = self.now + timeout
        while not reached():
            if self.now > end:
                said = "\n".join(f"--- {a.name}\n{a.tail()}" for a in self.actors.values())
                raise AssertionError(f"not within {timeout:g} s: {what}\n{said}")
            self.tick()
            time.sleep(LOOK)

    def tick(self) -> None:
        """See what has happened, and do what is due."""
        self.watch.look()
        for actor in self.actors.values():
            self._see(actor)
        if self.broker.pid():
            for one in self.journal.struck:
                if one.fault.target == "broker" and one.back is None:
                    one.back = self._since(one)
        now = self.now
        for name, (end, _) in list(self._paused.items()):
            if now >= end:
                _, struck = self._paused.pop(name)
                go_on(self.actors[name], struck.pid, struck.born)
        if self._down_until and now >= self._down_until:
            self._raise_link()

    def _see(self, actor: Actor) -> None:
        name = actor.name
        if name in self._due:
            if self.now >= self._due[name]:
                del self._due[name]
                self._start(actor)
            return
        code = actor.ended()
        if code is None or (self.watch.stopped and code == 0):
            return
        self.journal.ended.append(Ended(name, self.now, code, actor.tail()))
        self._due[name] = self.now + RESTART

    # --- faults ---------------------------------------------------------------------------------

    def go_through(self, schedule: Schedule, patience: float = 90.0) -> None:
        """Strike by the schedule, to its end. `patience`: seconds for what a fault waits for."""
        for fault in schedule:
            ready = self._wait(fault.after)
            if not self._there(fault):  # not the very moment at which it is back
                self._until(lambda fault=fault: self._there(fault), patience, f"{fault} can strike")
                self._wait(fault.after)
            self._until(lambda fault=fault: self._there(fault), patience, f"{fault} can strike")
            struck = self._strike(fault)
            struck.waited = round(self.now - ready, 3)
            self.journal.struck.append(struck)
            self.keep()
        self._until(lambda: not self._paused and not self._down_until, 60, "all pauses are over")

    def _wait(self, seconds: float) -> float:
        """The time after so many seconds."""
        due = self.now + seconds
        self._until(lambda: self.now >= due, seconds + 5, f"{seconds:g} s are over")
        return self.now

    def _there(self, fault: Fault) -> bool:
        before = self.journal.struck[-1].version if self.journal.struck else 0
        wanted = max(fault.version, before + fault.more)
        if self.watch.version < wanted or self.watch.offset < fault.record:
            return False
        if fault.target == "link":
            return not self._down_until
        return bool(self.actors[fault.target].pid()) and fault.target not in self._paused

    def _strike(self, fault: Fault) -> Struck:
        struck = Struck(fault=fault, at=self.now)
        if fault.target == "link":
            self._cut_link(fault)
        else:
            actor = self.actors[fault.target]
            struck.leading = actor is not self.master or self._leads()
            struck.pid, struck.born = (kill if fault.kind == "kill" else pause)(actor)
            struck.at = self.now
            if fault.kind == "kill":
                self._due[actor.name] = struck.at + RESTART
            else:
                self._paused[actor.name] = (struck.at + fault.lasts, struck)
        self.watch.look()  # what it had written before it died is its own
        struck.offset, struck.version = self.watch.offset, self.watch.version
        struck.term = self.watch.term
        return struck

    def _leads(self) -> bool:
        """Whether the master that lives now has claimed the run: nobody died since."""
        self.watch.look()
        deaths = [one.term for one in self.journal.struck if one.fault.target == "master"]
        return self.watch.term > max(deaths, default=0)

    def _cut_link(self, fault: Fault) -> None:
        assert self.link is not None, "there is no link to strike"
        assert fault.kind in ("stall", "close")
        once = [Outage(0.0, fault.lasts, fault.kind), Outage(1e6, 0.0, fault.kind)]
        self._fired = self._down.enter_context(self.link.outages(once))
        self._down_until = self.now + fault.lasts + 0.2

    def _raise_link(self) -> None:
        self._down_until = 0.0
        self._down.close()
        (one, *_) = self._fired
        assert one.caught > 0, "the link had no connection to cut"
        assert one.leaked == 0, f"{one.leaked} bytes crossed a link that was down"

    def _seen(self, record: LedgerRecord) -> None:
        """A record of the ledger: who is back with it?"""
        deaths = [one for one in self.journal.struck if one.fault.kind == "kill"]
        for one in deaths:
            if one.fault.target == "master" and one.back is None and record.term > one.term:
                one.back = self._since(one)
        for entry in record.entries:
            if isinstance(entry, VersionPublished):
                self.journal.versions += 1
                for one in deaths:
                    missing = one.fault.target == "master" and one.recovered is None
                    if missing and record.term > one.term:
                        one.recovered = self._since(one)
            elif isinstance(entry, WorkerAdmitted) and entry.hello:
                for one in deaths:
                    if one.fault.target == entry.worker and one.back is None:
                        one.back = self._since(one)

    def _since(self, one: Struck) -> float:
        return round(self.now - one.at, 3)

    # --- the end --------------------------------------------------------------------------------

    def settle(self, versions: int = 3, timeout: float = 120.0) -> None:
        """Everybody is there again, and the run goes on: so many versions more."""
        wanted = self.watch.version + versions

        def calm() -> bool:
            missing = [one for one in self.journal.struck if one.fault.kind == "kill"]
            up = all(actor.pid() for actor in self.actors.values())
            back = all(one.back is not None for one in missing)
            return up and back and self.watch.version >= wanted

        self._until(calm, timeout, f"version {wanted}, with everybody there")

    def stop(self, then: Schedule = (), timeout: float = 90.0) -> None:
        """Ask the run to stop; its processes end by themselves, with exit code 0. `then`: faults
        that strike while they do: the master waits then for one that stands still meanwhile."""
        asks = self._command("stop")
        asks.arguments = ["stop", self.setting.run, "--broker", self.address]
        last = self.workers[-1]
        held = pause(last) if then else None
        try:
            asks.start()
            ends = [self.master, *self.workers]
            self._until(lambda: self.watch.stopped, timeout, "the run has stopped")
            self.go_through(then)
            if held is not None:
                go_on(last, *held)
            self._until(lambda: all(one.ended() == 0 for one in ends), timeout, "all have left")
        finally:
            asks.close()
        self.journal.seconds = round(self.now, 1)

    def hermes(self, *arguments: str, timeout: float = 300.0) -> tuple[int, str]:
        """One more command, to its end: its exit code, and all that it said."""
        command = self._command("after")
        command.arguments = list(arguments)
        try:
            command.start()
            self._until(lambda: command.ended() is not None, timeout, " ".join(arguments))
        finally:
            command.close()
        code = command.ended()
        assert code is not None
        return code, command.said()

    def keep(self) -> None:
        """Write the journal."""
        (self.folder / "faults.json").write_bytes(msgspec.json.encode(self.journal))

    @property
    def recoveries(self) -> list[float]:
        """Seconds from each death of a master to the next version, sorted."""
        found = [one.recovered for one in self.journal.struck if one.recovered is not None]
        return sorted(found)

    def fired(self) -> Mapping[str, int]:
        """Kills by target."""
        counts: dict[str, int] = {}
        for one in self.journal.struck:
            if one.fault.kind == "kill":
                who = one.fault.target.partition("-")[0]
                counts[who] = counts.get(who, 0) + 1
        return counts
