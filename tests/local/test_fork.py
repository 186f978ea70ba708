"""A run forked from another one, with real tensors: what it begins with, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Shown
from crew import KEY, Crew, told

from hermes.codec import decode_tensors
from hermes.data.cache import BlockCache
from hermes.errors import BrokerUnreachable, HermesError, RunError
from hermes.jobfile import build
from hermes.machine.audit import Audit
from hermes.machine.repair import recipes
from hermes.messages import (
    DataPublished,
    Forked,
    LedgerRecord,
    RunOpened,
    StateSaved,
    VersionPublished,
)
from hermes.perform.ledger import Ledger
from hermes.perform.remake import Start, remake, sources_in
from hermes.perform.store import Store
from hermes.policy.presets import Settings, resolve
from hermes.runtime import forking
from hermes.runtime.folder import RunFolder
from hermes.runtime.going_on import Continuation, known_run
from hermes.runtime.heritage import spans
from hermes.runtime.lineage import Child, children, descendants, refuse_parent
from hermes.runtime.sources import at_broker
from hermes.transport import names
from hermes.transport.memory import MemoryLog
from hermes.values import Tensors
from hermes.verify.run import verify

JOB = """\
import hermes
from hermes import nn
job = hermes.Job(
    model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)),
    data=hermes.data.digits, batch=32,
    optimizer=lambda params: nn.SGD(params, lr=0.1),
    loss=nn.CrossEntropy())
"""
BUILT = build(JOB, "job.py")


class Branch(Crew):
    """A run that is forked from a crew's, over the same log."""

    def __init__(
        self, parent: Crew, at: str, run: str = "", strategy: str | None = None, **settings: Any
    ) -> None:
        super().__init__(parent.folder.runs.parent, JOB)
        self.log = parent.log
        asked = {key.replace("__", "."): value for key, value in settings.items()}
        self.folder = RunFolder(parent.folder.runs.parent, run or self._named(parent))
        found = forking.parent_run(self.log, parent.folder, self._options.cache, KEY)
        self.fork = forking.fork(
            self.log,
            parent.folder,
            found,
            at,
            lambda before: forking.child_settings(before, BUILT, strategy, asked),
        )
        self._options = self._options._replace(
            run=self.folder.run,
            settings=self.fork.settings,
            folder=self.folder,
            begin=partial(forking.Inheritance, self.fork),
        )

    def _named(self, parent: Crew) -> str:
        return forking.child_id(parent.log, parent.folder.runs.parent, parent.folder.run)


def run_of(folder: Path, strategy: str = "bsp", **settings: Any) -> Crew:
    """A run of one worker that has finished."""
    crew = Crew(folder, JOB, strategy, **settings).see_through(1)
    assert crew.result["status"] == "finished", (crew.error, crew.said())
    return crew


def finished(branch: Branch) -> Branch:
    """Seen through, by one worker; all of it holds."""
    branch.see_through(1)
    assert branch.result["status"] == "finished", (branch.error, branch.said())
    report = verify(at_broker(branch.log, branch.folder.run))
    assert report.findings == []
    Audit().read(record for _, record in ledger(branch))
    return branch


def ledger(crew: Crew) -> list[tuple[int, LedgerRecord]]:
    """The records that count, with their offsets."""
    found: list[tuple[int, LedgerRecord]] = []
    topic = names.physical(crew.folder.run, names.LEDGER)
    fold = Ledger(crew.log, topic, watcher=lambda raw, it, _: found.append((raw.offset, it)))
    fold.fold()
    assert fold.voids == []
    return found


def entries(crew: Crew, kind: type) -> list[Any]:
    """What of this kind its ledger has."""
    return [one for _, record in ledger(crew) for one in record.entries if type(one) is kind]


def digests(crew: Crew) -> dict[int, str]:
    """Of its versions."""
    return {one.version: one.payload.digest for one in entries(crew, VersionPublished)}


# --- bit for bit ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Crew:
    """A run of eight steps."""
    return run_of(tmp_path_factory.mktemp("parent"), stop__versions=8)


