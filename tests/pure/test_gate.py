"""The gate of the paper: what its arithmetic can and cannot do, and the answers to odd losses."""

from __future__ import annotations

import math
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from hermes.errors import SettingError
from hermes.policy.gate import (
    GateSettings,
    GateState,
    Verdict,
    check_gate,
    decide,
    first_possible_push,
    spread,
    start,
)
from hermes.policy.ranges import shown

PAPER = GateSettings()
FIXED = GateSettings(beta=0.0)
"""The published gate with a threshold that never gives way."""

few = settings(max_examples=20, deadline=None)
losses = st.floats(allow_nan=False, allow_infinity=False)
sane = st.floats(0.001, 100)


def play(gate: GateSettings, rounds: list[float]) -> list[Verdict]:
    """The verdicts on a worker's rounds, from the start."""
    verdicts, state = [], start(gate)
    for loss in rounds:
        verdicts.append(decide(gate, state, loss))
        state = verdicts[-1].state
    return verdicts


def first_push(gate: GateSettings, rounds: list[float]) -> int | None:
    """The round, counted from 1, of the first push."""
    pushes = [v.push for v in play(gate, rounds)]
    return pushes.index("push") + 1 if "push" in pushes else None


# --- the bound |z| <= sqrt(n - 1) ---------------------------------------------------------------


@few
@given(st.lists(losses, min_size=2, max_size=12))
@example([1.7976931348623157e308, -1.7976931348623157e308])
@example([5e-324, 0.0, 0.0])
@example([1.0, 1.0, 1.0, 1.0, 0.0])
def test_z_never_exceeds_the_root_of_n_minus_one(window: list[float]) -> None:
    mean, std, z = spread(tuple(window))
    assert min(window) <= mean <= max(window)
    assert (z is None) == (min(window) == max(window))
    if z is not None:
        assert abs(z) <= math.sqrt(len(window) - 1)
        assert math.isfinite(std)


@few
@given(st.lists(sane, min_size=2, max_size=10), st.floats(0, 1e9))
def test_z_is_the_exact_z_to_twelve_digits(window: list[float], shift: float) -> None:
    window = [value + shift for value in window]
    exact = [Fraction(value) for value in window]
    mean = sum(exact) / len(exact)
    variance = sum((value - mean) ** 2 for value in exact) / len(exact)
    assume(variance > 0)
    wanted = float((exact[-1] - mean) / Fraction(math.sqrt(variance)))
    assert spread(tuple(window)).z == pytest.approx(wanted, rel=1e-12, abs=1e-9)


@few
@given(losses, losses)
def test_two_losses_give_one_or_minus_one(a: float, b: float) -> None:
    assume(a != b)
    assert spread((a, b)).z == (1.0 if b > a else -1.0)


@pytest.mark.parametrize(("alpha", "earliest"), [(-1.3, 3), (-1.6, 4)])
@few
@given(st.lists(sane, min_size=6, max_size=6))
def test_nothing_fires_before_its_entry(alpha: float, earliest: int, rounds: list[float]) -> None:
    gate = GateSettings(alpha=alpha, beta=0.0)
    assert (first_push(gate, rounds) or 99) >= earliest


@pytest.mark.parametrize(("alpha", "earliest"), [(-1.3, 3), (-1.6, 4), (-2.0, 6)])
def test_the_earliest_entry_does_fire(alpha: float, earliest: int) -> None:
    gate = GateSettings(alpha=alpha, beta=0.0)
    rounds = [1.0 + 0.01 * (i % 2) for i in range(earliest - 1)] + [0.0]
    assert first_push(gate, rounds) == earliest


@few
@given(st.lists(st.integers(1, 1000), min_size=5, max_size=5, unique=True))
def test_five_entries_only_touch_two(rounds: list[int]) -> None:
    assert first_push(GateSettings(alpha=-2.0, beta=0.0), [float(x) for x in rounds]) is None


