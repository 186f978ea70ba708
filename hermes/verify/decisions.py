"""Does each decision follow from the numbers that were recorded with it? One by one. Pure.

`hermes why` tells them; this counts them, and keeps nothing of those that agree.
"""

from __future__ import annotations

from collections import Counter

from hermes.messages import LedgerRecord
from hermes.report.why.decided import Decision
from hermes.report.why.decisions import Retelling
from hermes.report.why.phrases import fact
from hermes.report.why.recompute import AGREES, DIFFERS, OPEN
from hermes.verify.findings import Finding

OUTCOMES = (AGREES, OPEN, DIFFERS)

BROKEN = (LookupError, TypeError, ValueError, AssertionError, AttributeError, ArithmeticError)
"""What asking the rules again raises where the records make no sense."""


class Decisions:
    """Reads valid records in order."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        """By kind and outcome."""
        self.found: list[Finding] = []
        self._retelling = Retelling()
        self._sane = True

    @property
    def total(self) -> int:
        """Decisions that were looked at."""
        return sum(found.total() for found in self.counts.values())

    def outcomes(self) -> dict[str, int]:
        """All kinds together."""
        return {name: sum(found[name] for found in self.counts.values()) for name in OUTCOMES}

    def take(self, record: LedgerRecord, offset: int) -> None:
        """One record more; after one that makes no sense nothing is asked any more."""
        if not self._sane:
            return
        try:
            self._retelling.read(record)
        except BROKEN as error:
            self._sane = False
            what = f"record {record.n} of term {record.term}"
            why = f"its decisions cannot be asked again ({type(error).__name__}: {error})"
            self.found.append(Finding("decision", offset, what, "it counts", why))
        decided = self._retelling.decisions
        for decision in decided:
            self._count(decision, offset)
        decided.clear()

    def _count(self, decision: Decision, offset: int) -> None:
        outcome = decision.check.outcome
        self.counts.setdefault(decision.kind, Counter())[outcome] += 1
        if outcome == DIFFERS:
            check, names = decision.check, decision.check.differing
            says = ", ".join(f"{n} {fact(check.recorded.get(n))}" for n in names)
            again = ", ".join(f"{n} {fact(check.recomputed.get(n))}" for n in names)
            entry = f"{decision.worker}, {decision.kind}"
            self.found.append(
                Finding("decision", offset, entry, f"recorded: {says}", f"recomputed: {again}")
            )
