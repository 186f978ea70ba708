"""How many bytes did the run's processes move? The master counts its own; workers tell theirs with
each heartbeat and with their bye."""

from __future__ import annotations

from collections.abc import Mapping

from hermes.machine.events import EnvelopeReceived, Event
from hermes.machine.state import Member
from hermes.messages import Bye, Heartbeat


class WorkersTraffic:
    """Bytes by incarnation, as heartbeats carry them."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[int, ...]] = {}

    def note(self, event: Event, members: Mapping[str, Member]) -> None:
        """What a message tells, if it comes from a member."""
        if not isinstance(event, EnvelopeReceived):
            return
        sender, body = event.envelope.sender, event.envelope.body
        member = members.get(event.worker)
        if member is None or member.incarnation != sender:
            return
        if isinstance(body, (Heartbeat, Bye)) and body.traffic:
            self._told[sender] = body.traffic

    def told(self) -> list[tuple[int, ...]]:
        """The last of each incarnation."""
        return list(self._told.values())
