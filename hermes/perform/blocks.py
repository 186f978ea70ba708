"""Where does a block come from? The cache on this disk, else the data topic; never into memory
more than it must."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hermes.codec import decode, digest_of
from hermes.data.blocks import decode_block
from hermes.data.cache import BlockCache
from hermes.errors import PeerError, Unverified
from hermes.messages import Block, DataPublished, JobSource, Manifest
from hermes.perform.store import Store
from hermes.train.protocol import Batch
from hermes.transport import names

LIMIT = 256 << 20
"""Bytes of a manifest or a job's source, at most."""

IN_MEMORY = 16 << 20
"""Bytes of a split that is kept decoded between two evaluations."""


ALTERED = (
    "Something at the broker, or on the way, alters records: look there, and start the run again."
)


class Blocks:
    """The blocks of one upload. Belongs to one thread; the cache's folder may be shared."""

    def __init__(self, store: Store, manifest: Manifest, cache: BlockCache) -> None:
        self._store, self._manifest, self._cache = store, manifest, cache
        self._kept: dict[str, list[Batch]] = {}

    def count(self, split: str) -> int:
        """Blocks of this split."""
        return len(self._manifest.blocks[split])

    def size(self, split: str, indices: Sequence[int]) -> int:
        """Bytes of these blocks, as they travel."""
        return sum(self._manifest.blocks[split][index].length for index in indices)

    def fetch(self, split: str, indices: Sequence[int]) -> int:
        """Bring these blocks onto this disk; the bytes that had to be transferred."""
        blocks = [self._manifest.blocks[split][index] for index in indices]
        missing = {b.offset: b for b in blocks if self._cache.get(b.digest) is None}
        moved = 0
        places = {offset: block.length for offset, block in missing.items()}
        for offset, data in self._store.records(names.DATA, places):
            _verify(missing[offset], data)
            self._cache.put(data)
            moved += len(data)
        return moved

    def read(self, split: str, index: int) -> Batch:
        """One block: its samples and labels."""
        block = self._manifest.blocks[split][index]
        data = self._cache.get(block.digest)
        if data is None:  # never fetched, or pushed out of the cache since
            ((_, data),) = self._store.records(names.DATA, {block.offset: block.length})
            _verify(block, data)
            self._cache.put(data)
        return decode_block(data)

    def all_of(self, split: str) -> Iterator[Batch]:
        """Every block of a split in order; a small split stays decoded in memory."""
        if split in self._kept:
            yield from self._kept[split]
            return
        self.fetch(split, range(self.count(split)))
        kept: list[Batch] = []
        held = 0
        for index in range(self.count(split)):
            x, y = self.read(split, index)
            held += x.nbytes + y.nbytes
            if held > IN_MEMORY:
                kept.clear()
            else:
                kept.append((x, y))
            yield x, y
        if held <= IN_MEMORY:
            self._kept[split] = kept


def _verify(block: Block, data: bytes) -> None:
    if digest_of(data) != block.digest:
        raise Unverified(
            "a block's bytes are not the data that was signed; it is not used",
            where=f"data, offset {block.offset}",
            remedy=ALTERED,
        )


def read_upload(store: Store, data: DataPublished) -> tuple[JobSource, Manifest]:
    """The job's source and the manifest that `DataPublished` names.

    The caller verifies the signature over their digests before anything of it is run. Raises
    `Unverified`, `BrokerError`.
    """
    try:
        source = decode(store.get(data.source), LIMIT)
        manifest = decode(store.get(data.manifest), LIMIT)
    except PeerError as error:
        raise Unverified(
            f"its bytes are not the job that was signed ({error.what}); nothing of it was run",
            where="data",
            remedy=ALTERED,
        ) from None
    if not isinstance(source, JobSource) or not isinstance(manifest, Manifest):
        raise Unverified("the upload is not a job and a manifest", where="data", remedy=ALTERED)
    return source, manifest
