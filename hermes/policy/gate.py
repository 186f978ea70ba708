"""After a round: is what this worker learned worth sending? Push, stay quiet, or veto. Pure.

`zscore` is the gate of arXiv 2410.20495, as read off its published code; `open` always pushes;
`innovation` is in `policy/innovation.py`, `gradient` in `policy/gradient.py`.

The z-score rule, on one probe loss a round:

1. Append the loss to the window; drop the oldest beyond `window` entries.
2. One entry: quiet. All entries alike: quiet ("no-spread"), since z is 0/0 there.
3. z = (loss - mean) / std, population deviation, the loss itself included in both.
4. z <= threshold: push. The window is emptied, the quiet count is 0, and the threshold is `alpha`
   again (unless `reset_on_push` is off, as in the published code).
5. Else quiet: count it; from the `lambda`-th quiet round on, threshold := min(0, threshold * (1 -
   beta)).

A loss that is not finite is a veto, and the state stays as it was: the round counts for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from hermes.errors import SettingError
from hermes.policy import gradient, innovation
from hermes.policy.ranges import SWITCH, Allowed, check_section, number, one_of, whole
from hermes.policy.verdict import NOTHING, GateSettings, GateState, Learned, Push, Verdict
from hermes.values import Facts, Reason

__all__ = ["GateSettings", "GateState", "Learned", "Push", "Verdict"]

FARTHEST = 100_000
"""Rounds that `first_possible_push` looks ahead; no worker stays quiet for longer and is alive."""


class Spread(NamedTuple):
    """Where the last of some losses lies among all of them."""

    mean: float
    std: float
    z: float | None
    """None where all losses are alike."""


def start(settings: GateSettings) -> GateState:
    """The state before the first round."""
    return GateState((), 0, settings.alpha if settings.rule == "zscore" else 0.0)


def looks_at_loss(settings: GateSettings) -> bool:
    """Whether a round ends with a loss on the probe."""
    return settings.rule == "zscore"


def looks_at_drift(settings: GateSettings) -> bool:
    """Whether a round ends with the norm of what was learned."""
    return settings.rule == "innovation"


def looks_at_gradient(settings: GateSettings) -> bool:
    """Whether a round ends with the norm of its last step's gradient."""
    return settings.rule == "gradient"


def looks_back(settings: GateSettings) -> bool:
    """Whether a push may wait for a test beside the version that it goes out from."""
    return settings.rule == "innovation" and settings.veto is not None


def wants_test(settings: GateSettings, state: GateState, loss: float, learned: Learned) -> bool:
    """Whether what would be said to this round is to be put to that test first."""
    if not looks_back(settings):
        return False
    return innovation.wants_test(settings, decide(settings, state, loss, learned))


def decide(
    settings: GateSettings, state: GateState, loss: float, learned: Learned = NOTHING
) -> Verdict:
    """The verdict on a round that ended with this probe loss, having learned this."""
    return GATES[settings.rule](settings, state, loss, learned)


def open_gate(
    _settings: GateSettings, state: GateState, loss: float, _learned: Learned = NOTHING
) -> Verdict:
    """Push. The loss is not looked at (bsp and fedavg have none); the master's checks remain."""
    facts: Facts = {"loss": loss} if math.isfinite(loss) else {}
    return Verdict("push", Reason("open", facts), state)


def zscore_gate(
    settings: GateSettings, state: GateState, loss: float, _learned: Learned = NOTHING
) -> Verdict:
    """Push iff the loss lies far enough below the last few, itself included."""
    if not math.isfinite(loss):
        # As text: JSON has no word for it.
        return Verdict("veto", Reason("loss-not-finite", {"loss": str(loss)}), state)
    window = (*state.window, loss)[-settings.window :]
    facts: Facts = {"n": len(window), "threshold": state.threshold, "loss": loss}
    if len(window) == 1:
        return _quiet(settings, state, window, Reason("first-loss", facts))
    mean, std, z = spread(window)
    facts |= {"mean": mean, "std": std}
    if z is None:
        return _quiet(settings, state, window, Reason("no-spread", facts))
    facts["z"] = z
    if z <= state.threshold:
        threshold = settings.alpha if settings.reset_on_push else state.threshold
        return Verdict("push", Reason("below-threshold", facts), GateState((), 0, threshold))
    return _quiet(settings, state, window, Reason("above-threshold", facts))


Gate: TypeAlias = Callable[[GateSettings, GateState, float, Learned], Verdict]

