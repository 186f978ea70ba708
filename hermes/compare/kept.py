"""Where do the cells of a comparison find what others have done? In a folder, a file each: the
scores of a model, and a block of data deflated, which takes a second for all of MNIST's."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from pathlib import Path

import msgspec

from hermes.data.blocks import deflated, pays
from hermes.runtime.at_once import write_at_once
from hermes.train.protocol import Scores

DIGEST = hashlib.sha256().digest_size
"""Bytes before a deflated block: the SHA-256 of what follows."""

ROOM = 2 << 30
"""Bytes that are left free on that disk: with fewer, nothing more is kept."""


class Folder:
    """Scores and blocks by key. What goes wrong with the disk costs time, and nothing else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> Scores | None:
        """What was put by this key; None where nobody has."""
        try:
            return msgspec.msgpack.decode((self._folder / key).read_bytes(), type=Scores)
        except (OSError, msgspec.DecodeError):
            return None

    def put(self, key: str, scores: Scores) -> None:
        """Keep it for others."""
        self._write(key, msgspec.msgpack.encode(scores))

    def deflated(self, plain: bytes) -> bytes:
        """As `blocks.deflated`, done once for all; what does not pay is not kept."""
        key = f"{_digest(plain).hex()}.deflated"
        with contextlib.suppress(OSError):
            found = (self._folder / key).read_bytes()
            if _digest(found[DIGEST:]) == found[:DIGEST]:
                return found[DIGEST:]
        small = deflated(plain)
        if pays(small, plain):
            self._write(key, _digest(small) + small)
        return small

    def _write(self, key: str, data: bytes) -> None:
        with contextlib.suppress(OSError):
            if shutil.disk_usage(self._folder).free > ROOM:
                write_at_once(self._folder / key, data)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
