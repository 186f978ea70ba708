"""What the tests of the machines stand on: a master or a worker in a known state, driven by events.

No log and no clock: a decision is put into a record as the ledger would, and applied.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

from msgspec.structs import replace

from hermes.codec import encode
from hermes.machine import master, state, worker
from hermes.machine.apply import apply
from hermes.machine.events import (
    BlocksFetched,
    DataStored,
    EnvelopeReceived,
    Event,
    HelloReceived,
    LedgerSeen,
    Merge,
    Opened,
    RoundFinished,
    Score,
    UpdateScored,
    UpdateStored,
    VersionLoaded,
    VersionStored,
)
from hermes.machine.ledger import void
from hermes.machine.rules import PROTOCOL_RULES, Rules
from hermes.machine.soft import Soft
from hermes.messages import (
    PROTOCOL,
    BlocksGranted,
    DataPublished,
    Entry,
    Envelope,
    Forked,
    Heartbeat,
    Hello,
    LedgerRecord,
    MasterStarted,
    Round,
    RunOpened,
    RunReopened,
    Software,
    TrainingStarted,
    Update,
    VersionPublished,
    WorkerAdmitted,
    WorkerBody,
)
from hermes.policy.presets import resolve, to_tree
from hermes.simulate.schedules import reference
from hermes.values import SECOND, Base, Birth, BlockRange, Payload, Position, Reason

T = TypeVar("T")

SOFTWARE = Software("1", PROTOCOL, "3", "none")
DATA = DataPublished(
    reference("data", 1),
    reference("data", 2),
    "",
    8,
    {"train": 12, "probe": 1, "validation": 1, "test": 1},
    {"train": 95, "probe": 8, "validation": 8, "test": 8},
    24,
    8,
)


def opening(strategy: str = "hermes-paper", expect: int = 1, **settings: Any) -> RunOpened:
    """A run's opening record; settings as `stop__versions=3`."""
    layer = {key.replace("__", "."): value for key, value in settings.items()}
    tree = to_tree(resolve(strategy, [layer]))
    return RunOpened("run", tree, 1, expect, "", SOFTWARE, "")


def of(kind: type[T], found: Any) -> list[T]:
    """The entries or actions of one kind in a decision, a step or a list."""
    items = found
    if isinstance(found, master.Decision):
        items = (*found.entries, *found.actions)
    elif isinstance(found, worker.Step):
        items = found.actions
    return [item for item in items if isinstance(item, kind)]


def one(kind: type[T], found: Any) -> T:
    """The only one of its kind."""
    (item,) = of(kind, found)
    return item


