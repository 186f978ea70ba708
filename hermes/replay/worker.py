"""Does a worker do the same again? Its machine and its bench, upon the same records.

Given are the ledger, how long each round took, and upon which of its records a worker acted
(`RoundNoted.upon`): chance in a real run is in nothing else. What was trained, which gate decided
how, and each byte that was pushed come out of that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from hermes.machine import worker as machine
from hermes.machine.events import (
    Began,
    BlocksFetched,
    DropGrant,
    Event,
    FetchBlocks,
    LedgerSeen,
    LoadVersion,
    Send,
    StoreUpdate,
    Train,
    UpdateStored,
    VersionLoaded,
)
from hermes.machine.worker import WorkerState
from hermes.messages import Round, RoundNoted, Update
from hermes.perform.bench import WorkerBench
from hermes.replay.differs import Differs, compare
from hermes.replay.held import Held
from hermes.replay.story import Noted

GIVEN = ("busy", "waited", "moved", "trainer")
"""What a round takes, and on what: given, not made again."""


class WorkerAgain:
    """One incarnation."""

    def __init__(
        self, name: str, incarnation: str, sights: Sequence[LedgerSeen], held: Held
    ) -> None:
        """`sights`: the ledger from the record on that admits it."""
        self.name = name
        self.state = WorkerState(name, incarnation)
        self._sights, self._place, self._held = sights, 0, held
        self._bench: WorkerBench | None = None
        self._loads: LoadVersion | None = None
        self._trains: Train | None = None
        self._fetches: list[FetchBlocks] = []
        self._stores = False
        self._said: Round | None = None

    def begin(self, bench: WorkerBench, left_over: Sequence[Update]) -> None:
        """Its process starts, with what an outbox holds of incarnations before."""
        self._bench = bench
        self._deliver(Began("", "", tuple(left_over)))

    @property
    def newest(self) -> int:
        """The version that it knows of: it may ask for it, or a later one."""
        return self.state.newest.version if self.state.newest is not None else -1

    def round(self, noted: Noted, following: Noted | None) -> int:
        """Train this round again, and compare all of it; the steps. Raises `Differs`."""
        entry, what = noted.entry, f"round {noted.entry.round} of {self.name}"
        for place in range(len(entry.upon)):
            self._act(noted, place, what)
        action, self._trains = self._trains, None
        if action is None:
            says, follows = "it began upon that record", "again: a version is asked for instead"
            raise Differs(noted.offset, what, says, follows)
        assert self._bench is not None
        done = self._bench.train(action)
        # Until then it was told of; sooner, if it acted again before.
        self._read_to(min([noted.offset - 1, *(following.entry.upon[:1] if following else ())]))
        self._deliver(done.finished(action.round, entry.busy, entry.trainer))
        self._report(noted, what)
        return done.steps

    def again(self, update: Update, offset: int) -> None:
        """An update was asked for once more. Raises `Differs`."""
        what = f"update {update.birth.number} of {self.name}"
        self._read_to(offset - 1)
        if not self._stores:
            raise Differs(offset, what, "it was stored once more", "again: nothing asks for that")
        self._store(update, what, offset)

    # --- up to the round ------------------------------------------------------------------------

    def _act(self, noted: Noted, place: int, what: str) -> None:
        """The next thing that it did of its own: it asked for a version, or (at last) began."""
        upon = noted.entry.upon
        self._read_to(upon[place])
        while len(self.state.upon) <= place:
            self._next_outcome(noted.offset, what, upon[place])
        if self.state.upon != upon[: place + 1]:
            says = f"it acted upon the records {_places(upon[: place + 1])}"
            raise Differs(noted.offset, what, says, f"again: upon {_places(self.state.upon)}")

    def _next_outcome(self, offset: int, what: str, place: int) -> None:
        """What was under way comes to its end; only what has to."""
        assert self._bench is not None
        if self._loads is not None:
            action, self._loads = self._loads, None
            data = self._held.get(action.version.payload)
            self._deliver(VersionLoaded(self._bench.load(action, data)))
        elif self._fetches:
            grant = self._fetches.pop(0).grant
            self._bench.accept(grant)
            self._deliver(BlocksFetched(grant.number))
        else:
            says = f"it acted upon the record at offset {place}"
            raise Differs(offset, what, says, f"again: it is {self.state.phase}, and does not")

    def _read_to(self, offset: int) -> None:
        """The ledger, up to and with the record at this offset."""
        sights = self._sights
        while self._place < len(sights) and sights[self._place].offset <= offset:
            self._place += 1
            self._deliver(sights[self._place - 1])

    # --- after it -------------------------------------------------------------------------------

    def _report(self, noted: Noted, what: str) -> None:
        report = self.state.done if self._stores else self._said
        assert report is not None
        given = {name: getattr(noted.entry, name) for name in GIVEN}
        again = _as_noted(self.name, replace(report, **given))
        compare(noted.offset, what, noted.entry, again)
        if noted.update is not None:
            self._store(
                noted.update,
                f"update {noted.update.birth.number} of {self.name}, {what}",
                noted.offset,
            )

    def _store(self, update: Update, what: str, offset: int) -> None:
        assert self._bench is not None
        self._stores = False
        self._held.expect(update.payload, what, offset)
        self._deliver(UpdateStored(self._bench.push(self._held)))
        compare(offset, what, update, self.state.pushed)

    # --- the machine ----------------------------------------------------------------------------

    def _deliver(self, event: Event) -> None:
        # Its own clock measures what is given: it stands still.
        step = machine.decide(self.state, 0, event)
        self.state = step.state
        for action in step.actions:
            ACTIONS.get(type(action), _leave)(self, action)

    def _on_load(self, action: LoadVersion) -> None:
        self._loads = action

    def _on_train(self, action: Train) -> None:
        self._trains = action

    def _on_fetch(self, action: FetchBlocks) -> None:
        self._fetches.append(action)

    def _on_drop(self, action: DropGrant) -> None:
        assert self._bench is not None
        self._bench.drop(action.grant)
        self._fetches = [one for one in self._fetches if one.grant.number != action.grant]

    def _on_store(self, _action: StoreUpdate) -> None:
        self._stores = True

    def _on_send(self, action: Send) -> None:
        if isinstance(action.body, Round):
            self._said = action.body


def _leave(_worker: WorkerAgain, _action: Any) -> None:
    """What is only said, or kept for a resend, changes nothing here."""


def _as_noted(worker: str, report: Round) -> RoundNoted:
    """As the master notes it."""
    names = [name for name in RoundNoted.__struct_fields__ if name != "worker"]
    return RoundNoted(worker, *(getattr(report, name) for name in names))


def _places(upon: Sequence[int]) -> str:
    return ", ".join(map(str, upon)) or "none"


ACTIONS: dict[type, Callable[[WorkerAgain, Any], None]] = {
    LoadVersion: WorkerAgain._on_load,
    Train: WorkerAgain._on_train,
    FetchBlocks: WorkerAgain._on_fetch,
    DropGrant: WorkerAgain._on_drop,
    StoreUpdate: WorkerAgain._on_store,
    Send: WorkerAgain._on_send,
}
"""Action -> who performs it."""