def test_a_fork_begins_with_the_parents_version_bit_for_bit(parent: Crew) -> None:
    """And counts on; the parent is not written, its data is not sent again, and the entry says
    which record it follows from. After that it takes blocks that the parent had not granted, in an
    order of its own: it is another run."""
    before = {topic: len(rows.records) for topic, rows in parent.log._store.topics.items()}
    branch = finished(Branch(parent, "v5", stop__versions=9))
    for topic, count in before.items():
        assert len(parent.log._store.topics[topic].records) == count
    mine, theirs = digests(branch), digests(parent)
    assert sorted(mine) == [5, 6, 7, 8, 9]
    assert mine[5] == theirs[5]
    assert mine[6] != theirs[6]
    assert branch.log.ends([names.physical(branch.folder.run, names.DATA)]) == {
        names.physical(branch.folder.run, names.DATA): 0
    }

    opening = ledger(branch)[1][1].entries
    assert [type(entry) for entry in opening] == [Forked, RunOpened, DataPublished]
    (forked,) = entries(branch, Forked)
    assert (forked.parent, forked.version, forked.changes) == ("r", 5, {"stop.versions": 9})
    at = [o for o, it in ledger(parent) for e in it.entries if getattr(e, "version", None) == 5]
    assert forked.offset == at[0]
    after = next(record for offset, record in ledger(parent) if offset > forked.offset)
    assert forked.chain == after.chain, "the chain up to and including that record"
    assert branch.result["samples"] == 9 * 32
    assert branch.result["forked"] == {"parent": "r", "version": 5, "samples": 5 * 32}


def test_forks_of_one_version_are_alike_bit_for_bit(parent: Crew) -> None:
    """With one worker, the same settings and seed; with another seed they are not. At version 0,
    where no worker had trained, a fork is bit for bit like its parent."""
    one = finished(Branch(parent, "5", stop__versions=9))
    two = finished(Branch(parent, "v5", stop__versions=9))
    assert one.folder.run != two.folder.run
    assert digests(one) == digests(two)
    again = finished(Branch(parent, "v0"))
    assert digests(again) == digests(parent)


def test_a_fork_of_a_fork_reads_the_first_runs_data(parent: Crew) -> None:
    child = finished(Branch(parent, "last", stop__versions=10))
    grand = finished(Branch(child, "last", strategy="fedavg", stop__versions=11, round__steps=2))
    data = ledger(grand)[1][1].entries[2]
    assert (data.run, entries(grand, Forked)[0].parent) == ("r", child.folder.run)
    assert digests(grand)[10] == digests(child)[10]
    changes = entries(grand, Forked)[0].changes
    assert changes["strategy"] == "fedavg"
    assert changes["merge.rule"] == "mean-by-samples"


# --- what the parent's master held ----------------------------------------------------------------


def held(crew: Crew, version: int) -> Tensors:
    """The momentum at a version, made again from the first one on."""
    fold = Ledger(crew.log, names.physical(crew.folder.run, names.LEDGER))
    fold.fold()
    store = Store(crew.log, crew.folder.run)
    first = fold.state.versions[0]
    start = Start(0, first.payload.digest, decode_tensors(store.get(first.payload)), {})
    wanted = [one for one in recipes(fold.state, 0) if one.version.version <= version]
    *_, last = remake(start, wanted, (), sources_in(store))
    return last.moments


@pytest.fixture(scope="module")
def momentous(tmp_path_factory: pytest.TempPathFactory) -> Crew:
    """A run whose master keeps momentum, saved at every third version."""
    folder = tmp_path_factory.mktemp("momentous")
    more = {"stop__versions": 8, "round__steps": 2, "retention__snapshots": 3}
    return run_of(folder, "fedavgm", **more)


@pytest.mark.parametrize("at", [6, 7])
def test_the_momentum_goes_on(momentous: Crew, at: int) -> None:
    """From a snapshot, and from one and an update: the very same, and later versions are made of it
    (which `verify` says, in `finished`)."""
    branch = finished(Branch(momentous, f"v{at}", stop__versions=10))
    saved = next(one for one in entries(branch, StateSaved) if one.version == at)
    mine = decode_tensors(Store(branch.log, branch.folder.run).get(saved.payload))
    theirs = held(momentous, at)
    assert theirs
    assert mine.keys() == theirs.keys()
    assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)
    assert all(mine[name].dtype == np.float64 for name in mine)


