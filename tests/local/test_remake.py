"""A version made again from what the ledger names, and a master's momentum after a restart."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from hermes.codec import decode_tensors, encode_tensors
from hermes.data.cache import BlockCache
from hermes.errors import BrokerRefused, Defect, DigestMismatch, PeerError
from hermes.machine.events import (
    FinalScored,
    Merge,
    MergeFailed,
    Part,
    Recipe,
    RestoreState,
    SaveState,
    ScoreLast,
    SecureVersions,
    StateRestored,
    StateStored,
    VersionsSecured,
    VersionStored,
)
from hermes.messages import Contribution, Manifest, StateSaved, Update, VersionPublished
from hermes.perform.blocks import Blocks
from hermes.perform.desk import Desk, Judge
from hermes.perform.remake import Remade, Start, remake, sources_in
from hermes.perform.store import Store
from hermes.transport import names
from hermes.transport.memory import MemoryLog
from hermes.values import Base, Birth, Outer, Payload, Reason

RUN = "r"
BUFFERS = {"norm.mean", "norm.seen"}
OUTER = Outer(0.9, 0.7, nesterov=True)
RULES = {"momentum": OUTER, "mean-by-samples": None, "mean": None, "interpolate": None}


class Course:
    """A few versions of a small model, and what a ledger would name of them. Each is made of two
    updates; from the third version on, one of them starts from the version before the last."""

    def __init__(self, folder: Path, rule: str = "momentum") -> None:
        self.log, self.rule, self.folder = MemoryLog(), rule, folder
        topics = ["model", "state", "from.worker-1", "from.worker-2"]
        self.log.create([names.physical(RUN, topic) for topic in topics])
        self.store = Store(self.log, RUN)
        self.chance = np.random.default_rng(7)
        self.snapshots: list[StateSaved] = []
        self.recipes: list[Recipe] = []
        self.desk = self.fresh_desk()
        model = self.random()
        stored = self.desk.store_first(model)
        first = VersionPublished(0, stored.payload, (), "init", 0.0, 0, Reason("first"))
        self.versions = [first]

    def fresh_desk(self) -> Desk:
        """As that of a master that was just started."""

        def nobody() -> None:
            raise AssertionError("nothing is scored here")

        cache = BlockCache(self.folder / "cache", 1 << 20)
        empty = Manifest({"validation": (), "test": ()})
        judge = Judge(nobody, Blocks(self.store, empty, cache), self.store)  # type: ignore[arg-type]
        return Desk(self.store, judge, BUFFERS)

    def random(self) -> dict[str, np.ndarray]:
        """A model: two parameters, a buffer, a counter."""
        return {
            "w": self.chance.normal(size=(20, 7)).astype(np.float32),
            "b": self.chance.normal(size=7).astype(np.float16),
            "norm.mean": self.chance.normal(size=7).astype(np.float32),
            "norm.seen": np.array(self.chance.integers(99)),
        }

    def updates(self) -> tuple[Part, ...]:
        """What comes in for the next version."""
        number, parts = len(self.versions), []
        for index in range(1 if self.rule == "interpolate" else 2):
            base = self.versions[-2 if index and number > 2 else -1]
            short = f"from.worker-{index + 1}"
            payload = self.pushed(short)
            birth = Birth(f"i{index}", number)
            origin = Base(base.version, base.payload.digest)
            update = Update(birth, origin, 10 + number, 1, base.version, payload)
            weight = 1.0 if self.rule == "mean" else float(update.samples)
            parts.append(Part(f"worker-{index + 1}", update, weight, base.payload))
        return tuple(parts)

    def pushed(self, short: str) -> Payload:
        """An update's tensors, sent by a worker."""
        return self.store.put(short, encode_tensors(self.random()))

    def merge(self, parts: tuple[Part, ...]) -> Merge:
        """The next version out of these."""
        keep = 0.25 if self.rule == "interpolate" else 0.0
        last = self.versions[-1]
        return Merge(last.version + 1, last, self.rule, keep, parts, RULES[self.rule])

    def publish(self, merge: Merge, stored: object) -> None:
        """What the machine records of it."""
        assert isinstance(stored, VersionStored), stored
        members = tuple(
            Contribution(p.worker, p.update.birth, p.weight, p.update.samples) for p in merge.parts
        )
        version = VersionPublished(
            *(merge.version, stored.payload, members, merge.rule, merge.keep, 0),
            Reason("all-pushed"),
            merge.outer,
        )
        self.versions.append(version)
        self.recipes.append(Recipe(version, merge.parts))

    def run(self, versions: int, snapshots: tuple[int, ...] = ()) -> Course:
        """So many versions; the master's own tensors are saved at some."""
        for _ in range(versions):
            merge = self.merge(self.updates())
            self.publish(merge, self.desk.perform(merge))
            if merge.version in snapshots:
                saved = self.desk.perform(SaveState(self.versions[-1]))
                assert isinstance(saved, StateStored)
                self.snapshots.insert(0, StateSaved(saved.version, saved.payload))
        return self

    def restore(self, *snapshots: StateSaved) -> RestoreState:
        """What a restarted master asks for."""
        versions = tuple(self.versions)
        return RestoreState(self.versions[-1], snapshots, tuple(self.recipes), versions)

    def start(self, version: int = 0) -> Start:
        """A version to begin from, without momentum."""
        payload = self.versions[version].payload
        return Start(version, payload.digest, decode_tensors(self.store.get(payload)), {})

    def remake(self, recipes: list[Recipe], version: int = 0) -> list[Remade]:
        """Those versions again."""
        return list(remake(self.start(version), recipes, BUFFERS, sources_in(self.store)))


