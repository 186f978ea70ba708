"""Was this very model scored before? Then its scores are known: in this run, or in another one.

The same model, on the same samples, by the same job has the same scores. A comparison asks for many
twice: every strategy begins with the same version 0, a version at a point of the grid is the one
that the next update is held against, and the last one is scored at the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

import msgspec

from hermes.codec import encode_tensors
from hermes.messages import JobSource, Manifest
from hermes.perform.blocks import Blocks
from hermes.perform.desk import Judge
from hermes.perform.store import Store
from hermes.train.protocol import Scores, Trainer
from hermes.values import Tensors


class Kept(Protocol):
    """What other runs have found."""

    def get(self, key: str) -> Scores | None:
        """What was put by this key."""
        ...

    def put(self, key: str, scores: Scores) -> None:
        """Keep it for others."""
        ...

    def deflated(self, plain: bytes) -> bytes:
        """As `blocks.deflated`."""
        ...


class Scored:
    """What is known, by model and split; of one job and its data."""

    def __init__(
        self, source: JobSource, device: str | None, manifest: Manifest, kept: Kept | None
    ) -> None:
        self._kept = kept
        self._known: dict[str, Scores] = {}
        job = msgspec.json.encode((source, device))
        self._splits = {
            split: hashlib.sha256(b"".join([job, *(block.digest.encode() for block in blocks)]))
            for split, blocks in manifest.blocks.items()
        }

    def of(self, model: Tensors, split: str, score: Callable[[], Scores]) -> Scores:
        """Its scores on the split; `score` is called where nobody knows them."""
        key = self._key(model, split)
        known = self._known.get(key) or (self._kept.get(key) if self._kept else None)
        if known is None:
            known = score()
            if self._kept is not None:
                self._kept.put(key, known)
        self._known[key] = known
        return known

    def _key(self, model: Tensors, split: str) -> str:
        found = self._splits[split].copy()
        found.update(split.encode() + encode_tensors(model))
        return found.hexdigest()


class Recalling(Judge):
    """Scores models that nobody has scored."""

    def __init__(
        self, make: Callable[[], Trainer], blocks: Blocks, store: Store, scored: Scored
    ) -> None:
        super().__init__(make, blocks, store)
        self._scored = scored

    def scores(self, model: Tensors, split: str) -> Scores:
        """Loss and metric of a model on a split."""
        return self._scored.of(model, split, lambda: super(Recalling, self).scores(model, split))
