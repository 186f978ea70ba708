"""What lies in the cache of this machine that can be had again? Blocks, downloads."""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hermes.data.cache import ABANDONED
from hermes.errors import UsageError
from hermes.runtime.clean import Thing, unlink

BLOCKS = re.compile(r"[0-9a-f]{64}|[0-9a-f]{32}\.part")
JARS = re.compile(r"kafka-[0-9.]+")
FETCHING = re.compile(r"fetching-.+")


class Caches(NamedTuple):
    """What goes of the cache."""

    blocks: tuple[Thing, ...]
    folders: tuple[Thing, ...]
    """Downloads that were broken off; and Kafka's files, where they are to go, too."""


def caches(folder: Path, *, everything: bool) -> Caches:
    """What lies in the cache `folder`; `everything`: Kafka's files, too (fetched again, 45 MB)."""
    blocks = [
        Thing(path, found.st_size)
        for path, found in _entries(folder / "blocks")
        if stat.S_ISREG(found.st_mode) and BLOCKS.fullmatch(path.name)
    ]
    folders = [
        Thing(path, sum(file.lstat().st_size for file in path.rglob("*")))
        for path, found in _entries(folder)
        if stat.S_ISDIR(found.st_mode)
        and (
            (FETCHING.fullmatch(path.name) and time.time() - found.st_mtime > ABANDONED)
            or (everything and JARS.fullmatch(path.name))
        )
    ]
    return Caches(tuple(blocks), tuple(folders))


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            yield path, path.lstat()


def clear(found: Caches) -> None:
    """Remove it. Raises `UsageError` naming the path."""
    unlink(thing.path for thing in found.blocks)
    for thing in found.folders:
        try:
            shutil.rmtree(thing.path)
        except FileNotFoundError:
            continue  # somebody else was faster
        except OSError as error:
            raise UsageError(
                f"this folder cannot be removed: {error.strerror or error}",
                where=str(thing.path),
                remedy="Make it writable, then: hermes clean --caches",
            ) from None