def test_who_keeps_no_momentum_inherits_none(momentous: Crew, parent: Crew) -> None:
    """And who begins to keep it begins with none."""
    plain = finished(Branch(momentous, "v7", strategy="bsp", stop__versions=9))
    assert entries(plain, StateSaved) == []
    first = finished(Branch(parent, "v7", strategy="fedavgm", stop__versions=9, round__steps=1))
    assert entries(first, StateSaved) == []


# --- a fork that is killed before it has a version ------------------------------------------------


def cut_off(branch: Branch, monkeypatch: pytest.MonkeyPatch) -> Branch:
    """The fork's master ends after its first record, with nothing stored."""

    def dies(_self: object) -> Tensors:
        raise BrokerUnreachable("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(forking.Inheritance, "take_weights", dies)
        branch._lead(branch.master())
    assert branch.error is not None
    assert digests(branch) == {}
    return branch


def go_on(branch: Branch) -> Continuation:
    """As `hermes resume` does."""
    cache = BlockCache(branch._options.cache, 1 << 30)
    return Continuation(known_run(branch.log, branch.folder, cache, KEY), BUILT)


def test_a_fork_that_has_no_version_yet_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: Shown, capsys: Any
) -> None:
    """With the parent's version and momentum, read anew; where the parent is gone, it says so."""
    crew = run_of(tmp_path, "fedavgm", stop__versions=4, round__steps=2)
    child = cut_off(Branch(crew, "v3", stop__versions=6), monkeypatch)
    lost = cut_off(Branch(crew, "v3", stop__versions=6), monkeypatch)
    again = go_on(child)
    child._options = child._options._replace(begin=lambda _options: again, again=True)
    child.error = None
    finished(child)
    assert digests(child)[3] == digests(crew)[3]
    assert entries(child, StateSaved)[0].version == 3

    model = names.physical("r", names.MODEL)
    crew.log.trim(model, crew.log.ends([model])[model])
    with pytest.raises(RunError, match="there version 3 cannot be had"):
        go_on(lost)
    crew.log.delete([names.physical("r", names.LEDGER)])
    with pytest.raises(RunError) as caught:
        go_on(lost)
    code, text = told(caught.value, capsys)
    shown(
        "A fork that had no version yet, and its parent is gone", "hermes resume r-f2", code, text
    )
    assert "it had not stored its first version, which it has from r" in text


# --- what is refused ------------------------------------------------------------------------------


def refusal(attempt: Callable[[], object], capsys: Any) -> tuple[int, str]:
    with pytest.raises(HermesError) as caught:
        attempt()
    return told(caught.value, capsys)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "a version that never was": ("v9", {}, "no version 9: the run has versions 0 .. 8"),
    "a version of another kind": ("newest", {}, "'newest' is no version"),
    "an offset past the end": ("v99999999999", {}, "no version 99999999999"),
    "a fork that would stop at once": ("last", {}, "stop.versions=8 is reached (8)"),
    "samples that were merged already": (
        "v4",
        {"stop__samples": 128},
        "stop.samples=128 is reached (128)",
    ),
    "a split of its own": ("v4", {"split": 1}, "split cannot change in a fork"),
    "an unknown setting": ("v4", {"gate__alhpa": 1}, "unknown setting 'gate.alhpa'"),
    "a setting in vain": ("v4", {"gate__alpha": -1}, "gate.alpha would never take effect"),
    "an unknown strategy": ("v4", {"strategy": "bps"}, "unknown strategy 'bps'"),
}


@pytest.mark.parametrize("title", REFUSED)
def test_what_cannot_be_forked(
    title: str, parent: Crew, shown: Shown, capsys: pytest.CaptureFixture[str]
) -> None:
    at, more, says = REFUSED[title]
    code, text = refusal(lambda: Branch(parent, at, **more), capsys)
    typed = " ".join(f"--set {k.replace('__', '.')}={v}" for k, v in more.items())
    shown(title.capitalize(), f"hermes fork r --at {at} {typed}".strip(), code, text)
    assert (code, says in text) == (2, True), text


