"""How does the job and its data get into the log? Once, in blocks, ended by a signed manifest."""

from __future__ import annotations

from collections.abc import Callable

from hermes.codec import digest_of, encode, same, sign
from hermes.data.prepare import Prepared
from hermes.data.splits import SPLITS
from hermes.errors import Unverified
from hermes.messages import Block, DataPublished, JobSource, Manifest
from hermes.perform.store import Store
from hermes.transport import names

Progress = Callable[[int, int], None]
"""Called with (blocks sent, blocks in all)."""

WINDOW = 64
"""Blocks under way before the oldest acknowledgement is waited for."""


class Signer:
    """The cluster key, as far as a run needs it."""

    def __init__(self, run: str, key: bytes) -> None:
        self.run, self.key = run, key

    def upload(self, source: str, manifest: str) -> str:
        """The signature over an upload, from the digests of its source and manifest."""
        return sign(self.key, "upload", self.run, source, manifest)

    def opening(self) -> str:
        """What a run's opening record shows of the key: enough to see that one holds another."""
        return sign(self.key, "run", self.run)

    def verify(self, data: DataPublished) -> None:
        """Raise `Unverified` unless this upload was signed with our key."""
        if not same(data.signature, self.upload(data.source.digest, data.manifest.digest)):
            raise Unverified(
                "the job is not signed with this machine's cluster key; nothing of it was run",
                where=f"run {self.run}",
                remedy="Use the key of the master's machine (--key-file).",
            )


def upload(
    store: Store,
    signer: Signer,
    source: JobSource,
    prepared: Prepared,
    batch: int,
    progress: Progress | None = None,
) -> DataPublished:
    """Stream the job and all blocks into the data topic; raises `BrokerError`, `JobError`."""
    source_payload = store.put(names.DATA, encode(source))
    total = sum(prepared.blocks.values())
    blocks: dict[str, list[Block]] = {split: [] for split in SPLITS}
    under_way: list[tuple[str, int, str, Callable[[], int]]] = []

    def settle(most: int) -> None:
        while len(under_way) > most:
            split, length, digest, offset = under_way.pop(0)
            blocks[split].append(Block(offset(), length, digest))

    for sent, (split, _, data) in enumerate(prepared):
        under_way.append((split, len(data), digest_of(data), store.append(names.DATA, data)))
        settle(WINDOW)
        if progress:
            progress(sent + 1, total)
    settle(0)
    manifest = Manifest({split: tuple(found) for split, found in blocks.items()})
    manifest_payload = store.put(names.DATA, encode(manifest))
    return DataPublished(
        source=source_payload,
        manifest=manifest_payload,
        signature=signer.upload(source_payload.digest, manifest_payload.digest),
        block=prepared.block,
        blocks=prepared.blocks,
        samples=prepared.samples,
        first_size=prepared.first_size,
        batch=batch,
        pools=prepared.pools,
        shares=prepared.shares,
        kind=prepared.kind,
        metric=prepared.metric,
    )