GATES: dict[str, Gate] = {
    "zscore": zscore_gate,
    "open": open_gate,
    "innovation": innovation.gate,
    "gradient": gradient.gate,
}

RANGES: dict[str, Allowed] = {
    "rule": one_of(*GATES),
    "alpha": number(below=0),
    "beta": number(least=0, below=1),
    "lambda": whole(1),
    "window": whole(2),
    "reset_on_push": SWITCH,
    "probe": one_of("fixed", "fresh15"),
    "rate": number(above=0, most=1),
    "gain": number(above=0, below=1),
    "warm": whole(0),
    "shortest": whole(1),
    "longest": whole(1),
    "veto": number(above=0, off=True),
    "delta": number(least=0),
    "smoothing": number(above=0, most=1),
}
"""What each of `GateSettings` may be."""


def spread(losses: tuple[float, ...]) -> Spread:
    """Mean, population deviation and z of the last of two or more finite losses.

    Exact sums and a correctly rounded root: the same answer on every platform. |z| is at most
    sqrt(n - 1) (Samuelson), and rounding is not let past that bound. With two losses z is 1 or -1.
    """
    n = len(losses)
    if min(losses) == max(losses):
        return Spread(losses[0], 0.0, None)
    # Scaled by a power of two and counted from the first loss: nothing overflows, no square
    # underflows, and losses that differ in the last digits only keep their difference.
    exponent = math.frexp(max(abs(loss) for loss in losses))[1]
    scaled = [math.ldexp(loss, -exponent) for loss in losses]
    largest = max(abs(value) for value in scaled)
    shifted = [value - scaled[0] for value in scaled]
    middle = math.fsum(shifted) / n
    apart = [value - middle for value in shifted]
    std = math.sqrt(math.fsum(value * value for value in apart) / n)
    bound = math.sqrt(n - 1)
    return Spread(
        mean=math.ldexp(max(min(scaled), min(max(scaled), scaled[0] + middle)), exponent),
        std=math.ldexp(min(largest, std), exponent),
        z=max(-bound, min(bound, apart[-1] / std)),
    )


def first_possible_push(settings: GateSettings) -> int | None:
    """The first round after a start (or a reset) that can push, counted from 1; None for never.

    Plays the threshold's decay against the bound |z| <= sqrt(n - 1). At equality a push needs all
    other losses exactly alike (for n = 2: any drop). With `reset_on_push` off later pushes can
    come sooner than this, never later. "Never" means not within FARTHEST rounds.
    """
    if settings.rule == "gradient":
        return 2 if settings.delta else 1
    if settings.rule != "zscore":
        return settings.shortest if settings.rule == "innovation" else 1
    threshold = settings.alpha
    for at in range(1, FARTHEST + 1):
        n = min(at, settings.window)
        if n > 1 and math.sqrt(n - 1) >= -threshold:
            return at
        threshold = _decayed(settings, at, threshold)
    return None


def check_gate(settings: GateSettings) -> list[str]:
    """Warnings; raises `SettingError` for a value that is out of range or a gate that is shut."""
    check_section("gate", settings, RANGES)
    if settings.rule == "innovation":
        return innovation.check(settings)
    alpha = settings.alpha
    bound = math.sqrt(settings.window - 1)
    if settings.rule != "zscore" or -alpha <= bound:
        return []
    first = first_possible_push(settings)
    if first is None:
        raise SettingError(
            f"gate.alpha is {alpha:g}, and no worker would ever push: z never lies beyond "
            f"-sqrt(gate.window - 1) = {-bound:.4g}, and with gate.beta={settings.beta:g} the "
            "threshold does not come within reach",
            remedy=f"Take gate.alpha of at least {-bound:.4g}, a larger gate.window, or a larger "
            "gate.beta.",
        )
    return [
        f"gate.alpha={alpha:g} lies beyond -sqrt(gate.window - 1) = {-bound:.4g}, which z never"
        f" does: no worker can push before its round {first}, when the threshold has decayed"
    ]


def _quiet(
    settings: GateSettings, state: GateState, window: tuple[float, ...], reason: Reason
) -> Verdict:
    quiet = state.quiet + 1
    after = GateState(window, quiet, _decayed(settings, quiet, state.threshold))
    return Verdict("quiet", reason, after)


def _decayed(settings: GateSettings, quiet: int, threshold: float) -> float:
    """The threshold after the `quiet`-th quiet round in a row."""
    if quiet < settings.lambda_:
        return threshold
    return min(0.0, threshold * (1 - settings.beta))
