"""How large may a file grow that others write on and on? It is cut when it is over its bound."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

LARGEST = 4 << 20
"""Bytes of a worker's output before it is cut ..."""
KEPT = 1 << 20
"""... and of its end, kept beside it."""


def cut(path: Path, largest: int = LARGEST, kept: int = KEPT) -> bool:
    """Empty a file that has grown beyond `largest` bytes, its last `kept` bytes saved in `path.1`;
    whether that was so.

    Its writers append (O_APPEND) and go on at the new end. What they write in the moment between
    is lost; so is what was in `path.1` before. A disk that is full is not made worse: the file is
    emptied whether or not its end could be saved.
    """
    try:
        with path.open("r+b") as file:
            if file.seek(0, os.SEEK_END) <= largest:
                return False
            file.seek(-kept, os.SEEK_END)
            try:
                path.with_name(f"{path.name}.1").write_bytes(file.read())
            finally:
                file.truncate(0)
    except OSError:
        return False
    return True


def keep_newest(paths: Iterable[Path], count: int) -> None:
    """Remove all but the `count` files that sort last (their names begin with their time)."""
    for path in sorted(paths)[:-count]:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            continue