def test_a_touch_is_a_push() -> None:
    """z = -sqrt(n - 1) needs all other losses exactly alike."""
    gate = GateSettings(alpha=-math.sqrt(3), beta=0.0)
    assert first_push(gate, [3.0, 3.0, 3.0, 1.0]) == 4


# --- progress ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "z"), [(3, -1.225), (4, -1.342), (5, -1.414), (8, -1.528), (10, -1.567)]
)
def test_a_linear_decrease_has_a_closed_form(n: int, z: float) -> None:
    line = tuple(10 - 0.7 * i for i in range(n))
    closed = -math.sqrt(3) * math.sqrt((n - 1) / (n + 1))
    assert spread(line).z == pytest.approx(closed, rel=1e-12)
    assert closed == pytest.approx(z, abs=5e-4)


def test_a_linear_decrease_fires_at_the_fourth_entry_or_never() -> None:
    line = [100 - 0.1 * i for i in range(200)]
    assert first_push(FIXED, line) == 4
    assert first_push(GateSettings(alpha=-1.6, beta=0.0), line) is None


@pytest.mark.parametrize(
    ("ratio", "best"), [(0.5, -1.07), (0.7, -1.18), (0.8, -1.25), (0.9, -1.37), (0.95, -1.46)]
)
def test_a_geometric_decrease_has_a_closed_form(ratio: float, best: float) -> None:
    def closed(n: int) -> float:
        mean = (1 - ratio**n) / (1 - ratio) / n
        square = (1 - ratio ** (2 * n)) / (1 - ratio**2) / n
        return (ratio ** (n - 1) - mean) / math.sqrt(square - mean * mean)

    found = [spread(tuple(ratio**i for i in range(n))).z for n in range(2, 11)]
    assert found == pytest.approx([closed(n) for n in range(2, 11)], rel=1e-9)
    assert min(z for z in found if z is not None) == pytest.approx(best, abs=6e-3)


@pytest.mark.parametrize("ratio", [0.5, 0.7, 0.8])
def test_fast_exponential_progress_does_not_pass(ratio: float) -> None:
    assert first_push(FIXED, [ratio**i for i in range(10)]) is None


# --- noise ---------------------------------------------------------------------------------------


def test_noise_fires_at_no_stated_level() -> None:
    """The share of pure-noise rounds at n = 10 that pass a fixed threshold."""
    windows = np.random.default_rng(1).normal(size=(100_000, 10))
    z = (windows[:, -1] - windows.mean(axis=1)) / windows.std(axis=1)
    for alpha, share in [(-0.9, 0.200), (-1.3, 0.105), (-1.6, 0.056), (-2.0, 0.017)]:
        assert np.mean(z <= alpha) == pytest.approx(share, abs=0.004)
    for row, wanted in zip(windows[:1000].tolist(), z, strict=False):
        verdict = decide(FIXED, GateState(tuple(row[:-1]), 9, -1.3), row[-1])
        assert verdict.reason.facts["z"] == pytest.approx(wanted, rel=1e-9, abs=1e-12)
        assert (verdict.push == "push") == (wanted <= -1.3)


def rounds_per_push(gate: GateSettings, rounds: int, skip: int = 0) -> float:
    """On pure noise; the first `skip` rounds are left out."""
    noise = np.random.default_rng(7).normal(size=rounds).tolist()
    pushes = sum(verdict.push == "push" for verdict in play(gate, noise)[skip:])
    return (rounds - skip) / pushes


@pytest.mark.parametrize(
    ("alpha", "rounds"), [(-0.9, 3.8), (-1.3, 7.6), (-1.6, 10.1), (-2.0, 12.2)]
)
def test_with_reset_noise_pushes_at_a_rate_set_by_alpha(alpha: float, rounds: float) -> None:
    assert rounds_per_push(GateSettings(alpha=alpha), 6000) == pytest.approx(rounds, rel=0.06)


