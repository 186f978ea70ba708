"""Is every wait that is shown true, under each close rule? Told from ledgers of whole runs."""

from __future__ import annotations

import pytest
from steps import SAMPLES, Step, whole_run

from hermes.machine.state import MasterState
from hermes.messages import VersionEvaluated
from hermes.policy.sync import Close, Scene, Waiting, closes
from hermes.report.live.recent import Recent
from hermes.report.live.waits import BROKEN_OFF, CALM, Around, over, standing, waits
from hermes.values import SECOND

LATER = 10 * SECOND


@pytest.fixture(scope="module", params=SAMPLES)
def records(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """A whole run of each strategy."""
    return whole_run(request.param, tmp_path_factory.mktemp("simulated"))


def texts(state: MasterState, recent: Recent, now: int, around: Around = CALM) -> list[str]:
    return [wait.text for wait in waits(state, recent, now, around)]


def closing(state: MasterState) -> bool:
    waiting = [Waiting(p.worker) for p in state.pending]
    return isinstance(closes(state.settings.close, Scene(waiting, state.alive())), Close)


def test_every_wait_is_true(records: list[Step]) -> None:
    recent, kinds = Recent(), set()
    for step in records:
        recent.read(step.record)
        state, now = step.state, step.record.time
        assert set(recent.taken) == {p.update.birth for p in state.pending} or state.stopped
        found = waits(state, recent, now + LATER)
        kinds |= {wait.key.partition(" ")[0] for wait in found}
        barrier = [wait for wait in found if wait.key.startswith("barrier")]
        running = state.started is not None and state.stopped is None
        first = [wait.text for wait in found if wait.key == "first round"]
        assert bool(first) == (running and not any(m.rounds for m in state.members.values()))
        assert all(name in text for name in state.alive()[:2] for text in first)
        assert all("and builds the job first" in text for text in first)
        if state.settings.close.rule == "each":
            assert not barrier, "nobody waits at a barrier"
        elif running:
            pushed = {p.worker for p in state.pending}
            assert bool(barrier) == (bool(pushed) and not closing(state))
            missing = [name for name in state.alive() if name not in pushed]
            assert all(name in barrier[0].text for name in missing[:2] if barrier)
            assert not any(f" {name} " in wait.text for wait in barrier for name in pushed)
        for wait in found:
            if wait.key.startswith("decision"):
                worker = wait.text.partition(" ")[0]
                birth = next(p.update.birth for p in state.pending if p.worker == worker)
                assert wait.seconds == pytest.approx((now + LATER - recent.taken[birth]) / SECOND)
    expected = {
        "hermes-paper": {"decision"},
        "bsp": {"barrier", "merge"},
        "fedavg": {"barrier", "merge"},
    }
    assert expected[records[-1].state.settings.strategy] <= kinds | {"merge"}
    assert {"upload", "workers", "first", "evaluation"} <= kinds


def test_an_evaluation_under_way_is_the_one_that_comes(
    records: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is said to be under way at a moment is what the ledger has next, begun by then."""
    monkeypatch.setattr("hermes.report.live.waits.SHOWN", 0.0)
    recent, checked = Recent(), 0
    said: tuple[str, int] | None = None
    for step in records:
        for entry in step.record.entries:
            if isinstance(entry, VersionEvaluated) and said is not None:
                assert said[0] == f"evaluation {entry.version}"
                assert entry.started <= said[1]
                checked += 1
                said = None
        recent.read(step.record)
        state, now = step.state, step.record.time
        found = [w for w in waits(state, recent, now) if w.key.startswith("evaluation")]
        if found:
            said = (found[0].key, now)
    assert checked


def test_workers_stand_as_the_ledger_says(records: list[Step]) -> None:
    recent, seen = Recent(), set()
    for step in records:
        recent.read(step.record)
        state, now = step.state, step.record.time
        for member in state.members.values():
            found = standing(state, recent, member, now)
            seen.add(found.word)
            pushed = member.name in {p.worker for p in state.pending}
            if state.started is not None and state.stopped is None:
                assert (found.word in ("waiting", "merging")) == pushed
            if state.settings.close.rule == "all" and state.stopped is None and pushed:
                assert (found.word == "merging") == closing(state)
            assert (found.seconds is not None) == (found.word in ("waiting", "merging"))
    assert {"ready", "training", "leaving"} <= seen
    assert over(records[-1].state)
    assert texts(records[-1].state, recent, records[-1].record.time + LATER) == []


# --- what no ledger says ------------------------------------------------------------------------


@pytest.fixture
def middle(records: list[Step]) -> tuple[MasterState, Recent, int]:
    recent = Recent()
    running = [step for step in records if step.state.started is not None]
    half = running[len(running) // 2]
    for step in records:
        recent.read(step.record)
        if step is half:
            break
    return half.state, recent, half.record.time


def test_a_silent_worker(middle: tuple[MasterState, Recent, int]) -> None:
    state, recent, now = middle
    names = state.alive()
    flat = dict.fromkeys(names, (1, 1))
    recent.hear(flat, now)
    recent.hear({**flat, **dict.fromkeys(names[1:], (2, 1))}, now + 6 * SECOND)
    said = texts(state, recent, now + 7 * SECOND)
    assert f"nothing heard of {names[0]} for 7.0 s (lost at 10 s or later)" in said
    assert not any(f"nothing heard of {name}" in text for name in names[1:] for text in said)
    assert standing(state, recent, state.members[names[0]], now + 7 * SECOND).word == "silent"
    busy = Around(busy=6.5)
    assert "the master has been busy for 6.5 s" in texts(state, recent, now + 7 * SECOND, busy)
    assert not any("nothing heard" in text for text in texts(state, recent, now + LATER, busy))


def test_where_nothing_is_heard_nothing_else_is_told(
    middle: tuple[MasterState, Recent, int],
) -> None:
    state, recent, now = middle
    assert texts(state, recent, now + LATER, Around(away=7.1)) == [
        "the broker has not answered for 7.1 s"
    ]
    assert texts(state, recent, now + LATER, Around(silent=12.0)) == [
        "nothing heard of the master for 12 s"
    ]
    member = state.members[state.alive()[0]]
    assert standing(state, recent, member, now, BROKEN_OFF).word == "unknown"


def test_waiting_for_the_first_workers(records: list[Step]) -> None:
    recent = Recent()
    for step in records:
        recent.read(step.record)
        if step.state.newest is not None:
            break
    around = Around(expected=("worker-1", "worker-2", "worker-3", "worker-4"))
    came = set(step.state.members)
    said = texts(step.state, recent, step.record.time + LATER, around)
    assert step.state.started is None
    assert not came
    assert "waiting for workers: 0 of 4 (10 s), without worker-1, worker-2 and 2 more" in said
