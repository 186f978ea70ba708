"""A topic that brings nothing has not ended: whoever reads it to its end waits, then says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hermes.errors import BrokerUnreachable, NoSuchTopic
from hermes.runtime import exported, hearing, lineage
from hermes.runtime.hearing import MasterEar
from hermes.runtime.observe import last_beat
from hermes.transport import names, upto
from hermes.transport.log import Record
from hermes.transport.memory import MemoryLog, MemoryReader
from hermes.verify import run as verifying

RUN = "r"
LEDGER = names.physical(RUN, names.LEDGER)


class FallsSilent(MemoryReader):
    """Brings one record and then nothing, at once: as in an outage of the broker."""

    brought = 0

    def poll(self, timeout: float, limit: int = 500) -> list[Record]:
        found = [] if self.brought else super().poll(timeout, min(limit, 1))
        self.brought += len(found)
        return found


class Away(MemoryLog):
    """Tells its ends, and falls silent."""

    def reader(self) -> FallsSilent:
        return FallsSilent(self._open())


def verify(log: Away, _folder: Path) -> None:
    list(verifying.ledger_in(log, RUN)(0))


def export(log: Away, folder: Path) -> None:
    exported.export_log(log, RUN, folder / "log", "1")


def look_for_forks(log: Away, folder: Path) -> None:
    lineage.refuse_parent(folder, "parent", log)


@pytest.mark.parametrize(
    "read", [verify, export, look_for_forks], ids=["verify", "export", "clean"]
)
def test_a_silence_is_not_the_end(
    read: Callable[[Away, Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upto, "SILENCE", 3)
    log = Away()
    log.create([LEDGER])
    for _ in range(3):
        log.append(LEDGER, b"a record")
    with pytest.raises(BrokerUnreachable, match=r"record 1 .*did not come") as told:
        read(log, tmp_path)
    assert told.value.where == LEDGER
    assert not (tmp_path / "log").exists(), "nor half an export"


def test_a_run_that_is_being_made_has_no_beat_yet() -> None:
    """Whoever looks between its ledger and its `logs` is told so, not that a topic is gone."""
    log = MemoryLog()
    log.create([LEDGER])
    assert last_beat(log, RUN) is None


def test_an_ear_outlives_the_topic_that_it_listens_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run may let go of an old generation of `logs` while a worker listens there, or before it
    begins to: the ledger goes on."""
    monkeypatch.setattr(hearing, "QUIET", -1.0)
    logs, log = names.physical(RUN, names.LOGS), MemoryLog()
    log.create([LEDGER, logs])
    reader = log.reader()
    reader.follow(LEDGER, 0)
    ear = MasterEar(log, reader, RUN)
    assert ear.poll(0.0) == [], "it begins to listen"
    log.delete([logs])
    assert ear.poll(0.0) == []
    assert ear.poll(0.0) == [], "and it is still gone"
    log.append(LEDGER, b"a record")
    assert [record.value for record in ear.poll(0.0)] == [b"a record"]
    log.delete([LEDGER])
    with pytest.raises(NoSuchTopic):
        ear.poll(0.0)
