"""Does `hermes why` answer every decision of a run, and do its numbers recompute?

The runs are simulated: four unequal workers, real training, and what goes wrong is scripted.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blurred import finished
from msgspec.structs import replace

from hermes.cli.entry import run as command
from hermes.codec import encode
from hermes.machine.ledger import link
from hermes.messages import (
    BlocksGranted,
    LedgerRecord,
    MasterStarted,
    RoundNoted,
    RunStopped,
    ShardResized,
    UpdateRejected,
    UpdateTaken,
    VersionPublished,
    WorkerAdmitted,
    WorkerLost,
    WorkerRefused,
)
from hermes.report.why.decisions import TELL, Retelling
from hermes.report.why.of_log import SAY as OF_LOG
from hermes.report.why.of_run import SAY, told
from hermes.report.why.phrases import Setting
from hermes.report.why.recompute import AGREES, DIFFERS, OPEN
from hermes.report.why.view import tales
from hermes.runtime.archive import Archive
from hermes.runtime.folder import RunFolder
from hermes.simulate.faults import Faults, MasterFault, WorkerFault
from hermes.simulate.schedules import draw
from hermes.simulate.schedules import run as run_schedule
from hermes.transport.log import Record
from hermes.values import SECOND, Reason

SPEEDS = {"worker-1": 1.0, "worker-2": 1.0, "worker-3": 0.8, "worker-4": 0.25}

SETTINGS: dict[str, dict[str, Any]] = {
    "hermes-paper": {"stop.versions": 24, "gate.alpha": -0.9},
    "hermes-paper, by speed": {"stop.versions": 24, "gate.alpha": -0.9, "size.rule": "speed"},
    "fedavg": {"stop.versions": 14, "round.steps": 4},
    "bsp": {"stop.versions": 60},
    "ssp": {"stop.versions": 120, "round.steps": 3},
    "ebsp": {"stop.versions": 40, "size.lookahead": 3},
    "fastest-alone": {"stop.versions": 90, "round.steps": 4},
    "selsync": {"stop.versions": 24, "gate.delta": 0.12},
    "hermes-paper, by drift": {
        "stop.versions": 24,
        "gate.rule": "innovation",
        "gate.veto": 3,
        "continue.rule": "at-once",
        "merge.rule": "mean",
    },
}

FAULTS = Faults(
    duplicated=frozenset({5}),
    dropped=frozenset({9}),
    lies=frozenset({2}),
    workers=(
        WorkerFault(SECOND, "worker-3", "kill", 3 * SECOND),
        WorkerFault(2 * SECOND, "worker-2", "cut", 3 * SECOND),
        WorkerFault(SECOND // 2, "worker-1", "clone", 0),
        WorkerFault(3 * SECOND, "worker-1", "leave", SECOND // 2),
    ),
    masters=(MasterFault(5 * SECOND // 2, "restart"),),
)
"""One dies and comes back as a new process, one is lost for a while, one's name is taken by
another process, an update claims what cannot be, and the master is replaced."""


@functools.cache
def demo(strategy: str) -> list[LedgerRecord]:
    """The ledger of a run in which all sorts of things happen."""
    common = {"size.first": 80, "workers.lost": 1.5, "workers.heartbeat": 0.7}
    settings = {**common, **SETTINGS[strategy]}
    driver = finished(strategy.partition(",")[0], settings, SPEEDS, FAULTS)
    return list(driver.valid_records())


@functools.cache
def retold(strategy: str) -> Retelling:
    retelling = Retelling()
    for record in demo(strategy):
        retelling.read(record)
    return retelling


def entries(strategy: str) -> list[Any]:
    return [entry for record in demo(strategy) for entry in record.entries]


def save(records: list[LedgerRecord], out: Path, run: str = "r") -> Path:
    """A run's folder with this ledger, its chain made anew: every record counts."""
    folder = RunFolder(out, run)
    folder.create()
    archive, chain = Archive(folder.ledger), b""
    for offset, record in enumerate(records):
        claim = isinstance(record.entries[0], MasterStarted)
        data = encode(record if claim else replace(record, chain=chain))
        chain = link(chain, hashlib.sha256(data).digest())
        archive.add(Record("ledger", offset, data))
    archive.settle()
    archive.close()
    return out


STRATEGIES = list(SETTINGS)
each = pytest.mark.parametrize("strategy", STRATEGIES)


# --- every decision -----------------------------------------------------------------------------


