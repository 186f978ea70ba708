"""Are the bytes that a record names there, and if they are not, why not?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hermes.errors import BrokerUnreachable, DigestMismatch, NoSuchTopic, PeerError
from hermes.perform.remake import GONE
from hermes.perform.store import Shelves
from hermes.transport import names
from hermes.transport.log import Log
from hermes.values import Payload, Position
from hermes.verify.plan import let_go

RETENTION = "retention"
"""A record of the ledger let go of them."""
LOST = "lost"
"""They are not there, and nothing let go of them."""
DAMAGED = "damaged"
"""They are there, and are not those that were announced."""
NO_BROKER = "no broker"
"""Nobody can be asked for them."""


class Absent(PeerError):
    """Bytes that cannot be had; `code` is one of the four above."""

    def __init__(self, code: str, what: str, payload: Payload) -> None:
        place = f"{payload.topic}, offsets {payload.first} .. {payload.last}"
        super().__init__(what, where=place)
        self.code, self.payload = code, payload


class Payloads:
    """The tensors of one run."""

    def __init__(
        self,
        log: Log | None,
        run: str,
        floors: Mapping[str, Position],
        again: Callable[[], Mapping[str, Position]],
    ) -> None:
        """`floors`: what may be gone, by topic; `again` says what may be gone by now, where the
        run goes on meanwhile."""
        self._log, self._run, self._floors, self._again = log, run, floors, again
        self._shelves = Shelves(log, run) if log is not None else None
        self.bytes = 0
        """Bytes that were read and had their digest."""

    def known(self, payload: Payload) -> str:
        """Why these bytes need not be asked for; "" if they must be."""
        if let_go(payload, self._floors):
            return RETENTION
        return NO_BROKER if self._shelves is None else ""

    def get(self, payload: Payload) -> bytes | bytearray:
        """The bytes, which have their digest. Raises `Absent`, `BrokerUnreachable`."""
        code = self.known(payload)
        if code:
            raise Absent(code, SAID[code], payload)
        try:
            data = self._read(payload)
        except DigestMismatch as error:
            raise Absent(DAMAGED, error.what, payload) from None
        except GONE as error:
            self._floors = self._again()
            if let_go(payload, self._floors):
                raise Absent(RETENTION, SAID[RETENTION], payload) from None
            raise Absent(LOST, error.what, payload) from None
        self.bytes += len(data)
        return data

    def close(self) -> None:
        """Let go of the readers."""
        if self._shelves is not None:
            self._shelves.close()

    def _read(self, payload: Payload) -> bytes | bytearray:
        assert self._log is not None
        assert self._shelves is not None
        try:
            return self._shelves.get(payload)
        except (NoSuchTopic, BrokerUnreachable):
            topic = names.physical(self._run, payload.topic, payload.generation)
            if topic in self._log.topics(topic):
                raise  # else: it went, maybe while it was read
            raise PeerError("the topic is gone", where=topic) from None


SAID = {
    RETENTION: "retention let go of them",
    NO_BROKER: "they are not at hand",
}
