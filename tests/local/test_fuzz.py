"""Twenty thousand damaged records crash nobody (a million: `./scripts/benchmark fuzz`)."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest

from benchmarks import fuzz
from hermes import messages

SLICES = range(0, 20_000, fuzz.SLICE)


def names(union: object) -> set[str]:
    return {kind.__name__ for kind in get_args(union)}


def test_the_sound_records_are_of_every_type() -> None:
    kinds = set(fuzz.by_kind())
    assert {kind for where, kind in kinds if where == "ledger"} == names(messages.Entry)
    assert {kind for where, kind in kinds if where == "from"} == names(messages.WorkerBody)
    others = names(messages.AnyMessage) - {"Envelope", "LedgerRecord"}
    assert {k for where, k in kinds if where in ("lobby", "logs", "data")} == others


@pytest.mark.parametrize("first", SLICES)
def test_damaged_records_crash_nobody(first: int) -> None:
    verdicts, crashes = fuzz.one_slice(first)
    assert not crashes, crashes[0]
    assert verdicts.total() == fuzz.SLICE
    said: Counter[str] = Counter()
    for (_, _, verdict), count in verdicts.items():
        said[verdict.partition(":")[0]] += count
    # Most are refused; a few pass for sound, which shows that the damage is not crude.
    assert said["quarantined"] + said["void"] > 0.6 * fuzz.SLICE
    assert all(said[kind] for kind in ("quarantined", "void", "taken"))
