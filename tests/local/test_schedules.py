"""Random schedules of faults keep every invariant; a rule taken out breaks one."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace

from hermes.errors import Defect
from hermes.machine import audit, worker
from hermes.machine.apply import apply_entries
from hermes.machine.audit import Audit
from hermes.machine.events import LedgerSeen
from hermes.machine.ledger import Counting
from hermes.machine.reading import on_ledger
from hermes.machine.rules import PROTOCOL_RULES, Rules
from hermes.machine.state import MasterState
from hermes.messages import (
    BlocksGranted,
    BlocksReturned,
    Consumed,
    Entry,
    LedgerRecord,
    ResendAsked,
    RunStopped,
    UpdateRejected,
    VersionPublished,
    WorkerAdmitted,
    WorkerBack,
    WorkerLost,
    WorkerRefused,
)
from hermes.simulate import schedules
from hermes.simulate.driver import Driver
from hermes.simulate.failing import failure_of
from hermes.simulate.faults import KILLS, records_of
from hermes.simulate.schedules import KINDS, Fault, Schedule, draw
from hermes.simulate.search import Tally
from hermes.simulate.watch import Twin
from hermes.simulate.without import CASES, HINTS, failure_without
from hermes.values import SECOND, Birth, BlockRange, Position, Reason
from hermes.verify.decisions import Decisions

SEEDS = 150
"""`scripts/schedules` runs 10,000."""

TRIED = 600
"""Schedules that are tried without a rule, if its hints have grown stale."""


T = TypeVar("T")


def of(kind: type[T], items: Iterable[object]) -> list[T]:
    """The items of one kind."""
    return [item for item in items if isinstance(item, kind)]


def plain(strategy: str, workers: int, versions: int, *script: Fault) -> Schedule:
    """A schedule of equal workers, all there from the start."""
    return Schedule(1, strategy, versions, (1.0,) * workers, (0,) * workers, script)


def test_random_schedules_keep_every_invariant() -> None:
    """They finish; every kind of fault fired, every kind of answer was given."""
    tally = Tally()
    for seed in range(SEEDS):
        tally.note(schedules.run(draw(seed)))
    assert set(tally.fired) == {*KINDS, "join-late", "fenced"}
    assert min(tally.met.values()) >= 4, tally.met
    for kind in (
        BlocksReturned, ResendAsked, UpdateRejected, WorkerBack, WorkerLost, WorkerRefused,
    ):  # fmt: skip
        assert tally.entries[kind.__name__] >= 5, kind
    assert tally.checks > 20 * SEEDS


# --- rules taken out ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_a_rule_taken_out_breaks_an_invariant(case: str) -> None:
    """Without it one of the schedules comes to grief, and with it the same one does not."""
    for seed in (*HINTS.get(case, ()), *range(TRIED)):
        if failure_without(case, draw(seed)) is not None:
            assert failure_of(draw(seed)) is None
            return
    pytest.fail(f"no schedule breaks without {case}")


def test_every_rule_is_taken_out_by_itself() -> None:
    """No function of the table is left untested; a second rule behind one is told by its name."""
    taken_out: set[str] = set()
    for case in CASES.values():
        changed = [
            *_changed(PROTOCOL_RULES, case.rules),
            *_changed(PROTOCOL_RULES.counting, case.rules.counting),
        ]
        fields = [name for name in changed if name != "counting"]
        assert len(fields) == 1
        taken_out.update(fields)
        assert not case.second or CASES[case.second].second == ""
    assert taken_out == (set(Rules._fields) | set(Counting._fields)) - {"counting"}
    assert set(HINTS) <= set(CASES)


def _changed(before: Any, after: Any) -> list[str]:
    pairs = zip(before._fields, before, after, strict=True)
    return [name for name, one, other in pairs if one is not other]


# --- what the schedules found -------------------------------------------------------------------


def test_a_record_that_does_not_count_sends_nobody_away() -> None:
    """[2] A worker that knocks saw `RunStopped` in a forged record, believed it and left: the run
    never had a worker. It cannot judge the record; it waits whether its hello is answered."""
    driver = schedules.run(plain("bsp", 1, 1, Fault("forged", 2)))
    assert driver.watch.state.members["worker-1"].rounds > 0


# --- outcomes of single faults ------------------------------------------------------------------


@functools.cache
def undisturbed(strategy: str) -> MasterState:
    """The end of a run in which nothing goes wrong."""
    return schedules.run(plain(strategy, 2, 3)).watch.state


@pytest.mark.parametrize("strategy", ["bsp", "fedavg", "hermes-paper"])
@pytest.mark.parametrize("kind", ["lost", "unknown", *(fault.value for fault in KILLS)])
def test_an_append_gone_wrong_changes_no_outcome(strategy: str, kind: str) -> None:
    """At any place, by any way: workers, versions and blocks stand as if nothing had happened."""
    calm = undisturbed(strategy)
    for index in range(4, 40, 11):
        state = schedules.run(plain(strategy, 2, 3, Fault(kind, index))).watch.state
        assert state.newest is not None
        assert calm.newest is not None
        digest = state.newest.payload.digest
        assert (digest, state.newest.version) == (calm.newest.payload.digest, calm.newest.version)
        assert state.cursor == calm.cursor
        assert state.time == calm.time
        for name, member in calm.members.items():
            found = state.members[name]
            assert (found.rounds, found.pushes, found.applied) == (
                member.rounds, member.pushes, member.applied,
            )  # fmt: skip


CLOSING: dict[str, dict[str, Any]] = {
    "quorum": {"close.rule": "quorum", "close.share": 0.6, "merge.rule": "momentum"},
    "count": {"close.rule": "count", "close.count": 2, "merge.rule": "buffered"},
}


@pytest.mark.parametrize("rule", CLOSING)
def test_versions_of_some_keep_every_invariant(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a quorum, or a count, at which it closes; and each follows from the ledger alone."""
    common = {"round.steps": 7, "merge.max_staleness": None, "continue.rule": "at-once"}
    monkeypatch.setitem(schedules.SHORT, "fedavg", {**common, **CLOSING[rule]})
    monkeypatch.setattr(schedules, "settings_of", schedules.settings_of.__wrapped__)
    sizes: Counter[int] = Counter()
    for seed in range(25):
        decisions, driver = Decisions(), schedules.run(draw(seed, "fedavg"))
        for place, record in enumerate(driver.valid_records()):
            decisions.take(record, place)
        reference = (", data", ", trimmed")  # sizes and places that stand for real ones
        assert not [f for f in decisions.found if not f.entry.endswith(reference)]
        sizes.update(len(version.members) for version in of(VersionPublished, entries_of(driver)))
    assert {1, 2} <= set(sizes)


