"""Is every sample in exactly one pool, as the rule says, and every worker granted from its own?"""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import stage as stages
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from stage import DATA, MasterStage, of, one
from test_master import lose

from hermes.chance import generator
from hermes.data.partition import in_order, owners
from hermes.errors import Defect, JobError, SettingError
from hermes.machine import pools
from hermes.machine import rules as protocol
from hermes.machine.audit import Audit
from hermes.machine.state import check
from hermes.messages import (
    BlocksGranted,
    BlocksReturned,
    Bye,
    WorkerAdmitted,
    WorkerRefused,
)
from hermes.policy.allocate import SizeSettings, Timing, Work, WorkerTimes, resize
from hermes.policy.partition import DataSettings, Partition, partition_of
from hermes.report.why import recompute
from hermes.values import SECOND, BlockRange


def labels_of(samples: int, classes: int, seed: int = 0) -> np.ndarray:
    """So many labels, at least one of each class, in no order."""
    stream = np.random.default_rng(seed)
    drawn = np.concatenate([np.arange(classes), stream.integers(0, classes, samples - classes)])
    return stream.permutation(drawn)


def wanted(rule: str, count: int, least: int = 1, **more: float) -> Partition:
    return Partition(DataSettings(partition=rule, **more), count, least)


def counts(pool_of: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Samples by (pool, class)."""
    classes = np.unique(labels)
    return np.array(
        [[np.sum((pool_of == p) & (labels == k)) for k in classes] for p in range(count)]
    )


# --- which sample goes where ---------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.sampled_from(["dirichlet", "by-class"]), st.integers(1, 9), st.integers(2, 6),
    st.integers(0, 10**6),
)  # fmt: skip
def test_every_sample_is_in_one_pool_and_each_pool_holds_a_batch(rule, count, classes, seed):
    labels = labels_of(900, classes, seed)
    each = min(classes, max(2, -(-classes // count)))
    asked = wanted(rule, count, 4, dirichlet=1.0, classes=each)
    pool_of = owners(asked, labels, generator(seed, "partition"))
    places, sizes = in_order(pool_of, count)
    assert sorted(places.tolist()) == list(range(900))
    assert sum(sizes) == 900
    assert min(sizes) >= 4
    ends = [0, *itertools.accumulate(sizes)]
    for pool, (start, stop) in enumerate(itertools.pairwise(ends)):
        mine = places[start:stop]
        assert set(pool_of[mine].tolist()) == {pool}
        assert mine.tolist() == sorted(mine.tolist())  # in the order of the shuffled split
    again = owners(asked, labels, generator(seed, "partition"))
    assert again.tolist() == pool_of.tolist()


def test_by_class_gives_each_pool_its_classes_and_an_equal_part_of_each():
    labels = np.repeat(np.arange(10), 120)
    found = counts(owners(wanted("by-class", 12), labels, generator(1, "partition")), labels, 12)
    assert (np.sum(found > 0, axis=1) == 2).all()
    holders = np.sum(found > 0, axis=0)
    assert sorted(holders) == [2] * 6 + [3] * 4  # 24 places for 10 classes, as even as can be
    for k in range(10):
        assert set(found[:, k][found[:, k] > 0]) == {120 // holders[k]}


def test_one_pool_of_all_classes_is_the_whole_split():
    labels = labels_of(50, 5)
    assert set(owners(wanted("by-class", 1, classes=5), labels, generator(1, "p"))) == {0}


def test_a_small_concentration_makes_pools_unlike_and_a_large_one_alike():
    labels = np.repeat(np.arange(10), 500)

    def largest_share(a: float, seed: int = 1) -> float:
        asked = wanted("dirichlet", 10, dirichlet=a)
        found = counts(owners(asked, labels, generator(seed, "partition")), labels, 10)
        return float(np.mean(found.max(axis=1) / found.sum(axis=1)))

    assert largest_share(0.05) > 0.6
    assert largest_share(1000.0) < 0.13
    assert largest_share(0.5) != largest_share(0.5, seed=2)


REFUSED = {
    "more are expected than there are pools": (
        lambda: partition_of(DataSettings(partition="by-class", pools=3), 4, 8),
        "4 workers are expected, and the data is divided into 3 pools",
    ),
    "no concentration": (
        lambda: partition_of(DataSettings(partition="dirichlet", dirichlet=0.0), 4, 8),
        "data.dirichlet is 0",
    ),
    "more classes than there are": (
        lambda: owners(wanted("by-class", 3, classes=6), labels_of(90, 5), generator(1)),
        "have 5 classes",
    ),
    "a class that is nobody's": (
        lambda: owners(wanted("by-class", 2, classes=2), labels_of(90, 5), generator(1)),
        "2 pools of 2 hold 4 of the 5 classes",
    ),
    "a class too small to share": (
        lambda: owners(wanted("by-class", 9, classes=2), np.repeat([0, 1], [3, 200]), generator(1)),
        "class 0 has 3 training samples, and 9 pools share it",
    ),
    "less than a batch by class": (
        lambda: owners(
            wanted("by-class", 2, 32, classes=1), np.repeat([0, 1], [9, 200]), generator(1)
        ),
        "would hold 9 samples, less than a batch of 32",
    ),
    "less than a batch by Dirichlet": (
        lambda: owners(
            wanted("dirichlet", 10, 32, dirichlet=0.01), labels_of(400, 2), generator(1)
        ),
        "in 100 draws there was always one of 10 pools with less than a batch of 32",
    ),
    "less than a batch for each": (
        lambda: owners(wanted("dirichlet", 10, 32), labels_of(300, 2), generator(1)),
        "300 training samples are less than a batch of 32 for each of 10 pools",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_with_a_remedy(case):
    act, words = REFUSED[case]
    with pytest.raises(SettingError) as caught:
        act()
    assert words in caught.value.what
    assert caught.value.remedy


@pytest.mark.parametrize("y", [np.zeros(9, np.float32), np.zeros((9, 2), np.int64)])
def test_labels_that_are_no_classes_are_refused(y):
    with pytest.raises(JobError, match="goes by a sample's class, and y has the type") as caught:
        owners(wanted("dirichlet", 2), y, generator(1))
    assert "data.partition=iid" in caught.value.remedy


# --- the walk over a pool ------------------------------------------------------------------------

POOLS = (20, 13, 24, 9, 8, 21)
DIVIDED = replace(DATA, pools=POOLS, blocks={**DATA.blocks, "train": 14})
"""95 samples in blocks of 8: 3, 2, 3, 2, 1 and 3 of them."""


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 9))
def test_a_walk_goes_over_its_pool_pass_after_pass(sizes, block):
    blocks = [-(-size // block) for size in sizes]
    data = replace(
        DATA, pools=tuple(sizes), block=block, blocks={"train": sum(blocks)},
        samples={"train": sum(sizes)},
    )  # fmt: skip
    seen = Counter[int]()
    for pool, place in enumerate(pools.starts(data)):
        for turn in range(2):
            held = 0
            for index in range(blocks[pool]):
                assert pools.pool_at(data, place) == pool
                assert place // sum(blocks) == turn
                assert place % sum(blocks) == sum(blocks[:pool]) + index
                seen[place] += 1
                held += pools.block_samples(data, place)
                place = pools.after(data, place)
            assert held == sizes[pool]
    assert seen == Counter(range(2 * sum(blocks)))


@pytest.fixture
def divided(monkeypatch):
    """A stage whose data is divided into six pools."""

    def make(workers: int, **settings: object) -> MasterStage:
        monkeypatch.setattr(stages, "DATA", DIVIDED)
        return MasterStage(workers=workers, **settings)

    return make


def granted(stage: MasterStage) -> dict[str, list[int]]:
    """Places granted so far, by worker."""
    found: dict[str, list[int]] = {}
    for entry in of(BlocksGranted, stage.entries):
        places = [place for part in entry.ranges for place in range(part.first, part.last)]
        found.setdefault(entry.worker, []).extend(places)
    return found


def test_each_worker_is_granted_from_its_own_pool_alone(divided):
    stage = divided(2)
    for _ in range(4):
        stage.say("w1", stage.round("w1"))
    assert {name: member.pool for name, member in stage.state.members.items()} == {
        "w1": 0,
        "w2": 1,
    }
    found = granted(stage)
    assert found["w1"][:5] == [0, 1, 2, 14, 15]
    assert found["w2"] == [3, 4, 17, 18]
    assert [member.size for member in stage.state.members.values()] == [20, 13]
    assert all(entry.size <= POOLS[0] for entry in of(BlocksGranted, stage.entries))
    Audit().read(stage.records)


def test_who_comes_late_gets_the_next_pool_and_who_comes_back_its_own(divided):
    stage = divided(2)
    stage.say("w1", Bye("enough"))
    assert one(WorkerAdmitted, stage.hello("w3")).pool == 2
    assert one(WorkerAdmitted, stage.hello("w1", "w1-2")).pool == 0


def test_the_pool_of_one_that_has_left_is_given_away_last(divided):
    stage = divided(6)
    assert one(WorkerRefused, stage.hello("w7")).reason.code == "no-pool"
    assert stage.state.returned == ()
    stage.say("w3", Bye("enough"))
    held = granted(stage)["w3"]
    decision = stage.hello("w8")
    assert one(WorkerAdmitted, decision).pool == 2
    # What w3 gave back of that pool comes first; of another pool nothing is touched.
    assert one(BlocksGranted, of(BlocksGranted, decision)[:1]).ranges == (BlockRange(6 - 1, 8),)
    assert granted(stage)["w8"][:3] == held[:3]
    refused = one(WorkerRefused, stage.hello("w3", "w3-2"))
    assert refused.reason.facts == {"pools": 6}
    assert recompute.refused_hello(stage.state, refused).outcome == recompute.AGREES
    Audit().read(stage.records)


def test_who_comes_back_to_a_larger_pool_is_granted_as_a_newcomer(divided):
    """Where sizes are fixed, what its first pool had would bound it for ever."""
    stage = divided(6, size__rule="fixed")
    for gone, other in (("w5", "w7"), ("w3", "w5")):
        stage.say(gone, Bye("enough"))
        decision = stage.hello(other, f"{other}-2")
    assert one(WorkerAdmitted, decision).pool == 2
    assert of(BlocksGranted, decision)[0].size == stage.state.members["w5"].size == 24
    Audit().read(stage.records)


def test_a_lost_worker_keeps_its_pool_and_is_granted_it_again(divided):
    stage = divided(2)
    stage.beat("w1")
    lose(stage, "w1")
    assert of(BlocksReturned, stage.entries)
    stage.hello("w3")
    assert stage.state.members["w3"].pool == 2
    again = of(BlocksGranted, stage.beat("w1"))
    assert [entry.ranges for entry in again] == [(BlockRange(0, 3),), (BlockRange(14, 17),)]


def test_the_audit_and_the_state_see_a_grant_from_another_pool(divided):
    stage = divided(2)
    stage.rules = protocol.Rules(free=lambda state, _worker: (state.returned, state.cursor))
    for _ in range(3):
        stage.say("w1", stage.round("w1"))
    with pytest.raises(Defect, match="another pool"):
        Audit().read(stage.records)
    twice = replace(stage.state.members["w2"], pool=0)
    with pytest.raises(Defect, match="one pool"):
        check(replace(stage.state, members={**stage.state.members, "w2": twice}))


# --- sizes ---------------------------------------------------------------------------------------

FAST = tuple(Timing(10, SECOND // 4) for _ in range(3))
SLOW = tuple(Timing(10, SECOND) for _ in range(3))


@pytest.mark.parametrize("rule", ["iqr", "speed"])
def test_a_size_is_bounded_by_the_pool_and_says_so(rule):
    others = [WorkerTimes(f"w{n}", SLOW, 80, 8, 500) for n in range(2, 6)]
    work = Work(batch=8, epochs=1, largest=2000, total=5 * 80)
    asked = SizeSettings(rule=rule, near=0.1)
    free = resize(asked, WorkerTimes("w1", FAST, 80, 8, 500), others, work)
    bound = resize(asked, WorkerTimes("w1", FAST, 80, 8, 100), others, work)
    assert (free.size > 100, bound.size) == (True, 100)
    assert "pool" not in free.reason.facts
    assert bound.reason.facts["pool"] == 100
    if rule == "iqr":
        assert bound.reason.facts["wanted"] == 320


def test_what_a_small_pool_leaves_is_shared_by_the_others():
    small, *rest = (WorkerTimes(f"w{n}", SLOW, 80, 8, 20 if n == 1 else 500) for n in range(1, 5))
    work = Work(batch=8, epochs=1, largest=2000, total=320)
    settled = resize(SizeSettings(rule="speed"), rest[0], [small, *rest[1:]], work)
    assert settled.size == 100
