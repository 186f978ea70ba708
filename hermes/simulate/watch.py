"""Does every invariant hold after this very record? A second reader that is told of each one.

It folds the ledger for itself and compares: with the state of the master that wrote, with the whole
story so far (`machine.audit`), and with what the workers are known to have said, arrived or not.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import msgspec

from hermes.errors import Defect
from hermes.machine.apply import apply
from hermes.machine.audit import Audit
from hermes.machine.events import LedgerSeen
from hermes.machine.ledger import link
from hermes.machine.rules import Rules
from hermes.machine.state import MasterState
from hermes.messages import (
    Bye,
    Consumed,
    LedgerRecord,
    Resent,
    Round,
    Update,
    UpdateTaken,
    VersionPublished,
    WorkerAdmitted,
    WorkerBack,
    WorkerBody,
    WorkerLost,
)
from hermes.transport.log import Record
from hermes.values import SECOND, Birth

FIELDS = tuple(field.name for field in msgspec.structs.fields(MasterState))
values = operator.attrgetter(*FIELDS)

COMINGS = (WorkerAdmitted, WorkerLost, WorkerBack)
"""Entries that say who is there, and who is not."""

Genuine = Callable[[VersionPublished, "VersionPublished | None"], bool]
"""Whether a version holds exactly the updates that it names, in order, on top of the one before."""


class Watch:
    """An independent reader of one run's ledger. Raises `Defect` at the first broken invariant."""

    def __init__(self, rules: Rules, genuine: Genuine | None = None) -> None:
        self.state = MasterState()
        self.audit = Audit()
        self.records: list[LedgerRecord] = []
        """Those that count."""
        self.checks = 0
        """Records after which all of it was looked at."""
        self._rules, self._genuine = rules, genuine
        self._chain = b""
        self._said: dict[tuple[str, int], WorkerBody] = {}
        self._pushed: dict[tuple[str, Birth], Update] = {}
        self._previous: dict[str, str] = {}
        self._number: dict[str, int] = {}
        self._heard: dict[tuple[str, str], int] = {}
        """Run time of the last arrival, by worker and incarnation."""
        self._got_on: dict[tuple[str, str], int] = {}
        """Run time of the last arrival that was progress."""
        self._steps: dict[tuple[str, str], int] = {}
        self._stuck: dict[str, int] = {}
        """When who is lost for it, by what had arrived, got on last."""
        self._began: dict[str, int] = {}
        """Run time since which a master (by nonce) has been awake."""

    # --- what it is told ------------------------------------------------------------------------

    def said(self, worker: str, incarnation: str, number: int, body: WorkerBody) -> None:
        """A worker has given this message its number; whether it arrives is another matter."""
        self._said[incarnation, number] = body
        if isinstance(body, (Round, Resent)) and body.update is not None:
            self._pushed.setdefault((worker, body.update.birth), body.update)

    def knocked(self, incarnation: str, previous: str) -> None:
        """A process says hello; `previous` is the incarnation whose outbox it has."""
        self._previous[incarnation] = previous

    def arrived(self, worker: str, incarnation: str, now: int, steps: int | None = None) -> None:
        """Something of this worker lies in the broker: a heartbeat that tells of `steps`, or
        (None) what is progress in itself."""
        who = worker, incarnation
        self._heard[who] = now
        if steps is None or steps > self._steps.get(who, -1):
            self._got_on[who] = now
        if steps is not None:
            self._steps[who] = max(steps, self._steps.get(who, -1))

    def lost(self, worker: str) -> None:
        """The broker has lost what arrived last from this worker: nobody need have heard it."""
        for known in (self._heard, self._got_on):
            for who in [who for who in known if who[0] == worker]:
                del known[who]
        if worker in self._stuck:
            self._stuck[worker] = -2

    def awake(self, nonce: str, since: int) -> None:
        """This master has started, or is up again after it was away for long."""
        self._began[nonce] = max(since, self._began.get(nonce, 0))

    def read(self, seen: LedgerSeen) -> None:
        """The next record of the ledger, void or not."""
        record = seen.record
        if self._rules.void(self.state.authority, record):
            return
        before = self.state.newest
        if any(isinstance(entry, COMINGS) for entry in record.entries):
            self._alive_was_not_lost(record)
            self._stuck_owed_progress(record)
            self._name_was_free(record)
        self.state = apply(self.state, record, seen.offset, seen.digest)
        self.audit.read([record])
        self.records.append(record)
        self._chain = link(self._chain, seen.digest)
        if self.state.authority.chain != self._chain:
            raise Defect("the chain does not cover every record that counts")
        for entry in record.entries:
            if isinstance(entry, UpdateTaken):
                self._was_pushed(entry)
            elif isinstance(entry, VersionPublished) and self._genuine is not None:
                if not self._genuine(entry, before):
                    raise Defect(f"version {entry.version} does not hold what it names")
                before = entry
        for consumed in record.consumed:
            self._nothing_skipped(consumed)
        self.checks += 1

    # --- what must hold -------------------------------------------------------------------------

    def _alive_was_not_lost(self, record: LedgerRecord) -> None:
        """Nobody is declared lost whose message lay in its topic, read or not; nor by a master
        that was not up for as long."""
        who = {name: member.incarnation for name, member in self.state.members.items()}
        for entry in record.entries:
            if isinstance(entry, WorkerAdmitted):
                who[entry.worker] = entry.incarnation
            elif isinstance(entry, WorkerLost):
                since = record.time - int(self.state.settings.workers.lost * SECOND)
                stuck = entry.reason.code == "stuck"
                last = self._got_on if stuck else self._heard
                if last.get((entry.worker, who[entry.worker]), -1) >= since:
                    did = "got on" if stuck else "been heard"
                    raise Defect(f"was declared lost and had {did}", where=entry.worker)
                if self._began.get(record.nonce, -1) > since:
                    raise Defect("was declared lost by a master just awake", where=entry.worker)

    def _stuck_owed_progress(self, record: LedgerRecord) -> None:
        """Whoever is declared stuck held blocks and waited for no version; it is not back before
        something of it has arrived that is progress."""
        for entry in record.entries:
            if isinstance(entry, WorkerAdmitted | WorkerLost):
                self._stuck.pop(entry.worker, None)
            if isinstance(entry, WorkerLost) and entry.reason.code == "stuck":
                member = self.state.members[entry.worker]
                if not member.grants or any(p.worker == entry.worker for p in self.state.pending):
                    raise Defect("was declared stuck and owed nothing", where=entry.worker)
                self._stuck[entry.worker] = self._progress(entry.worker)
            elif isinstance(entry, WorkerBack):
                then = self._stuck.pop(entry.worker, None)
                if then is not None and self._progress(entry.worker) <= then:
                    raise Defect("was stuck and is back without progress", where=entry.worker)

    def _progress(self, worker: str) -> int:
        return self._got_on.get((worker, self.state.members[worker].incarnation), -1)

    def _name_was_free(self, record: LedgerRecord) -> None:
        """Nobody takes the name of a worker alive, but who has the outbox of one of its lives."""
        for entry in record.entries:
            if not isinstance(entry, WorkerAdmitted) or not entry.hello:
                continue
            member = self.state.members.get(entry.worker)
            if member is None or member.status != "alive":
                continue
            known = {entry.incarnation, self._previous.get(entry.incarnation)}
            if not known & member.taken.keys():
                raise Defect("a name in use was given away", where=entry.worker)

    def _was_pushed(self, entry: UpdateTaken) -> None:
        if self._pushed.get((entry.worker, entry.update.birth)) != entry.update:
            raise Defect("an update is taken that was never pushed", where=entry.worker)

    def _nothing_skipped(self, consumed: Consumed) -> None:
        """Whatever a worker said up to the number that is taken has come to something."""
        who, name = consumed.incarnation, consumed.position.topic.removeprefix("from.")
        first = self._number.get(who, 0) + 1
        for number in range(first, consumed.number + 1):
            body = self._said.get((who, number))
            if body is None:
                raise Defect(f"number {number} was taken and never sent", where=name)
            if not self.audit.stopped and not self._counts(name, who, body):
                raise Defect(f"number {number} was taken and came to nothing", where=name)
        self._number[who] = max(first - 1, consumed.number)

    def _counts(self, worker: str, incarnation: str, body: WorkerBody) -> bool:
        if isinstance(body, Round):
            update = body.update
            noted = (worker, incarnation, body.round) in self.audit.noted
            return noted and (update is None or (worker, update.birth) in self.audit.taken)
        if isinstance(body, Resent):
            return (worker, body.update.birth) in self.audit.taken
        return not isinstance(body, Bye) or self.state.members[worker].status == "left"

    def forgets(self, worker: str, incarnation: str, number: int) -> None:
        """A worker forgets a message: the ledger must have taken it."""
        member = self.state.members.get(worker)
        if member is None or number > member.taken.get(incarnation, 0):
            raise Defect(f"message {number} is forgotten and was not taken", where=worker)

    def forgets_update(self, worker: str, birth: Birth) -> None:
        """A worker forgets an update: the ledger must have it."""
        if (worker, birth) not in self.audit.taken:
            raise Defect(f"update {birth.number} is forgotten and was not taken", where=worker)


