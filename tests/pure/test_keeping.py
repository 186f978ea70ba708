"""What nobody needs may go, and nothing else: trims, rotation, and what they must never take."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from stage import MasterStage, WorkerStage, of, one

from hermes.errors import Defect, SettingError
from hermes.machine.audit import Audit
from hermes.machine.events import (
    AddGeneration,
    ChunkSeen,
    GenerationAdded,
    LogsRead,
    MoveLogs,
    MoveTopic,
    Opened,
    Trim,
    UpdateStored,
    VersionStored,
)
from hermes.machine.keeping import LINES_BETWEEN, LINES_KEPT, extents
from hermes.machine.master import Decision
from hermes.messages import Moved, Republished, Rotated, Trimmed
from hermes.policy import retention
from hermes.policy.presets import resolve
from hermes.policy.retention import Fill, RetentionSettings
from hermes.simulate.schedules import reference
from hermes.values import Payload, Position

CHUNKS = 4
"""Chunks of a version in these tests: so many records a version."""


def lying(payload: Payload, generation: int, first: int) -> Payload:
    """The payload at a place, in some chunks."""
    return replace(
        payload, generation=generation, first=first, last=first + CHUNKS - 1, chunks=CHUNKS
    )


class Kept:
    """A run of one worker whose versions and updates lie in topics, one after the other."""

    def __init__(self, keep: str = "last:2", *, trims: bool = True) -> None:
        self.stage = MasterStage("bsp", retention__keep=keep)
        assert self.stage.state.opened is not None
        self.stage.put(Opened(self.stage.state.opened, trims=trims))
        self.at = {"model": 100, "from.w1": 0}
        self.actions: list[object] = []

    def version(self) -> Decision:
        """One more, and what is asked for with it."""
        stage = self.stage
        generations = stage.state.generations
        mine = stage.update("w1")
        placed = lying(mine.payload, generations.get("from.w1", 0), self.at["from.w1"])
        stage.offset["from.w1"] = self.at["from.w1"] + CHUNKS
        self.at["from.w1"] += CHUNKS + 2
        self._note(stage.say("w1", stage.round("w1", replace(mine, payload=placed))))
        assert stage.soft.merge is not None
        number = stage.soft.merge.version
        generation = generations.get("model", 0)
        payload = lying(reference("model", number), generation, self.at["model"])
        self.at["model"] += CHUNKS
        return self._note(stage.put(VersionStored(number, payload)))

    def _note(self, decision: Decision) -> Decision:
        self.actions += decision.actions
        for action in of(AddGeneration, decision):
            self.at[action.topic] = 0
            self._note(self.stage.put(GenerationAdded(action.topic, action.generation)))
            if action.topic == "from.w1":  # the worker ends its old one
                self.stage.say("w1", Moved(action.generation), number=0)
                self.stage.generation["from.w1"] = action.generation
                self.stage.offset["from.w1"] = 0
        return decision


def test_the_newest_versions_stay_and_all_that_they_were_made_of() -> None:
    """[13] Whatever is kept lies at or behind the place that was trimmed to, after every record."""
    kept = Kept()
    for _ in range(40):
        kept.version()
        for topic, extent in extents(kept.stage.state, None).items():
            gone = kept.stage.state.trimmed.get(topic, Position(topic, 0, 0))
            assert gone <= extent.floor
    trims = of(Trim, kept.actions)
    assert {trim.topic for trim in trims} == {"model", "from.w1"}
    assert len(of(Trimmed, kept.stage.entries)) == len(trims)
    assert len(trims) < 40, "not one by one"
    held = kept.at["model"] - kept.stage.state.trimmed["model"].offset
    assert held <= CHUNKS * 10, "and not for long"
    Audit().read(kept.stage.records)


def test_where_nothing_can_be_trimmed_topics_go_on_in_a_new_generation() -> None:
    kept = Kept(trims=False)
    for _ in range(120):
        kept.version()
    state = kept.stage.state
    assert state.generations["model"] >= 2
    assert state.generations["from.w1"] >= 2
    assert all(trim.before == 0 for trim in of(Trim, kept.actions)), "whole generations only"
    assert state.trimmed["model"].generation >= state.generations["model"] - 1
    assert all(
        version.payload.generation >= state.trimmed["model"].generation
        for version in state.versions.values()
    )
    Audit().read(kept.stage.records)


def test_a_version_that_somebody_starts_from_is_not_let_go_of() -> None:
    """[13] The base of a worker that is slow, however old."""
    stage = MasterStage("hermes-paper", workers=2, retention__keep="last:2")
    first = stage.state.versions[0].payload
    for _ in range(5):
        stage.store(stage.score(stage.push("w1")))
    assert stage.state.members["w2"].base == 0
    assert sorted(stage.state.versions) == [0, 4, 5]
    assert extents(stage.state, None)["model"].floor.offset == first.first


def test_chunks_of_an_update_that_is_still_being_stored_stay() -> None:
    """[5, 13] A slow worker on a thin link: its beats lie between its chunks, and are no place to
    trim to; nor one from which a restarted master reads on."""
    stage = MasterStage("hermes-paper", workers=2, retention__keep="last:2")
    stage.beat("w2")
    stage.put(ChunkSeen("w2"))
    first = stage.at("from.w2")
    for _ in range(8):
        for _ in range(6):
            stage.beat("w2")
        decision = stage.store(stage.score(stage.push("w1")))
        assert "from.w2" not in {trim.topic for trim in of(Trim, decision)}
        assert stage.state.consumed["from.w2"] < first
    update = stage.update("w2", base=0)
    payload = replace(update.payload, first=first.offset, last=stage.offset["from.w2"])
    stage.say("w2", stage.round("w2", replace(update, payload=payload)))
    assert stage.state.consumed["from.w2"] == Position("from.w2", 0, stage.offset["from.w2"])
    assert extents(stage.state, None)["from.w2"].floor == first


def test_all_is_kept_where_that_is_asked_for() -> None:
    kept = Kept("all")
    for _ in range(30):
        kept.version()
    assert not of(Trim, kept.actions)


def test_a_new_master_lets_go_again_of_what_the_ledger_let_go_of() -> None:
    """It may have died between the record and the deed."""
    kept = Kept()
    while not of(Trim, kept.actions):
        kept.version()
    again = of(Trim, kept.stage.restart())
    assert {(trim.topic, trim.before) for trim in again} == {
        (topic, place.offset) for topic, place in kept.stage.state.trimmed.items()
    }


def test_the_central_log_is_trimmed_and_rotated_by_what_was_read() -> None:
    kept = Kept()
    end = 2 * LINES_KEPT + 10
    trims = of(Trim, kept.stage.put(LogsRead(Position("logs", 0, end))))
    assert [(trim.topic, trim.before) for trim in trims] == [("logs", end - LINES_KEPT)]
    kept = Kept(trims=False)
    add = one(AddGeneration, kept.stage.put(LogsRead(Position("logs", 0, end))))
    kept.stage.put(GenerationAdded(add.topic, add.generation))
    early = kept.stage.put(LogsRead(Position("logs", 1, LINES_BETWEEN)))
    assert not of(Trim, early), "some still write to the one before"
    late = kept.stage.put(LogsRead(Position("logs", 1, LINES_BETWEEN + 1)))
    assert one(Trim, late).generation == 1


@pytest.mark.parametrize(
    ("topic", "place", "why"),
    [
        ("ledger", 5, "never trimmed"),
        ("data", 5, "never trimmed"),
        ("model", 0, "trimmed again"),
    ],
)
def test_the_audit_sees_a_trim_that_cannot_be(topic: str, place: int, why: str) -> None:
    kept = Kept()
    kept.version()
    last = kept.stage.records[-1]
    forged = replace(last, n=last.n + 1, entries=(Trimmed(topic, 0, place),), consumed=())
    with pytest.raises(Defect, match=why):
        Audit().read([*kept.stage.records, forged])


def test_the_audit_sees_what_is_named_after_it_was_let_go_of() -> None:
    kept = Kept()
    while "model" not in kept.stage.state.trimmed:
        kept.version()
    last, newest = kept.stage.records[-1], kept.stage.state.newest
    assert newest is not None
    gone = Republished(newest.version, replace(newest.payload, first=0, last=0))
    forged = replace(last, n=last.n + 1, entries=(gone,), consumed=())
    with pytest.raises(Defect, match="trimmed before"):
        Audit().read([*kept.stage.records, forged])


# --- a worker -----------------------------------------------------------------------------------


def test_a_worker_moves_on_between_two_updates_never_within_one() -> None:
    worker = WorkerStage("bsp")
    worker.ready()
    worker.finish()  # it is being stored, into the generation that there is
    assert not of(MoveTopic, worker.see(Rotated("from.w1", 1)))
    step = worker.put(UpdateStored(reference("from", 1)))
    assert one(MoveTopic, step).generation == 1
    assert not of(MoveTopic, worker.see(Rotated("from.w2", 1)))
    assert one(MoveLogs, worker.see(Rotated("logs", 1))).generation == 1


def test_a_worker_that_comes_late_is_told_where_its_topic_goes_on() -> None:
    """The marker is written for whoever was before it."""
    worker = WorkerStage("bsp", admit=False)
    step = worker.see(replace(worker.admission(), generation=3, logs=2))
    assert one(MoveTopic, step).generation == 3
    assert one(MoveLogs, step).generation == 2


# --- the settings -------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["last:1", "last:0", "last", "newest", 20, "all:3", "last:-2"])
def test_what_is_no_retention_is_refused(value: object) -> None:
    with pytest.raises(SettingError, match=r"retention\.keep"):
        resolve("bsp", [{"retention.keep": value}])


def test_snapshots_never_outlive_what_they_are_good_for() -> None:
    assert retention.stretch(RetentionSettings(keep="last:6", snapshots=10)) == 3
    for apart in (1, 10, 50):
        everything = RetentionSettings(keep="all", snapshots=apart)
        assert retention.stretch(everything) == apart
        assert retention.versions(everything) >= 2 * apart


def test_an_old_generation_is_at_most_as_large_as_what_is_needed() -> None:
    assert retention.worth_rotating(Fill(200, 150))
    assert not retention.worth_rotating(Fill(100, 150))
    assert not retention.worth_rotating(Fill(3, 0))