@each
def test_every_entry_of_the_ledger_is_told_and_agrees(strategy: str) -> None:
    """Of each entry there is a decision, of a version one for the run and one for each member."""
    told_of = Counter(d.kind for d in retold(strategy).decisions)
    found = Counter(type(entry) for entry in entries(strategy))
    assert found.keys() <= {*TELL, VersionPublished}
    kinds = {
        RoundNoted: "round",
        UpdateTaken: "taken",
        UpdateRejected: "rejected",
        ShardResized: "resized",
        BlocksGranted: "granted",
        WorkerAdmitted: "admitted",
        WorkerRefused: "refused",
        WorkerLost: "lost",
        VersionPublished: "version",
        RunStopped: "stopped",
    }
    for entry, kind in kinds.items():
        assert told_of[kind] == found[entry], kind
    merged = sum(len(e.members) for e in entries(strategy) if isinstance(e, VersionPublished))
    assert told_of["merged"] == merged > 0
    assert [d for d in retold(strategy).decisions if d.check.outcome == DIFFERS] == []
    for wanted in ("rejected", "lost", "refused", "left", "returned", "resend"):
        assert told_of[wanted], wanted
    assert told_of["back"] or strategy.endswith("by speed"), "there the run is over by then"
    if strategy.startswith("hermes-paper"):  # what was not decided is told, too
        assert told_of["kept"] + told_of["resized"] == told_of["round"]
        assert told_of["resized"] >= 1


@each
def test_what_cannot_be_recomputed_is_an_input(strategy: str) -> None:
    """A worker's own word, what comes from outside, a model's scores: and nothing else."""
    open_ = {d.kind for d in retold(strategy).decisions if d.check.outcome == OPEN}
    assert open_ <= {"left", "opened", "scored"}
    agree = {d.kind for d in retold(strategy).decisions if d.check.outcome == AGREES}
    assert {"round", "taken", "merged", "version", "granted", "admitted", "lost", "data"} <= agree


@each
def test_every_decision_has_a_sentence_with_its_numbers(strategy: str) -> None:
    retelling = retold(strategy)
    setting = Setting(retelling.state.settings, retelling.started)
    for decision in retelling.decisions:
        say = told(decision, setting)
        assert len(say.body) > 10
        assert "None" not in say.body + say.title, say
        assert "{" not in say.body, say
        if decision.kind == "round" and decision.reason.code.endswith("-threshold"):
            (z,) = re.findall(r"z = (-?[0-9.]+[0-9])", say.body)
            assert float(z) == pytest.approx(decision.reason.facts["z"], abs=0.005)
    assert {d.kind for d in retelling.decisions} <= SAY.keys()
    everywhere = {d.kind for name in STRATEGIES for d in retold(name).decisions}
    assert everywhere | OF_LOG.keys() == SAY.keys(), "each sentence is seen in one of the runs"


@each
def test_every_pushed_update_is_followed_to_its_end(strategy: str) -> None:
    """One story: the round, the update, and that it was merged, rejected or left undecided."""
    fates = Counter(story.kind for story in tales(retold(strategy).decisions))
    state = retold(strategy).state
    merged = sum(n for kind, n in fates.items() if kind.endswith("merged"))
    assert merged == sum(member.applied for member in state.members.values())
    rejected = sum(n for kind, n in fates.items() if kind.endswith("rejected"))
    assert rejected == sum(member.rejected for member in state.members.values())


def test_whatever_goes_wrong_the_numbers_recompute() -> None:
    """Random schedules of faults; their master's hands make up the size of a first shard."""
    outcomes: Counter[str] = Counter()
    for seed in range(40):
        retelling = Retelling()
        driver = run_schedule(draw(seed))
        for record in driver.valid_records():
            retelling.read(record)
        found = [d for d in retelling.decisions if d.kind != "data"]
        outcomes.update(d.check.outcome for d in found)
        assert [d for d in found if d.check.outcome == DIFFERS] == [], seed
        assert retelling.state.members == driver.watch.state.members
    assert outcomes[AGREES] > 2000


# --- tampering ----------------------------------------------------------------------------------

Change = Callable[[Any], Any]


def facts(**changes: Any) -> Change:
    """An entry whose reason has other facts."""

    def change(entry: Any) -> Any:
        return replace(entry, reason=Reason(entry.reason.code, {**entry.reason.facts, **changes}))

    return change


def code(word: str) -> Change:
    return lambda entry: replace(entry, reason=Reason(word, entry.reason.facts))


