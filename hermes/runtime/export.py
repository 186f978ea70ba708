"""Where are the bytes of a version to be had, and how are they written for others?

In the run's folder, or in its `model` topic; whatever is found is measured against the digest that
the ledger has.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hermes.codec import digest_of
from hermes.coded import published
from hermes.errors import (
    BrokerError,
    BrokerRefused,
    CheckFailed,
    DecodeError,
    NoSuchTopic,
    PeerError,
    RunError,
    RunFailed,
)
from hermes.messages import VersionPublished
from hermes.policy.codecs import FP32
from hermes.runtime.at_once import write_at_once
from hermes.runtime.folder import RunFolder
from hermes.transport import names
from hermes.transport.log import Log
from hermes.transport.tensors import fetch_payload
from hermes.values import Payload

PATIENCE = 10.0
"""Seconds without a chunk that should be there."""

PIECE = 1 << 20

Progress = Callable[[int], None]
"""Told of the bytes that are there."""


class Kept(NamedTuple):
    """The two models that a run's folder holds: version (-1: not there) and whether each is whole.

    A file that is none of the run's versions is damaged."""

    versions: Mapping[int, Path]
    damaged: tuple[Path, ...]


def kept_in(folder: RunFolder | None, versions: Mapping[int, VersionPublished]) -> Kept:
    """What the run's folder holds, by the digests of its files."""
    known = {entry.payload.digest: number for number, entry in versions.items()}
    codecs = {entry.codec for entry in versions.values()}
    found: dict[int, Path] = {}
    damaged: list[Path] = []
    for path in (folder.model, folder.best) if folder is not None else ():
        if not path.exists():
            continue
        number = known.get(_digest_published(path, codecs))
        if number is None:
            damaged.append(path)
        else:
            found.setdefault(number, path)
    return Kept(found, tuple(damaged))


def _digest_published(path: Path, codecs: Collection[str]) -> str:
    """The digest of the version that a file of the run's folder holds (the run's versions have one
    codec); of the file, where it holds none."""
    (codec,) = codecs or {FP32}
    if codec != FP32:
        with contextlib.suppress(DecodeError):
            return digest_of(published(path.read_bytes(), codec))
    return digest_of_file(path)


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file, hex. Raises `OSError`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def fetch(log: Log, run: str, payload: Payload, progress: Progress | None = None) -> bytearray:
    """The bytes of a version from the run's `model` topic, verified. Raises `BrokerRefused`,
    `NoSuchTopic` or `PeerError` where they are gone or damaged, `BrokerError`."""
    reader = log.reader()
    topic = names.physical(run, payload.topic, payload.generation)
    try:
        return fetch_payload(reader, topic, payload, patience=PATIENCE, progress=progress)
    finally:
        reader.close()


GONE = (BrokerRefused, NoSuchTopic, PeerError)
"""What says that a version is not to be had, though the broker answers."""


def oldest_there(log: Log, run: str, versions: Mapping[int, VersionPublished]) -> int | None:
    """The oldest version whose chunks the broker holds still; None if it holds none.

    Versions are stored one after the other and dropped from the front: looked for by halves."""
    numbers = sorted(versions)
    low, high = 0, len(numbers)
    while low < high:
        middle = (low + high) // 2
        if _holds(log, run, versions[numbers[middle]].payload):
            high = middle
        else:
            low = middle + 1
    return numbers[low] if low < len(numbers) else None


def _holds(log: Log, run: str, payload: Payload) -> bool:
    topic = names.physical(run, payload.topic, payload.generation)
    reader = log.reader()
    try:
        reader.follow(topic, payload.first, need=1)
        return any(record.offset == payload.first for record in reader.poll(PATIENCE, limit=1))
    except BrokerError:
        return False
    finally:
        reader.close()


def refusal(
    version: int, why: str, there: str, damaged: tuple[Path, ...]
) -> CheckFailed | RunError:
    """Why a version cannot be exported: a damaged file, or it is gone."""
    if damaged:
        files = " and ".join(path.name for path in damaged)
        return CheckFailed(
            f"{files}: the bytes are those of no version in the ledger, and version {version} "
            f"is nowhere else: {why}",
            where=str(damaged[0].parent),
            remedy=f"There: {there}.",
        )
    return RunError(f"version {version} is gone: {why}", remedy=f"There: {there}.")


# --- writing ------------------------------------------------------------------------------------


def put(path: Path, data: bytes | bytearray | memoryview) -> None:
    """Write a file at once, so that nobody ever reads half of it; its folder is made. Raises
    `RunFailed`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_at_once(path, data)
    except OSError as error:
        raise RunFailed(
            f"this file cannot be written: {error.strerror or error}",
            where=str(path),
            remedy="Make room there, or choose another place with --to.",
        ) from None


def state_dict_bytes(model: bytes | bytearray) -> memoryview:
    """A model's safetensors bytes as those of `torch.save(state_dict)`: tensors alone, so that
    `torch.load(weights_only=True)` takes it. Needs torch."""
    import safetensors.torch
    import torch

    # Copies: else each tensor would be saved with all the bytes that it is a view of.
    tensors = {name: t.clone() for name, t in safetensors.torch.load(bytes(model)).items()}
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getbuffer()


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """A table as RFC 4180 has it: a line of names, CRLF, UTF-8; nothing between two commas stands
    for what is not known."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return text.getvalue().encode()
