"""SelSync on real tensors: what it equals, whole runs with deaths, and schedules of faults."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_equalities import BATCH, SEED, Outcome, batches_of, job
from test_veto import JOBS, X, Y

from hermes.chance import generator
from hermes.codec import encode_tensors
from hermes.messages import RoundNoted, StepClosed, WorkerLost
from hermes.policy.presets import resolve
from hermes.report.why.decisions import Retelling
from hermes.report.why.of_run import told
from hermes.report.why.phrases import Setting
from hermes.runtime.sources import at_broker
from hermes.simulate import kills, schedules
from hermes.simulate.driver import Driver
from hermes.simulate.faults import Faults, MasterFault, WorkerFault
from hermes.simulate.local import RUN, LocalRun
from hermes.simulate.schedules import Fault, Schedule, draw
from hermes.train import make_trainer
from hermes.train.torch_trainer import _in_full
from hermes.values import SECOND
from hermes.verify.decisions import Decisions
from hermes.verify.run import verify

UNEQUAL = {"worker-1": 1.0, "worker-2": 0.5, "worker-3": 0.25}

# --- equalities -----------------------------------------------------------------------------------


def test_where_every_step_is_flagged_it_is_bsp_bit_for_bit(tmp_path: Path) -> None:
    """Three unequal workers, momentum of their own, several grants."""
    made: dict[str, Any] = {"speeds": UNEQUAL, "stop__versions": 12, "size__first": 100}
    bsp = Outcome(tmp_path, job(0.9), "bsp", **made)
    for changes in ({"gate__delta": 0}, {"gate__rule": "open"}):
        found = Outcome(tmp_path, job(0.9), "selsync", **made, **changes)
        assert found.data == bsp.data
        assert [e.sync for e in found.entries(StepClosed)] == [True] * 12


def test_where_none_ever_is_it_is_n_plain_loops_bit_for_bit_and_no_version(tmp_path: Path) -> None:
    made: dict[str, Any] = {"speeds": UNEQUAL, "stop__seconds": 2, "size__first": 100}
    found = Outcome(tmp_path, job(0.9), "selsync", **made, gate__delta=1e9)
    assert found.version == 0
    first = make_trainer(job(0.9), generator(SEED, "init"))
    assert found.data == encode_tensors(first.weights()), "the result is the first model"
    steps = Counter(entry.worker for entry in found.entries(RoundNoted))
    assert min(steps.values()) > 10
    assert max(steps.values()) - min(steps.values()) <= 1
    batches = batches_of(found)
    for name, worker in found.driver.workers.items():
        local = encode_tensors(worker.bench.bench.trainer.weights())  # type: ignore[attr-defined]
        trainer, reached = make_trainer(job(0.9), generator(SEED, "init")), list[bytes]()
        for x, y in batches[name][: steps[name] + 1]:  # one more may be under way
            assert len(x) == BATCH
            trainer.step(x, y, 1.0)
            reached.append(encode_tensors(trainer.weights()))
        assert local in reached[-2:]


def test_between_the_two_a_version_is_the_mean_of_models_that_took_several_steps(
    tmp_path: Path,
) -> None:
    """By hand: each worker's own steps since the last version, then the mean of their models."""
    found = Outcome(
        tmp_path, job(0.0), "selsync", speeds=UNEQUAL, stop__versions=4, size__first=100,
        gate__delta=0.2,
    )  # fmt: skip
    syncs = [entry.sync for entry in found.entries(StepClosed)]
    assert syncs.count(True) == 4 < len(syncs)
    batches = batches_of(found)
    trainers = {n: make_trainer(job(0.0), generator(SEED, "init")) for n in batches}
    for step, sync in enumerate(syncs):
        for name, trainer in trainers.items():
            trainer.step(*batches[name][step], 1.0)
        if sync:
            models = [trainer.weights() for _, trainer in sorted(trainers.items())]
            mean = {
                key: np.mean([model[key].astype(np.float64) for model in models], axis=0)
                for key in models[0]
            }
            for trainer in trainers.values():
                trainer.load({key: value.astype(np.float32) for key, value in mean.items()})
    final = trainers["worker-1"].weights()
    for key, value in found.model.items():
        np.testing.assert_allclose(value, final[key], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", JOBS)
def test_the_gradient_is_that_of_the_last_step(kind: str) -> None:
    """A step of plain SGD moves the parameters by the rate times the gradient."""
    trainer = make_trainer(JOBS[kind](), generator(1, "init"))
    trainer.reset_optimizer()
    before = trainer.weights()
    trainer.step(X[:20], Y[:20], 1.0)
    norm, after = trainer.gradient(), trainer.weights()
    learned = [n for n in before if n not in trainer.buffers()]
    moved = sum(float(np.sum((after[n] - before[n]).astype(np.float64) ** 2)) for n in learned)
    assert norm > 0
    assert np.sqrt(moved) == pytest.approx(0.1 * norm, rel=1e-3)


def test_a_sparse_gradient_counts_once_and_one_of_half_precision_does_not_overflow() -> None:
    places, ones = torch.tensor([[1, 1]]), torch.tensor([3.0, 1.0])
    twice = torch.sparse_coo_tensor(places, ones, (4,), check_invariants=True)
    assert float(torch.linalg.vector_norm(_in_full(twice))) == 4.0
    half = torch.full((100,), 60000.0, dtype=torch.float16)
    assert float(torch.linalg.vector_norm(_in_full(half))) == pytest.approx(600000.0, rel=1e-3)


# --- whole runs -----------------------------------------------------------------------------------

SETTINGS: dict[str, Any] = {
    "stop.versions": 14,
    "gate.delta": 0.15,
    "size.first": 80,
    "workers.lost": 1.5,
    "workers.heartbeat": 0.7,
    "retention.keep": "all",
}

FAULTS = Faults(
    duplicated=frozenset({5}),
    dropped=frozenset({9}),
    lies=frozenset({2}),
    workers=(
        WorkerFault(SECOND // 2, "worker-2", "kill", SECOND),
        WorkerFault(SECOND // 3, "worker-3", "cut", 3 * SECOND),
    ),
    masters=(MasterFault(SECOND, "restart"), MasterFault(3 * SECOND // 2, "zombie")),
)


def finished(folder: Path, faults: Faults | None = None, **changes: Any) -> Driver:
    """A run of three unequal workers that has come to its end."""
    folder.mkdir()
    layers = [{**SETTINGS, **changes}]
    made = LocalRun(job(0.5), resolve("selsync", layers), 1, folder)
    driver = Driver(made.setup(UNEQUAL), faults=faults)
    assert driver.run().finished
    return driver


def test_a_run_with_deaths_and_lies_holds_when_it_is_formed_again_and_tells_its_story(
    tmp_path: Path,
) -> None:
    """`verify` forms every version from the models in it; `why` has words for every decision."""
    driver = finished(tmp_path / "run", FAULTS)
    assert {"kill", "cut", "restart", "lie"} <= set(driver.fired)
    report = verify(at_broker(driver.log, RUN))
    assert report.findings == []
    outcomes = [one.outcome for one in report.versions]
    assert outcomes == ["checked", *["recomputed"] * 14]
    for row in report.updates.table().values():
        assert row["pushed"] == row["applied"] + row["rejected"] + row["undecided"]
    retelling = Retelling()
    for record in driver.valid_records():
        retelling.read(record)
    setting = Setting(driver.watch.state.settings, 0)
    said = [told(decision, setting) for decision in retelling.decisions]
    assert all(one.title and one.body for one in said)
    bodies = " ".join(one.body for one in said)
    for words in ("a change of", "nobody flagged, and all", "flagged by", "a step was flagged"):
        assert words in bodies, words


def test_wherever_the_master_dies_the_run_comes_to_the_same(tmp_path: Path) -> None:
    """At some places of a run, and all the time; `scripts/benchmark kills` has them all."""
    changes: dict[str, Any] = {"stop.versions": 3, "workers.lost": 10, "workers.heartbeat": 1}
    calm = finished(tmp_path / "calm", **changes)
    wanted = kills.outcome(calm)
    entries = [entry for record in calm.valid_records() for entry in record.entries]
    assert {e.sync for e in entries if isinstance(e, StepClosed)} == {True, False}
    places = [Faults(appends={place: kind}) for kind, place in kills.single(calm)][7::60]
    for number, script in enumerate([kills.everywhere(calm), *places]):
        driver = finished(tmp_path / f"{number}", script, **changes)
        assert driver.fired.total() >= 1
        assert kills.outcome(driver) == wanted, script


def test_whoever_waits_for_one_that_hangs_is_not_stuck_itself() -> None:
    hang = Fault("hang", SECOND // 2, "worker-1", schedules.FOR_EVER)
    equal = Schedule(1, "selsync", 5, (1.0, 1.0, 1.0), (0, 0, 0), (hang,))
    entries = [e for r in schedules.run(equal).valid_records() for e in r.entries]
    assert [e.worker for e in entries if isinstance(e, WorkerLost)] == ["worker-1"]


def test_random_schedules_keep_every_invariant_and_each_step_follows_from_the_ledger() -> None:
    found: Counter[str] = Counter()
    for seed in (*range(20), 39, 70):
        decisions, driver = Decisions(), schedules.run(draw(seed, "selsync"))
        for place, record in enumerate(driver.valid_records()):
            decisions.take(record, place)
            found.update(e.reason.code for e in record.entries if isinstance(e, StepClosed))
            found.update(e.verdict for e in record.entries if isinstance(e, RoundNoted))
            found.update(type(e).__name__ for e in record.entries)
        reference = (", data", ", trimmed")  # sizes and places that stand for real ones
        assert not [f for f in decisions.found if not f.entry.endswith(reference)]
    for kind in ("flagged", "no-flag", "veto", "update-waits", "WorkerLost", "UpdateRejected"):
        assert found[kind], kind