@pytest.mark.parametrize("alpha", [-0.9, -2.0])
def test_without_reset_noise_settles_at_every_third_round_whatever_alpha(alpha: float) -> None:
    gate = GateSettings(alpha=alpha, reset_on_push=False)
    assert rounds_per_push(gate, 6000, skip=1000) == pytest.approx(3.0, rel=0.06)


# --- the threshold -------------------------------------------------------------------------------


def test_the_threshold_gives_way_from_the_fifth_quiet_round_on() -> None:
    after = [v.state.threshold for v in play(PAPER, [float(i) for i in range(30)])]
    assert after[:4] == [-1.3] * 4
    decays = dict(enumerate(after[4:], start=1))
    assert decays == {k: pytest.approx(-1.3 * 0.9**k) for k in decays}
    for k, wanted in [(3, -0.948), (10, -0.453), (20, -0.158)]:
        assert decays[k] == pytest.approx(wanted, abs=5e-4)


def test_the_fact_is_the_threshold_that_was_compared() -> None:
    verdicts = play(PAPER, [float(i) for i in range(7)])
    assert [v.reason.facts["threshold"] for v in verdicts][3:6] == [-1.3, -1.3, -1.3 * 0.9]


def test_once_above_minus_one_any_drop_at_two_entries_is_a_push() -> None:
    state = GateState((1.0,), 1, -0.999)
    assert decide(PAPER, state, math.nextafter(1.0, 0)).push == "push"
    assert decide(PAPER, state, math.nextafter(1.0, 2)).push == "quiet"


@pytest.mark.parametrize(("reset", "threshold"), [(True, -1.3), (False, -0.5)])
def test_a_push_clears_the_window_and_may_restore_the_threshold(
    reset: bool, threshold: float
) -> None:
    gate = GateSettings(reset_on_push=reset)
    verdict = decide(gate, GateState((3.0, 3.1, 2.9), 8, -0.5), 1.0)
    assert verdict.push == "push"
    assert verdict.reason.code == "below-threshold"
    assert verdict.state == GateState((), 0, threshold)


def test_the_window_keeps_the_last_ten() -> None:
    last = play(PAPER, [float(i) for i in range(25)])[-1]
    assert last.state.window == tuple(float(i) for i in range(15, 25))
    assert last.state.quiet == 25
    assert last.reason.facts["n"] == 10


# --- the defined answers --------------------------------------------------------------------------


def test_the_first_loss_is_quiet() -> None:
    verdict = decide(PAPER, start(PAPER), 0.5)
    assert (verdict.push, verdict.reason.code) == ("quiet", "first-loss")
    assert verdict.state == GateState((0.5,), 1, -1.3)


@few
@given(losses, st.integers(2, 12))
def test_losses_all_alike_have_no_spread(loss: float, rounds: int) -> None:
    verdict = play(PAPER, [loss] * rounds)[-1]
    assert (verdict.push, verdict.reason.code) == ("quiet", "no-spread")
    assert verdict.reason.facts["std"] == 0
    assert verdict.state.quiet == rounds


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("window", [(), (1.0,), (1.0, 2.0, 0.5)])
def test_a_loss_that_is_not_finite_is_a_veto_and_leaves_the_state(
    loss: float, window: tuple[float, ...]
) -> None:
    state = GateState(window, 4, -1.1)
    verdict = decide(PAPER, state, loss)
    assert (verdict.push, verdict.reason.code) == ("veto", "loss-not-finite")
    assert verdict.state is state
    assert verdict.reason.facts == {"loss": str(loss)}


@pytest.mark.parametrize("loss", [0.5, math.nan])
def test_open_always_pushes(loss: float) -> None:
    gate = GateSettings(rule="open")
    verdict = decide(gate, start(gate), loss)
    assert (verdict.push, verdict.reason.code) == ("push", "open")
    assert verdict.state == start(gate)


