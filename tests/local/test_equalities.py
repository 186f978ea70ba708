"""Exact equalities between strategies and plain SGD, on real tensors (design, part 5)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hermes
from hermes import nn
from hermes.chance import generator
from hermes.codec import decode_tensors, digest_of, encode_tensors
from hermes.data.blocks import decode_block
from hermes.data.order import epoch_order
from hermes.data.prepare import prepare
from hermes.messages import BlocksGranted, RoundNoted, VersionPublished
from hermes.perform.store import Store
from hermes.policy.allocate import first_size
from hermes.policy.presets import resolve
from hermes.simulate.driver import Driver
from hermes.simulate.local import RUN, LocalRun
from hermes.simulate.master import SimulatedMaster
from hermes.train import make_trainer

Model = dict[str, np.ndarray]
Sample = tuple[np.ndarray, np.ndarray]

BATCH = 16
SAMPLES = 480
SEED = 5


def points() -> Sample:
    """Three blurred classes in eight dimensions."""
    chance = generator(3, "points")
    y = np.arange(SAMPLES) % 3
    x = chance.normal(size=(SAMPLES, 8)) + 2 * np.eye(8)[y]
    return x.astype(np.float32), y.astype(np.int64)


def job(momentum: float = 0.0, batch: int = BATCH) -> hermes.Job:
    """A small network."""
    return hermes.Job(
        model=lambda: nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3)),
        data=points,
        batch=batch,
        optimizer=lambda params: nn.SGD(params, lr=0.1, momentum=momentum),
        loss=nn.CrossEntropy(),
    )


class Outcome:
    """A finished run in deterministic mode."""

    def __init__(self, folder: Path, made: hermes.Job, strategy: str, **settings: Any) -> None:
        workers = settings.pop("workers", 1)
        speeds = {f"worker-{number + 1}": 1.0 for number in range(workers)}
        speeds = settings.pop("speeds", speeds)
        self.seed = settings.pop("seed", SEED)
        layer = {key.replace("__", "."): value for key, value in settings.items()}
        self.settings = resolve(strategy, [made.settings(), layer])
        folder = folder / digest_of(f"{strategy}{settings}{self.seed}{speeds}".encode())
        folder.mkdir(exist_ok=True)
        run = LocalRun(made, self.settings, self.seed, folder)
        self.driver = Driver(run.setup(speeds))
        self.master: SimulatedMaster = self.driver.run()
        assert self.master.finished
        newest = self.master.state.newest
        assert newest is not None
        self.version = newest.version
        self.data = Store(self.driver.log, RUN).get(newest.payload)
        self.model: Model = decode_tensors(self.data)

    def entries(self, kind: type) -> list[Any]:
        """All entries of one kind."""
        found = (entry for record in self.driver.valid_records() for entry in record.entries)
        return [entry for entry in found if isinstance(entry, kind)]


# --- the plain loop -----------------------------------------------------------------------------


class PlainLoop:
    """One model and one optimizer, fed by hand: no versions, no gates, no merging."""

    def __init__(self, folder: Path, made: hermes.Job, first: int = 2500, seed: int = SEED) -> None:
        settings = resolve("bsp", [{"size.first": first}])
        prepared = prepare(
            made.data,
            made.split,
            seed,
            lambda train: first_size(settings.size, train, 1),
            folder / "plain",
        )
        self.made, self.seed, self.size = made, seed, prepared.first_size
        self.blocks = [decode_block(data) for split, _, data in prepared if split == "train"]
        self.trainer = make_trainer(made, generator(seed, "init"))

    def grants(self) -> Iterator[Sample]:
        """The walk over the blocks, `size` samples at a time, each from a block's beginning."""
        place = 0
        while True:
            taken: list[Sample] = []
            while sum(len(x) for x, _ in taken) < self.size:
                taken.append(self.blocks[place % len(self.blocks)])
                place += 1
            x, y = (np.concatenate(parts)[: self.size] for parts in zip(*taken, strict=True))
            yield x, y

    def joined(self) -> Iterator[Sample]:
        """Batches that run on across the grants, one pass each."""
        xs, ys = np.empty((0, 8), np.float32), np.empty(0, np.int64)
        for number, (x, y) in enumerate(self.grants()):
            order = epoch_order(self.seed, "worker-1", number + 1, 0, len(x))
            xs, ys = np.concatenate([xs, x[order]]), np.concatenate([ys, y[order]])
            while len(xs) >= BATCH:
                yield xs[:BATCH], ys[:BATCH]
                xs, ys = xs[BATCH:], ys[BATCH:]

    def passes(self, epochs: int) -> Iterator[list[Sample]]:
        """The batches of one grant in all its passes, each cut for itself."""
        for number, (x, y) in enumerate(self.grants()):
            found = []
            for pass_ in range(epochs):
                order = epoch_order(self.seed, "worker-1", number + 1, pass_, len(x))
                for start in range(0, len(x), BATCH):
                    found.append((x[order[start : start + BATCH]], y[order[start : start + BATCH]]))
            yield found

    def step(self, x: np.ndarray, y: np.ndarray) -> None:
        self.trainer.step(x, y, 1.0)

    @property
    def data(self) -> bytes:
        """The bytes of the model as it is now."""
        return encode_tensors(self.trainer.weights())