def gone(payload: Payload) -> Payload:
    """Chunks that the broker does not have."""
    return replace(payload, first=payload.first + 10_000, last=payload.last + 10_000)


def damaged(payload: Payload) -> Payload:
    """Bytes that are not those announced."""
    return replace(payload, digest="0" * 64)


# --- versions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_each_version_is_made_again_bit_for_bit(tmp_path: Path, rule: str) -> None:
    """By each rule, from version 0 on, with updates of older bases among them."""
    course = Course(tmp_path, rule).run(5)
    found = course.remake(course.recipes)
    assert [one.version for one in found] == course.versions[1:]
    assert [one.data for one in found] == [course.store.get(v.payload) for v in course.versions[1:]]
    assert all(bool(one.moments) == (rule == "momentum") for one in found)


def test_versions_come_one_at_a_time(tmp_path: Path) -> None:
    """What is not asked for is not fetched: a damaged third version does not hide the second."""
    course = Course(tmp_path).run(3)
    recipe = course.recipes[2]
    update = recipe.parts[1].update
    broken = replace(recipe.parts[1], update=replace(update, payload=gone(update.payload)))
    recipes = [*course.recipes[:2], replace(recipe, parts=(recipe.parts[0], broken))]
    made = remake(course.start(), recipes, BUFFERS, sources_in(course.store))
    assert [next(made).version.version, next(made).version.version] == [1, 2]
    with pytest.raises(PeerError) as caught:
        next(made)
    assert "update 3 of worker-2 (i1) cannot be read" in caught.value.what


def test_what_differs_in_anything_is_found_and_named(tmp_path: Path) -> None:
    """Another order, step, weight, momentum or beginning: the digest is not that of the ledger."""
    course = Course(tmp_path).run(3)
    first, second, third = course.recipes
    assert first.version.outer == OUTER
    slower = replace(second.version, outer=replace(OUTER, rate=0.7000001))
    heavier = replace(
        second,
        version=replace(
            second.version,
            members=(replace(second.version.members[0], weight=13.0), second.version.members[1]),
        ),
        parts=(replace(second.parts[0], weight=13.0), second.parts[1]),
    )
    for changed in (replace(second, version=slower), heavier):
        with pytest.raises(DigestMismatch) as caught:
            course.remake([first, changed, third])
        assert caught.value.where == "version 2"
    with pytest.raises(DigestMismatch):  # version 2 without the momentum of the first
        course.remake([second], version=1)


def test_a_recipe_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    """A version left out; one that was not made of updates; parts that are not the members."""
    course = Course(tmp_path).run(2)
    first, second = course.recipes
    with pytest.raises(PeerError, match="does not follow version 0"):
        course.remake([second])
    with pytest.raises(PeerError, match="not made of updates"):
        course.remake([Recipe(replace(first.version, members=()), ())])
    with pytest.raises(Defect, match="not the members"):
        course.remake([replace(first, parts=first.parts[:1])])


