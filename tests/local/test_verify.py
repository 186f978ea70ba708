"""Does `hermes verify` say of a sound run that it holds, and of any other where it does not?

The runs are simulated: real training by unequal workers, over the memory log; the commands read
what was exported of it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blurred import JOB, finished
from commands import Shown
from crew import ALONE, KEY, Crew
from msgspec.structs import replace

from hermes import nn
from hermes.cli.entry import run as command
from hermes.codec import MAGIC, decode, encode
from hermes.errors import BrokerRefused, NoSuchTopic, RunError
from hermes.machine.ledger import link
from hermes.messages import (
    PROTOCOL,
    BlocksGranted,
    DataPublished,
    LedgerRecord,
    MasterStarted,
    Republished,
    Rewound,
    RoundNoted,
    RunStopped,
    StateSaved,
    TailLost,
    Trimmed,
    UpdateRejected,
    UpdateTaken,
    VersionEvaluated,
    VersionPublished,
)
from hermes.perform.ledger import Ledger
from hermes.policy.presets import resolve
from hermes.runtime.exported import export_log
from hermes.runtime.sources import at_broker, in_files, judging
from hermes.simulate.driver import Driver, forged
from hermes.simulate.faults import Faults, MasterFault, WorkerFault
from hermes.simulate.local import RUN, LocalRun
from hermes.transport import names
from hermes.transport.filed import FiledLog
from hermes.transport.log import Record
from hermes.transport.memory import MemoryLog
from hermes.values import SECOND, Payload, Position
from hermes.verify import run as verifying
from hermes.verify.findings import update_called
from hermes.verify.run import Report, verify
from hermes.verify.versions import Looked

SPEEDS = {"worker-1": 1.0, "worker-2": 0.8, "worker-3": 0.25}

FAULTS = Faults(
    duplicated=frozenset({5}),
    lies=frozenset({2}),
    workers=(
        WorkerFault(SECOND // 2, "worker-2", "kill", SECOND),
        WorkerFault(SECOND // 3, "worker-3", "cut", 3 * SECOND),
    ),
    masters=(MasterFault(SECOND, "restart"), MasterFault(3 * SECOND // 2, "zombie")),
)

MOMENTUM = {"merge.rule": "momentum", "merge.momentum": 0.9, "merge.rate": 0.7}
QUORUM = {
    "close.rule": "quorum",
    "close.share": 0.6,
    "merge.rule": "momentum",
    "merge.rate": "auto",
    "merge.discount": True,
    "merge.max_staleness": None,
}
TWO = {"close.count": 2}
ALL = {"retention.keep": "all"}
FEW = {"retention.keep": "last:2", "retention.snapshots": 1}

RUNS: dict[str, tuple[str, dict[str, Any], Faults | None]] = {
    "hermes-paper": ("hermes-paper", {"stop.versions": 16, "gate.alpha": -0.9, **ALL}, FAULTS),
    "fedavg": ("fedavg", {"stop.versions": 10, "round.steps": 4, **ALL}, FAULTS),
    "bsp": ("bsp", {"stop.versions": 30, **ALL}, None),
    "momentum": ("fedavg", {"stop.versions": 24, "round.steps": 2, **MOMENTUM, **ALL}, FAULTS),
    "asp": ("asp", {"stop.versions": 60, "round.steps": 8, **ALL}, FAULTS),
    "fedbuff": ("fedbuff", {"stop.versions": 16, "round.steps": 4, **TWO, **ALL}, FAULTS),
    "quorum": ("fedavg", {"stop.versions": 16, "round.steps": 4, **QUORUM, **ALL}, FAULTS),
    "few": ("fedavg", {"stop.versions": 60, "round.steps": 1, **MOMENTUM, **FEW}, None),
}

LEDGER = names.physical(RUN, names.LEDGER)


class Made:
    """A run that is over; `log` is a copy of its topics that a test may change."""

    def __init__(self, strategy: str, settings: dict[str, Any], faults: Faults | None) -> None:
        common = {"size.first": 80, "workers.lost": 1.5, "workers.heartbeat": 0.7}
        self.driver = finished(strategy, {**common, **settings}, SPEEDS, faults)
        self.kept = self.driver.log

    @property
    def log(self) -> MemoryLog:
        return copied(self.kept)


def copied(log: MemoryLog) -> MemoryLog:
    """Its topics and records, to be changed at will."""
    fresh = MemoryLog()
    fresh.create(log.topics())
    for name, topic in log._store.topics.items():
        fresh._store.topics[name].start = topic.start
        fresh._store.topics[name].records = list(topic.records)
    return fresh


@functools.cache
def made(name: str) -> Made:
    return Made(*RUNS[name])


def looked_at(log: MemoryLog) -> Report:
    return verify(at_broker(log, RUN))


def ledger_of(log: MemoryLog) -> list[Record]:
    return log._store.topics[LEDGER].records


def entry_of(log: MemoryLog, kind: type, fits: Callable[[Any], bool]) -> tuple[int, Any]:
    """The first entry of this kind that fits, and the offset of its record."""
    for raw in ledger_of(log):
        message = decode(raw.value)
        for entry in message.entries if isinstance(message, LedgerRecord) else ():
            if isinstance(entry, kind) and fits(entry):
                return raw.offset, entry
    raise AssertionError(kind)


# --- sound runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["hermes-paper", "fedavg", "bsp", "momentum", "asp", "fedbuff", "quorum"]
)
def test_a_sound_run_holds(name: str) -> None:
    """With deaths, lies and a zombie: every version but the first is formed again bit for bit."""
    run = made(name)
    report = looked_at(run.log)
    assert report.findings == []
    state = run.driver.watch.state
    assert [one.outcome for one in report.versions][1:] == ["recomputed"] * (
        len(report.versions) - 1
    )
    assert report.versions[0].outcome == "checked"
    assert len(report.versions) == state.newest.version + 1
    assert report.decisions.outcomes()["differs"] == 0
    assert report.decisions.total > report.records
    for worker, row in report.updates.table().items():
        member = state.members[worker]
        assert (row["pushed"], row["applied"]) == (member.pushes, member.applied), worker
        assert row["rejected"] == member.rejected == sum(row["reasons"].values())
        assert row["pushed"] == row["applied"] + row["rejected"] + row["undecided"]
    blocks = report.blocks
    assert blocks.unaccounted() == []
    grants = [
        part.last - part.first
        for record in run.driver.valid_records()
        for entry in record.entries
        if isinstance(entry, BlocksGranted)
        for part in entry.ranges
    ]
    assert int(blocks.granted.sum()) == sum(grants) > 0
    assert int(blocks.granted.sum()) == int(
        (blocks.passes() + blocks.returned + blocks.held()).sum()
    )
    if name in ("momentum", "quorum"):
        assert report.states
        assert set(report.states) == {"recomputed"}
    if RUNS[name][2] is not None:
        assert len(report.terms) >= 2
        assert any(row["rejected"] for row in report.updates.table().values())


def test_what_retention_let_go_of_is_said_exactly() -> None:
    """`last:2`: what lies before the last record of a trim, and nothing else."""
    log = made("few").log
    report = looked_at(log)
    assert report.findings == []
    floors: dict[str, Position] = {}
    places: dict[int, Payload] = {}
    parts: dict[int, list[Payload]] = {}
    updates = {}
    for raw in ledger_of(log):
        message = decode(raw.value)
        assert isinstance(message, LedgerRecord)
        for entry in message.entries:
            if isinstance(entry, Trimmed):
                floors[entry.topic] = Position(entry.topic, entry.generation, entry.before)
            elif isinstance(entry, UpdateTaken):
                updates[entry.worker, entry.update.birth] = entry.update.payload
            elif isinstance(entry, VersionPublished):
                places[entry.version] = entry.payload
                parts[entry.version] = [updates[m.worker, m.birth] for m in entry.members]

    def there(payload: Payload) -> bool:
        return payload.first >= floors[payload.topic].offset

    for one in report.versions:
        number = one.version
        assert (one.stored == "") == there(places[number]), one
        whole = number > 0 and all(map(there, parts[number])) and there(places[number - 1])
        assert (one.formed == "") == whole, one
        if not whole and number:
            assert one.formed in ("retention", "no start")
            assert one.lacks
    outcomes = [one.outcome for one in report.versions]
    assert outcomes.count("retention") > 30
    assert outcomes.count("recomputed") >= 2
    assert set(report.states) >= {"recomputed", "checked", "retention"}
    assert report.states.count("recomputed") <= outcomes.count("recomputed")


def test_a_forged_record_does_no_harm_and_is_listed() -> None:
    """In the master's name, all right but for the chain: the story goes on after it."""
    log = made("bsp").log
    records = ledger_of(log)
    value = encode(forged(records[20].value))
    moved = [Record(LEDGER, raw.offset + 1, raw.value) for raw in records[20:]]
    records[20:] = [Record(LEDGER, 20, value), *moved]
    report = looked_at(log)
    assert [(void.offset, void.why) for void in report.voids] == [(20, "broken-chain")]
    assert {f.kind for f in report.findings} == set()


