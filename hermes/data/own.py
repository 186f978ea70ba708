"""What does a worker bring that never leaves its machine? The samples of one file.

Cut into train, probe and validation by the job's shares, in an order that the run's seed and the
worker's name draw. The walk over the train samples is endless: place k is sample k mod n of an
order that is drawn anew for each pass, so that a grant is told by its first place and its size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hermes.chance import generator, permutation
from hermes.codec import sign
from hermes.data.blocks import native
from hermes.data.files import npz
from hermes.data.sources import PIECE, Array, Samples, check_numbers, open_data
from hermes.data.splits import Indices, split_indices
from hermes.errors import JobError, UsageError
from hermes.messages import Own
from hermes.policy.own import FEWEST, cut

IN_MEMORY = 16 << 20
"""Bytes of a split that is kept in memory, in its order, between two looks at it."""

Pair = tuple[Array, Array]


class Brought(NamedTuple):
    """A file that was read and checked."""

    samples: Samples
    """Memory maps."""
    digest: str
    """SHA-256 (hex) of the file."""

    def told(self, key: bytes) -> Own:
        """What is said of it: the digest only under the cluster key, so that nobody without it can
        tell by a guess which data these are."""
        return Own(self.samples.size, kind_of(self.samples), sign(key, "own", self.digest))


def read_file(path: Path) -> Brought:
    """Read and check what a worker brings. Raises `UsageError` where that cannot be used."""
    try:
        returned = npz(path)
        if isinstance(returned[0], tuple):
            raise JobError(
                "it holds x_train, y_train, x_test and y_test",
                remedy="A worker brings one set, and cuts its own splits from it: name its arrays "
                "x and y.",
            )
        samples = open_data(returned, path.parent).samples
        check_numbers(samples)
    except JobError as error:
        remedy = error.remedy.replace(" on the machine of the master", "").replace(" in data()", "")
        raise UsageError(error.what, where=str(path), remedy=remedy) from None
    if samples.size < FEWEST:
        raise UsageError(
            f"it holds {samples.size} samples",
            where=str(path),
            remedy=f"Bring at least {FEWEST}: to train, to probe and to validate.",
        )
    return Brought(samples, _digest(path))


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                found.update(piece)
        return found.hexdigest()
    except OSError as error:
        raise UsageError(
            f"it cannot be read: {error.strerror or error}", where=str(path), remedy="Try again."
        ) from None


def kind_of(samples: Samples) -> str:
    """Types and shapes of a sample, in words: "x float32 (8, 8), y int64 ()"."""
    said = (f"{name} {array.dtype.name} {array.shape[1:]}" for name, array in _named(samples))
    return ", ".join(said)


def _named(samples: Samples) -> Iterator[tuple[str, Array]]:
    return zip("xy", samples, strict=True)


class OwnData:
    """A worker's own samples, cut and ordered. Belongs to one thread."""

    def __init__(self, samples: Samples, shares: tuple[float, ...], seed: int, worker: str) -> None:
        """`shares`: of train, probe and validation."""
        self.cut = cut(samples.size, shares)
        self._samples, self._seed, self._worker = samples, seed, worker
        self._parts = split_indices(generator(seed, "split", worker), self.cut._asdict())
        self._orders: dict[int, Indices] = {}
        self._kept: dict[str, list[Pair]] = {}

    def granted(self, start: int, size: int) -> Iterator[Pair]:
        """The samples at these places of the walk, in order, in pieces."""
        count, done = self.cut.train, 0
        while done < size:
            turn, first = divmod(start + done, count)
            chosen = self._order(turn)[first : first + size - done]
            yield from self._pieces(chosen)
            done += len(chosen)

    def all_of(self, split: str) -> Iterator[Pair]:
        """Every sample of "probe" or "validation", in pieces; few stay in memory."""
        if split in self._kept:
            yield from self._kept[split]
            return
        chosen = self._parts[split]
        if len(chosen) * self._samples.bytes_each <= IN_MEMORY:
            self._kept[split] = list(self._pieces(chosen))
            yield from self._kept[split]
        else:
            yield from self._pieces(chosen)

    def count(self, split: str) -> int:
        """Samples of a split."""
        return len(self._parts[split])

    def first(self, size: int) -> Pair:
        """Some train samples, such as a batch to try the model on."""
        return self._at(self._parts["train"][:size])

    def extremes(self) -> list[Pair]:
        """Two samples with the smallest and the largest label: what does not fit the model's
        outputs is found at once. Empty where y is no class label."""
        y = self._samples.y
        if y.ndim != 1 or y.dtype.kind not in "iu":
            return []
        return [self._at(np.array([int(y.argmin()), int(y.argmax())]))]

    def _order(self, turn: int) -> Indices:
        """Of one pass; two are remembered, since a grant may end in the next one."""
        if turn not in self._orders:
            order = permutation(generator(self._seed, "own", self._worker, turn), self.cut.train)
            self._orders = {**dict(list(self._orders.items())[-1:]), turn: order}
        return self._parts["train"][self._orders[turn]]

    def _pieces(self, chosen: Indices) -> Iterator[Pair]:
        rows = max(1, PIECE // max(1, self._samples.bytes_each))
        for start in range(0, len(chosen), rows):
            yield self._at(chosen[start : start + rows])

    def _at(self, chosen: Indices) -> Pair:
        x, y = (native(np.asarray(array[chosen])) for array in self._samples)
        return x, y
