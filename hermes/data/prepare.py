"""What will be uploaded? All samples of the job, in splits and blocks, before a byte is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hermes.blame import call_user, place_of
from hermes.chance import generator
from hermes.data.blocks import (
    DEFLATED,
    Array,
    Deflate,
    block_samples,
    count_blocks,
    deflated,
    encode_block,
)
from hermes.data.partition import in_order, owners
from hermes.data.sources import Dataset, Samples, check_numbers, open_data
from hermes.data.splits import SPLITS, Indices, split_indices, split_sizes
from hermes.errors import JobError
from hermes.job import Split
from hermes.policy.partition import Partition

FEW = 10
"""Samples of a split, below which a person is told."""

SPARED = 16
"""After so many blocks in a row that were no smaller deflated, one in so many is tried."""

TRIED = 32
"""Blocks of a split that are encoded at least, to tell what all of them take."""

Block: TypeAlias = tuple[str, int, bytes]
"""One record of the upload: the split, the block's index in it (0, 1, 2, ...), its bytes."""


@dataclass(frozen=True)
class Prepared:
    """The data set, ready to be sent; iterate over it for its blocks, as often as wanted."""

    samples: dict[str, int]
    """By split."""
    blocks: dict[str, int]
    """By split."""
    block: int
    """Samples a block, the same for all splits; the last of a split, or of a pool, may be short."""
    first_size: int
    """Samples of a worker's first shard."""
    bytes_each: int
    """Bytes of one sample."""
    parts: dict[str, tuple[Samples, Indices]]
    """By split: where its samples lie, and which they are, in order."""
    pools: tuple[int, ...] = ()
    """Samples of each pool of the train split, which lie one after the other; empty: none."""
    shares: tuple[float, ...] = ()
    """Train, probe and validation, as each worker cuts what it brings; empty: none is brought. Then
    there is a validation and a test split at most, the master's own."""
    kind: str = ""
    """Types and shapes of a sample of those; "": there is none."""
    metric: str = ""
    """What is measured beside the loss, as `DataPublished` has it."""
    deflate: Deflate = deflated
    """What makes blocks smaller."""

    def __iter__(self) -> Iterator[Block]:
        in_vain = number = 0
        for split, (samples, indices) in self.parts.items():
            for index, place in enumerate(self._cuts(split)):
                chosen, number = indices[place], number + 1
                tries = in_vain < SPARED or number % SPARED == 0
                deflate = self.deflate if tries else None
                data = encode_block(samples.x[chosen], samples.y[chosen], deflate=deflate)
                if tries:
                    in_vain = 0 if data.startswith(DEFLATED) else in_vain + 1
                yield split, index, data

    def lengths(self, split: str) -> Iterator[int]:
        """Bytes of each block of a split, about: some are encoded, and stand for their neighbours;
        short ones are, too."""
        samples, indices = self.parts[split]
        step, length = -(-self.blocks[split] // TRIED), 0
        for index, place in enumerate(self._cuts(split)):
            short = place.stop - place.start < self.block
            found = length
            if short or index % step == 0 or not length:
                chosen = indices[place]
                found = len(encode_block(samples.x[chosen], samples.y[chosen]))
            yield found
            length = length if short else found

    def _cuts(self, split: str) -> Iterator[slice]:
        """Where the samples of each block lie; a block holds samples of one pool only."""
        start = 0
        for size in (split == "train" and self.pools) or (self.samples[split],):
            for first in range(start, start + size, self.block):
                yield slice(first, min(first + self.block, start + size))
            start += size

    def extremes(self) -> list[tuple[Array, Array]]:
        """Two samples of each split, with its smallest and largest label: what does not fit the
        model's outputs is found before anything is sent. Empty where y is no class label."""
        found = []
        for samples, indices in self.parts.values():
            if samples.y.ndim == 1 and samples.y.dtype.kind in "iu":
                labels = samples.y[indices]
                chosen = indices[[int(labels.argmin()), int(labels.argmax())]]
                found.append((samples.x[chosen], samples.y[chosen]))
        return found

    def oddities(self) -> list[str]:
        """What a person should know of data so small, or so uneven, that scores mean little."""
        known = {name: _labels(*part) for name, part in self.parts.items()}
        train, said = known.pop("train", None), []
        for name, labels in known.items():
            if train is None or labels is None:
                continue
            unseen = np.setdiff1d(labels, train)
            if len(unseen):
                shown = ", ".join(str(label) for label in unseen[:5])
                said.append(
                    f"the {name} split has labels that the train split lacks: {shown}"
                    f"{', ...' if len(unseen) > 5 else ''}; they cannot be learned"
                )
        there = {name: self.samples[name] for name in self.parts}
        tiny = [f"{name} {size}" for name, size in there.items() if size < FEW]
        if tiny:
            said.append(f"very few samples: {', '.join(tiny)}; such scores are mostly chance")
        return said

    def first(self, count: int, split: str = "train") -> tuple[Array, Array]:
        """The first samples of a split, such as a batch to try the model on."""
        samples, indices = self.parts[split]
        return samples.x[indices[:count]], samples.y[indices[:count]]


def prepare(
    data: Callable[[], object],
    split: Split,
    seed: int,
    first_size: Callable[[int], int],
    workdir: Path,
    partition: Partition | None = None,
) -> Prepared:
    """Call the job's `data()`, check what it gives, and plan its splits and blocks.

    `first_size` maps the samples of the train split to those of a worker's first shard;
    `partition`: how that split is divided into pools, if it is. An iterator's samples go to disk
    under `workdir`. Memory beyond what `data()` itself holds: a few blocks, and 24 bytes a sample
    while they are shuffled. Raises `JobError` for data that cannot be used, `SettingError` where it
    cannot be divided so.
    """
    try:
        dataset = open_data(call_user("data()", data), workdir)
        parts = plan(dataset, split, seed)
        pools = _divide(parts, partition, seed) if partition else ()
        bytes_each = dataset.samples.bytes_each
        first = first_size(len(parts["train"][1]))
        block = block_samples(first, bytes_each)
        check_numbers(dataset.samples, "", lambda index: _split_of(parts, dataset.samples, index))
        if dataset.test is not None:
            check_numbers(dataset.test, "_test")
    except JobError as error:
        where = error.where or place_of(data)
        raise JobError(error.what, where=where, remedy=error.remedy) from error
    samples = {name: len(indices) for name, (_, indices) in parts.items()}
    blocks = {name: count_blocks(size, block) for name, size in samples.items()}
    if pools:
        blocks["train"] = sum(count_blocks(size, block) for size in pools)
    return Prepared(samples, blocks, block, first, bytes_each, parts, pools)


def _divide(
    parts: dict[str, tuple[Samples, Indices]], partition: Partition, seed: int
) -> tuple[int, ...]:
    """Put the samples of the train split pool after pool; the pools' sizes."""
    samples, indices = parts["train"]
    pool_of = owners(partition, samples.y[indices], generator(seed, "partition"))
    places, sizes = in_order(pool_of, partition.pools)
    parts["train"] = (samples, indices[places])
    return sizes


def _split_of(parts: dict[str, tuple[Samples, Indices]], samples: Samples, index: int) -> str:
    """The split that holds this sample."""
    return next(
        name
        for name, (source, chosen) in parts.items()
        if source is samples and bool((chosen == index).any())
    )


def _labels(samples: Samples, indices: Indices) -> npt.NDArray[np.int64] | None:
    """The labels of a split; None where y is no class label."""
    if samples.y.ndim != 1 or samples.y.dtype.kind not in "iu":
        return None
    return np.unique(samples.y[indices]).astype(np.int64)


def plan(dataset: Dataset, split: Split, seed: int) -> dict[str, tuple[Samples, Indices]]:
    """Which samples each split holds; an official test set keeps its own order."""
    shares = split._asdict()
    if dataset.test is not None:
        del shares["test"]
    indices = split_indices(generator(seed, "split"), split_sizes(dataset.samples.size, shares))
    parts = {name: (dataset.samples, chosen) for name, chosen in indices.items()}
    if dataset.test is not None:
        parts["test"] = (dataset.test, np.arange(dataset.test.size))
    return {name: parts[name] for name in SPLITS}