class MasterStage:
    """A master whose every decision is put into a record and applied at once."""

    def __init__(
        self,
        strategy: str = "hermes-paper",
        workers: int = 1,
        rules: Rules = PROTOCOL_RULES,
        expect: int | None = None,
        forked: Forked | None = None,
        held: Payload | None = None,
        **settings: Any,
    ) -> None:
        """`forked`: where the run begins, if not at version 0; `held`: where the copy lies of what
        its parent's master held there."""
        self.rules = rules
        self.state, self.soft, self.now = state.MasterState(), Soft(), SECOND
        self.entries: list[Entry] = []
        self.records: list[LedgerRecord] = []
        self.offset: dict[str, int] = {}
        self.generation: dict[str, int] = {}
        self.numbers: dict[str, int] = {}
        self.rounds: dict[str, int] = {}
        self.wake: int | None = None
        self.claim()
        run = opening(strategy, expect or max(1, workers), **settings)
        self.put(Opened(run, forked=forked, data=DATA if forked else None))
        self.put(DataStored(DATA))
        self.put(VersionStored(0, reference("model", 0), state=held))
        for number in range(workers):
            self.hello(f"w{number + 1}")

    def claim(self) -> None:
        """A new master, of the next term, that knows nothing but the ledger."""
        term = self.state.authority.term + 1
        self._record((MasterStarted(term, f"m{term}"),), (), term, f"m{term}", 0, b"")
        self.soft = Soft()

    def restart(self, change: RunReopened | None = None) -> master.Decision:
        """A new master, and what it asks for first."""
        self.claim()
        assert self.state.opened is not None
        return self.put(Opened(self.state.opened, change))

    def put(self, event: Event, later: float = 0.0) -> master.Decision:
        """One event, `later` seconds after the last one."""
        self.now += int(later * SECOND)
        decision = master.decide(self.state, self.soft, self.now, event, self.rules)
        self.soft, self.wake = decision.soft, decision.wake
        place = self.state.authority
        if decision.entries or decision.consumed:
            self._record(
                decision.entries,
                decision.consumed,
                place.term,
                place.nonce,
                place.next_n,
                place.chain,
            )
            assert self.state == master.replace(decision.state, authority=self.state.authority)
        return decision

    def _record(self, entries: Any, consumed: Any, *head: Any) -> None:
        term, nonce, n, chain = head
        record = LedgerRecord(term, nonce, n, chain, self.now, consumed, entries)
        place = self.state.authority
        assert void(place, record) == ""
        digest = hashlib.sha256(encode(record)).digest()
        self.state = apply(self.state, record, place.offset + 1, digest)
        state.check(self.state)
        self.entries += entries
        self.records.append(record)

    # --- inputs ---------------------------------------------------------------------------------

    def at(self, topic: str) -> Position:
        """The next place of an input topic."""
        # Place 0 is a chunk's: what an update names lies before the message that names it.
        self.offset[topic] = self.offset.get(topic, 0) + 1
        return Position(topic, self.generation.get(topic, 0), self.offset[topic])

    def hello(
        self, name: str, incarnation: str = "", later: float = 0.0, **changes: Any
    ) -> master.Decision:
        """A worker knocks; its incarnation is its name and "-1" if not said."""
        who = incarnation or f"{name}-1"
        knock = Hello("run", name, who, f"{who}?", SOFTWARE)
        knock = master.replace(knock, **changes)
        return self.put(HelloReceived(self.at("lobby"), knock), later)

    def say(
        self,
        name: str,
        body: WorkerBody,
        number: int | None = None,
        sender: str = "",
        later: float = 0.0,
    ) -> master.Decision:
        """A message of a worker, under its next number if none is said."""
        who = sender or self.state.members[name].incarnation
        if number is None:
            number = 0 if isinstance(body, Heartbeat) else self.numbers.get(who, 0) + 1
        self.numbers[who] = max(number, self.numbers.get(who, 0))
        if isinstance(body, Round):
            self.rounds[who] = max(body.round, self.rounds.get(who, 0))
        envelope = Envelope(who, number, 0, b"", body)
        return self.put(EnvelopeReceived(name, self.at(f"from.{name}"), envelope), later)

    def beat(self, name: str, later: float = 0.0, last: int | None = None) -> master.Decision:
        """A heartbeat."""
        who = self.state.members[name].incarnation
        taken = self.numbers.get(who, 0)
        return self.say(name, Heartbeat(0, taken if last is None else last), later=later)

    def update(self, name: str, number: int | None = None, base: int | None = None) -> Update:
        """An update as this worker would make it now."""
        who = self.state.members[name].incarnation
        number = self.numbers.get(who, 0) + 1 if number is None else number
        version = self.state.newest if base is None else self.state.versions[base]
        assert version is not None
        place = Base(version.version, version.payload.digest)
        payload = replace(
            reference("from", 100 * number + int(name[-1])), topic=f"from.{name}", first=0, last=0
        )
        return Update(Birth(who, number), place, 24, 1, version.version, payload)

    def round(
        self,
        name: str,
        update: Update | None = None,
        verdict: str = "quiet",
        busy: float = 1.0,
        steps: int = 3,
    ) -> Round:
        """A round's report; it finishes the first grant that the worker holds."""
        member = self.state.members[name]
        finished = tuple(grant.number for grant in member.grants[:1])
        base = update.base.version if update else member.base
        who = member.incarnation
        return Round(
            self.rounds.get(who, 0) + 1,
            base,
            steps,
            24,
            int(busy * SECOND),
            0,
            0.5,
            0.5,
            "push" if update else verdict,
            Reason("test"),
            finished,
            update,
        )

    def push(self, name: str, base: int | None = None, **changes: Any) -> master.Decision:
        """The worker pushes an update, at its next number."""
        update = master.replace(self.update(name, base=base), **changes)
        return self.say(name, self.round(name, update))

    def score(self, decision: master.Decision, loss: float = 0.5) -> master.Decision:
        """The scoring that the decision asks for comes out."""
        asked = one(Score, decision)
        return self.put(UpdateScored(asked.update.birth, asked.version.version, 1.0, loss))

    def store(self, decision: master.Decision) -> master.Decision:
        """The merge that the decision asks for is stored."""
        merge = one(Merge, decision)
        return self.put(VersionStored(merge.version, reference("model", merge.version)))


