"""What does a worker send, and again if it is asked? Numbered messages, kept until the master has
taken them, and beats, which are not."""

from __future__ import annotations

import contextlib

from msgspec.structs import replace

from hermes.codec import encode, proof_of
from hermes.errors import BrokerUnreachable, NoSuchTopic
from hermes.machine.ledger import Authority
from hermes.machine.rules import PROTOCOL_RULES
from hermes.messages import Bye, Envelope, Hello, Moved, WorkerBody
from hermes.runtime.acks import Acknowledgements
from hermes.transport import names
from hermes.transport.log import Log, Receipt


class Sending:
    """The messages of one incarnation in one run."""

    def __init__(
        self, log: Log, run: str, name: str, incarnation: str, acks: Acknowledgements
    ) -> None:
        """`acks` is given the receipts that tell whether the broker is there."""
        self._log, self._acks = log, acks
        self._incarnation = incarnation
        self._lobby = names.physical(run, names.LOBBY)
        self._run, self._short = run, names.from_worker(name)
        self._topic = names.physical(run, self._short)
        self._kept: dict[int, WorkerBody] = {}

    def move(self, generation: int, seen: Authority) -> None:
        """End the generation before this one with its marker, and write to this one. Raises
        `BrokerUnreachable`."""
        self._topic = names.physical(self._run, self._short, generation - 1)
        # An incarnation before us may have ended it; then the master may have let go of it.
        with contextlib.suppress(NoSuchTopic):
            self._log.ends([self._topic])
            self._post(0, Moved(generation), seen)
        self._topic = names.physical(self._run, self._short, generation)

    def knock(self, hello: Hello, key: bytes) -> None:
        """Send a hello, signed with the cluster key."""
        signed = replace(hello, proof=proof_of(key, hello))
        self._append(self._lobby, encode(signed))

    def send(self, number: int, body: WorkerBody, seen: Authority) -> None:
        """Send a numbered message, and keep it; `seen`: how far the ledger was read."""
        self._kept[number] = body
        self._post(number, body, seen)

    def send_again(self, first: int, seen: Authority) -> None:
        """Send all that are kept from this number on."""
        for number in sorted(self._kept):
            if number >= first:
                self._post(number, self._kept[number], seen)

    def beat(self, body: WorkerBody, seen: Authority) -> None:
        """Send a message that is worth nothing once the next one is sent."""
        self._post(0, body, seen)

    def forget(self, up_to: int) -> None:
        """The master has taken these."""
        passed = PROTOCOL_RULES.may_forget
        for number in [number for number in self._kept if passed(number, up_to)]:
            del self._kept[number]

    def _post(self, number: int, body: WorkerBody, seen: Authority) -> None:
        envelope = Envelope(self._incarnation, number, seen.offset, seen.chain, body)
        with self._acks.sending():
            receipt = self._append(self._topic, encode(envelope))
        if receipt is not None and (not number or isinstance(body, Bye)):
            self._acks.add(receipt)

    def _append(self, topic: str, data: bytes) -> Receipt | None:
        """Send; what does not arrive is asked for again by its number."""
        try:
            return self._log.append(topic, data)
        except (BrokerUnreachable, NoSuchTopic):
            return None
