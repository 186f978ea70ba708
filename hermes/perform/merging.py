"""How are a version's tensors formed, out of what the ledger names? In one place, for all who do.

The desk forms each version first; a restart, a repair and `hermes verify` form it again
(`remake`). Same parts, same bits: which arithmetic a rule means is decided here alone. Updates are
fetched one at a time, in the order of the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from hermes.coded import encode_version
from hermes.errors import Defect
from hermes.machine.events import Merge, Part, Recipe
from hermes.messages import Update
from hermes.perform.room import make_room
from hermes.policy import aggregate, weigh
from hermes.policy.aggregate import Mean, MeanOfDeltas, Model, SumOfDeltas
from hermes.policy.codecs import FP32
from hermes.policy.outer import Momentum
from hermes.values import Outer, Payload, Tensors


def passed(part: Part, local: Tensors, base: Tensors) -> None:
    """Any update counts: it was looked at when it was merged first."""


class Sources(NamedTuple):
    """Where tensors are fetched from; both may raise, and then nothing is formed."""

    update: Callable[[Part, Tensors], Tensors]
    """The model of this part's update, which fits the model given: the version that it started
    from or, where its codec asks for none, any."""
    base: Callable[[Payload], Tensors]
    """The version that lies there."""
    weigh: Callable[[Part, Tensors, Tensors], None] = passed
    """Told of each update's model, and of what it is held against, before it counts: it may
    raise."""


class Mixture(NamedTuple):
    """What a version is made of."""

    rule: str
    keep: float
    outer: Outer | None
    parts: tuple[Part, ...]
    replaces: str
    """Digest of the version that it replaces."""

    @classmethod
    def of(cls, merge: Merge) -> Mixture:
        """What is to be merged."""
        digest = merge.current.payload.digest
        return cls(merge.rule, merge.keep, merge.outer, merge.parts, digest)

    @classmethod
    def again(cls, recipe: Recipe, replaces: str) -> Mixture:
        """What was merged."""
        version = recipe.version
        return cls(version.rule, version.keep, version.outer, recipe.parts, replaces)


class Formed(NamedTuple):
    """A version, and what the master holds beside it."""

    model: Model
    moments: Tensors
    """The momentum, by parameter; empty where the rule keeps none."""


def form(
    mixture: Mixture,
    current: Tensors,
    moments: Tensors,
    buffers: Collection[str],
    sources: Sources,
) -> Formed:
    """The version that follows `current`, at which the master held `moments`.

    Beside those a model or two and the sums are held. Raises whatever `sources` raise.
    """
    if mixture.rule == "interpolate":
        return Formed(_interpolated(mixture, current, buffers, sources), {})
    if mixture.rule == "momentum":
        if mixture.outer is None:
            raise Defect("a merge with momentum, and no step for it")
        momentum = Momentum(mixture.outer, buffers)
        _add_differences(momentum, mixture, current, sources)
        return Formed(*momentum.finish(current, moments))
    if mixture.rule not in weigh.RULES:
        raise Defect(f"nobody merges by the rule {mixture.rule!r}")
    adds = mixture.rule in weigh.SUMS
    if not adds and all(part.update.base.digest == mixture.replaces for part in mixture.parts):
        return Formed(_mean(mixture, current, buffers, sources), {})
    deltas = SumOfDeltas(buffers) if adds else MeanOfDeltas(buffers)
    _add_differences(deltas, mixture, current, sources)
    return Formed(deltas.finish(current), {})


def _interpolated(
    mixture: Mixture, current: Tensors, buffers: Collection[str], sources: Sources
) -> Model:
    (part,) = mixture.parts
    away = lies_elsewhere(part.update, mixture.replaces)
    local = sources.update(part, sources.base(part.base) if away else current)
    sources.weigh(part, local, current)
    return aggregate.interpolate(current, local, mixture.keep, part.weight, buffers)


def _mean(mixture: Mixture, current: Tensors, buffers: Collection[str], sources: Sources) -> Model:
    """Of the models: where all start from the version that is replaced, one alone is copied."""
    mean = Mean(buffers)
    for part in mixture.parts:
        local = sources.update(part, current)
        sources.weigh(part, local, current)
        mean.add(local, part.weight, part.update.samples)
        del local  # before the next one is fetched
    return mean.finish()


def _add_differences(
    deltas: MeanOfDeltas | Momentum, mixture: Mixture, current: Tensors, sources: Sources
) -> None:
    for part in mixture.parts:
        known = part.update.base.digest == mixture.replaces
        base = current if known else sources.base(part.base)
        local = sources.update(part, base)
        sources.weigh(part, local, base)
        deltas.add(base, local, part.weight, part.update.samples)
        del base, local  # before the next ones are fetched


def lies_elsewhere(update: Update, current: str) -> bool:
    """Whether this update is told as the way from another version than that of this digest, which
    must then be at hand to read it."""
    return update.codec != FP32 and update.base.digest != current


def packed(model: Tensors, codec: str = FP32, replaces: str = "") -> bytes:
    """A model's bytes, as they are sent and named by their digest; `replaces`: the digest of the
    version before, by which a codec rounds (`coded.encode_version`)."""
    make_room(sum(tensor.nbytes for tensor in model.values()))
    return encode_version(model, codec, replaces)