class WorkerStage:
    """A worker that is shown a ledger, as a master of term 1 writes it."""

    def __init__(self, strategy: str = "hermes-paper", admit: bool = True, **settings: Any) -> None:
        self.state = worker.WorkerState("w1", "w1-1")
        self.now = 0
        self.offset = -1
        self.place = ("m1", 1, 0, b"chain")
        self.opened = opening(strategy, **settings)
        self.version0 = version(0)
        self.put(worker.Began("hello-1", "", ()))
        if admit:
            self.see(self.admission(), TrainingStarted(1))

    def admission(self, taken: int = 0, incarnation: str = "w1-1") -> WorkerAdmitted:
        """The worker is admitted; the ledger has taken its messages up to `taken`."""
        return WorkerAdmitted(
            "w1",
            incarnation,
            "hello-1",
            self.opened,
            DATA,
            self.version0,
            {incarnation: taken},
            False,
        )

    def put(self, event: Event, later: float = 0.0) -> worker.Step:
        """One event, `later` seconds after the last one."""
        self.now += int(later * SECOND)
        step = worker.decide(self.state, self.now, event)
        self.state = step.state
        worker.check(self.state)
        return step

    def see(self, *entries: Entry, consumed: Any = ()) -> worker.Step:
        """The master in force writes a record, and the worker sees it."""
        nonce, term, n, chain = self.place
        record = LedgerRecord(term, nonce, n, chain, self.now, consumed, entries)
        step = self.show(record)
        digest = hashlib.sha256(encode(record)).digest()
        self.place = (nonce, term, n + 1, hashlib.sha256(chain + digest).digest())
        return step

    def show(self, record: LedgerRecord) -> worker.Step:
        """Any record, void or not."""
        self.offset += 1
        return self.put(LedgerSeen(record, self.offset, hashlib.sha256(encode(record)).digest()))

    def grant(self, number: int, size: int = 24) -> BlocksGranted:
        """A grant of this worker."""
        return BlocksGranted("w1", number, (BlockRange(3 * number, 3 * number + 3),), size, 8)

    def ready(self) -> worker.Step:
        """Version 0 is loaded and two grants are fetched: the step that begins to train."""
        if self.state.phase == "loading":
            self.put(VersionLoaded(Base(0, self.version0.payload.digest)))
        self.see(self.grant(1), self.grant(2))
        self.put(BlocksFetched(2))
        return self.put(BlocksFetched(1))

    def finish(self, loss: float = 0.5, probe: float | None = None) -> worker.Step:
        """The round under way is trained."""
        return self.put(RoundFinished(self.state.round, 3, 24, SECOND, loss, probe))

    def push(self) -> Round:
        """A round is trained and pushed (under an open gate); what was sent."""
        self.finish()
        step = self.put(UpdateStored(reference("from", self.state.number + 1)))
        sent = one(worker.Send, step)
        assert isinstance(sent.body, Round)
        return sent.body


def version(number: int, *members: Any) -> VersionPublished:
    """A version, with its contributions."""
    return VersionPublished(
        number, reference("model", number), members, "mean", 0.0, 24 * number, Reason("test")
    )
