"""What has a run left, here and at its broker, and how does it go?

Only what Hermes made is ever removed, known by its name: anything else that lies in a run's folder
is left and named. Links are never followed. What was begun and broken off can be done again.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from hermes.errors import HermesError, RunError, UsageError
from hermes.runtime.folder import RunFolder, saved_runs
from hermes.runtime.observe import LiveRun, beating, is_running
from hermes.transport import names
from hermes.transport.log import Log

_NAME = r"[a-z0-9-]{1,40}"
_PLAIN = (
    r"central\.log(\.[0-9]+)?|result\.json|(model|best)\.safetensors|curves\.png|report\.html|"
    r"run\.json"
)
_OUTBOX = rf"{_NAME}/(lock|outbox\.msgpack|outbox\.new|journal\.jsonl(\.1)?)"
FILES = re.compile(
    rf"{_PLAIN}|\.({_PLAIN})-[0-9]+|log/(ledger\.records(\.new-[0-9]+)?|blocks|quarantine\.jsonl(\.1)?|"
    rf"{_NAME}\.out(\.1)?)|work/outbox/(workers/{_NAME}/{_OUTBOX}|names/{_NAME}-[0-9a-f]{{16}}\.lock)|"
    rf"topics/(log\.json|(from\.)?{_NAME}(\.g[0-9]+)?\.records)"
)
"""What a run writes in its folder, and half of it where a process died."""
FOLDERS = re.compile(rf"log|topics|work(/outbox(/names|/workers(/{_NAME}(/{_NAME})?)?)?)?")
OUTBOXES = re.compile(_OUTBOX)
"""What workers that were started elsewhere write in `workers/RUN` of their state folder."""

_LOCK = re.compile(r"^lock$|\.lock$")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Thing(NamedTuple):
    """A file that goes."""

    path: Path
    size: int


class Found(NamedTuple):
    """What lies under one folder."""

    files: tuple[Thing, ...] = ()
    folders: tuple[Path, ...] = ()
    """The innermost first; each goes if nothing is left in it."""
    strangers: tuple[Path, ...] = ()
    """Not made by Hermes: they stay."""

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(thing.size for thing in self.files)


class Topic(NamedTuple):
    """A topic that goes."""

    name: str
    records: int
    size: int | None
    """Bytes; None where the broker does not say."""


class Leftovers(NamedTuple):
    """All that a run has left."""

    run: str
    folder: Path | None
    files: Found
    outboxes: Found
    """Of workers that were started elsewhere on this machine."""
    blocks: tuple[Thing, ...]
    """Of the cache, that no other run in this folder names."""
    latest: Path | None
    """The link `runs/latest`, where it points to this run."""
    topics: tuple[Topic, ...] = ()
    strange_topics: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether the run is known neither here nor at the broker."""
        return self.folder is None and not (self.topics or self.outboxes.files)

    @property
    def clean(self) -> bool:
        """Whether nothing is left that would go."""
        return not (self.topics or self.files.files or self.outboxes.files or self.blocks)


# --- what there is ------------------------------------------------------------------------------


def leftovers(out: Path, run: str, state: Path, cache: Path, log: Log | None) -> Leftovers:
    """What this run has left: under `out`, in the state folder, in the cache of blocks, and at the
    broker, where one is given. Raises `UsageError` for a bad run id, `RunError` for a folder that
    is a link."""
    folder = RunFolder(out, names.checked_run(run))
    if folder.path.is_symlink():
        raise RunError(
            "this run's folder is a link, and links are not followed",
            where=str(folder.path),
            remedy="Name the folder that it leads to with --out DIR, or remove the link.",
        )
    there = folder.path.is_dir()
    outbox = state / "workers" / run
    latest = folder.runs / "latest"
    points = latest.is_symlink() and str(latest.readlink()) == run
    topics, strange = _topics(log, run) if log is not None else ((), ())
    return Leftovers(
        run,
        folder.path if there else None,
        look(folder.path, FILES, FOLDERS) if there else Found(),
        look(outbox, OUTBOXES, re.compile(_NAME)) if _is_folder(outbox) else Found(),
        tuple(_own_blocks(folder, out, cache)),
        latest if points else None,
        topics,
        strange,
    )