@pytest.mark.parametrize("momentum", [0.0, 0.9], ids=["plain", "momentum"])
@pytest.mark.parametrize(("strategy", "steps"), [("bsp", 1), ("fedavg", 4)])
def test_one_worker_is_the_plain_loop_bit_for_bit(
    tmp_path: Path, strategy: str, steps: int, momentum: float
) -> None:
    """bsp and fedavg: 40 steps over several grants and passes, every bit of every tensor."""
    made = job(momentum)
    options: dict[str, Any] = {} if steps == 1 else {"round__steps": steps}
    found = Outcome(
        tmp_path, made, strategy, stop__versions=40 // steps, size__first=100, **options
    )
    assert len(found.entries(BlocksGranted)) > 6
    plain = PlainLoop(tmp_path, made, first=100)
    for _, (x, y) in zip(range(40), plain.joined(), strict=False):
        plain.step(x, y)
    assert found.data == plain.data


@pytest.mark.parametrize("momentum", [0.0, 0.9], ids=["plain", "momentum"])
def test_an_open_gate_and_a_mean_are_the_plain_loop_bit_for_bit(
    tmp_path: Path, momentum: float
) -> None:
    """`hermes-paper`'s other answers, one worker: five passes over a grant, short batches kept."""
    made = job(momentum)
    found = Outcome(
        tmp_path,
        made,
        "hermes-paper",
        gate__rule="open",
        merge__rule="mean",
        stop__versions=5,
        size__first=100,
    )
    plain = PlainLoop(tmp_path, made, first=100)
    for _, batches in zip(range(5), plain.passes(5), strict=False):
        for x, y in batches:
            plain.step(x, y)
    assert found.data == plain.data


def test_the_plain_loop_can_differ(tmp_path: Path) -> None:
    """One step fewer, another seed or another rate: the bits are not the same."""
    made = job()
    found = Outcome(tmp_path, made, "bsp", stop__versions=5)
    for seed, steps in ((SEED, 4), (SEED + 1, 5)):
        plain = PlainLoop(tmp_path, made, seed=seed)
        for _, (x, y) in zip(range(steps), plain.joined(), strict=False):
            plain.step(x, y)
        assert found.data != plain.data


# --- between strategies -------------------------------------------------------------------------


def near(one: Model, other: Model) -> bool:
    """To 1e-6, tensor by tensor."""
    return one.keys() == other.keys() and all(
        np.allclose(one[name], other[name], rtol=0, atol=1e-6) for name in one
    )


def test_fedavg_of_one_step_is_bsp(tmp_path: Path) -> None:
    """To 1e-6, with four workers: equal batches have equal weights."""
    bsp = Outcome(tmp_path, job(), "bsp", workers=4, stop__versions=12)
    fedavg = Outcome(tmp_path, job(), "fedavg", workers=4, stop__versions=12, round__steps=1)
    assert near(bsp.model, fedavg.model)
    other = Outcome(tmp_path, job(), "fedavg", workers=4, stop__versions=12, round__steps=2)
    assert not near(bsp.model, other.model)


def test_fedavgm_without_momentum_is_fedavg(tmp_path: Path) -> None:
    """To 1e-6, with four workers: a mean of differences is one of models, but for rounding."""
    options: dict[str, Any] = {"workers": 4, "stop__versions": 8, "round__steps": 3}
    plain = Outcome(tmp_path, job(), "fedavg", **options)
    none = Outcome(tmp_path, job(), "fedavgm", merge__momentum=0.0, **options)
    assert near(plain.model, none.model)
    assert not near(plain.model, Outcome(tmp_path, job(), "fedavgm", **options).model)


