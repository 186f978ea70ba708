"""How is a master's action done? Uploads, scores and merges, with real tensors.

The same code under the runtime and the simulator: no clock, no thread. Updates are fetched one at
a time; a model or two are all that is held.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection

from hermes.codec import decode_tensors, encode_tensors
from hermes.errors import BrokerRefused, Defect, NoSuchTopic, PeerError
from hermes.machine.events import (
    Action,
    EvaluationFinished,
    Event,
    FinalScored,
    Merge,
    MergeFailed,
    Score,
    ScoreLast,
    UpdateScored,
    VersionStored,
)
from hermes.messages import Update, VersionPublished
from hermes.perform.blocks import Blocks
from hermes.perform.room import make_room
from hermes.perform.store import Store
from hermes.policy import aggregate
from hermes.train.protocol import Scores, Trainer
from hermes.transport import names
from hermes.values import Birth, Payload, Reason, Tensors


class Judge:
    """Scores models on held-out splits. Belongs to one thread."""

    def __init__(self, make: Callable[[], Trainer], blocks: Blocks, store: Store) -> None:
        """`make` is called once, when a model is scored first: where a strategy scores none, the
        master holds a model less."""
        self._make, self._blocks, self._store = make, blocks, store

    @functools.cached_property
    def _trainer(self) -> Trainer:
        return self._make()

    def close(self) -> None:
        """Let go of the log's reader."""
        self._store.close()

    def bytes_of(self, version: VersionPublished) -> bytes | bytearray:
        """The bytes of a version, from the log."""
        return self._store.get(version.payload)

    def scores(self, model: Tensors, split: str) -> Scores:
        """Loss and metric of a model on "validation" or "test"."""
        self._trainer.load(model)
        return self._trainer.evaluate(self._blocks.all_of(split))

    def last(self, version: VersionPublished) -> FinalScored:
        """The scores of the run's last version."""
        model = decode_tensors(self.bytes_of(version))
        validation, test = self.scores(model, "validation"), self.scores(model, "test")
        return FinalScored(
            version.version,
            finite(validation.loss),
            finite(validation.accuracy),
            finite(test.loss),
            finite(test.accuracy),
        )


def finite(value: float | None) -> float | None:
    """The value, or None where it is not finite: JSON has no word for it."""
    return value if value is not None and math.isfinite(value) else None


class Rejected(Exception):
    """An update that cannot be merged, and why."""

    def __init__(self, birth: Birth, reason: Reason) -> None:
        super().__init__(birth, reason)
        self.birth, self.reason = birth, reason


class Desk:
    """Merges. Belongs to one thread."""

    def __init__(self, store: Store, judge: Judge, buffers: Collection[str]) -> None:
        """`buffers`: names of the tensors that are not learned."""
        self._store, self._judge, self._buffers = store, judge, buffers
        self._models: dict[str, Tensors] = {}
        self._losses: dict[str, float] = {}

    def perform(self, action: Action) -> Event:
        """The outcome of `Score`, `Merge` or `ScoreLast`; raises `BrokerError` where the log
        fails."""
        if isinstance(action, ScoreLast):
            return self._judge.last(action.version)
        if isinstance(action, (Score, Merge)):
            try:
                return self._score(action) if isinstance(action, Score) else self._merge(action)
            except Rejected as no:
                version = action.version if isinstance(action, Merge) else action.version.version
                return MergeFailed(version, no.birth, no.reason)
        raise Defect(f"nobody performs {type(action).__name__}")

    def store_first(self, weights: Tensors) -> VersionStored:
        """Store version 0."""
        return VersionStored(0, self._put(weights))

    def model(self, digest: str) -> Tensors | None:
        """The model of this digest, if it is in memory: the version in force is, and, until that
        is committed, the one that is to follow it. Not to be changed."""
        return self._models.get(digest)

    # --- scores ---------------------------------------------------------------------------------

    def _score(self, action: Score) -> UpdateScored:
        payload = action.version.payload
        current = self._model(payload)
        if payload.digest not in self._losses:
            self._losses = {payload.digest: self._judge.scores(current, "validation").loss}
        local = self._update(action.update, current)
        loss = self._judge.scores(local, "validation").loss
        # The merge that follows needs the same tensors again.
        self._models = {payload.digest: current, action.update.payload.digest: local}
        return UpdateScored(
            action.update.birth, action.version.version, self._losses[payload.digest], loss
        )

    # --- merges ---------------------------------------------------------------------------------

    def _merge(self, action: Merge) -> VersionStored:
        digest = action.current.payload.digest
        self._keep({digest, *(part.update.payload.digest for part in action.parts)})
        return VersionStored(action.version, self._put(self._merged(action), {digest}))

    def _merged(self, action: Merge) -> Tensors:
        """The new model; of the updates nothing is held when this returns."""
        digest = action.current.payload.digest
        current = self._model(action.current.payload)
        buffers = self._buffers
        if action.rule == "interpolate":
            (part,) = action.parts
            local = self._update(part.update, current)
            return aggregate.interpolate(current, local, action.keep, part.weight, buffers)
        if all(part.update.base.digest == digest for part in action.parts):
            mean = aggregate.Mean(buffers)
            for part in action.parts:
                local = self._update(part.update, current)
                mean.add(local, part.weight, part.update.samples)
                del local  # before the next one is fetched
            return mean.finish()
        deltas = aggregate.MeanOfDeltas(buffers)
        for part in action.parts:
            local = self._update(part.update, current)
            base = decode_tensors(self._store.get(part.base))
            deltas.add(base, local, part.weight, part.update.samples)
            del base, local
        return deltas.finish(current)

    def _put(self, model: Tensors, beside: Collection[str] = ()) -> Payload:
        """Send a version, and hold it; of the others only those `beside` it."""
        self._keep(beside)
        make_room(sum(tensor.nbytes for tensor in model.values()))
        data = encode_tensors(model)
        model = decode_tensors(data)  # views: what was merged is not held twice while it is sent
        payload = self._store.put(names.MODEL, data)
        self._models[payload.digest] = model
        return payload

    def _keep(self, digests: Collection[str]) -> None:
        """Let go of the other models."""
        self._models = {digest: m for digest, m in self._models.items() if digest in digests}

    def _model(self, payload: Payload) -> Tensors:
        if payload.digest not in self._models:
            self._models = {payload.digest: decode_tensors(self._store.get(payload))}
        return self._models[payload.digest]

    def _update(self, update: Update, like: Tensors) -> Tensors:
        """The model of an update, fetched and checked; raises `Rejected`."""
        known = self._models.get(update.payload.digest)
        if known is not None:
            return known
        try:
            local = decode_tensors(self._store.get(update.payload))
        except (PeerError, NoSuchTopic, BrokerRefused) as error:
            raise Rejected(update.birth, Reason("unreadable", {"why": error.what})) from None
        refusal = aggregate.check_update(local, like)
        if refusal is not None:
            raise Rejected(update.birth, refusal)
        return local


def evaluation(
    version: VersionPublished, scores: Scores, started: int, cost: int
) -> EvaluationFinished:
    """The event that an evaluation ends in; times in nanoseconds of run time."""
    return EvaluationFinished(
        version.version, finite(scores.loss), finite(scores.accuracy), started, cost
    )
