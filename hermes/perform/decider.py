"""How do events become records? The master's machine over its ledger, one batch at a time.

A batch is decided event by event, as if each came alone, on a view of the state as it will be;
then one record holds all of it. What only moves an input's position waits for the next record.
"""

from __future__ import annotations

from hermes.machine.events import Action, Event
from hermes.machine.master import decide
from hermes.machine.rules import PROTOCOL_RULES, Rules
from hermes.machine.soft import Soft
from hermes.machine.state import MasterState
from hermes.messages import Consumed, Entry, LedgerRecord
from hermes.perform.ledger import Ledger


class Decider:
    """The master's machine, its soft state, and what is decided but not yet committed."""

    def __init__(self, ledger: Ledger, rules: Rules = PROTOCOL_RULES) -> None:
        self.ledger = ledger
        self.soft = Soft()
        self.view: MasterState = ledger.state
        """The state after the batch so far."""
        self.wake: int | None = None
        """Run time (ns) at which `Ticked` is wanted."""
        self.notes: list[str] = []
        """Lines for the central log."""
        self._rules = rules
        self._now = ledger.state.time
        self._entries: list[Entry] = []
        self._held: dict[str, Consumed] = {}
        self._actions: list[Action] = []

    def handle(self, now: int, event: Event) -> None:
        """Decide on one event at run time `now`; `commit` makes it so."""
        self._now = max(now, self._now)
        decision = decide(self.view, self.soft, self._now, event, self._rules)
        self.soft, self.wake = decision.soft, decision.wake
        self.view = decision.state
        self._entries += decision.entries
        for consumed in decision.consumed:
            self._held[consumed.position.topic] = _later(
                self._held.get(consumed.position.topic), consumed
            )
        self._actions += decision.actions
        if decision.note:
            self.notes.append(decision.note)

    def commit(self) -> tuple[LedgerRecord | None, tuple[Action, ...]]:
        """Append and apply what was decided; only now may the actions be performed."""
        record = None
        if self._entries:
            consumed = tuple(self._held[topic] for topic in sorted(self._held))
            record = self.ledger.commit(tuple(self._entries), consumed, self._now)
            self._entries, self._held = [], {}
            self.view = self.ledger.state
        actions, self._actions = tuple(self._actions), []
        return record, actions


def _later(held: Consumed | None, new: Consumed) -> Consumed:
    """Both positions in one: the later place, and the last number taken."""
    if held is None or new.number:
        return new
    return Consumed(new.position, held.incarnation, held.number)
