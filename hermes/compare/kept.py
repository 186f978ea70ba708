"""Where do the cells of a comparison find what others have scored? In a folder, a file a model."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

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
        with contextlib.suppress(OSError):
            write_at_once(self._folder / key, msgspec.msgpack.encode(scores))
