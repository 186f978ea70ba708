"""How many bytes did the run's processes move? The master counts its own; workers tell theirs with
each heartbeat and with their bye."""

from __future__ import annotations

from collections.abc import Mapping

from hermes.machine.events import EnvelopeReceived, Event
from hermes.machine.state import Member
from hermes.messages import Bye, Heartbeat
from hermes.transport.counting import added


class WorkersTraffic:
    """Bytes by worker and incarnation, as heartbeats carry them; the beating thread reads them."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], tuple[int, ...]] = {}

    def note(self, event: Event, members: Mapping[str, Member]) -> None:
        """What a message tells, if it comes from a member."""
        if not isinstance(event, EnvelopeReceived):
            return
        sender, body = event.envelope.sender, event.envelope.body
        member = members.get(event.worker)
        if member is None or member.incarnation != sender:
            return
        if isinstance(body, (Heartbeat, Bye)) and body.traffic:
            self._told[event.worker, sender] = body.traffic

    def by_worker(self) -> dict[str, tuple[int, ...]]:
        """What each worker's incarnations moved together."""
        found: dict[str, tuple[int, ...]] = {}
        for (worker, _), told in list(self._told.items()):
            found[worker] = added(found.get(worker, ()), told)
        return found