@pytest.mark.parametrize("nesterov", [False, True])
def test_fedavgm_of_one_worker_is_the_plain_outer_loop_bit_for_bit(
    tmp_path: Path, nesterov: bool
) -> None:
    """Four steps of SGD, then one of momentum on what they did; six times."""
    options: dict[str, Any] = {"merge__nesterov": True} if nesterov else {}
    found = Outcome(
        *(tmp_path, job(), "fedavgm"),
        stop__versions=6,
        size__first=100,
        round__steps=4,
        merge__rate=0.5,
        **options,
    )
    plain = PlainLoop(tmp_path, job(), first=100)
    batches, v = plain.joined(), {}
    for _ in range(6):
        start = {name: value.copy() for name, value in plain.trainer.weights().items()}
        for _ in range(4):
            plain.step(*next(batches))
        model = {}
        for name, local in plain.trainer.weights().items():
            base = start[name].astype(np.float64)
            d = base - local.astype(np.float64)
            v[name] = v[name] * 0.9 + d if name in v else d
            step = d + v[name] * 0.9 if nesterov else v[name]
            model[name] = (base - step * 0.5).astype(np.float32)
        plain.trainer.load(model)
    assert found.data == plain.data


def test_other_words_for_the_same_close_are_the_same_run_bit_for_bit(tmp_path: Path) -> None:
    """A count of one is each push; one of all there are, and a quorum of all, is the barrier."""
    made: dict[str, Any] = {"workers": 3, "stop__versions": 9, "merge__max_staleness": None}
    one = Outcome(tmp_path, job(), "fedavg", **made, close__rule="each")
    count = Outcome(tmp_path, job(), "fedavg", **made, close__rule="count", close__count=1)
    assert one.data == count.data
    barrier = Outcome(tmp_path, job(), "fedavg", **made)
    for rule in ({"close__rule": "count"}, {"close__rule": "quorum", "close__share": 1.0}):
        assert Outcome(tmp_path, job(), "fedavg", **made, **rule).data == barrier.data
    assert one.data != barrier.data


def test_adding_a_share_of_what_all_changed_is_the_mean(tmp_path: Path) -> None:
    """To 1e-6, with four workers at a barrier: `add` is bsp, `buffered` fedavg."""
    made: dict[str, Any] = {"workers": 4, "stop__versions": 12}
    bsp = Outcome(tmp_path, job(), "bsp", **made)
    assert near(bsp.model, Outcome(tmp_path, job(), "bsp", **made, merge__rule="add").model)
    twice = Outcome(tmp_path, job(), "bsp", **made, merge__rule="add", merge__scale=0.5)
    assert not near(bsp.model, twice.model)
    fedavg = Outcome(tmp_path, job(), "fedavg", **made)
    buffered = Outcome(tmp_path, job(), "fedavg", **made, merge__rule="buffered")
    assert near(fedavg.model, buffered.model)


def test_asp_of_one_worker_is_the_plain_loop(tmp_path: Path) -> None:
    """To 1e-6: it goes on at once, on the model that it has."""
    found = Outcome(tmp_path, job(0.9), "asp", stop__versions=40, size__first=100)
    plain = PlainLoop(tmp_path, job(0.9), first=100)
    for _, (x, y) in zip(range(40), plain.joined(), strict=False):
        plain.step(x, y)
    assert near(found.model, decode_tensors(plain.data))


def test_ssp_without_a_bound_is_asp_bit_for_bit(tmp_path: Path) -> None:
    """Three workers, each version made of one push."""
    made: dict[str, Any] = {"workers": 3, "stop__versions": 40, "size__first": 100}
    asp = Outcome(tmp_path, job(0.9), "asp", **made)
    free = Outcome(tmp_path, job(0.9), "ssp", **made, continue__slack=None)
    assert asp.data == free.data
    assert len(asp.entries(VersionPublished)) == 41


def test_ssp_of_no_slack_is_bsp(tmp_path: Path) -> None:
    """To 1e-6, with four workers: each adds its quarter of a step to a version of its own."""
    bsp = Outcome(tmp_path, job(), "bsp", workers=4, stop__versions=12)
    ssp = Outcome(tmp_path, job(), "ssp", workers=4, stop__versions=48, continue__slack=0)
    assert near(bsp.model, ssp.model)
    loose = Outcome(tmp_path, job(), "ssp", workers=4, stop__versions=48, continue__slack=1)
    assert not near(bsp.model, loose.model)


def test_nothing_is_discounted_and_no_step_is_shorter_at_a_barrier(tmp_path: Path) -> None:
    """Bit for bit: all updates are fresh, and the limit of plain momentum is beyond 1."""
    made: dict[str, Any] = {"workers": 3, "stop__versions": 6, "round__steps": 3}
    plain = Outcome(tmp_path, job(), "fedavgm", **made)
    safe = Outcome(tmp_path, job(), "fedavgm", **made, merge__rate="auto", merge__discount=True)
    assert plain.data == safe.data
    ahead = {**made, "merge__nesterov": True}
    shorter = Outcome(tmp_path, job(), "fedavgm", **ahead, merge__rate="auto")
    (rate,) = {e.outer.rate for e in shorter.entries(VersionPublished) if e.outer is not None}
    assert rate == pytest.approx(0.679, abs=1e-3)
    assert shorter.data == Outcome(tmp_path, job(), "fedavgm", **ahead, merge__rate=rate).data


