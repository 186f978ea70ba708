"""Which blocks does this machine have already? A folder of bounded size, shared and restartable.

A block is a file named by the SHA-256 of its bytes, so that whatever is read can be checked, and
nothing needs to be written down beside it. When a block was last used is its file's time.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hermes.codec import digest_of
from hermes.errors import DecodeError, RunFailed

ABANDONED = 3600.0
"""Seconds after which a half-written file belongs to a process that died."""

TRIES = 4
"""At writing a block, while others delete what is being written."""


class _Entry(NamedTuple):
    used: int
    path: Path
    size: int


class BlockCache:
    """Blocks by digest, in `folder`, of `max_bytes` in all.

    Several processes may share a folder: files appear whole and are only ever deleted. Each looks
    at the whole folder when it starts and after every 16th of the bound that it writes, so that
    n of them stay within (1 + n/16) of the bound. Raises `RunFailed`, naming the path, where the
    folder cannot be used or the disk is full.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max = folder, max_bytes
        with self._usable():
            folder.mkdir(parents=True, exist_ok=True)
            self._size = sum(entry.size for entry in self._entries())
            self._written = 0
            self._make_room(0)

    def get(self, digest: str) -> bytes | None:
        """The block of this digest; None if it is not here (any more), or was damaged."""
        path = self._path(digest)
        with self._usable():
            try:
                data = path.read_bytes()
                now = time.time_ns()
                os.utime(path, ns=(now, now))
            except FileNotFoundError:
                return None
            if digest_of(data) == digest:
                return data
            path.unlink(missing_ok=True)
            return None

    def put(self, data: bytes) -> str:
        """Keep this block, and return its digest. One larger than the bound is not kept."""
        digest = digest_of(data)
        path = self._path(digest)
        if len(data) > self._max:
            return digest
        with self._usable():
            if path.exists():
                return digest
            self._make_room(len(data))
            self._write(path, data)
            self._size += len(data)
            self._written += len(data)
        return digest

    def _path(self, digest: str) -> Path:
        if re.fullmatch(r"[0-9a-f]{64}", digest) is None:  # it becomes a file's name
            raise DecodeError(f"{digest[:80]!r} is not a digest")
        return self._folder / digest

    def _write(self, path: Path, data: bytes) -> None:
        """Under another name first: the block's own name only ever stands for all of it."""
        for left in reversed(range(TRIES)):
            part = path.with_name(f"{uuid.uuid4().hex}.part")
            try:
                part.write_bytes(data)
                now = time.time_ns()  # the kernel's own clock for files is too coarse to order them
                os.utime(part, ns=(now, now))
                part.replace(path)
                return
            except FileNotFoundError:
                # By a clock that leapt, another process took it for abandoned.
                if not left:
                    raise
            finally:
                part.unlink(missing_ok=True)

    def _make_room(self, coming: int) -> None:
        """Delete the longest unused until `coming` bytes fit; then a 16th of the bound more, so
        that the folder need not be listed for every block."""
        share = self._max // 16
        if self._size + coming <= self._max and self._written <= share:
            return
        entries = sorted(self._entries())
        self._size, self._written = sum(entry.size for entry in entries), 0
        if self._size + coming <= self._max:
            return
        for entry in entries:
            if self._size + max(coming, share) <= self._max:
                break
            entry.path.unlink(missing_ok=True)
            self._size -= entry.size

    def _entries(self) -> Iterator[_Entry]:
        """All blocks in the folder; what a dead process left half-written is deleted."""
        with os.scandir(self._folder) as found:
            for item in found:
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    stat = item.stat(follow_symlinks=False)
                    path = Path(item.path)
                    if path.suffix == ".part" and time.time() - stat.st_mtime > ABANDONED:
                        path.unlink()
                    elif re.fullmatch(r"[0-9a-f]{64}", path.name):
                        yield _Entry(stat.st_mtime_ns, path, stat.st_size)

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunFailed(
                f"the cache of blocks cannot be used: {error.strerror or error}",
                where=str(self._folder),
                remedy="Make room there or make it writable, lower cache.max, or choose another "
                "place with HERMES_CACHE=DIR (worker: --cache DIR).",
            ) from None