def weight(entry: VersionPublished) -> VersionPublished:
    first, *rest = entry.members
    return replace(entry, members=(replace(first, weight=first.weight * 1.5), *rest))


CASES: dict[str, tuple[str, type, Callable[[Any], bool], Change, str]] = {
    "a probe loss": (
        "hermes-paper",
        RoundNoted,
        lambda e: e.reason.code == "below-threshold",
        facts(loss=0.0123),
        "mean",
    ),
    "a z": (
        "hermes-paper",
        RoundNoted,
        lambda e: e.reason.code == "below-threshold",
        facts(z=-2.5),
        "z is recorded as -2.5",
    ),
    "a verdict": (
        "hermes-paper",
        RoundNoted,
        lambda e: e.reason.code == "above-threshold",
        code("no-spread"),
        "code",
    ),
    "a loss on the probe": (
        "hermes-paper, by drift",
        RoundNoted,
        lambda e: e.reason.code == "drifted" and "d" in e.reason.facts,
        facts(d=5.0, se=0.1, n=16),
        "verdict",
    ),
    "a median": (
        "hermes-paper",
        ShardResized,
        lambda _: True,
        facts(median=0.5),
        "median is recorded as 0.5",
    ),
    "a size": (
        "hermes-paper",
        ShardResized,
        lambda _: True,
        lambda e: replace(e, size=e.size + 1),
        "size",
    ),
    "a weight by loss": (
        "hermes-paper",
        VersionPublished,
        lambda e: e.version == 3,
        weight,
        "weight 1",
    ),
    "a loss of a merge": (
        "hermes-paper",
        VersionPublished,
        lambda e: e.version == 3,
        facts(loss_worker=9.0),
        "weight 1",
    ),
    "a weight by samples": (
        "fedavg",
        VersionPublished,
        lambda e: e.version == 2,
        weight,
        "weight 1",
    ),
    "a quorum": ("bsp", VersionPublished, lambda e: e.version == 2, facts(pushed=9), "pushed"),
    "a staleness": (
        "fedavg",
        UpdateRejected,
        lambda e: e.reason.code == "too-stale",
        facts(staleness=7),
        "staleness is recorded as 7",
    ),
    "a claim": (
        "bsp",
        UpdateRejected,
        lambda e: e.reason.code == "malformed",
        facts(claim="topic"),
        "claim",
    ),
    "a limit of silence": ("bsp", WorkerLost, lambda _: True, facts(limit=3.0), "limit"),
    "a short silence": ("bsp", WorkerLost, lambda _: True, facts(silent=0.5), "lost"),
    "a stop": ("bsp", RunStopped, lambda _: True, facts(version=3), "version"),
    "a refusal": (
        "fedavg",
        WorkerRefused,
        lambda _: True,
        code("too-many"),
        "too-many",
    ),
}
"""What is changed -> in which run, in the first entry of which kind, how, and what is named."""