@pytest.mark.parametrize("strategy", ["fastest-alone", "central", "ebsp"])
def test_whoever_trains_alone_is_the_plain_loop_bit_for_bit(tmp_path: Path, strategy: str) -> None:
    """The floors, and a barrier of one: 40 steps over several grants, with momentum."""
    found = Outcome(
        tmp_path, job(0.9), strategy, stop__versions=10, size__first=100, round__steps=4
    )
    plain = PlainLoop(tmp_path, job(0.9), first=100)
    for _, (x, y) in zip(range(40), plain.joined(), strict=False):
        plain.step(x, y)
    assert found.data == plain.data


def test_the_quickest_of_three_is_a_plain_loop_over_its_own_grants_bit_for_bit(
    tmp_path: Path,
) -> None:
    """Its trial counts, and nothing of the others does."""
    speeds = {"worker-1": 0.5, "worker-2": 1.0, "worker-3": 0.3}
    found = Outcome(
        tmp_path, job(0.9), "fastest-alone", speeds=speeds, stop__versions=6, round__steps=3
    )
    assert {part.worker for e in found.entries(VersionPublished) for part in e.members} == {
        "worker-2"
    }
    trainer = make_trainer(job(0.9), generator(SEED, "init"))
    for x, y in batches_of(found)["worker-2"][:18]:
        trainer.step(x, y, 1.0)
    assert found.data == encode_tensors(trainer.weights())


def test_ebsp_that_looks_one_step_ahead_is_bsp_bit_for_bit(tmp_path: Path) -> None:
    """Three workers of unequal speed; with a further look the quotas are in proportion to it."""
    made: dict[str, Any] = {"speeds": {"worker-1": 1.0, "worker-2": 0.5, "worker-3": 0.25}}
    made |= {"stop__versions": 10, "size__first": 100}
    bsp = Outcome(tmp_path, job(0.9), "bsp", **made)
    assert Outcome(tmp_path, job(0.9), "ebsp", **made, size__lookahead=1).data == bsp.data
    far = Outcome(tmp_path, job(0.9), "ebsp", **made)
    planned = [e.superstep.quotas for e in far.entries(VersionPublished) if e.superstep]
    assert planned == [{"worker-1": 4, "worker-2": 2, "worker-3": 1}] * 10
    steps = {e.steps for e in far.entries(RoundNoted) if e.worker == "worker-1" and e.round > 1}
    assert steps == {4}


def test_bsp_with_four_workers_is_sgd_with_a_batch_four_times_as_large(tmp_path: Path) -> None:
    """To 1e-6: the mean of four models after one step is one step on the four batches."""
    made = job(batch=BATCH)
    found = Outcome(tmp_path, made, "bsp", workers=4, stop__versions=12)
    trained: dict[str, list[Sample]] = batches_of(found)
    trainer = make_trainer(made, generator(SEED, "init"))
    for step in range(12):
        parts = [trained[name][step] for name in sorted(trained)]
        x, y = (np.concatenate(side) for side in zip(*parts, strict=True))
        assert len(x) == 4 * BATCH
        trainer.step(x, y, 1.0)
    assert near(found.model, decode_tensors(encode_tensors(trainer.weights())))


def batches_of(found: Outcome) -> dict[str, list[Sample]]:
    """The batches that each worker trains, made anew from its grants."""
    result: dict[str, list[Sample]] = {}
    for name, worker in found.driver.workers.items():
        bench = worker.bench.bench  # type: ignore[attr-defined]
        xs, ys = [], []
        for grant in found.entries(BlocksGranted):
            if grant.worker == name:
                bench.accept(grant)
                x, y = bench._of(grant.number)
                order = epoch_order(SEED, name, grant.number, 0, grant.size)
                xs.append(x[order])
                ys.append(y[order])
        x, y = np.concatenate(xs), np.concatenate(ys)
        result[name] = [
            (x[at : at + BATCH], y[at : at + BATCH]) for at in range(0, len(x) - BATCH + 1, BATCH)
        ]
    return result


# --- the same again -----------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["bsp", "hermes-paper"])
def test_a_run_is_a_function_of_its_seed(tmp_path: Path, strategy: str) -> None:
    """Twice the same: one digest. Another seed: another."""

    def run(seed: int) -> str:
        options: dict[str, Any] = {"workers": 3, "seed": seed, "stop__versions": 4}
        return digest_of(Outcome(tmp_path, job(), strategy, size__first=100, **options).data)

    assert run(1) == run(1) != run(2)