# --- the master's own tensors -------------------------------------------------------------------


def test_an_update_is_what_it_holds_not_what_it_claims(tmp_path: Path) -> None:
    """One that claims the digest of the version in force, over other bytes: nobody could form the
    version again that was made of it."""
    course = Course(tmp_path, "mean")
    first, *others = course.updates()
    claimed = replace(first.update.payload, digest=course.versions[0].payload.digest)
    false = replace(first, update=replace(first.update, payload=claimed))
    failed = course.desk.perform(course.merge((false, *others)))
    assert isinstance(failed, MergeFailed)
    assert (failed.birth, failed.reason.code) == (first.update.birth, "unreadable")


def test_an_update_under_another_codec_than_it_says_is_named(tmp_path: Path) -> None:
    """By the desk, and where a version is made again."""
    course = Course(tmp_path)
    (one, two) = course.updates()
    liar = replace(two, update=replace(two.update, codec="fp16"))
    no = course.desk.perform(course.merge((one, liar)))
    facts = {"codec": "fp32", "wanted": "fp16"}
    assert no == MergeFailed(1, liar.update.birth, Reason("wrong-codec", facts))
    course.run(1)
    recipe = course.recipes[0]
    parts = tuple(replace(p, update=replace(p.update, codec="fp16")) for p in recipe.parts)
    with pytest.raises(PeerError, match="codec fp32; their message says fp16"):
        course.remake([replace(recipe, parts=parts)])


def test_a_restarted_desk_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """From the newest snapshot; from the older one where that is gone or damaged; from none."""
    course = Course(tmp_path).run(7, snapshots=(3, 6))
    new, old = course.snapshots
    merge = course.merge(course.updates())
    expected = course.desk.perform(merge)
    assert isinstance(expected, VersionStored)
    for snapshots, begun in (
        ((new, old), 6),
        ((replace(new, payload=damaged(new.payload)), old), 3),
        ((replace(new, payload=gone(new.payload)), old), 3),
        ((), 0),
    ):
        desk = course.fresh_desk()
        restored = desk.perform(course.restore(*snapshots))
        assert restored == StateRestored(7, begun)
        found = desk.perform(merge)
        assert isinstance(found, VersionStored)
        assert found.payload.digest == expected.payload.digest


def test_the_state_is_needed_and_never_taken_for_zero(tmp_path: Path) -> None:
    """A desk that was not given it refuses; at the very version of a snapshot no update is read."""
    course = Course(tmp_path).run(3, snapshots=(3,))
    merge = course.merge(course.updates())
    with pytest.raises(Defect, match="momentum at version 3 was not restored"):
        course.fresh_desk().perform(merge)
    with pytest.raises(Defect, match="momentum at version 3"):
        course.fresh_desk().perform(SaveState(course.versions[3]))
    course.log.delete([names.physical(RUN, "from.worker-1")])
    desk = course.fresh_desk()
    assert desk.perform(course.restore(*course.snapshots)) == StateRestored(3, 3)
    assert desk.perform(SaveState(course.versions[3])) is not None


def test_what_cannot_be_formed_again_is_said(tmp_path: Path) -> None:
    """No snapshot and not all updates: the momentum is none, and the outcome says what is missing.
    The version after it differs: it was no formality."""
    course = Course(tmp_path).run(4)
    merge = course.merge(course.updates())
    expected = course.desk.perform(merge)
    asked = course.restore()
    desk = course.fresh_desk()
    lost = desk.perform(replace(asked, recipes=asked.recipes[1:]))
    assert lost == StateRestored(4, 4, "what version 1 was made of is not kept")
    found = desk.perform(merge)
    assert isinstance(expected, VersionStored)
    assert isinstance(found, VersionStored)
    assert found.payload.digest != expected.payload.digest

    log, name = course.log, names.physical(RUN, "from.worker-2")
    log.trim(name, 2)  # the updates of the first two versions
    lost = course.fresh_desk().perform(asked)
    assert isinstance(lost, StateRestored)
    assert (lost.from_version, "update 1 of worker-2 (i1) cannot be read" in lost.lost) == (4, True)