@pytest.mark.parametrize("case", CASES)
def test_a_fact_that_was_changed_is_found(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The chain is made anew, so that the record counts; the numbers do not lie. Exit code 5."""
    strategy, kind, fits, change, named = CASES[case]
    changed: list[Any] = []

    def maybe(entry: Any) -> Any:
        if not changed and isinstance(entry, kind) and fits(entry):
            changed.append(change(entry))
            return changed[0]
        return entry

    records = [replace(r, entries=tuple(map(maybe, r.entries))) for r in demo(strategy)]
    (entry,) = changed
    worker = getattr(entry, "worker", "master")
    at = next(r for r in records if entry in r.entries)
    assert command(["why", worker, "--out", str(save(records, tmp_path))]) == 5
    out, err = capsys.readouterr()
    assert "DIFFERS" in out
    assert f"record {at.n} of term {at.term}" in err
    assert named in err
    assert command(["why", worker, "--json", "--out", str(tmp_path)]) == 5
    found = json.loads(capsys.readouterr().out)
    assert found["differ"] >= 1
    wrong = [d for d in found["decisions"] if d["outcome"] == DIFFERS]
    assert {"term": at.term, "n": at.n} in [d["record"] for d in wrong]
    assert all(d["differing"] for d in wrong)


def test_a_ledger_whose_chain_is_broken_is_no_agreement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One byte of it: what follows counts no more, and that is said. `status` warns."""
    path = save(list(demo("fedavg")), tmp_path) / "runs" / "r" / "log" / "ledger.records"
    data = path.read_bytes()
    assert data.count(b"worker-2") > 3
    path.write_bytes(data.replace(b"worker-2", b"worker-9", 1))
    for worker in ("master", "worker-1"):
        assert command(["why", worker, "--out", str(tmp_path)]) == 5
        assert "its ledger is not what it was" in capsys.readouterr().err
    assert command(["status", "--out", str(tmp_path)]) == 0
    assert "of its records do not count any more" in capsys.readouterr().err


def test_a_resizing_that_was_taken_out_is_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was not decided is recomputed, too. (Later grants are of another size: those differ.)"""
    (first, *_) = [e for e in entries("hermes-paper") if isinstance(e, ShardResized)]
    records = [
        replace(r, entries=tuple(e for e in r.entries if e is not first))
        for r in demo("hermes-paper")
    ]
    save([r for r in records if r.entries], tmp_path)
    assert command(["why", first.worker, "--out", str(tmp_path)]) == 5
    err = capsys.readouterr().err
    assert "kept" in err


# --- as a user ----------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., str]:
    """Types `hermes why` for the saved run of a strategy; its output."""

    def why(strategy: str, *args: str, code: int = 0) -> str:
        folder = tmp_path / strategy
        if not folder.exists():
            save(demo(strategy), folder)
        assert command(["why", *args, "--out", str(folder)]) == code
        return ""

    return why


def test_each_worker_and_the_master_explain_themselves(
    saved: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (*SPEEDS, "master"):
        saved("hermes-paper", name)
        out, err = capsys.readouterr()
        assert out.startswith(f"{name} in r (hermes-paper; as saved in ")
        assert "all agree" in out
        assert err == ""
        assert max(map(len, out.splitlines())) <= 110 or "/" in out.splitlines()[0]


def test_a_version_a_round_and_the_last_few(
    saved: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    saved("hermes-paper", "worker-1", "--round", "3")
    out = capsys.readouterr().out
    assert "round 3, at version" in out
    assert "round 4, at version" not in out
    (merged, *_) = [d for d in retold("hermes-paper").decisions if d.kind == "merged"]
    version = merged.details["merged_into"]
    saved("hermes-paper", merged.worker, "--at", f"v{version}")
    out = capsys.readouterr().out
    assert f"Version {version}: made of {merged.worker}" in out
    assert f"merged into version {version}" in out
    saved("hermes-paper", "worker-1", "--last", "2", "--json")
    found = json.loads(capsys.readouterr().out)
    rounds = [d for d in found["decisions"] if d["kind"] == "round"]
    assert len(rounds) <= 2
    assert found["differ"] == 0
    saved("bsp", "worker-2", "--json")
    everything = json.loads(capsys.readouterr().out)
    mine = [d for d in retold("bsp").decisions if d.worker == "worker-2"]
    assert len(everything["decisions"]) == len(mine)
    assert all(d["recomputed"] for d in everything["decisions"] if d["outcome"] == AGREES)


def test_at_a_version_of_which_a_worker_knows_nothing(
    saved: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A slow worker: what it was doing then."""
    stories = tales(d for d in retold("hermes-paper").decisions if d.worker == "worker-4")
    silent = [v for v in range(24) if not any(story.at_version(v) for story in stories)]
    saved("hermes-paper", "worker-4", "--at", str(silent[0]))
    out = capsys.readouterr().out
    assert "Nothing was decided about worker-4 then: it " in out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("worker-9",), "There are: worker-1, worker-2, worker-3 and worker-4; and master"),
        (("worker-1", "--at", "v99"), "Versions 0 .. 24 are there"),
        (("worker-1", "--round", "999"), "worker-1 has no round 999"),
        (("worker-1", "--at", "x"), "'x' is no version"),
        (("worker-1", "--at", "v1", "--last", "2"), "--at and --last are given"),
        (("worker-1", "--run", "q"), "there is no run 'q'"),
    ],
)
def test_what_is_not_there_is_said(
    args: tuple[str, ...],
    says: str,
    saved: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    saved("hermes-paper", *args, code=2)
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err


def test_somebody_who_never_got_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = demo("bsp")
    (refusal, *_) = [e for e in entries("bsp") if isinstance(e, WorkerRefused)]
    ghost = replace(refusal, worker="A ghost", reason=Reason("bad-name", {"rule": "1 to 40"}))
    changed = [
        replace(r, entries=tuple(ghost if e is refusal else e for e in r.entries)) for r in records
    ]
    save(changed, tmp_path)
    assert command(["why", "A ghost", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "never let in" in out
    assert "It was not let in: a name is 1 to 40." in out
