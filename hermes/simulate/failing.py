"""Does a schedule break, and how? Two failures are the same if they say the same but for names and
numbers."""

from __future__ import annotations

import re
from typing import NamedTuple

from hermes.errors import HermesError
from hermes.machine.rules import PROTOCOL_RULES, Rules
from hermes.simulate.driver import Driver
from hermes.simulate.schedules import Schedule, run

BREAKS = (HermesError, AssertionError, LookupError, TypeError, ValueError, RecursionError)
"""What a broken rule may come to: a broken invariant, or a machine that falls over."""


class Failure(NamedTuple):
    """How a schedule broke."""

    what: str
    """What was seen, in words."""
    driver: Driver | None
    """The run, as far as it went."""

    @property
    def kind(self) -> str:
        """What was seen, but for names and numbers."""
        return kind_of(self.what)


def kind_of(what: str) -> str:
    """What was seen, but for names and numbers."""
    return re.sub(
        r"worker-#", "#", re.sub(r"-?\d+(\.\d+)?", "#", re.sub(r"(\w)-\d+", r"\1-#", what))
    )


def failure_of(schedule: Schedule, rules: Rules = PROTOCOL_RULES) -> Failure | None:
    """How this schedule breaks under these rules; None if it does not."""
    seen: list[Driver] = []
    try:
        run(schedule, rules, seen.append)
    except BREAKS as error:
        name = "" if isinstance(error, HermesError) else f"{type(error).__name__}: "
        text = error.what if isinstance(error, HermesError) else str(error)
        place = f" ({error.where})" if isinstance(error, HermesError) and error.where else ""
        return Failure(f"{name}{text}{place}", seen[0] if seen else None)
    return None