def test_versions_that_the_broker_lost_are_stored_again(tmp_path: Path) -> None:
    """All after the first, bases of later updates among them; and the momentum with them."""
    course = Course(tmp_path).run(6, snapshots=(1,))
    lost = {one.payload.digest: gone(one.payload) for one in course.versions[2:]}
    versions = [
        replace(one, payload=lost.get(one.payload.digest, one.payload)) for one in course.versions
    ]
    recipes = [
        Recipe(
            versions[recipe.version.version],
            tuple(
                replace(part, base=lost.get(part.base.digest, part.base)) for part in recipe.parts
            ),
        )
        for recipe in course.recipes
    ]
    asked = SecureVersions(tuple(versions[::-1]), tuple(recipes), tuple(course.snapshots))
    secured = course.fresh_desk().perform(asked)
    assert isinstance(secured, VersionsSecured)
    assert (secured.last, secured.why != "") == (6, True)
    assert [number for number, _ in secured.republished] == [2, 3, 4, 5, 6]
    for number, payload in secured.republished:
        assert course.store.get(payload) == course.store.get(course.versions[number].payload)


def test_momentum_begins_where_the_rule_before_kept_none(tmp_path: Path) -> None:
    """A run that goes on by another rule has nothing to restore, and needs no old updates."""
    course = Course(tmp_path, "mean").run(3)
    course.rule = "momentum"
    desk = course.fresh_desk()
    asked = replace(course.restore(), recipes=())
    assert desk.perform(asked) == StateRestored(3, 3)
    merge = course.merge(course.updates())
    course.publish(merge, desk.perform(merge))
    assert [one.version.version for one in course.remake(course.recipes)] == [1, 2, 3, 4]


def test_a_merge_that_failed_is_done_again_with_the_same_momentum(tmp_path: Path) -> None:
    """One of its updates cannot be read: the others are merged as if it had never come."""
    course = Course(tmp_path).run(3)
    parts = course.updates()
    update = parts[1].update
    lost = replace(parts[1], update=replace(update, payload=gone(update.payload)))
    failed = course.desk.perform(course.merge((parts[0], lost)))
    assert getattr(failed, "birth", None) == update.birth
    merge = course.merge(parts[:1])
    course.publish(merge, course.desk.perform(merge))
    assert len(course.remake(course.recipes)) == 4


# --- what is held -------------------------------------------------------------------------------


def test_once_a_version_is_in_force_nothing_is_held_of_the_one_before(tmp_path: Path) -> None:
    """Neither its model nor its momentum, twice as large: a master's memory is counted in models.
    Until then its model is there, for a version that never comes into force; its momentum is let
    go of before that version is packed, and would be restored."""
    course = Course(tmp_path).run(2)
    before, desk = course.versions[-1], course.desk
    desk.settle(before)
    held = weakref.ref(desk.model(before.payload.digest)["w"])  # type: ignore[index]
    moments = weakref.ref(desk._moments.at(before)["w"])
    course.run(1)
    gc.collect()
    assert held() is not None
    assert moments() is None
    desk.settle(course.versions[-1])
    gc.collect()
    assert (held(), moments()) == (None, None)
    assert desk.model(before.payload.digest) is None
    course.run(2)
    assert len(course.remake(course.recipes)) == 5


def test_the_momentum_is_restored_where_a_version_never_comes_into_force(tmp_path: Path) -> None:
    """It was stored, but no record names it: the next one is made of the version before."""
    course = Course(tmp_path).run(3, snapshots=(1,))
    dropped = course.desk.perform(course.merge(course.updates()))
    assert isinstance(dropped, VersionStored)
    assert course.desk.perform(course.restore(*course.snapshots)) == StateRestored(3, 1)
    course.run(2)
    assert len(course.remake(course.recipes)) == 5


def test_the_last_version_is_scored_as_it_is_held(tmp_path: Path) -> None:
    """It is not transferred once more; a master that was just started fetches it."""
    course = Course(tmp_path).run(2)
    last = course.versions[-1]
    lost = ScoreLast(replace(last, payload=gone(last.payload)))
    assert course.desk.perform(lost) == FinalScored(2, None, None, None, None)
    with pytest.raises(BrokerRefused):
        course.fresh_desk().perform(lost)
    assert course.fresh_desk().perform(ScoreLast(last)) == course.desk.perform(lost)
