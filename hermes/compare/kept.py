"""Where do the cells of a comparison find what others have done? In a folder, a file each: the
scores of a model, and a block of data deflated, which takes a second for all of MNIST's."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import msgspec

from hermes.data.blocks import deflated
from hermes.runtime.at_once import write_at_once
from hermes.train.protocol import Scores


class Folder:
    """Scores by key. What goes wrong with the disk costs time, and nothing else."""

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
        """As `blocks.deflated`, done once for all; what gets no smaller is not kept."""
        key = f"{hashlib.sha256(plain).hexdigest()}.deflated"
        with contextlib.suppress(OSError):
            return (self._folder / key).read_bytes()
        small = deflated(plain)
        if len(small) < len(plain):
            self._write(key, small)
        return small

    def _write(self, key: str, data: bytes) -> None:
        with contextlib.suppress(OSError):
            write_at_once(self._folder / key, data)
