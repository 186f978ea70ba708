"""A worker that has the cluster key and speaks the protocol, in bad faith; over any log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy.typing as npt
from crew import KEY
from msgspec.structs import replace

from hermes.codec import decode_tensors, encode, encode_tensors, proof_of
from hermes.messages import (
    Bye,
    Envelope,
    Hello,
    Round,
    TrainingStarted,
    Update,
    UpdateRejected,
    WorkerAdmitted,
    WorkerBody,
)
from hermes.perform.ledger import Ledger
from hermes.perform.store import Store
from hermes.runtime.software import software
from hermes.transport import names, tensors
from hermes.transport.log import Log
from hermes.values import Base, Birth, Payload, Reason

Model = dict[str, npt.NDArray[Any]]

PATIENCE = 30.0


class Hostile:
    """Knocks, is admitted, and sends what it is told to."""

    def __init__(self, log: Log, run: str, name: str) -> None:
        self.log, self.run, self.name = log, run, name
        self.incarnation, self.number, self.rounds = f"{name}-1", 0, 0
        self.seen: list[tuple[str, str]] = []
        """What was sent, and the code that it was rejected with."""
        self.entries: list[Any] = []
        self._until(lambda: log.topics(names.physical(run, names.LOBBY)))
        topic = names.physical(run, names.LEDGER)
        self.ledger = Ledger(
            log, topic, watcher=lambda _raw, it, _s: self.entries.extend(it.entries)
        )

    def _until(self, holds: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while not (found := holds()):
            assert time.monotonic() < end, self.seen
            time.sleep(0.01)
        return found

    def look(self) -> None:
        """Read on in the ledger."""
        self.ledger.fold()

    def entry(self, kind: type, holds: Callable[[Any], bool] = lambda _: True) -> Any:
        """The first entry of this kind that is as wanted, once it comes."""

        def found() -> Any:
            self.look()
            return next((e for e in self.entries if isinstance(e, kind) and holds(e)), None)

        return self._until(found)

    # --- coming ---------------------------------------------------------------------------------

    def knock(self, incarnation: str, previous: str = "") -> None:
        """Come as this incarnation, and wait until training has started."""
        made_of = software("")
        bare = Hello(self.run, self.name, incarnation, f"?{incarnation}", made_of, previous)
        hello = replace(bare, proof=proof_of(KEY, bare))
        self.log.append(names.physical(self.run, names.LOBBY), encode(hello)).offset()
        self.entry(WorkerAdmitted, lambda entry: entry.incarnation == incarnation)
        self.entry(TrainingStarted)
        self.incarnation, self.number, self.rounds = incarnation, 0, 0

    # --- sending --------------------------------------------------------------------------------

    def say(self, body: WorkerBody, sender: str = "", number: int = 0) -> int:
        """A message; returns its offset."""
        if not sender:
            self.number += 1
        place = self.ledger.state.authority
        envelope = Envelope(
            sender or self.incarnation, number or self.number, place.offset, place.chain, body
        )
        topic = names.physical(self.run, f"from.{self.name}")
        return self.log.append(topic, encode(envelope)).offset()

    def round(self, update: Update | None = None) -> Round:
        """The report of a round that never was."""
        self.rounds += 1
        newest = self.ledger.state.newest
        assert newest is not None
        verdict = "push" if update is not None else "quiet"
        return Round(
            *(self.rounds, newest.version, 1, 1, 1000, 0, 0.5, 0.5, verdict),
            *(Reason("open"), (), update),
        )

    def send(self, data: bytes) -> Payload:
        """Tensors, or what is to pass for them."""
        short = f"from.{self.name}"
        return tensors.send_payload(self.log, names.physical(self.run, short), short, 0, data)

    def update(self, payload: Payload, **changes: Any) -> Update:
        """An update of the newest version, at the next number."""
        self.look()
        newest = self.ledger.state.newest
        assert newest is not None
        base = Base(newest.version, newest.payload.digest)
        birth = Birth(self.incarnation, self.number + 1)
        return replace(Update(birth, base, 10, 1, newest.version, payload), **changes)

    def model(self, change: Callable[[Model], None]) -> bytes:
        """The newest version, changed."""
        self.look()
        newest = self.ledger.state.newest
        assert newest is not None
        store = Store(self.log, self.run)
        try:
            model = {k: v.copy() for k, v in decode_tensors(store.get(newest.payload)).items()}
        finally:
            store.close()
        change(model)
        return encode_tensors(model)

    def push(self, make: Callable[[], Update]) -> Reason:
        """Push until it is rejected for something else than that a version came in between."""
        while True:
            update = make()
            self.say(self.round(update))
            reason = self.rejected(update.birth)
            if reason.code != "too-stale":
                return reason

    def rejected(self, birth: Birth) -> Reason:
        """Why this update was rejected, once it is."""
        reason: Reason = self.entry(UpdateRejected, lambda entry: entry.birth == birth).reason
        return reason

    def bye(self) -> None:
        """Leave."""
        self.say(Bye("that was all"))
