"""Where do tensors lie that were made again? In memory, by digest, for as long as they are needed.

Stands in for the log's topics of tensors: what is put must be what the ledger names there, and
what is got was made here. So a replay needs no tensor of the run itself.
"""

from __future__ import annotations

from collections.abc import Collection

from hermes.codec import digest_of
from hermes.errors import PeerError
from hermes.perform.store import Store
from hermes.replay.differs import Differs
from hermes.transport.log import Log
from hermes.values import Payload


class Held(Store):
    """The tensors of one run, made again."""

    def __init__(self, log: Log, run: str) -> None:
        super().__init__(log, run)
        self.checked = 0
        """Payloads that came out with the digest that the ledger names."""
        self._bytes: dict[str, bytes | bytearray] = {}
        self._expected: tuple[Payload, str, int] | None = None

    def expect(self, payload: Payload, what: str, offset: int) -> None:
        """The next `put` is to come to this payload, which the record at `offset` names."""
        self._expected = payload, what, offset

    def put(self, short: str, data: bytes) -> Payload:
        """Take what was made; the payload that the ledger names. Raises `Differs`."""
        del short
        assert self._expected is not None
        (payload, what, offset), self._expected = self._expected, None
        found = digest_of(data)
        if (found, len(data)) != (payload.digest, payload.length):
            says = f"the ledger names {payload.length} bytes of digest {payload.digest[:12]}"
            raise Differs(offset, what, says, f"again: {len(data)} bytes of digest {found[:12]}")
        self._bytes[found] = data
        self.checked += 1
        return payload

    def keep(self, payload: Payload, data: bytes | bytearray) -> None:
        """Take what could not be made again, as it was found."""
        self._bytes[payload.digest] = data

    def get(self, payload: Payload) -> bytes | bytearray:
        """What was put; raises `PeerError` where nothing was."""
        try:
            return self._bytes[payload.digest]
        except KeyError:
            raise PeerError("it was not made again", where=payload.topic) from None

    def let_go(self, needed: Collection[str]) -> None:
        """Only what has these digests is needed any more."""
        self._bytes = {digest: data for digest, data in self._bytes.items() if digest in needed}