def test_a_run_that_goes_on_is_verified_up_to_its_present_end() -> None:
    log = made("momentum").log
    del ledger_of(log)[len(ledger_of(log)) // 2 :]
    report = looked_at(log)
    assert report.findings == []
    assert report.records == len(ledger_of(log)) - len(report.voids)
    assert all(one.outcome in ("recomputed", "checked") for one in report.versions)


def test_what_is_let_go_of_meanwhile_is_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our look at the ledger and that at the tensors the run trims, after saying so."""
    log = made("few").log
    place, trim = entry_of(log, Trimmed, lambda e: e.topic == "model" and e.before > 20)
    later = ledger_of(log)[place:]
    del ledger_of(log)[place:]
    whole = verifying.Walk.go

    def go(walk: Any) -> None:
        ledger_of(log).extend(later)
        whole(walk)

    monkeypatch.setattr(verifying.Walk, "go", go)
    report = looked_at(log)
    assert report.findings == []
    assert report.end == place
    gone = [one for one in report.versions if one.stored == "retention"]
    assert len(gone) > trim.before / 2 > 10


def test_what_is_not_learned_is_merged_by_value() -> None:
    """The names of a model's buffers stand in the ledger: the job is not run to know them."""
    import torch

    def model() -> Any:
        norm = torch.nn.BatchNorm1d(8)
        return torch.nn.Sequential(torch.nn.Linear(8, 8), norm, torch.nn.Linear(8, 3))

    job = dataclasses.replace(
        JOB,
        model=model,
        optimizer=lambda params: torch.optim.SGD(params, lr=0.05),
        loss=torch.nn.CrossEntropyLoss(),
    )
    settings = {"stop.versions": 6, "round.steps": 2, "size.first": 80, **MOMENTUM, **ALL}
    driver = finished("fedavg", settings, {"worker-1": 1.0, "worker-2": 0.8}, job=job)
    report = looked_at(copied(driver.log))
    assert report.findings == []
    assert [one.outcome for one in report.versions] == ["checked"] + ["recomputed"] * 6
    other = copied(driver.log)
    data = reseal(other, DataPublished, lambda _: True, lambda e: replace(e, buffers=()))
    assert data < report.versions[1].offset
    found = looked_at(other).findings
    assert "version 1" in {f.entry for f in found if "its updates give" in f.follows}


# --- tampering ----------------------------------------------------------------------------------

Change = Callable[[MemoryLog], int]
"""Changes a log; the offset of the first ledger record that does not hold then."""


def flip(log: MemoryLog, payload: Payload) -> None:
    """One bit of its last chunk."""
    topic = log._store.topics[names.physical(RUN, payload.topic, payload.generation)]
    index = payload.last - topic.start
    raw = topic.records[index]
    value = bytearray(raw.value)
    value[-1] ^= 1
    topic.records[index] = raw._replace(value=bytes(value))


def bad_update(log: MemoryLog) -> int:
    _, version = entry_of(log, VersionPublished, lambda e: e.version == 5)
    birth = version.members[0].birth
    offset, taken = entry_of(log, UpdateTaken, lambda e: e.update.birth == birth)
    flip(log, taken.update.payload)
    return offset


def bad_version(log: MemoryLog) -> int:
    offset, version = entry_of(log, VersionPublished, lambda e: e.version == 7)
    flip(log, version.payload)
    return offset


def bad_snapshot(log: MemoryLog) -> int:
    offset, saved = entry_of(log, StateSaved, lambda _: True)
    flip(log, saved.payload)
    return offset


def edited(log: MemoryLog) -> int:
    """A weight in place: what follows was written upon the record as it was."""
    offset, _ = entry_of(log, VersionPublished, lambda e: e.version == 6)
    reseal(log, VersionPublished, lambda e: e.version == 6, heavier, whole=False)
    return offset


def left_out(log: MemoryLog) -> int:
    """One record less (its offset is skipped, as a broker's own records are)."""
    records = ledger_of(log)
    index = len(records) // 2
    while isinstance(decode(records[index].value).entries[0], MasterStarted):  # type: ignore[union-attr]
        index += 1
    del records[index]
    for place, raw in enumerate(records):
        records[place] = raw._replace(offset=place)
    return index


def reseal(
    log: MemoryLog,
    kind: type,
    fits: Callable[[Any], bool],
    change: Callable[[Any], Any],
    *,
    whole: bool = True,
) -> int:
    """Change the first entry that fits; with `whole` the chain is made anew, so that all counts."""
    offset, found = entry_of(log, kind, fits)
    chain, records, voids = b"", ledger_of(log), {v for v, _ in folded(log).voids}
    for index, raw in enumerate(records):
        record = decode(raw.value)
        if raw.offset in voids or not isinstance(record, LedgerRecord):
            continue
        if raw.offset == offset:
            entries = tuple(change(e) if e == found else e for e in record.entries)
            record = replace(record, entries=entries)
        if whole and not isinstance(record.entries[0], MasterStarted):
            record = replace(record, chain=chain)
        if whole or raw.offset == offset:
            records[index] = raw._replace(value=encode(record))
        chain = link(chain, hashlib.sha256(records[index].value).digest())
    return offset


def folded(log: MemoryLog) -> Ledger:
    ledger = Ledger(log, LEDGER)
    ledger.fold()
    return ledger


def heavier(entry: VersionPublished) -> VersionPublished:
    first, *rest = entry.members
    return replace(entry, members=(replace(first, weight=first.weight * 1.5), *rest))


def other_digest(entry: Any) -> Any:
    return replace(entry, payload=replace(entry.payload, digest="ab" * 32))


def other_norm(entry: VersionPublished) -> VersionPublished:
    first, *rest = entry.members
    return replace(entry, members=(replace(first, norm=first.norm * 1.001), *rest))


def nth(number: int) -> Callable[[Any], bool]:
    return lambda entry: entry.version == number


CASES: dict[str, tuple[str, Change, str, str]] = {
    "a bit of an update": ("momentum", bad_update, "update", "damaged"),
    "a bit of a version": ("momentum", bad_version, "version", "damaged"),
    "a bit of a snapshot": ("momentum", bad_snapshot, "state", "damaged"),
    "an edited record": ("momentum", edited, "decision", "weight 1"),
    "a record left out": ("bsp", left_out, "chain", "missing before it"),
    "a weight": (
        "fedavg",
        lambda log: reseal(log, VersionPublished, nth(6), heavier),
        "decision",
        "weight 1",
    ),
    "the digest of a version": (
        "bsp",
        lambda log: reseal(log, VersionPublished, nth(30), other_digest),
        "version",
        "the ledger names the digest abababababab",
    ),
    "the digest of a snapshot": (
        "momentum",
        lambda log: reseal(log, StateSaved, lambda _: True, other_digest),
        "state",
        "the ledger names abababababab",
    ),
    "a norm": (
        "fedavg",
        lambda log: reseal(log, VersionPublished, nth(4), other_norm),
        "version",
        "measured again",
    ),
    "a round's loss": (
        "hermes-paper",
        lambda log: reseal(
            log,
            RoundNoted,
            lambda e: e.reason.code == "below-threshold",
            lambda e: replace(e, reason=replace(e.reason, facts={**e.reason.facts, "z": -2.5})),
        ),
        "decision",
        "recorded: z -2.5",
    ),
    "a decision that was never taken": (
        "fedavg",
        lambda log: reseal(
            log,
            UpdateRejected,
            lambda e: e.reason.code == "malformed",
            lambda e: replace(e, birth=replace(e.birth, number=e.birth.number + 900)),
        ),
        "fold",
        "it cannot follow",
    ),
    "a round that was left out": (
        "fedavg",
        lambda log: reseal(
            log,
            RoundNoted,
            lambda e: e.round == 3,
            lambda e: replace(e, round=4),
        ),
        "story",
        "round 4 is noted where 3 comes",
    ),
    "samples that do not add up": (
        "bsp",
        lambda log: reseal(
            log, VersionPublished, nth(9), lambda e: replace(e, samples=e.samples + 1)
        ),
        "fold",
        "it cannot follow",
    ),
}
"""What is changed -> in which run, how, the kind of the first finding, and what it says."""


@pytest.mark.parametrize("case", CASES)
def test_what_was_changed_is_found_where_it_is(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the record, through an exported log whose digests are right; exit code 5."""
    name, change, kind, says = CASES[case]
    log = made(name).log
    offset = change(log)
    export_log(log, RUN, tmp_path / "x", "0")
    assert command(["verify", str(tmp_path / "x"), "--json"]) == 5
    out, err = capsys.readouterr()
    told = json.loads(out)
    first = told["findings"][0]
    assert not told["holds"]
    assert first["offset"] == offset, told["findings"][:3]
    found = [f for f in told["findings"] if f["offset"] == offset and f["kind"] == kind]
    assert found, told["findings"][:3]
    assert says in found[0]["text"]
    assert f"offset {offset}, " in err


def test_a_changed_loss_is_measured(tmp_path: Path) -> None:
    """A score decides nothing that the ledger could contradict; `--scores` measures it again."""
    crew = Crew(tmp_path, ALONE, "hermes-paper", stop__versions=5, size__first=100)
    assert crew.see_through(1).result["status"] == "finished"
    with judging(at_broker(crew.log, "r"), KEY) as judge:
        report = verify(at_broker(crew.log, "r"), judge=judge)
    assert report.findings == []
    assert report.scores >= 4 + 2 * 5, "four at the end, two losses for each merge"

    def better(entry: VersionEvaluated) -> VersionEvaluated:
        assert entry.loss is not None
        return replace(entry, loss=entry.loss * (1 + 1e-4))

    other = copied(crew.log)
    raws = other._store.topics[names.physical("r", names.LEDGER)].records
    chain, offset = b"", -1
    for index, raw in enumerate(raws):
        record = decode(raw.value)
        assert isinstance(record, LedgerRecord)
        for entry in record.entries:
            if isinstance(entry, VersionEvaluated) and offset < 0:
                offset = raw.offset
                entries = tuple(better(e) if e is entry else e for e in record.entries)
                record = replace(record, entries=entries)
        if not isinstance(record.entries[0], MasterStarted):
            record = replace(record, chain=chain)
        raws[index] = raw._replace(value=encode(record))
        chain = link(chain, hashlib.sha256(raws[index].value).digest())
    with judging(at_broker(other, "r"), KEY) as judge:
        report = verify(at_broker(other, "r"), judge=judge)
    assert (report.findings[0].kind, report.findings[0].offset) == ("scores", offset)


# --- what is gone -------------------------------------------------------------------------------


def test_what_the_broker_lost_is_a_finding() -> None:
    """Nothing let go of it: neither of the first versions, nor of the end of a worker's topic."""
    log = made("momentum").log
    log.trim(names.physical(RUN, "model"), 3)
    report = looked_at(log)
    assert [f.entry for f in report.findings] == ["version 0", "version 1", "version 2"]
    assert all("lost by the broker" in f.text for f in report.findings)
    assert [one.outcome for one in report.versions[:4]] == ["lost", "lost", "lost", "checked"]
    assert [one.formed for one in report.versions[4:11]] == ["no start"] * 7, "no momentum is known"
    assert {one.formed for one in report.versions[11:]} == {""}, "from the snapshot of version 10"


def test_a_worker_topic_without_its_end() -> None:
    log = made("bsp").log
    topic = names.physical(RUN, "from.worker-1")
    records = log._store.topics[topic].records
    del records[len(records) - 20 :]
    report = looked_at(log)
    assert {f.kind for f in report.findings} == {"update"}
    first, *_ = [one for one in report.versions[1:] if one.formed]
    assert first.formed == "lost"
    assert "worker-1" in first.lacks
    assert [one.outcome for one in report.versions[first.version :]] == ["checked"] * (
        len(report.versions) - first.version
    )
    log.delete([topic])
    assert any("the topic is gone" in f.text for f in looked_at(log).findings)


@pytest.mark.parametrize("lost", [0, 6])
def test_what_was_lost_and_mended_holds(lost: int, tmp_path: Path) -> None:
    """A broker lost its newest versions: they were published again; with updates of them, the run
    went back to an older one. Both are in the ledger, and no finding."""
    layers = [JOB.settings(), {"size.first": 80}, RUNS["momentum"][1]]
    local = LocalRun(JOB, resolve("fedavg", [*layers, {"retention.snapshots": 3}]), 1, tmp_path)
    driver = Driver(local.setup(SPEEDS))
    driver.run(until=600_000_000)
    driver.log.lose(names.physical(RUN, "model"), 3)
    driver.log.lose(names.physical(RUN, "from.worker-1"), lost)
    driver.hands = driver.setup.hands(driver.log)
    driver.restart_master()
    driver.run()
    assert driver.finished
    found = {type(entry) for record in driver.valid_records() for entry in record.entries}
    assert Republished in found
    assert (Rewound in found) == (TailLost in found) == bool(lost)
    report = looked_at(copied(driver.log))
    assert report.findings == []
    outcomes = [one.outcome for one in report.versions]
    assert outcomes.count("recomputed") == 24
    assert outcomes.count("rewound") == len(outcomes) - 25
    assert ("rewound" in outcomes) == bool(lost)
    undone = [row["reasons"].get("version-lost", 0) for row in report.updates.table().values()]
    assert bool(sum(undone)) == bool(lost)
    assert set(report.states) <= {"recomputed", "checked"}


# --- exported logs ------------------------------------------------------------------------------


def test_an_exported_log_reads_like_the_log(tmp_path: Path) -> None:
    """Offsets, values and headers, from any place; what was trimmed is refused in its words."""
    log = made("few").log
    export_log(log, RUN, tmp_path / "x", "0")
    filed = FiledLog(tmp_path / "x")
    assert not filed.damage
    assert filed.topics() == log.topics(f"hermes.{RUN}.")
    assert filed.ends(filed.topics()) == log.ends(filed.topics())
    assert filed.starts(filed.topics()) == log.starts(filed.topics())
    reader, own = filed.reader(), log.reader()
    for topic, start in log.starts(filed.topics()).items():
        for place in (start, (start + log.ends([topic])[topic]) // 2):
            read: list[list[Record]] = []
            for one in (reader, own):
                one.follow(topic, place)
                read.append(one.poll(0.0, limit=7))
                read[-1] += one.poll(0.0, limit=10_000)
                one.drop(topic)
            assert read[0] == read[1]
        if start:
            reader.follow(topic, 0)
            with pytest.raises(BrokerRefused, match="lies outside the topic"):
                reader.poll(0.0)
            reader.drop(topic)
    with pytest.raises(NoSuchTopic):
        filed.ends(["hermes.other.model"])
    with pytest.raises(BrokerRefused, match="only read"):
        filed.append(LEDGER, b"x")
    assert verify(in_files(filed)).versions == looked_at(log).versions


def test_a_log_is_exported_whole_while_the_run_goes_on(tmp_path: Path) -> None:
    """It trims between our look at the ledger and that at the tensors: then the ledger is read on,
    up to the record that says so."""
    log = made("few").log
    place, _ = entry_of(log, Trimmed, lambda e: e.topic == "model" and e.before > 20)
    later = ledger_of(log)[place:]
    del ledger_of(log)[place:]
    topics = log.topics

    def growing(prefix: str = "") -> list[str]:
        if later:
            ledger_of(log).extend(later)
            later.clear()
        return topics(prefix)

    log.topics = growing  # type: ignore[method-assign]
    export_log(log, RUN, tmp_path / "x", "0")
    report = verify(in_files(FiledLog(tmp_path / "x")))
    assert report.findings == []
    assert report.end == len(ledger_of(log))


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    export_log(made("bsp").log, RUN, tmp_path / "x", "0")
    return tmp_path / "x"


def told(code: int, *args: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints."""
    capsys.readouterr()
    assert command(list(args)) == code, capsys.readouterr()
    shown = capsys.readouterr()
    return shown.out + shown.err


def test_as_a_user(
    exported: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = told(0, "verify", str(exported), capsys=capsys)
    assert "the files are those that were exported" in text
    assert "30 recomputed, 1 by their bytes alone" in text
    assert "not recomputed: version 0: not made of updates" in text
    assert "blocks by how often they were trained: " in text
    found = json.loads(told(0, "verify", str(exported), "--json", capsys=capsys))
    assert found["holds"]
    assert len(found["updates"]["each"]) == found["updates"]["pushed"] == 90
    assert {one["outcome"] for one in found["updates"]["each"]} == {"applied"}
    assert len(found["blocks"]["each"]) == found["blocks"]["count"]
    one = found["blocks"]["each"][0]
    assert one["granted"] == one["trained"] + one["returned"] + one["held"]
    assert sum(one["by"].values()) == one["trained"] > 0
    quiet = told(0, "verify", str(exported), "--quiet", capsys=capsys)
    assert quiet.startswith("verified: ")
    assert quiet.count("\n") == 1
    monkeypatch.chdir(exported.parent)
    assert "verified: " in told(0, "verify", "x", capsys=capsys)


def test_files_that_were_changed_or_cut(
    exported: Path, capsys: pytest.CaptureFixture[str], shown: Shown
) -> None:
    """By the digests of the index, and by the record, if one can be named."""
    path = exported / "model.records"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    text = told(5, "verify", str(exported), capsys=capsys)
    assert "its last record is torn" in text
    assert "lost by the broker" in text
    path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    text = told(5, "verify", str(exported), "--quiet", capsys=capsys)
    shown("A bit of an exported version is flipped", "hermes verify x --quiet", 5, text)
    assert "damaged" in text
    assert "its digest is not the one that the index has" in text
    path.unlink()
    assert "it cannot be read" in told(5, "verify", str(exported), capsys=capsys)


@pytest.mark.parametrize(
    ("ledger", "says", "code"),
    [
        ([], "the ledger is empty", 2),
        ([b"rubbish", b"more"], "none of its 2 records is of a ledger", 2),
        ([MAGIC + bytes([PROTOCOL + 1]) + b"news"], f"is written in protocol {PROTOCOL + 1}", 2),
    ],
)
def test_what_is_no_ledger_is_said(
    ledger: list[bytes],
    says: str,
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    shown: Shown,
) -> None:
    log = made("bsp").log
    ledger_of(log)[:] = [Record(LEDGER, n, value) for n, value in enumerate(ledger)]
    export_log(log, RUN, tmp_path / "x", "0")
    text = told(code, "verify", str(tmp_path / "x"), capsys=capsys)
    shown(f"The ledger to verify: {says}", "hermes verify x", code, text)
    assert says in text


def test_a_newer_program_went_on_with_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, news = made("bsp").log, MAGIC + bytes([PROTOCOL + 1]) + b"news"
    values = [raw.value for raw in ledger_of(log)]
    values.insert(9, news)  # after which the run went on: no harm
    ledger_of(log)[:] = [Record(LEDGER, n, value) for n, value in enumerate(values)]
    end = len(values)
    log.append(LEDGER, news)
    export_log(log, RUN, tmp_path / "x", "0")
    text = told(2, "verify", str(tmp_path / "x"), capsys=capsys)
    assert f"from offset {end} on the ledger is written in protocol {PROTOCOL + 1}" in text


def test_a_ledger_without_its_beginning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = made("bsp").log
    log.trim(LEDGER, 3)
    export_log(log, RUN, tmp_path / "x", "0")
    text = told(5, "verify", str(tmp_path / "x"), capsys=capsys)
    assert "the ledger's beginning is gone" in text
    assert "3 .. " in text


def test_folders_that_are_no_exported_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], exported: Path
) -> None:
    (tmp_path / "empty").mkdir()
    said = "no exported log"
    assert said in told(2, "verify", str(tmp_path / "empty"), capsys=capsys)
    index = exported / "log.json"
    text = index.read_text()
    index.write_text(text.replace('"format": 1', '"format": 2'))
    assert "the log is of format 2" in told(2, "verify", str(exported), capsys=capsys)
    index.write_text(text.replace("ledger.records", "../ledger.records"))
    assert "names a file elsewhere" in told(2, "verify", str(exported), capsys=capsys)
    index.write_text(text[:100])
    assert said in told(2, "verify", str(exported), capsys=capsys)


# --- the folder of a run ------------------------------------------------------------------------


def test_the_folder_of_a_run_without_its_broker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shown: Shown
) -> None:
    """The ledger holds, the models are its versions, and what cannot be had is said; then a model
    is damaged, the ledger is cut, a record is taken out."""
    crew = Crew(tmp_path, ALONE, "fedavg", stop__versions=6, round__steps=2)
    assert crew.see_through(2).result["status"] == "finished"
    assert looked_up(crew).findings == []
    args = ("verify", "r", "--out", str(tmp_path))
    text = told(0, *args, capsys=capsys)
    assert "verified, but for the versions: " in text
    assert "7 not at hand" in text
    assert "model.safetensors is version 6" in text
    assert "result.json says what the ledger says" in text

    model = crew.folder.model.read_bytes()
    crew.folder.model.write_bytes(model[:-1] + b"\0")
    text = told(5, *args, "--quiet", capsys=capsys)
    shown("The saved model is none of the run's", "hermes verify r --quiet", 5, text)
    assert "no version has its bytes" in text
    crew.folder.model.write_bytes(model)

    ledger = crew.folder.ledger.read_bytes()
    crew.folder.ledger.write_bytes(ledger[:-3])
    assert "is torn or damaged" in told(5, *args, capsys=capsys)
    raws = crew.log._store.topics[names.physical("r", names.LEDGER)].records
    sizes = [12 + len(raw.value) for raw in raws]
    before, out = sum(sizes[:10]), sizes[10]
    crew.folder.ledger.write_bytes(ledger[:before] + ledger[before + out :])
    text = told(5, *args, "--quiet", capsys=capsys)
    shown("A record was taken out of the saved ledger", "hermes verify r --quiet", 5, text)
    assert "offset 11, record 10 of term 1: record 10 of term 1" not in text
    assert "offset 11, record" in text
    assert "missing before it (after offset 9)" in text
    stop = next(place for place, raw in enumerate(raws) if _stops(raw.value))
    crew.folder.ledger.write_bytes(ledger[: sum(sizes[:stop])])
    assert "the ledger ends at status" in told(5, *args, capsys=capsys)


def _stops(data: bytes) -> bool:
    record = decode(data)
    assert isinstance(record, LedgerRecord)
    return any(isinstance(entry, RunStopped) for entry in record.entries)


def looked_up(crew: Crew) -> Report:
    return verify(at_broker(crew.log, "r"))


def test_a_run_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no run here" in told(2, "verify", "--out", str(tmp_path), capsys=capsys)
    with pytest.raises(RunError, match="there is no run 'q'"):
        at_broker(MemoryLog(), "q")


# --- memory -------------------------------------------------------------------------------------

WIDE = dataclasses.replace(
    JOB,
    model=lambda: nn.Sequential(
        nn.Linear(8, 512), *(nn.Linear(512, 512) for _ in range(4)), nn.Linear(512, 3)
    ),
    optimizer=lambda params: nn.SGD(params, lr=0.01),
)


def peak_of(log: FiledLog) -> int:
    """Bytes, at most, while it is verified."""
    tracemalloc.start()
    try:
        assert verify(in_files(log)).findings == []
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_few_models_are_held_however_long_the_run_is(tmp_path: Path) -> None:
    """A model of 4 MB (float32), with momentum (float64): as many for 3 versions as for 6."""
    peaks = []
    for versions in (3, 6):
        settings = {"stop.versions": versions, "round.steps": 1, **MOMENTUM, **ALL}
        settings["retention.snapshots"] = 2
        driver = finished("fedavg", settings, {"worker-1": 1.0, "worker-2": 1.0}, job=WIDE)
        folder_of_log = tmp_path / str(versions)
        export_log(driver.log, RUN, folder_of_log, "0")
        size = driver.watch.state.newest.payload.length
        del driver
        peaks.append(peak_of(FiledLog(folder_of_log)) / size)
    assert peaks[1] < peaks[0] + 0.5
    assert peaks[1] < 9, "the model, its update, sums and momentum in float64 (two each), its bytes"


def test_outcomes_of_a_version() -> None:
    """What differs is never told as something else."""
    assert Looked(1, 1, "", "retention").outcome == "recomputed"
    assert Looked(1, 1, "differs", "").outcome == "differs"
    assert Looked(1, 1, "", "damaged").outcome == "differs"
    assert Looked(1, 1, "retention", "retention").outcome == "retention"


def test_an_update_is_called_by_its_worker_and_that_ones_life() -> None:
    """Chance is told from chance by its first characters; a simulated life is told whole."""
    assert update_called(1, "pi", "8390f800a1b2c3d4") == "update 1 of pi (8390f800)"
    assert update_called(7, "device-01", "device-01-2") == "update 7 of device-01 (device-01-2)"
