"""What is a decision while it is being made? Pure."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from hermes.machine.apply import apply_entries
from hermes.machine.events import Action
from hermes.machine.rules import Rules
from hermes.machine.settled import Looked
from hermes.machine.soft import Soft
from hermes.machine.state import MasterState
from hermes.messages import Consumed, Entry
from hermes.values import Position


class Draft:
    """A decision in the making: the entries so far, and the state as it will be."""

    def __init__(self, rules: Rules, state: MasterState, soft: Soft, now: int) -> None:
        self.rules, self.state, self.soft, self.now = rules, state, soft, now
        self.entries: list[Entry] = []
        self.consumed: list[Consumed] = []
        self.actions: list[Action] = []
        self.note = ""
        self.looked: Looked | None = None
        """What `settled` saw last."""

    def add(self, *entries: Entry) -> None:
        """Decide these entries; what follows sees the state after them."""
        self.entries += entries
        self.state = apply_entries(self.state, entries)

    def take(self, position: Position, incarnation: str = "", number: int = 0) -> None:
        """The input at this place is consumed."""
        consumed = Consumed(position, incarnation, number)
        self.consumed.append(consumed)
        self.state = apply_entries(self.state, (), [consumed])

    def remember(self, **changes: Any) -> None:
        """Change the soft state."""
        self.soft = replace(self.soft, **changes)
