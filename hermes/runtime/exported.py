"""How is the whole log of a run written into files? Every topic, as its broker has it now.

In this order: the ledger to its end, then the others to theirs. So all that the ledger names is
there, unless the run let go of it meanwhile; then the ledger has a record of that behind the end,
and both are read on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from hermes.codec import decode
from hermes.errors import (
    BrokerRefused,
    BrokerUnreachable,
    DecodeError,
    NoSuchTopic,
    RunFailed,
)
from hermes.messages import PROTOCOL, LedgerRecord, Trimmed
from hermes.runtime.logs import utc_now
from hermes.transport import names
from hermes.transport.filed import Index, TopicFile, TopicWriter, read_index, write_index
from hermes.transport.log import Log, Record
from hermes.transport.upto import records_in

ROUNDS = 50
"""Times that the topics are read on, at most: a run lets go of something every few seconds."""

Progress = Callable[[int], None]
"""Told of the records written so far."""


class Exported(NamedTuple):
    """What was written."""

    folder: Path
    contents: Index


def export_log(
    log: Log, run: str, folder: Path, hermes: str, told: Progress = lambda _done: None
) -> Exported:
    """Write all topics of the run into a new folder, which appears at once and whole; one that is
    there is replaced (it must be an exported log). Raises `RunFailed`, `BrokerError`."""
    spare = folder.with_name(f".{folder.name}-{os.getpid()}")
    copy = _Copy(log, run, spare, told)
    try:
        spare.mkdir(parents=True)
        copy.all()
        topics = {topic: writer.close() for topic, writer in sorted(copy.writers.items())}
        index = Index(1, run, PROTOCOL, hermes, utc_now(), log.place, topics)
        write_index(spare, index)
        if folder.exists():
            forget(folder)
        spare.rename(folder)
    except OSError as error:
        raise RunFailed(
            f"the log cannot be written: {error.strerror or error}",
            where=str(folder),
            remedy="Make room there, or choose another place with --to.",
        ) from None
    finally:
        copy.close()
        shutil.rmtree(spare, ignore_errors=True)
    return Exported(folder, index)


def forget(folder: Path) -> None:
    """Remove an exported log: its own files alone. Raises `RunError`, `OSError`."""
    topics: dict[str, TopicFile] = read_index(folder).topics
    for told in topics.values():
        (folder / told.file).unlink(missing_ok=True)
    (folder / "log.json").unlink()
    folder.rmdir()


# --- copying ------------------------------------------------------------------------------------


class _Copy:
    """Topics on their way into files."""

    def __init__(self, log: Log, run: str, folder: Path, told: Progress) -> None:
        self.writers: dict[str, TopicWriter] = {}
        self._log, self._run, self._folder, self._told = log, run, folder, told
        self._floors: dict[str, int] = {}
        """The oldest generation of each topic that is kept, by the ledger as it was copied."""

    def all(self) -> None:
        """Every topic. Raises `BrokerError`, `OSError`."""
        ledger = names.physical(self._run, names.LEDGER)
        start = self._log.starts([ledger])[ledger]
        self.writers[ledger] = TopicWriter(self._folder / _file(ledger), start)
        for again in range(ROUNDS):
            news = list(self._rest(ledger, self.writers[ledger].next))
            trims = [entry for record in news for entry in _trims(record)]
            if again and not trims:
                return  # what is named behind the end need not be there
            self._floors |= {entry.topic: entry.generation for entry in trims}
            for record in news:
                self.writers[ledger].add(record)
            for topic in self._log.topics(names.prefix_of(self._run)):
                if topic != ledger and self._is_kept(topic):
                    self._read_on(topic)
                    self._told(sum(writer.records for writer in self.writers.values()))

    def close(self) -> None:
        """Let go of the files."""
        for writer in self.writers.values():
            with contextlib.suppress(OSError):
                writer.abandon()

    def _is_kept(self, topic: str) -> bool:
        name = names.parse(topic)
        return name is not None and name.generation >= self._floors.get(name.short, 0)

    def _read_on(self, topic: str) -> None:
        """Copy a topic to its present end."""
        try:
            if topic not in self.writers:
                start = self._log.starts([topic])[topic]
                self.writers[topic] = TopicWriter(self._folder / _file(topic), start)
            for record in self._rest(topic, self.writers[topic].next):
                self.writers[topic].add(record)
        except NoSuchTopic:
            return  # a generation that went meanwhile
        except BrokerUnreachable:
            if topic in self._log.topics(topic):
                raise  # else: it went while it was asked for

    def _rest(self, topic: str, place: int) -> Iterator[Record]:
        """The records from a place to the topic's present end. Raises `BrokerUnreachable` where
        they do not come."""
        end = self._log.ends([topic])[topic]
        while place < end:
            try:
                for record in records_in(self._log, topic, place, end):
                    place = record.offset + 1
                    yield record
            except BrokerRefused:  # trimmed meanwhile: what is left begins later
                place = self._log.starts([topic])[topic]


def _trims(record: Record) -> list[Trimmed]:
    try:
        message = decode(record.value)
    except DecodeError:
        return []
    entries = message.entries if isinstance(message, LedgerRecord) else ()
    return [entry for entry in entries if isinstance(entry, Trimmed)]


def _file(topic: str) -> str:
    """A file's name: that of the topic, without what all have."""
    name = names.parse(topic)
    assert name is not None
    return f"{topic.removeprefix(names.prefix_of(name.run))}.records"
