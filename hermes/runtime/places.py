"""How far has the master read each topic, and in which generation of it?"""

from __future__ import annotations

from typing import NamedTuple

from hermes.errors import BrokerRefused, NoSuchTopic, RunFailed
from hermes.transport import names
from hermes.transport.log import Log, Reader
from hermes.values import Position, Reason


class Place(NamedTuple):
    """What is read next."""

    generation: int
    offset: int


class Missed(NamedTuple):
    """A topic that is read from its start, since its end is lost."""

    topic: str
    reason: Reason


class Places:
    """The inputs of one master: followed in one reader, from generation to generation. Belongs to
    the thread that polls the reader."""

    def __init__(self, log: Log, reader: Reader, run: str) -> None:
        self.missed: list[Missed] = []
        """Topics whose end is lost, since somebody emptied this."""
        self._log, self._reader, self._run = log, reader, run
        self._next: dict[str, Place] = {}
        self._floors: dict[str, Place] = {}
        """What was let go of: reading begins here at the earliest."""

    def of(self, short: str) -> Place:
        """What is read next of this topic."""
        return self._next.get(short, Place(0, 0))

    def follow(self, short: str, after: Position | None) -> None:
        """Read this topic, too: after this place, or from where it was read to. Where the topic
        does not reach so far the broker has lost its end: it is read from its start. Raises
        `RunFailed` where it is gone."""
        wanted = Place(after.generation, after.offset + 1) if after is not None else Place(0, 0)
        place = max(wanted, self.of(short), self._floors.get(short, Place(0, 0)))
        if place.offset:
            end = self._end(short, place.generation)
            if end < place.offset:
                place = self._from_start(short, place, end)
        self._go_to(short, place)

    def passed(self, name: names.Name, offset: int) -> None:
        """A record of a topic was read. (`logs` may be read in two generations at once.)"""
        self._next[name.short] = max(self.of(name.short), Place(name.generation, offset + 1))

    def move_on(self, short: str, generation: int) -> None:
        """The writer has ended a generation with its marker: on to the next one."""
        now = self.of(short)
        if generation == now.generation + 1:
            self._reader.drop(names.physical(self._run, short, now.generation))
            self._go_to(short, Place(generation, 0))

    def let_go(self, short: str, generation: int, before: int) -> None:
        """What lies before this place may be gone at once."""
        self._floors[short] = Place(generation, before)
        for older in range(generation):
            self._reader.drop(names.physical(self._run, short, older))

    def mend(self, error: BrokerRefused | NoSuchTopic) -> None:
        """A followed topic does not have the place that is to be read. Where its end is lost it is
        read from its start; raises `RunFailed` where somebody has deleted or trimmed it."""
        name = names.parse(error.where)
        if name is None or name.short not in self._next:
            raise error
        place = self.of(name.short)
        if name.generation != place.generation:
            self._reader.drop(error.where)  # one that was let go of meanwhile
            return
        end = self._end(name.short, name.generation)
        if end >= place.offset:
            raise RunFailed(
                f"records that the run had not read are gone: the topic holds none at offset "
                f"{place.offset}, and was not trimmed so far by the run ({error.what})",
                where=error.where,
                remedy="Somebody, or a retention of the broker's own, has trimmed it. Nothing may "
                "but the run itself: see docs/guarantees.md.",
            )
        self._go_to(name.short, self._from_start(name.short, place, end))

    def _from_start(self, short: str, place: Place, end: int) -> Place:
        topic = names.physical(self._run, short, place.generation)
        first = self._log.starts([topic])[topic]
        facts = {"read_to": place.offset, "end": end, "from": first}
        self.missed.append(Missed(short, Reason("end-lost", {**facts})))
        return Place(place.generation, first)

    def _go_to(self, short: str, place: Place) -> None:
        self._next[short] = place
        topic = names.physical(self._run, short, place.generation)
        self._reader.follow(topic, place.offset)

    def _end(self, short: str, generation: int) -> int:
        topic = names.physical(self._run, short, generation)
        try:
            return self._log.ends([topic])[topic]
        except NoSuchTopic:
            raise RunFailed(
                "the topic is gone: somebody has deleted it under the run",
                where=topic,
                remedy="The run cannot go on without it. What it has so far lies in its folder.",
            ) from None
