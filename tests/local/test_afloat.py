"""What a worker carries over to another version: everything that is in none, exactly once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes import nn
from hermes.chance import generator
from hermes.codec import decode_tensors, encode_tensors
from hermes.errors import Defect
from hermes.job import Job
from hermes.machine.events import LoadVersion
from hermes.messages import VersionPublished
from hermes.perform.afloat import Afloat
from hermes.perform.bench import WorkerBench
from hermes.policy.presets import resolve
from hermes.simulate.schedules import reference
from hermes.train import make_trainer
from hermes.values import Payload, Reason

BUFFERS = frozenset({"mean"})


def model(value: float, count: int = 0, mean: float = 0.0) -> dict[str, np.ndarray]:
    """Two parameters, a buffer and a counter."""
    return {
        "w": np.full(3, value, np.float32),
        "v": np.full((2, 2), -value, np.float32),
        "mean": np.full(3, mean, np.float32),
        "count": np.array(count, np.int64),
    }


def begun(value: float = 0.0) -> Afloat:
    """A worker on a version of this value."""
    afloat = Afloat(BUFFERS)
    afloat.rebased(model(value), model(99), (), keeps=False)
    return afloat


def test_a_version_alone_is_taken_bit_for_bit() -> None:
    first = model(0.1)
    assert Afloat(BUFFERS).rebased(first, model(7), (), keeps=False) is first


def test_what_was_pushed_and_is_in_no_version_stays_and_what_is_in_it_does_not_count_twice() -> (
    None
):
    """The worker moved by 1, pushed, moved by 2 more; meanwhile the version moved by 10."""
    afloat = begun()
    afloat.outgoing(model(1))
    afloat.sent("a")
    without = afloat.rebased(model(10), model(3), ("a",), keeps=True)
    assert without["w"].tolist() == [13, 13, 13]
    assert without["v"].tolist() == [[-13, -13], [-13, -13]]
    merged = afloat.rebased(model(11), model(13), (), keeps=True)
    assert merged["w"].tolist() == [13, 13, 13], "1 is in the version now; 2 are unsent"


def test_what_travels_is_the_version_less_what_is_unsent() -> None:
    """So that the reader's base - local is the unsent part alone."""
    afloat = begun(10)
    afloat.outgoing(model(11))
    afloat.sent("a")
    assert afloat.outgoing(model(14))["w"].tolist() == [13, 13, 13], "10, and 3 that are unsent"


def test_a_rejected_update_is_dropped_and_a_veto_drops_what_is_unsent() -> None:
    afloat = begun()
    afloat.outgoing(model(1))
    afloat.sent("rejected")
    afloat.outgoing(model(3))
    afloat.sent("pending")
    left = afloat.rebased(model(0), model(7), ("pending",), keeps=False)
    assert left["w"].tolist() == [2, 2, 2]


def test_buffers_and_counters_are_the_versions_own() -> None:
    afloat = begun()
    taken = afloat.rebased(model(0, 5, 0.5), model(1, 9, 0.9), (), keeps=True)
    assert taken["w"].tolist() == [1, 1, 1]
    assert taken["mean"].tolist() == [0.5, 0.5, 0.5]
    assert taken["count"] == 5


def test_of_an_incarnation_before_nothing_is_known() -> None:
    """Its update is pending, its tensors were in another process: the version counts."""
    afloat = begun()
    assert afloat.rebased(model(4), model(9), ("unknown",), keeps=False)["w"].tolist() == [4, 4, 4]


def test_nothing_is_sent_that_was_not_going() -> None:
    with pytest.raises(Defect, match="nothing was going"):
        begun().sent("a")


def test_what_is_not_finite_is_sent_and_not_carried_over() -> None:
    """It will be rejected; until that is said no version is spoiled by it."""
    afloat = begun()
    assert np.isnan(afloat.outgoing(model(np.nan))["w"]).all()
    afloat.sent("spoiled")
    taken = afloat.rebased(model(4), model(np.nan), ("spoiled",), keeps=False)
    assert taken["w"].tolist() == [4, 4, 4]


STEPS = st.lists(
    st.sampled_from(["train", "push", "merge", "reject", "rebase", "other"]), max_size=40
)


@given(STEPS, st.randoms(use_true_random=False))
def test_nothing_is_lost_and_nothing_counts_twice(steps: list[str], chance: object) -> None:
    """Against a book that keeps each part by itself, in whole numbers."""
    draw = chance.randint  # type: ignore[attr-defined]
    afloat, local = begun(), 0
    version, others = 0, 0  # the version that the worker is on, and what others add to the next
    unsent, pending, decided, number = 0, dict[str, int](), set[str](), 0
    merged = 0
    for step in steps:
        if step == "train":
            move = draw(-5, 5)
            local, unsent = local + move, unsent + move
        elif step == "push":
            sent = afloat.outgoing(model(local))["w"][0]
            assert sent == version + unsent
            afloat.sent(str(number))
            pending[str(number)], unsent, number = unsent, 0, number + 1
        elif step == "other":
            others += draw(-5, 5)
        elif step in ("merge", "reject") and pending.keys() - decided:
            name = min(pending.keys() - decided)
            decided.add(name)
            merged += pending[name] if step == "merge" else 0
        elif step == "rebase":
            version, others, merged = version + others + merged, 0, 0
            pending = {name: move for name, move in pending.items() if name not in decided}
            found = afloat.rebased(model(version), model(local), tuple(pending), keeps=unsent != 0)
            local = int(found["w"][0])
            assert local == version + sum(pending.values()) + unsent
            assert found["v"][0, 0] == -local


class Kept:
    """A store that keeps what is put, under 1, 2, 3..."""

    def __init__(self) -> None:
        self.put_there: list[bytes] = []

    def put(self, _topic: str, data: bytes) -> Payload:
        self.put_there.append(bytes(data))
        return reference("from", len(self.put_there))


def test_who_waits_for_its_version_sends_the_same_model_again() -> None:
    """The broker lost the tensors; that account is kept for the gate does not empty the update."""
    job = Job(
        model=lambda: nn.Linear(2, 3),
        data=lambda: None,
        loss=nn.CrossEntropy(),
        optimizer=lambda parameters: nn.SGD(parameters, lr=0.1),
    )
    bench = WorkerBench("w1", 1, job, make_trainer(job, generator(1, "init")), None)  # type: ignore[arg-type]
    bench.obey(resolve("fedavg", [{"gate.rule": "innovation", "close.rule": "each"}]))
    first = bench.trainer.weights()
    version = VersionPublished(0, reference("model", 0), (), "init", 0.0, 0, Reason("first"))
    bench.load(LoadVersion(version), encode_tensors(first))
    bench.trainer.load({name: array + 1 for name, array in first.items()})
    store, learned = Kept(), encode_tensors(bench.trainer.weights())
    for _ in range(2):
        bench.push(store)  # type: ignore[arg-type]
    assert store.put_there == [learned, learned]
    assert decode_tensors(learned).keys() == first.keys()
