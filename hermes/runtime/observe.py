"""How does somebody who is not the master look at a run, or ask it to stop?

Live, by the run's topics; saved, by its folder. Nothing here ever writes to a ledger.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TextIO

import msgspec

from hermes.broker.process import identity
from hermes.codec import decode, encode, proof_of, same
from hermes.errors import BrokerError, DecodeError, NoSuchTopic, RunError, Unverified, UsageError
from hermes.machine.state import MasterState
from hermes.messages import LedgerRecord, LogLine, MasterBeat, StopRequested
from hermes.perform.ledger import Ledger
from hermes.perform.upload import Signer
from hermes.runtime.archive import fold_archive
from hermes.runtime.folder import RunFolder, RunNote
from hermes.runtime.join import ledger_of, runs_at
from hermes.transport import names
from hermes.transport.log import Log, Reader, Record
from hermes.transport.probe import probe

Take = Callable[[LedgerRecord], None]
"""Told of each record that counts, in order."""

BEATS = 5.0
"""Seconds in which a master that lives is heard: it beats every 2 s."""

ANSWERING = 2.0
"""Seconds that a broker may take to answer which this machine noted."""

TAIL = 200
"""Records of `logs` in which a beat is looked for: some seconds of a run with many workers."""

LOOK = 0.25
"""Seconds between two looks at what has no news to wait for."""


class View(NamedTuple):
    """What is known of a run."""

    run: str
    state: MasterState
    place: str
    """Where it was read: HOST:PORT, or a path."""
    live: bool
    damage: str = ""
    """Of a saved run: what of its records cannot be read, in words."""


# --- looking ------------------------------------------------------------------------------------


def saved(folder: RunFolder, take: Take | None = None) -> View:
    """A run as its folder tells it. Raises `RunError` where its records are gone."""
    refuse_unrecorded(folder)
    ledger = fold_archive(folder.ledger, None if take is None else lambda _, it, __: take(it))
    return View(folder.run, ledger.state, str(folder.path), False, _damage(folder, ledger))


def refuse_unrecorded(folder: RunFolder) -> None:
    """Raise `RunError` where a run's folder has no ledger."""
    if not folder.ledger.exists():
        raise RunError(
            f"the run {folder.run!r} has no records here",
            where=str(folder.log),
            remedy="It ended before it was opened; central.log may say why.",
        )


def _damage(folder: RunFolder, ledger: Ledger) -> str:
    if not ledger.voids:
        return ""
    offset, why = ledger.voids[0]
    return (
        f"{folder.ledger}: {len(ledger.voids)} of its records do not count any more, the first at "
        f"offset {offset} ({why}): the file was changed or damaged"
    )


class LiveRun:
    """A run at a broker; folds on with each look."""

    def __init__(self, log: Log, broker: str, run: str, take: Take | None = None) -> None:
        """Raises `RunError` if the broker has no such run, `UsageError` for a bad run id."""
        self.run, self.broker = run, broker
        self._ledger = Ledger(log, ledger_of(log, run), watcher=self._watch)
        self._take = take

    def look(self) -> View:
        """The state up to the present end of the ledger."""
        self._ledger.fold()
        self._ledger.voids.clear()  # told by the run's master; a viewer may look for days
        return View(self.run, self._ledger.state, self.broker, live=True)

    def _watch(self, _raw: Record, record: LedgerRecord, _state: MasterState) -> None:
        if self._take is not None:
            self._take(record)


def newest_at(log: Log, broker: str) -> str:
    """The run at this broker that was opened last. Raises `RunError` if there is none."""
    opened = {}
    for run in runs_at(log):
        state = LiveRun(log, broker, run).look().state
        opened[run] = state.opened.opened if state.opened else ""
    if not opened:
        raise RunError(
            "there is no run here", where=broker, remedy="Start one: hermes master JOB.py"
        )
    return max(opened, key=lambda run: opened[run])


def answers(broker: str) -> bool:
    """Whether a broker that this machine noted is there; asks briefly."""
    try:
        probe(broker, timeout=ANSWERING)
    except (BrokerError, UsageError):
        return False
    return True


def is_running(note: RunNote | None) -> bool:
    """Whether the master that this machine noted is a process of this machine still."""
    return note is not None and identity(note.pid) == note.born


def beating(log: Log, runs: Iterable[str], seconds: float = BEATS) -> set[str]:
    """Those of the runs whose master is heard within `seconds`; ends early if all are."""
    topics = [logs_of(log, run)[-1] for run in runs]
    reader = log.reader()
    heard: set[str] = set()
    try:
        for topic, end in log.ends(topics).items():
            reader.follow(topic, end)
        deadline = time.monotonic() + seconds
        while len(heard) < len(topics) and (left := deadline - time.monotonic()) > 0:
            for record in reader.poll(left):
                if isinstance(_read(record), MasterBeat):
                    name = names.parse(record.topic)
                    heard |= {name.run} if name is not None else set()
    finally:
        reader.close()
    return heard


