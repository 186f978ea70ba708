"""Are duties that are not asked again those that would have said the same?"""

from __future__ import annotations

import pytest

from hermes.machine import settled
from hermes.simulate.schedules import STRATEGIES, draw, run


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_master_that_always_looks_decides_the_same(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills, restarts, lost records, bad updates: each record of the ledger is the same."""
    seeds = range(6)
    quick = [run(draw(seed, strategy)).valid_records() for seed in seeds]
    held: list[bool] = []
    holds = settled.holds
    monkeypatch.setattr(settled, "holds", lambda draft: held.append(holds(draft)))
    assert [run(draw(seed, strategy)).valid_records() for seed in seeds] == quick
    assert sum(held) > len(held) / 4, "it is hardly ever settled"
