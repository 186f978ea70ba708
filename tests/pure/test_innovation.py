"""The gate of what was learned: its rate, its silence, and what it never does."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.errors import SettingError
from hermes.policy.gate import GateState, Learned, check_gate, decide, start
from hermes.policy.verdict import GateSettings, Verdict


def settings(**changes: object) -> GateSettings:
    return GateSettings(rule="innovation", **changes)  # type: ignore[arg-type]


def play(gate: GateSettings, scores: list[float]) -> list[Verdict]:
    """Rounds of 100 samples whose scores are these, whatever was pushed before."""
    state, verdicts = start(gate), []
    for score in scores:
        verdict = decide(gate, state, 0.5, Learned(math.sqrt(100 * score), 100))
        state = verdict.state
        verdicts.append(verdict)
    return verdicts


def share(verdicts: list[Verdict]) -> float:
    return sum(verdict.push == "push" for verdict in verdicts) / len(verdicts)


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_on_noise_it_pushes_at_the_rate_that_was_chosen(rate: float, scale: float) -> None:
    """10,000 rounds of scores that mean nothing, at any scale."""
    chance = random.Random(7)
    scores = [scale * chance.gammavariate(50, 0.02) for _ in range(10_000)]
    verdicts = play(settings(rate=rate, longest=10_000), scores)
    assert share(verdicts) == pytest.approx(rate, rel=0.01)


def test_the_rate_is_kept_while_scores_shrink_a_thousandfold() -> None:
    """As they do while a model converges: no starvation, no flood."""
    scores = [math.exp(-7 * number / 2000) for number in range(2000)]
    verdicts = play(settings(longest=2000), scores)
    assert share(verdicts) == pytest.approx(0.25, rel=0.1)
    assert share(verdicts[-200:]) == pytest.approx(0.25, rel=0.2)


def test_steps_with_a_direction_are_pushed_and_noise_waits() -> None:
    """Scores that grow while a worker is quiet fire; those that stay where they are do not."""
    gate = settings(rate=0.05)

    def after(rounds: int, drift: float) -> str:
        state = GateState((), rounds - 1, 1.0)
        return decide(gate, state, 0.5, Learned(drift, 100 * rounds)).push

    # Half a unit by the root of a sample: always the same way, or each round another.
    straight = [after(rounds, 5.0 * rounds) for rounds in range(1, 6)]
    wandering = [after(rounds, 5.0 * math.sqrt(rounds)) for rounds in range(1, 6)]
    assert straight == ["quiet"] * 3 + ["push"] * 2
    assert set(wandering) == {"quiet"}


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.integers(1, 9))
def test_nobody_is_silent_for_longer_than_allowed(scores: list[float], longest: int) -> None:
    """Unless it has learned nothing at all."""
    quiet = 0
    for score, verdict in zip(scores, play(settings(longest=longest), scores), strict=True):
        quiet = 0 if verdict.push == "push" else quiet + 1
        assert quiet < longest or not math.sqrt(100 * score)


def test_nothing_learned_is_never_sent() -> None:
    """However long it has been."""
    state = GateState((), 99, 1.0)
    verdict = decide(settings(), state, 0.5, Learned(0.0, 100))
    assert (verdict.push, verdict.reason.code) == ("quiet", "no-drift")


def test_the_first_score_is_its_own_threshold() -> None:
    first = play(settings(), [7.0])[0]
    assert (first.push, first.reason.code) == ("push", "drifted")
    assert first.state == GateState((), 0, pytest.approx(7 * 1.5**0.75))


def test_first_rounds_push_and_set_the_threshold() -> None:
    """Scores fall a hundredfold: the threshold is there at once, and not twenty rounds later."""
    falling = [1000.0, 100, 10, *[4.0] * 8]
    warm = play(settings(warm=3, rate=0.5), falling)
    assert [one.reason.code for one in warm[:4]] == ["warming"] * 3 + ["little-drift"]
    assert [one.state.threshold for one in warm[:3]] == pytest.approx(falling[:3])
    assert warm[2].state.window == pytest.approx(tuple(falling[:3])) == warm[-1].state.window
    assert "push" in [one.push for one in warm[3:]]
    cold = play(settings(rate=0.5), falling)
    assert [one.push for one in cold] == ["push"] + ["quiet"] * 10
    slow = play(settings(warm=2, shortest=2), [9.0, 8, 7, 6, 5])
    assert [one.reason.code for one in slow[:4]] == ["too-soon", "warming"] * 2
    assert slow[4].reason.code == "too-soon"


def test_a_rate_of_one_pushes_every_round_that_learned_something() -> None:
    falling = [1000.0, 1, 1e-3, 0, 1e-6]
    codes = [one.reason.code for one in play(settings(rate=1.0), falling)]
    assert codes == ["every-round"] * 3 + ["no-drift", "every-round"]


def test_two_pushes_are_so_many_rounds_apart() -> None:
    pushes = [
        one.push for one in play(settings(shortest=3, rate=0.3), [1.0, 5, 25, 125, 625, 3125])
    ]
    assert pushes == ["quiet", "quiet", "push"] * 2


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_what_is_not_finite_is_a_veto_and_leaves_the_state(loss: float) -> None:
    state = GateState((), 3, 2.0)
    for verdict in (
        decide(settings(), state, loss, Learned(1.0, 100)),
        decide(settings(), state, 0.5, Learned(loss, 100)),
    ):
        assert (verdict.push, verdict.state) == ("veto", state)


def test_rounds_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(SettingError, match=r"gate\.longest is 2, gate\.shortest 3"):
        check_gate(settings(shortest=3, longest=2))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"rate": 0.01}, "cannot be kept"), ({"shortest": 5, "rate": 0.5}, "cannot be reached")],
)
def test_a_rate_out_of_reach_is_told(changes: dict[str, object], said: str) -> None:
    (warning,) = check_gate(settings(**changes))
    assert said in warning


def test_defaults_raise_no_warning() -> None:
    assert check_gate(settings()) == []
