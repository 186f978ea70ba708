"""What becomes of a run's topics? New generations are made, old records are let go of."""

from __future__ import annotations

from hermes.machine.events import AddGeneration, Trim
from hermes.runtime.storage import Meter
from hermes.transport import names
from hermes.transport.log import Log
from hermes.transport.settings import segment_config


class RunTopics:
    """The topics of one run, as its master keeps them. Raises `BrokerError`."""

    def __init__(self, log: Log, run: str, meter: Meter, model: int) -> None:
        """`model`: bytes of a version."""
        self.segments = segment_config(model)
        """Settings of what is trimmed."""
        self._log, self._run, self._meter = log, run, meter

    def add(self, action: AddGeneration) -> None:
        """Make the next generation of a topic."""
        topic = names.physical(self._run, action.topic, action.generation)
        self._log.create([topic], self.segments)

    def let_go(self, action: Trim) -> None:
        """What lies before a place goes, and is not counted any more."""
        topic = action.topic
        older = [names.physical(self._run, topic, number) for number in range(action.generation)]
        self._log.delete(older)
        self._meter.gone(older)
        if action.before and self._log.can_trim:
            there = names.physical(self._run, topic, action.generation)
            end = self._log.ends([there])[there]  # where the broker has lost it: beyond is refused
            self._log.trim(there, min(action.before, end))