class Twin:
    """Compares one master's state with the watch's, after each record of that master's fold.

    What was compared before and is still the same two objects is not compared again: states share
    all that a record does not change.
    """

    def __init__(self, watch: Watch, catch_up: Callable[[], None]) -> None:
        self._watch, self._catch_up = watch, catch_up
        self._last = values(MasterState()), values(MasterState())

    def __call__(self, raw: Record, record: LedgerRecord, state: MasterState) -> None:
        """After a record that this master counts."""
        del record
        self._catch_up()
        there = self._watch.state
        if raw.offset < there.authority.offset:
            return  # it reads what was read before; compared once it has come to the end
        if state.authority != there.authority:
            raise Defect("a master counts what no other reader counts", where=f"{raw.offset}")
        now = values(state), values(there)
        for name, mine, other, *last in zip(FIELDS, *now, *self._last, strict=True):
            if mine is last[0] and other is last[1]:
                continue
            if not same(mine, other, *last):
                raise Defect("the live state is not the fold of the ledger", where=name)
        self._last = now


def same(mine: object, other: object, last_mine: object, last_other: object) -> bool:
    """Whether two values are equal; the last two were."""
    if not isinstance(mine, dict) or not isinstance(other, dict):
        return mine == other
    assert isinstance(last_mine, dict)
    assert isinstance(last_other, dict)
    return mine.keys() == other.keys() and all(
        (value is last_mine.get(key) and other[key] is last_other.get(key)) or value == other[key]
        for key, value in mine.items()
    )
