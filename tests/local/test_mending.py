"""A broker that loses acknowledged records of the ledger: they are written again, or it is said."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from hermes.errors import Fenced, RunFailed
from hermes.machine.state import MasterState
from hermes.messages import LedgerRecord, RunStopped
from hermes.perform.ledger import Ledger
from hermes.runtime.archive import Archive, fold_archive
from hermes.simulate.faults import FaultyLog
from hermes.simulate.schedules import draw, setup_of
from hermes.transport.log import Record
from hermes.values import Reason

TOPIC = "hermes.schedule.ledger"
OPENED = setup_of(draw(1)).run
END = RunStopped("stopped", Reason("requested"))


class Disk:
    """A ledger's topic, and the archive that a master keeps of it."""

    def __init__(self, folder: Path) -> None:
        self.log = FaultyLog(TOPIC, {}, Counter())
        self.log.create([TOPIC])
        self.path = folder / "ledger.records"
        self.archives: list[Archive] = []

    def master(self, nonce: str) -> tuple[Ledger, Archive]:
        """A master that has claimed the run, with what was kept before."""
        archive = Archive(self.path)
        self.archives.append(archive)

        def keep(raw: Record, _record: LedgerRecord, _state: MasterState) -> None:
            archive.add(raw)

        ledger = Ledger(self.log, TOPIC, watcher=keep, saved=archive.saved)
        ledger.start(nonce)
        archive.settle()
        return ledger, archive

    def folded(self) -> Ledger:
        """As any reader has it."""
        ledger = Ledger(self.log, TOPIC)
        ledger.fold()
        return ledger


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    yield made
    for archive in made.archives:
        archive.close()


def same(one: MasterState, other: MasterState) -> bool:
    """But for where the records lie."""
    there = replace(other.authority, offset=one.authority.offset)
    return one == replace(other, authority=there)


def test_a_master_that_lives_writes_again_what_was_lost(disk: Disk) -> None:
    """The next append shows it: the records that were lost follow from what is left, as before."""
    ledger, _ = disk.master("m1")
    ledger.commit((OPENED,), (), 1)
    before = ledger.state
    assert disk.log.lose(TOPIC, 1) == 1
    ledger.commit((END,), (), 2)
    assert ledger.mended == 1
    found = disk.folded()
    assert same(found.state, ledger.state)
    assert found.state.opened == before.opened
    assert found.state.stopped is not None
    assert [why for _, why in found.voids] == ["not-next"], "the append that showed it"


def test_a_loss_after_a_loss_is_mended_too(disk: Disk) -> None:
    ledger, _ = disk.master("m1")
    ledger.commit((OPENED,), (), 1)
    for turn in range(3):
        disk.log.lose(TOPIC, 1 + turn % 2)
        ledger.commit((), (), 2 + turn)
    assert ledger.mended >= 3
    assert same(disk.folded().state, ledger.state)


def test_a_master_that_is_started_again_writes_again_what_its_folder_has(disk: Disk) -> None:
    """Both died, master and broker: the records are on the master's disk."""
    ledger, archive = disk.master("m1")
    ledger.commit((OPENED,), (), 1)
    ledger.commit((END,), (), 2)
    archive.close()
    lost = disk.folded().state
    disk.log.lose(TOPIC, 2)
    again, _ = disk.master("m2")
    assert again.mended == 2
    assert again.state.stopped == lost.stopped
    assert again.state.opened == OPENED
    assert again.state.authority.term == 2
    assert same(disk.folded().state, again.state)


def test_nothing_is_written_again_where_nothing_was_lost(disk: Disk) -> None:
    ledger, archive = disk.master("m1")
    ledger.commit((OPENED,), (), 1)
    archive.close()
    records = disk.log.ends([TOPIC])[TOPIC]
    again, _ = disk.master("m2")
    assert again.mended == 0
    assert disk.log.ends([TOPIC])[TOPIC] == records + 1, "its claim"


def test_records_that_nobody_has_are_missed_aloud(disk: Disk) -> None:
    """The folder was lost as well: the master stops, and says what to do."""
    ledger = Ledger(disk.log, TOPIC)
    ledger.start("m1")
    ledger.commit((OPENED,), (), 1)
    disk.log.lose(TOPIC, 1)
    with pytest.raises(RunFailed, match="not kept either") as told:
        ledger.commit((END,), (), 2)
    assert "hermes resume" in told.value.remedy


def test_a_master_whose_run_went_on_without_the_lost_part_is_fenced(disk: Disk) -> None:
    """Another one has claimed what was left: nothing of the lost part comes after it."""
    ledger, _ = disk.master("m1")
    ledger.commit((OPENED,), (), 1)
    disk.log.lose(TOPIC, 1)
    other = Ledger(disk.log, TOPIC)
    other.start("m2")
    ledger.doubt()  # as its watch does when the broker is away
    with pytest.raises(Fenced):
        ledger.commit((END,), (), 2)
    assert disk.folded().state.authority.nonce == "m2"
    assert disk.folded().state.opened is None


def test_the_archive_holds_what_came_after_records_that_were_written_again(disk: Disk) -> None:
    """Where void records were lost with them, what follows lies at offsets that were used."""
    ledger, archive = disk.master("m1")
    ledger.commit((OPENED,), (), 1)
    for _ in range(4):
        disk.log.append(TOPIC, b"void")
    ledger.commit((), (), 2)
    disk.log.lose(TOPIC, 5)
    ledger.commit((END,), (), 3)
    ledger.commit((), (), 4)
    archive.close()
    kept = fold_archive(disk.path)
    assert not kept.voids
    assert kept.state.stopped is not None
    assert kept.state.authority.chain == ledger.state.authority.chain


def test_a_master_of_the_same_term_that_went_on_fences_too(disk: Disk) -> None:
    """Ours was lost with its claim; the next one took its number."""
    ledger, _ = disk.master("m1")
    disk.log.lose(TOPIC, 1)
    Ledger(disk.log, TOPIC).start("m2")
    ledger.doubt()  # the broker was away
    with pytest.raises(Fenced):
        ledger.commit((OPENED,), (), 1)


def test_the_archive_is_what_the_ledger_holds(disk: Disk) -> None:
    """After a loss it has each record that counts, once, in order."""
    ledger, archive = disk.master("m1")
    ledger.commit((OPENED,), (), 1)
    disk.log.lose(TOPIC, 1)
    ledger.commit((END,), (), 2)
    kept = [hashlib.sha256(raw.value).hexdigest() for raw in archive.saved()]
    voids = {offset for offset, _ in disk.folded().voids}
    there = [
        hashlib.sha256(raw.value).hexdigest()
        for raw in disk.log.since(TOPIC, 0)
        if raw.offset not in voids
    ]
    assert kept == there
