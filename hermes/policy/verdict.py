"""What does a gate see, remember and answer? Pure."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import msgspec

from hermes.policy.paired import Paired
from hermes.values import Reason, Value

Push: TypeAlias = Literal["push", "quiet", "veto"]


class GateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--set gate.X` sets."""

    rule: str = "zscore"
    """`zscore` (arXiv 2410.20495), `innovation` (by what was learned since the last push, at a
    rate that is set), `gradient` (by how much its norm has changed, arXiv 2307.07950), or `open`
    (push after every round)."""
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
    rate: float = 0.25
    """`innovation`: the share of rounds that push, in the long run; above 0, at most 1."""
    gain: float = 0.5
    """`innovation`: how fast the threshold follows; above 0, below 1."""
    warm: int = 0
    """`innovation`: rounds at first that push whatever they learned; from 0."""
    shortest: int = 1
    """`innovation`: rounds between two pushes, at least."""
    longest: int = 20
    """`innovation`: rounds after which a worker pushes whatever it has learned, if anything."""
    veto: float | None = None
    """`innovation`: throw away instead of pushing what makes the loss on the probe worse, by more
    than so many standard errors of a paired test; above 0, or off."""
    delta: float = 0.3
    """`gradient`: relative change of the smoothed squared norm of the gradient from which on a
    round is worth a push; at least 0 (0: every round). Source: SelSync's table (0.3 and 0.5)."""
    smoothing: float = 0.16
    """`gradient`: weight of the newest squared norm in its mean; above 0, at most 1 (1: no
    smoothing). Source: SelSync's N / 100 for its 16 workers."""


class GateState(Value, frozen=True):
    """What a worker's gate remembers between two rounds."""

    window: tuple[float, ...]
    """Oldest first: probe losses since the last push (`zscore`), the scores of the first rounds
    (`innovation`, while it is warming)."""
    quiet: int
    """Quiet rounds since the last push."""
    threshold: float
    """For the next push z must be at or below it (`zscore`), the score at or above it
    (`innovation`; 0: not known yet)."""
    smoothed: float = 0.0
    """Of the gradient's squared norm, its weighted mean (`gradient`; 0: not known yet)."""


class Learned(NamedTuple):
    """What a worker has learned and not sent, after a round."""

    drift: float = 0.0
    """L2 norm of it, over the parameters."""
    samples: int = 0
    """Sample passes that it is made of."""
    paired: Paired | None = None
    """How it did on the probe beside the version that it goes out from, where that was looked at:
    only where it would be pushed (`wants_test`)."""
    gradient: float = 0.0
    """L2 norm of the gradient of the last step, over the parameters."""


NOTHING = Learned()
"""Where the gate does not ask."""


class Verdict(NamedTuple):
    """What to do with the round, why, and the gate's next state."""

    push: Push
    reason: Reason
    state: GateState
