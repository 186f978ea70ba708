"""After a round: is what this worker learned worth sending? Push, stay quiet, or veto. Pure.

`zscore` is the gate of arXiv 2410.20495, as read off its published code; `open` always pushes.

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
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from hermes.errors import SettingError
from hermes.policy.ranges import SWITCH, Allowed, check_section, number, one_of, whole
from hermes.values import Facts, Reason, Value

Push: TypeAlias = Literal["push", "quiet", "veto"]

FARTHEST = 100_000
"""Rounds that `first_possible_push` looks ahead; no worker stays quiet for longer and is alive."""


class GateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--set gate.X` sets."""

    rule: str = "zscore"
    """`zscore` (arXiv 2410.20495) or `open` (push after every round)."""
    alpha: float = -1.3
    """Threshold that z must reach, in population deviations; finite, below 0. Source: the paper's
    published settings. Beyond -sqrt(window - 1) only a decayed threshold can be reached."""
    beta: float = 0.1
    """Share of the threshold given up after each quiet round from the `lambda`-th on; 0 <= beta < 1
    (0: never). Source: the paper's published settings."""
    lambda_: int = msgspec.field(default=5, name="lambda")
    """Quiet rounds in a row before the threshold begins to give way; at least 1. Source: the
    paper's published settings."""
    window: int = 10
    """Losses remembered since the last push; at least 2. Source: the paper's published settings."""
    reset_on_push: bool = True
    """Set the threshold back to `alpha` on a push. The published code never does (false): then
    alpha matters only until the threshold has decayed."""
    probe: str = "fixed"
    """What the loss is measured on: `fixed` (one probe set for the whole run) or `fresh15`
    (published: the last 15 % of each new shard)."""


class GateState(Value, frozen=True):
    """What a worker's gate remembers between two rounds."""

    window: tuple[float, ...]
    """Probe losses since the last push, oldest first."""
    quiet: int
    """Quiet rounds since the last push."""
    threshold: float
    """z must be at or below it for the next push."""


class Verdict(NamedTuple):
    """What to do with the round, why, and the gate's next state."""

    push: Push
    reason: Reason
    state: GateState


class Spread(NamedTuple):
    """Where the last of some losses lies among all of them."""

    mean: float
    std: float
    z: float | None
    """None where all losses are alike."""


def start(settings: GateSettings) -> GateState:
    """The state before the first round."""
    return GateState((), 0, settings.alpha)


def decide(settings: GateSettings, state: GateState, loss: float) -> Verdict:
    """The verdict on a round that ended with this probe loss."""
    return GATES[settings.rule](settings, state, loss)


def open_gate(_settings: GateSettings, state: GateState, loss: float) -> Verdict:
    """Push. The loss is not looked at (bsp and fedavg have none); the master's checks remain."""
    facts: Facts = {"loss": loss} if math.isfinite(loss) else {}
    return Verdict("push", Reason("open", facts), state)


def zscore_gate(settings: GateSettings, state: GateState, loss: float) -> Verdict:
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


GATES: dict[str, Callable[[GateSettings, GateState, float], Verdict]] = {
    "zscore": zscore_gate,
    "open": open_gate,
}

RANGES: dict[str, Allowed] = {
    "rule": one_of(*GATES),
    "alpha": number(below=0),
    "beta": number(least=0, below=1),
    "lambda": whole(1),
    "window": whole(2),
    "reset_on_push": SWITCH,
    "probe": one_of("fixed", "fresh15"),
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
    if settings.rule == "open":
        return 1
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