@few
@given(st.lists(losses, min_size=1, max_size=12))
def test_a_reason_is_small(rounds: list[float]) -> None:
    """It travels in a report of at most 256 bytes."""
    assert all(len(msgspec.msgpack.encode(v.reason)) <= 128 for v in play(PAPER, rounds))


def test_state_survives_the_wire() -> None:
    state = play(PAPER, [1.0, 2.0, 3.0])[-1].state
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=GateState) == state


# --- settings -------------------------------------------------------------------------------------


def test_the_published_settings_are_the_defaults_and_raise_no_warning() -> None:
    assert (PAPER.alpha, PAPER.beta, PAPER.lambda_, PAPER.window) == (-1.3, 0.1, 5, 10)
    assert check_gate(PAPER) == []
    assert msgspec.to_builtins(PAPER)["lambda"] == 5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rule", "sometimes"),
        ("alpha", 0.0),
        ("alpha", math.nan),
        ("alpha", -math.inf),
        ("beta", 1.0),
        ("beta", -0.1),
        ("beta", math.nan),
        ("lambda", 0),
        ("window", 1),
        ("probe", "stale"),
    ],
)
def test_a_value_out_of_range_is_named(key: str, value: object) -> None:
    gate = msgspec.convert({key: value}, GateSettings)
    with pytest.raises(SettingError) as caught:
        check_gate(gate)
    assert caught.value.what == f"gate.{key} is {shown(value)}"
    assert caught.value.remedy.startswith("It is ")


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"alhpa": -1.3}, GateSettings)


@pytest.mark.parametrize("beta", [0.0, 1e-12])
def test_a_threshold_out_of_reach_for_good_is_an_error(beta: float) -> None:
    with pytest.raises(SettingError, match=r"gate\.alpha"):
        check_gate(GateSettings(alpha=-2.1, window=5, beta=beta))


def test_a_threshold_out_of_reach_at_first_is_a_warning_that_names_the_round() -> None:
    # Round 7: 3.1 * 0.9**2 = 2.511 > sqrt(6) = 2.449. Round 8: 3.1 * 0.9**3 = 2.260 < sqrt(7).
    gate = GateSettings(alpha=-3.1)
    assert first_possible_push(gate) == 8
    (warning,) = check_gate(gate)
    assert "round 8" in warning


@pytest.mark.parametrize(
    ("alpha", "window", "first"),
    [(-1.0, 2, 2), (-1.3, 10, 3), (-1.6, 10, 4), (-2.1, 10, 6), (-3.0, 10, 7), (-2.1, 2, 13)],
)
def test_the_first_possible_push(alpha: float, window: int, first: int) -> None:
    """(-2.1, 2): |z| is 1, and 2.1 * 0.9**k <= 1 from k = 8 on, which applies in round 13."""
    assert first_possible_push(GateSettings(alpha=alpha, window=window)) == first


def test_an_open_gate_can_push_at_once() -> None:
    assert first_possible_push(GateSettings(rule="open", alpha=-50.0, beta=0.0)) == 1
    assert check_gate(GateSettings(rule="open", alpha=-50.0, beta=0.0)) == []


@few
@given(
    st.floats(-4, -0.5),
    st.floats(0.01, 0.5),
    st.integers(1, 8),
    st.integers(2, 12),
)
def test_no_push_comes_before_the_first_possible_and_a_plunge_pushes_there(
    alpha: float, beta: float, lambda_: int, window: int
) -> None:
    gate = GateSettings(alpha=alpha, beta=beta, lambda_=lambda_, window=window)
    first = first_possible_push(gate)
    assert first is not None
    assume(first < 300)
    alike = [1.0] * (first - 1)
    assert first_push(gate, [*alike, 0.0]) == first
    assert all(first_push(gate, [*[1.0] * (n - 1), 0.0]) is None for n in range(1, first))