def last_beat(log: Log, run: str) -> MasterBeat | None:
    """What the run's master said last of itself; None where it said nothing of late."""
    topic, found = logs_of(log, run)[-1], None
    reader = log.reader()
    try:
        end = log.ends([topic])[topic]
        place = max(log.starts([topic])[topic], end - TAIL)
        reader.follow(topic, place)
        while place < end and (records := reader.poll(1.0)):
            for record in records:
                place, message = record.offset + 1, _read(record)
                found = message if isinstance(message, MasterBeat) else found
    except NoSuchTopic:
        pass  # the run is just being made, or has let go of this generation of `logs`
    finally:
        reader.close()
    return found


# --- stopping -----------------------------------------------------------------------------------


def refuse_other_key(state: MasterState, run: str, key: bytes) -> None:
    """Raise `Unverified` where the run's master has another cluster key: it would not listen."""
    opened = state.opened
    if opened is not None and not same(opened.key_proof, Signer(run, key).opening()):
        raise Unverified(
            "the run's master has another cluster key, and would not listen to us",
            where=f"run {run}",
            remedy="Name the master's key file with --key-file.",
        )


def request_stop(log: Log, run: str, key: bytes, reason: str) -> None:
    """Ask the run's master to stop, signed with the cluster key."""
    bare = StopRequested(run, secrets.token_hex(16), reason)
    signed = msgspec.structs.replace(bare, proof=proof_of(key, bare))
    log.append(names.physical(run, names.LOBBY), encode(signed)).offset()


def wait_for_stop(live: LiveRun, seconds: float) -> View | None:
    """The run once its ledger holds a stop; None if none came in time."""
    deadline = time.monotonic() + seconds
    while True:
        view = live.look()
        if view.state.stopped is not None:
            return view
        if time.monotonic() > deadline:
            return None
        time.sleep(LOOK)


# --- the central log ----------------------------------------------------------------------------


def log_lines(log: Log, live: LiveRun, *, follow: bool) -> Iterator[LogLine]:
    """The lines in the run's `logs` topic; with `follow`, until the run has ended."""
    followed: set[str] = set()
    reader = log.reader()
    try:
        left = _follow_all(log, live.run, reader, followed)
        while left or follow:
            records = reader.poll(1.0)
            for record in records:
                if record.offset + 1 >= left.get(record.topic, 0):
                    left.pop(record.topic, None)
                message = _read(record)
                if isinstance(message, LogLine):
                    yield message
            if not records and not left:
                if live.look().state.scored:
                    return
                left = _follow_all(log, live.run, reader, followed)
    finally:
        reader.close()


def logs_of(log: Log, run: str) -> list[str]:
    """The topic `logs` of this run, in all generations that are there; the newest last."""
    first = names.physical(run, names.LOGS)
    found = [
        (name.generation, topic) for topic in log.topics(first) if (name := names.parse(topic))
    ]
    return [topic for _, topic in sorted(found)] or [first]


def _follow_all(log: Log, run: str, reader: Reader, followed: set[str]) -> dict[str, int]:
    """Follow each generation that is not followed yet, from its first record on; the ends of
    those that hold any."""
    fresh = [topic for topic in logs_of(log, run) if topic not in followed]
    if not fresh:
        return {}
    for topic, start in (starts := log.starts(fresh)).items():
        reader.follow(topic, start)
        followed.add(topic)
    return {topic: end for topic, end in log.ends(fresh).items() if end > starts[topic]}


def file_lines(folder: RunFolder, *, follow: bool) -> Iterator[str]:
    """The lines of `central.log`; with `follow`, until the run's master is gone."""
    try:
        file = folder.central_log.open(encoding="utf-8", errors="replace")
    except OSError as error:
        raise RunError(
            f"the central log cannot be read: {error.strerror}",
            where=str(folder.central_log),
            remedy="Was the run's folder moved or cleaned?",
        ) from None
    try:
        while True:
            lives, rotated = follow and is_running(folder.read_note()), _rotated(folder, file)
            yield from _whole_lines(file)
            if rotated:
                file.close()
                file = folder.central_log.open(encoding="utf-8", errors="replace")
            elif not lives:
                return
            else:
                time.sleep(LOOK)
    finally:
        file.close()


def _whole_lines(file: TextIO) -> Iterator[str]:
    """What is there; a line that is still being written is left for the next time."""
    place = file.tell()
    while (line := file.readline()).endswith("\n"):
        yield line[:-1]
        place = file.tell()
    file.seek(place)


def _rotated(folder: RunFolder, file: TextIO) -> bool:
    try:
        return os.fstat(file.fileno()).st_ino != folder.central_log.stat().st_ino
    except OSError:
        return False


def _read(record: Record) -> object:
    try:
        return decode(record.value)
    except DecodeError:
        return None
