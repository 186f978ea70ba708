"""Does a fit find the device that a run's spans are of?"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.chance import generator
from hermes.errors import RunError
from hermes.replay.fit import FEWEST, fit
from hermes.replay.spans import Made, RoundSpan, Spans, Wait

NOTHING = Spans(0.0, 1.0, (), (), (), (), {}, (), 0, 0)


def spans(*devices: tuple[str, float, float, float], rounds: int = 60) -> Spans:
    """Rounds of 4 .. 40 steps: (name, seconds of a round, of a step, jitter)."""
    found: list[RoundSpan] = []
    for name, constant, step, jitter in devices:
        chance = generator(1, "spans", name)
        for number in range(rounds):
            steps = 4 + number * 7 % 37
            factor = math.exp(jitter * chance.standard_normal() - jitter**2 / 2)
            found.append(RoundSpan(name, steps, (constant + step * steps) * factor))
    first = {name: 0.2 for name, *_ in devices}
    return NOTHING._replace(rounds=tuple(found), first=first)


@given(
    st.floats(0.0, 0.5),
    st.floats(1e-4, 0.5),
    st.floats(0.1, 10.0),
)
def test_without_jitter_it_is_exact(constant: float, step: float, slower: float) -> None:
    found = fit(spans(("a", constant, step, 0.0), ("b", 0.0, step * slower, 0.0)), 1000.0, "here")
    a, b = found.devices
    assert a.step == pytest.approx(step, rel=1e-6)
    assert a.round == pytest.approx(constant, abs=1e-6)
    assert b.step / a.step == pytest.approx(slower, rel=1e-6)
    assert max(device.speed for device in found.world.devices) == pytest.approx(1.0)
    assert a.residual < 1e-6


def test_with_jitter_it_is_near_and_says_how_far_rounds_lie_off() -> None:
    found = fit(spans(("a", 0.1, 0.02, 0.05), rounds=400), 1000.0, "here")
    (a,) = found.devices
    assert a.step == pytest.approx(0.02, rel=0.02)
    assert a.round == pytest.approx(0.1, rel=0.1)
    assert a.jitter == pytest.approx(0.05, rel=0.1)
    assert a.residual == pytest.approx(0.05, rel=0.1)


def test_rounds_of_one_length_tell_of_steps_alone() -> None:
    found = fit(NOTHING._replace(rounds=(RoundSpan("a", 10, 1.0),) * 9, first={"a": 0.0}), 1e3, "")
    assert found.devices[0][2:4] == (pytest.approx(0.1), 0.0)


def test_links_and_master() -> None:
    """What tensors took beyond their rate is latency, four times; of messages the rest is the
    broker's; a version with losses tells how fast they are measured."""
    waits = (Wait("a", 0.1 + 0.08, 0.07),) * 3
    of = spans(("a", 0.0, 0.1, 0.0))._replace(
        waits=waits, payload=10**6, versions=(Made(0.012, False), Made(0.112, True)), validation=500
    )
    world = fit(of, 100.0, "here").world  # 80 ms at 100 Mbit/s
    assert world.links["fitted"].latency_ms == pytest.approx(25.0)
    assert world.master.commit_ms == pytest.approx(20.0)
    assert world.master.merge_ms == pytest.approx(12.0)
    assert world.master.samples_per_second == pytest.approx(10_000)


def test_too_few_rounds_are_refused() -> None:
    few = spans(("b", 0.0, 0.1, 0.0), rounds=FEWEST - 1).rounds
    both = NOTHING._replace(rounds=spans(("a", 0.0, 0.1, 0.0)).rounds + few)
    with pytest.raises(RunError, match="b has 7 rounds, and 8 of each worker are needed"):
        fit(both, 1000.0, "here")
    with pytest.raises(RunError, match="there are no rounds"):
        fit(NOTHING, 1000.0, "here")
