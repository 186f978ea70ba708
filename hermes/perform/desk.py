"""How is a master's action done? Uploads, scores and merges, with real tensors.

The same code under the runtime and the simulator: no clock, no thread. Updates are fetched one at
a time; a model or two are all that is held.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection

from hermes.codec import decode_tensors
from hermes.coded import decode_update
from hermes.errors import Defect, ForeignCodec
from hermes.machine.events import (
    Action,
    EvaluationFinished,
    Event,
    FinalScored,
    Merge,
    MergeFailed,
    Part,
    RestoreState,
    SaveState,
    Score,
    ScoreLast,
    SecureVersions,
    UpdateScored,
    VersionStored,
)
from hermes.messages import Update, VersionPublished
from hermes.perform.blocks import Blocks
from hermes.perform.merging import Formed, Mixture, Sources, form, lies_elsewhere, packed
from hermes.perform.moments import Moments
from hermes.perform.remake import GONE
from hermes.perform.secure import Seat, secure
from hermes.perform.store import Store
from hermes.perform.sums import finite as finite
from hermes.perform.sums import sums_of
from hermes.policy import norm, weigh
from hermes.policy.codecs import FP32
from hermes.policy.norm import Limit
from hermes.train.protocol import Scores, Trainer
from hermes.transport import names
from hermes.values import Birth, Facts, Payload, Reason, Tensors


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

    def last(self, version: VersionPublished, model: Tensors | None = None) -> FinalScored:
        """The scores of the run's last version; `model`: its tensors, where they are in memory."""
        if model is None:
            model = decode_tensors(self.bytes_of(version))
        scores: list[float | None] = []
        for split in ("validation", "test"):
            found = self.scores(model, split) if self.has(split) else None
            scores += [finite(found.loss), finite(found.accuracy)] if found else [None, None]
        return FinalScored(version.version, *scores)

    def has(self, split: str) -> bool:
        """Whether the master has samples of this split: where workers bring theirs it may not."""
        return self._blocks.count(split) > 0


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
        self._moments = Moments(store, buffers)
        self._models: dict[str, Tensors] = {}
        """Versions, by digest. No updates: what an update claims to be is not yet what it is."""
        self._fetched: dict[Payload, Tensors] = {}
        """The update that was scored last, from the place that it names."""
        self._losses: dict[str, float] = {}

    def perform(self, action: Action) -> Event:
        """The outcome of `Score`, `Merge`, `ScoreLast`, `SaveState`, `RestoreState` or
        `SecureVersions`; raises `BrokerError` where the log fails."""
        if isinstance(action, ScoreLast):
            return self._judge.last(action.version, self.model(action.version.payload.digest))
        if isinstance(action, SaveState):
            return self._moments.save(action.version)
        if isinstance(action, RestoreState):
            return self._moments.restore(action)
        if isinstance(action, SecureVersions):
            return self._secure(action)
        if isinstance(action, (Score, Merge)):
            try:
                return self._score(action) if isinstance(action, Score) else self._merge(action)
            except Rejected as no:
                version = action.version if isinstance(action, Merge) else action.version.version
                return MergeFailed(version, no.birth, no.reason)
        raise Defect(f"nobody performs {type(action).__name__}")

    def store_first(
        self, weights: Tensors, moments: Tensors | None = None, codec: str = FP32
    ) -> VersionStored:
        """Store the first version, and the momentum with it, where a fork inherits one."""
        self._keep(())
        state = self._store.put(names.STATE, packed(moments)) if moments else None
        data = packed(weights, codec)
        del weights
        return VersionStored(0, self._put(data), state=state)

    def model(self, digest: str) -> Tensors | None:
        """The model of this digest, if it is in memory: the version in force is, and, until that
        is committed, the one that is to follow it. Not to be changed."""
        return self._models.get(digest)

    def settle(self, version: VersionPublished) -> None:
        """This version is in force: nothing of the one before is needed any more."""
        self._keep({version.payload.digest})
        self._moments.keep(version)

    def _secure(self, action: SecureVersions) -> Event:
        seat = Seat(self._store, self._buffers, self._moments, self.model)
        outcome, model = secure(action, seat)
        newest = action.versions[0]
        if model is not None and outcome.last == newest.version:
            self._models = {newest.payload.digest: model}
        return outcome

    # --- scores ---------------------------------------------------------------------------------

    def _score(self, action: Score) -> UpdateScored:
        payload = action.version.payload
        current = self._model(payload)
        if payload.digest not in self._losses:
            self._losses = {payload.digest: self._judge.scores(current, "validation").loss}
        local = self._update(action.update, self._held_against(action, current))
        self._norm(action.update, local, current, action.limit)
        loss = self._judge.scores(local, "validation").loss
        # The merge that follows needs the same tensors again.
        self._models = {payload.digest: current}
        self._fetched = {action.update.payload: local}
        return UpdateScored(
            action.update.birth, action.version.version, self._losses[payload.digest], loss
        )

    # --- merges ---------------------------------------------------------------------------------

    def _merge(self, action: Merge) -> VersionStored:
        digest = action.current.payload.digest
        self._keep({digest})
        wanted = {part.update.payload for part in action.parts}
        self._fetched = {at: model for at, model in self._fetched.items() if at in wanted}
        self._moments.keep(action.current)
        norms: list[float] = []
        model, moments = self._formed(action, norms)
        # Nobody asks for the momentum that it came from any more: should this version come to
        # nothing, that is restored.
        self._moments.let_go()
        self._keep({digest})
        self._fetched = {}
        data = packed(model, action.codec, digest)
        del model  # what was merged is not held twice while it is sent
        payload = self._put(data)
        self._moments.hold(action.version, payload.digest, moments)
        return VersionStored(action.version, payload, tuple(norms))

    def _formed(self, action: Merge, norms: list[float]) -> Formed:
        """The new model; of the updates nothing is held when this returns but their `norms`."""
        current = self._model(action.current.payload)
        moments = self._moments.at(action.current) if action.outer is not None else {}

        def weigh(part: Part, local: Tensors, base: Tensors) -> None:
            norms.append(self._norm(part.update, local, base, action.limit))

        sources = Sources(
            lambda part, like: self._update(part.update, like),
            lambda payload: self._base(action, payload),
            weigh,
        )
        return form(Mixture.of(action), current, moments, self._buffers, sources)

    def _put(self, data: bytes) -> Payload:
        """Send a version, and hold it, as views of its bytes."""
        payload = self._store.put(names.MODEL, data)
        self._models[payload.digest] = decode_tensors(data)
        return payload

    def _keep(self, digests: Collection[str]) -> None:
        """Let go of the other models."""
        self._models = {digest: m for digest, m in self._models.items() if digest in digests}

    def _model(self, payload: Payload) -> Tensors:
        if payload.digest not in self._models:
            self._models = {payload.digest: decode_tensors(self._store.get(payload))}
        return self._models[payload.digest]

    def _held_against(self, action: Score, current: Tensors) -> Tensors:
        """The version that an update is told by; where it is a model, any will do."""
        update = action.update
        if action.base is None or not lies_elsewhere(update, action.version.payload.digest):
            return current
        return self._read_base(action.base, update.birth)

    def _base(self, action: Merge, payload: Payload) -> Tensors:
        (birth, *_) = [p.update.birth for p in action.parts if p.base == payload]
        return self._read_base(payload, birth)

    def _read_base(self, payload: Payload, birth: Birth) -> Tensors:
        try:
            return decode_tensors(self._store.get(payload))
        except GONE as error:
            raise Rejected(birth, Reason("base-unreadable", {"why": error.what})) from None

    def _update(self, update: Update, like: Tensors) -> Tensors:
        """The model of an update, fetched and checked; raises `Rejected`."""
        known = self._fetched.get(update.payload)
        if known is not None:
            return known
        try:
            local = decode_update(self._store.get(update.payload), update.codec, like)
        except ForeignCodec as error:
            facts: Facts = {"codec": error.found, "wanted": error.wanted}
            raise Rejected(update.birth, Reason("wrong-codec", facts)) from None
        except GONE as error:
            raise Rejected(update.birth, Reason("unreadable", {"why": error.what})) from None
        refusal = weigh.check_update(local, like)
        if refusal is not None:
            raise Rejected(update.birth, refusal)
        return local

    def _norm(self, update: Update, local: Tensors, base: Tensors, limit: Limit | None) -> float:
        """How far an update lies from what it is held against, where that is looked at (else 0);
        raises `Rejected` beyond the limit."""
        if limit is None:
            return 0.0
        length = norm.distance(local, base, self._buffers)
        refusal = norm.judge(length, limit)
        if refusal is not None:
            raise Rejected(update.birth, refusal)
        return length


def evaluation(
    version: VersionPublished, scores: Scores, started: int, cost: int
) -> EvaluationFinished:
    """The event that an evaluation ends in; times in nanoseconds of run time."""
    loss, accuracy, sums = finite(scores.loss), finite(scores.accuracy), sums_of(scores)
    return EvaluationFinished(
        version.version, loss, accuracy, started, cost, sums.loss, sums.correct, sums.n
    )