def test_a_version_that_retention_has_let_go_of(
    tmp_path: Path, shown: Shown, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names those that are there; the best one still lies in the run's folder."""
    more = {"stop__versions": 60, "retention__keep": "last:4"}
    crew = run_of(tmp_path, **more)
    found = forking.parent_run(crew.log, crew.folder, crew._options.cache, KEY)
    assert 0 < found.kept[0] <= 56
    assert found.kept[-1] == 60
    old = next(n for n in range(60) if n != found.known.state.evaluations.best.version)  # type: ignore[union-attr]
    code, text = refusal(lambda: Branch(crew, f"v{old}", stop__versions=99), capsys)
    shown("A version that retention has let go of", f"hermes fork r --at v{old}", code, text)
    assert f"its broker has {found.kept[0]} .. 60" in text
    assert "retention has let go of it" in text

    digest = digests(crew)[60]
    topic = names.physical("r", names.MODEL)
    crew.log.delete([topic])
    crew.log.create([topic])
    branch = finished(Branch(crew, "last", stop__versions=62))
    assert digests(branch)[60] == digest
    crew.folder.model.unlink()
    crew.folder.best.unlink()
    _, text = refusal(lambda: Branch(crew, "v60", stop__versions=62), capsys)
    assert "the broker has lost it" in text


def test_shards_smaller_than_the_blocks_are_refused(parent: Crew) -> None:
    """The data is cut; of such blocks a part would never be trained."""
    made = Branch(parent, "v4").fork
    assert made.data(2).first_size == made.data(1).first_size // 2
    with pytest.raises(HermesError, match="was cut into blocks of"):
        made.data(1000)


def test_a_strategy_replaces_what_a_strategy_stands_for() -> None:
    """The rest is the parent's: its stopping rules, and what the data was cut for."""
    before = resolve("bsp", [{"stop.samples": 500, "size.first": 99, "merge.max_staleness": 3}])
    after = forking.child_settings(before, BUILT, "hermes-paper", {"gate.alpha": -1.5})
    assert (after.strategy, after.gate.rule, after.gate.alpha) == ("hermes-paper", "zscore", -1.5)
    assert (after.stop.samples, after.size.first) == (500, 99)
    assert after.merge.max_staleness == Settings().merge.max_staleness
    assert forking.changes(before, before) == {}
    assert forking.changes(before, after)["strategy"] == "hermes-paper"


# --- names, and who comes from whom ---------------------------------------------------------------


def test_a_free_name(tmp_path: Path) -> None:
    """Free here and at the broker; of a long one the end gives way."""
    log = MemoryLog()
    assert forking.child_id(log, tmp_path, "demo") == "demo-f1"
    log.create([names.physical("demo-f1", names.LOGS)])
    (tmp_path / "runs" / "demo-f2").mkdir(parents=True)
    assert forking.child_id(log, tmp_path, "demo") == "demo-f3"
    assert forking.child_id(log, tmp_path, "a" * 40) == "a" * 37 + "-f1"
    assert forking.child_id(log, tmp_path, "a" * 36 + "-bcd") == "a" * 36 + "-f1"
    assert spans([]) == "none"
    assert spans([7, 0, 3, 4, 5]) == "0, 3 .. 5, 7"


def test_a_run_with_forks_is_not_cleaned(
    parent: Crew, tmp_path: Path, shown: Shown, capsys: pytest.CaptureFixture[str]
) -> None:
    """Known by the folder alone, and by the broker alone; the leaves go first."""
    out = parent.folder.runs.parent
    child = finished(Branch(parent, "v7", run="kin", stop__versions=9))
    finished(Branch(child, "v9", run="kin-of-kin", stop__versions=10))
    for where, log in ((out, None), (tmp_path, parent.log)):
        found = descendants("kin", children(where, log))
        assert found == ["kin-of-kin"]
        code, text = refusal(partial(refuse_parent, where, "kin", log), capsys)
        assert code == 2
        _, text = refusal(partial(refuse_parent, where, "r", log), capsys)
        assert text.index("hermes clean kin-of-kin") < text.index("hermes clean kin,")
        refuse_parent(where, "kin-of-kin", log)
    shown("A run that others were forked from", "hermes clean r", code, text)


def test_the_order_holds_in_a_family() -> None:
    known = [
        Child("c", frozenset({"b", "a"})),
        Child("b", frozenset({"a"})),
        Child("d", frozenset({"c", "a"})),
        Child("x", frozenset({"y"})),
        Child("y", frozenset({"x"})),
    ]
    assert descendants("a", known) == ["d", "c", "b"]
    assert descendants("x", known) == ["y"]