def look(root: Path, ours: re.Pattern[str], folders: re.Pattern[str]) -> Found:
    """The files below `root`, by their paths in it; of folders only those that are ours are
    entered, and no link is followed."""
    files: list[Thing] = []
    strangers: list[Path] = []
    entered = [root]
    for folder in entered:
        for item in sorted(folder.iterdir()):
            found, inside = item.lstat(), item.relative_to(root).as_posix()
            if stat.S_ISDIR(found.st_mode) and folders.fullmatch(inside):
                entered.append(item)
            elif stat.S_ISREG(found.st_mode) and ours.fullmatch(inside):
                files.append(Thing(item, found.st_size))
            else:
                strangers.append(item)
    return Found(tuple(sorted(files)), tuple(reversed(entered)), tuple(sorted(strangers)))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _topics(log: Log, run: str) -> tuple[tuple[Topic, ...], tuple[str, ...]]:
    prefix = names.prefix_of(run)
    found = log.topics(prefix)
    ours = [topic for topic in found if (name := names.parse(topic)) and name.run == run]
    ends, held = log.ends(ours), log.held(prefix)
    topics = (Topic(t, ends[t], held.topics.get(t) if held is not None else None) for t in ours)
    return tuple(topics), tuple(sorted(set(found) - set(ours)))


def _own_blocks(folder: RunFolder, out: Path, cache: Path) -> Iterator[Thing]:
    others = [one for one in saved_runs(out) if one.run != folder.run]
    shared = {digest for other in others for digest in noted_blocks(other)}
    for digest in sorted(noted_blocks(folder) - shared):
        with contextlib.suppress(OSError):
            yield Thing(cache / digest, (cache / digest).lstat().st_size)


def noted_blocks(folder: RunFolder) -> set[str]:
    """Digests of the blocks that a run used."""
    try:
        text = folder.blocks.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return set()
    return {line for line in text.split() if _DIGEST.fullmatch(line)}


# --- whether it may go --------------------------------------------------------------------------


def refuse_live(out: Path, left: Leftovers, log: Log | None) -> None:
    """Raise `RunError` where the run's master, or a worker of it on this machine, still runs."""
    folder = RunFolder(out, left.run)
    note = folder.read_note()
    if note is not None and is_running(note):
        raise _lives(left.run, f"its master runs (process {note.pid})", str(folder.path))
    for thing in (*left.files.files, *left.outboxes.files):
        if _LOCK.search(thing.path.name) and _held(thing.path):
            what = "one of its workers runs on this machine"
            raise _lives(left.run, what, str(thing.path))
    if log is not None and left.topics and _beats(log, left):
        raise _lives(left.run, "its master is heard", "the broker")


def _lives(run: str, how: str, where: str) -> RunError:
    return RunError(
        f"the run {run!r} is under way: {how}",
        where=where,
        remedy=f"Stop it first: hermes stop {run}",
    )


def _held(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _beats(log: Log, left: Leftovers) -> bool:
    there = {topic.name for topic in left.topics}
    if names.physical(left.run, names.LOGS) not in there:
        return False
    if names.physical(left.run, names.LEDGER) in there:
        with contextlib.suppress(HermesError):  # a ledger that cannot be read: then we listen
            state = LiveRun(log, "", left.run).look().state
            if state.stopped is not None and (state.scored or state.newest is None):
                return False
    return left.run in beating(log, [left.run])


# --- how it goes --------------------------------------------------------------------------------


def remove(left: Leftovers, log: Log | None) -> None:
    """Remove all of it: first what is at the broker (the ledger last, by which the run is known),
    `run.json` last of the files. Raises `BrokerError`, `UsageError`; can be done again then."""
    if log is not None and left.topics:
        ledger = names.physical(left.run, names.LEDGER)
        found = [topic.name for topic in left.topics]
        log.delete([name for name in found if name != ledger])
        log.delete([name for name in found if name == ledger])
        if log.guards is not None:
            log.guards.forget_rights(names.prefix_of(left.run))
    unlink(thing.path for thing in (*left.blocks, *left.outboxes.files))
    _remove_empty(left.outboxes)
    if left.folder is None:
        return
    if left.latest is not None:
        unlink([left.latest])
    unlink(sorted((t.path for t in left.files.files), key=lambda path: path.name == "run.json"))
    _remove_empty(left.files)
    if left.latest is not None:
        _next_latest(left.folder)


def _next_latest(gone: Path) -> None:
    """The newest of the runs that are left is the latest now."""
    others = [folder for folder in saved_runs(gone.parent.parent) if folder.path != gone]
    if others:
        with contextlib.suppress(OSError):  # a link for people: no reason to fail
            others[0].become_latest()


def unlink(paths: Iterable[Path]) -> None:
    """Remove files; ones that are gone are no error. Raises `UsageError` naming the path."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(
                f"this file cannot be removed: {error.strerror or error}",
                where=str(path),
                remedy="Make its folder writable, then: hermes clean again, which goes on.",
            ) from None


def _remove_empty(found: Found) -> None:
    for folder in found.folders:
        with contextlib.suppress(OSError):  # something lies in it that is not ours
            folder.rmdir()