BOUNDED: dict[str, dict[str, Any]] = {
    "each": {"close.rule": "each", "merge.rule": "add"},
    "all": {"close.rule": "all", "merge.rule": "mean"},
    "quorum": {"close.rule": "quorum", "close.share": 0.5, "merge.rule": "mean"},
    "count": {"close.rule": "count", "close.count": 2, "merge.rule": "buffered"},
}


@pytest.mark.parametrize("rule", BOUNDED)
def test_workers_that_wait_for_each_other_get_on_and_know_how_far_all_are(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for the slowest is not waited for by a version; and every worker counts, after
    every record, as the master does."""
    common = {"round.steps": 7, "merge.max_staleness": None, "continue.rule": "bounded"}
    chosen = {**common, "continue.slack": 0, **BOUNDED[rule]}
    monkeypatch.setitem(schedules.SHORT, "fedavg", chosen)
    monkeypatch.setattr(schedules, "settings_of", schedules.settings_of.__wrapped__)
    seen: list[tuple[tuple[int, int], str, dict[str, int]]] = []

    def watched(hand: worker.Hand, event: LedgerSeen) -> None:
        on_ledger(hand, event)
        if hand.state.admitted and hand.state.phase != "gone":
            place = event.record.term, event.record.n
            seen.append((place, hand.state.name, dict(hand.state.clocks)))

    monkeypatch.setitem(worker.HANDLERS, LedgerSeen, watched)
    looked_at = 0
    for seed in range(30, 60):
        seen.clear()
        driver, state = schedules.run(draw(seed, "fedavg")), MasterState()
        clocks: dict[tuple[int, int], dict[str, int]] = {}
        for record in driver.valid_records():
            state = apply_entries(replace(state, time=record.time), record.entries, record.consumed)
            clocks[record.term, record.n] = {n: state.members[n].closed for n in state.alive()}
        for place, name, known in seen:
            alive = clocks.get(place, known)  # whoever is lost itself may know where it stood
            assert {n: at for n, at in known.items() if n != name or n in alive} == alive
        looked_at += len(seen)
    assert looked_at > 500


def test_a_worker_lost_alone_comes_back() -> None:
    """The only worker is cut off for longer than the limit: lost, back, and the run is finished."""
    cut = Fault("cut", SECOND, "worker-1", 8 * SECOND)
    driver = schedules.run(plain("bsp", 1, 8, cut))
    kinds = [type(entry) for record in driver.valid_records() for entry in record.entries]
    assert kinds.count(WorkerLost) == 1
    assert kinds.count(WorkerBack) == 1


def test_a_worker_that_hangs_holds_nobody_up() -> None:
    """It lives and gets nowhere: stuck after the ceiling, since its rounds are too few to learn
    from; the barrier goes on without it. The other half of it: it is back with its next round."""
    hang = Fault("hang", SECOND // 2, "worker-1", schedules.FOR_EVER)
    driver = schedules.run(plain("bsp", 2, 5, hang))
    (lost,) = of(WorkerLost, entries_of(driver))
    assert (lost.worker, lost.reason.code) == ("worker-1", "stuck")
    assert lost.reason.facts["limit"] == schedules.LONGEST
    assert not of(WorkerBack, entries_of(driver))
    for_long = hang._replace(lasts=8 * SECOND)
    driver = schedules.run(plain("bsp", 2, 60, for_long))
    kinds = [type(entry) for entry in entries_of(driver)]
    assert kinds.index(WorkerLost) < kinds.index(WorkerBack)
    assert kinds.count(WorkerLost) == kinds.count(WorkerBack) == 1


def test_a_master_that_overslept_appends_and_is_fenced() -> None:
    """It wakes up, writes one record that does not count, reads why, and stops."""
    driver = schedules.run(plain("bsp", 2, 9, Fault("overslept", SECOND, "", 2 * SECOND)))
    written = len(records_of(driver.log, driver.topic))
    assert driver.fired["fenced"] == 1
    assert written == len(driver.valid_records()) + 1
    assert driver.watch.state.authority.term == 2


def test_a_slow_disk_makes_nobody_lost() -> None:
    """The broker, the master and a worker each wait two seconds for a disk: longer than the
    limit of silence, and nobody is silent."""
    slow = (
        Fault("slow-append", 9),
        Fault("slow-master", 5, "", 2 * SECOND),
        Fault("slow-worker", SECOND, "worker-1", 2 * SECOND),
    )
    driver = schedules.run(plain("bsp", 2, 5, *slow))
    assert {driver.fired[kind] for kind in ("slow-append", "slow-master", "slow-worker")} == {1}
    entries = [entry for record in driver.valid_records() for entry in record.entries]
    assert not of(WorkerLost, entries)
    assert driver.watch.state.time > undisturbed("bsp").time + 2 * SECOND


# --- the watch and the audit can fail -----------------------------------------------------------


def calm_run(**changes: Any) -> Driver:
    """A run of two workers in which nothing goes wrong."""
    return schedules.run(plain("bsp", 2, 3), **changes)


def test_a_state_that_is_not_the_fold_is_seen() -> None:
    """After a record the master's state is compared with the watch's, field by field."""
    driver = calm_run()
    state, last = driver.watch.state, records_of(driver.log, driver.topic)[-1]
    twin = Twin(driver.watch, driver.read_ledger)
    record = driver.valid_records()[-1]
    twin(last, record, state)
    first = state.members["worker-1"]
    for wrong in (
        replace(state, cursor=state.cursor + 1),
        replace(state, members={**state.members, "worker-1": replace(first, clock=99)}),
        replace(state, generations={"logs": 1}),
        replace(state, versions={}),
    ):
        with pytest.raises(Defect, match="not the fold"):
            twin(last, record, wrong)
    with pytest.raises(Defect, match="no other reader"):
        twin(last, record, replace(state, authority=replace(state.authority, next_n=0)))
    twin(last, record, state)


def entries_of(driver: Driver) -> list[Entry]:
    return [entry for record in driver.valid_records() for entry in record.entries]


def wrong_stories(records: list[LedgerRecord]) -> list[tuple[str, LedgerRecord]]:
    """Records that cannot follow these, and what the audit says of each."""
    last = records[-1]
    entries = [entry for record in records for entry in record.entries]
    admitted = of(WorkerAdmitted, entries)[0]
    newest = of(VersionPublished, entries)[-1]
    back = BlocksReturned("worker-1", (of(BlocksGranted, entries)[-1].number,), "x")
    after = {"term": last.term, "nonce": last.nonce, "n": last.n + 1}

    def then(*entries: Entry, **changes: Any) -> LedgerRecord:
        return replace(last, **{**after, "entries": entries, "consumed": (), **changes})

    again = Consumed(Position("lobby", 0, 0), "", 0)
    following = replace(newest, version=newest.version + 1, members=())
    return [
        ("another master's", then(nonce="other")),
        ("counts where", then(n=99)),
        ("run time goes back", then(time=last.time - 1)),
        ("position goes back", then(consumed=(again,))),
        ("admitted twice", then(admitted)),
        ("samples, its updates", then(replace(following, samples=newest.samples + 1))),
        ("never taken", then(UpdateRejected("worker-1", Birth("worker-1-1", 99), Reason("x")))),
        ("stopped twice", then(RunStopped("x", Reason("x")), RunStopped("x", Reason("x")))),
        ("after the stop", then(RunStopped("x", Reason("x")), following)),
        ("before those given back", then(back, _granted(entries, 1000))),
    ]


def _granted(entries: list[Entry], first: int) -> BlocksGranted:
    mine = [grant for grant in of(BlocksGranted, entries) if grant.worker == "worker-1"]
    return replace(mine[-1], number=len(mine) + 1, ranges=(BlockRange(first, first + 3),))


def test_the_audit_sees_each_story_that_cannot_be() -> None:
    """A true story up to the stop, then one wrong record: each is seen for what it is."""
    records = calm_run().valid_records()
    stop = next(i for i, record in enumerate(records) if of(RunStopped, record.entries))
    story = records[:stop]
    Audit().read(story)
    for says, wrong in wrong_stories(story):
        with pytest.raises(Defect, match=says.replace("another master's", "fenced master's")):
            Audit().read([*story, wrong])


def test_a_version_merged_out_of_order_is_seen() -> None:
    """Its updates stand in the order of their acceptance."""
    records = calm_run().valid_records()
    for index, record in enumerate(records):
        for place, entry in enumerate(record.entries):
            if isinstance(entry, VersionPublished) and len(entry.members) == 2:
                turned = replace(entry, members=entry.members[::-1])
                entries = (*record.entries[:place], turned, *record.entries[place + 1 :])
                story = [*records[:index], replace(record, entries=entries)]
                with pytest.raises(Defect, match="out of the order"):
                    Audit().read(story)
                return
    pytest.fail("no version of two updates")


def test_the_audit_reads_every_entry_that_tells_a_story() -> None:
    """The entries that the audit knows are entries of the ledger (and it can fail: `Defect`)."""
    assert all(kind.__module__ == "hermes.messages" for kind in audit.READERS)


def test_a_schedule_is_made_from_its_seed_alone() -> None:
    """The same twice, another for another; a strategy can be asked for and changes nothing else."""
    assert draw(7) == draw(7)
    assert len({draw(seed) for seed in range(50)}) == 50
    assert draw(7, "bsp")._replace(strategy=draw(7).strategy) == draw(7)
    counts = Counter(fault.kind for seed in range(300) for fault in draw(seed).script)
    assert set(counts) == set(KINDS)
