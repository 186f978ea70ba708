"""Data that stay with the workers: which samples are trained, what is scored, and what travels."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from commands import Shell

import hermes
from hermes import nn
from hermes.codec import decode_tensors
from hermes.data.blocks import DEFLATED
from hermes.data.own import OwnData, kind_of, read_file
from hermes.data.resident import divide, prepare_central
from hermes.data.sources import Samples
from hermes.errors import HermesError, JobError, SettingError, UsageError
from hermes.job import Job
from hermes.messages import (
    BlocksGranted,
    EvaluationAsked,
    RunScored,
    ScoreNoted,
    VersionEvaluated,
)
from hermes.perform.sums import sums_of
from hermes.policy.presets import Settings, resolve
from hermes.runtime.trying import prepared_data
from hermes.simulate import schedules
from hermes.simulate.driver import Driver
from hermes.simulate.local import AtHand, LocalRun
from hermes.simulate.schedules import BRINGING, draw
from hermes.simulate.search import Tally
from hermes.transport import names
from hermes.values import SECOND

SHARES = (0.8, 0.1, 0.1)
SPEEDS = {"site-1": 1.0, "site-2": 0.5, "site-3": 0.25}


def model() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def job(**changes: object) -> Job:
    """A small job on digits."""
    given = {
        "model": model,
        "data": hermes.data.digits,
        "batch": 16,
        "optimizer": lambda params: nn.SGD(params, lr=0.1),
        "loss": nn.CrossEntropy(),
    }
    return Job(**{**given, **changes})  # type: ignore[arg-type]


def settings(strategy: str = "hermes", **changes: object) -> Settings:
    layer = {"data.resident": True, "stop.samples": 20_000, "size.first": 200}
    return resolve(strategy, [{**layer, **{k.replace("__", "."): v for k, v in changes.items()}}])


def numbered(count: int) -> Samples:
    """Samples that are told apart by what they hold."""
    x = np.arange(count, dtype=np.float32).reshape(count, 1)
    return Samples(x, np.arange(count))


# --- the walk -------------------------------------------------------------------------------------


def test_each_pass_goes_over_each_train_sample_once_in_an_order_of_its_own() -> None:
    """However it is cut into grants; a pass is drawn anew, and the same for the same names."""
    own = OwnData(numbered(103), SHARES, 1, "site-1")
    train = own.cut.train
    whole = np.concatenate([y for _, y in own.granted(0, 3 * train)]).reshape(3, train)
    assert all(len(set(turn)) == train for turn in whole)
    assert len({tuple(turn) for turn in whole}) == 3
    assert {tuple(sorted(turn)) for turn in whole} == {tuple(sorted(whole[0]))}
    pieces = [
        np.concatenate([y for _, y in own.granted(start, 17)]) for start in range(0, 3 * train, 17)
    ]
    assert np.array_equal(np.concatenate(pieces)[: 3 * train], whole.ravel())
    again = OwnData(numbered(103), SHARES, 1, "site-1")
    assert np.array_equal(next(again.granted(train, 5))[1], whole[1][:5])
    other = OwnData(numbered(103), SHARES, 1, "site-2")
    assert not np.array_equal(next(other.granted(0, train))[1], whole[0])


def test_what_is_validated_and_probed_is_never_trained() -> None:
    """Three disjoint splits of all that was brought."""
    own = OwnData(numbered(50), SHARES, 1, "site-1")
    parts = {
        name: {int(label) for _, y in own.all_of(name) for label in y}
        for name in ("train", "probe", "validation")
    }
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == 50
    trained = {int(label) for _, y in own.granted(0, 10 * own.cut.train) for label in y}
    assert trained == parts["train"]


# --- files ----------------------------------------------------------------------------------------


def test_a_file_is_read_checked_and_told_of_without_a_sample(tmp_path: Path) -> None:
    """What is said of it: how many, of which kind, and a digest that the key keys."""
    path = tmp_path / "own.npz"
    np.savez(path, x=np.zeros((9, 4), np.float32), y=np.arange(9))
    found = read_file(path)
    told = found.told(b"k" * 32)
    assert (told.samples, told.kind) == (9, "x float32 (4,), y int64 ()")
    assert told.digest not in (found.digest, found.told(b"j" * 32).digest)
    np.savez(path, x=np.zeros((9, 4), np.float32), y=np.arange(9) + 1)
    assert read_file(path).told(b"k" * 32).digest != told.digest


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": np.zeros(9)}, "it holds a"),
        ({"x": np.zeros((9, 2)), "y": np.zeros(8)}, "9 samples and y has 8"),
        ({"x": np.full((9, 2), np.nan), "y": np.zeros(9)}, "not finite"),
        ({"x": np.zeros((2, 2)), "y": np.zeros(2)}, "it holds 2 samples"),
        (
            {f"{n}_{part}": np.zeros((4, 2)) for n in "xy" for part in ("train", "test")},
            "x_train, y_train",
        ),
    ],
)
def test_a_bad_file_is_told_with_its_path(
    tmp_path: Path, arrays: dict[str, np.ndarray], words: str
) -> None:
    """Before anybody is connected to."""
    path = tmp_path / "own.npz"
    np.savez(path, **arrays)
    with pytest.raises(UsageError) as caught:
        read_file(path)
    assert words in caught.value.what
    assert caught.value.where == str(path)
    assert "master" not in caught.value.remedy


# --- a whole run ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalRun, Driver]:
    """A run over the memory log, under virtual time, with real training."""
    run = LocalRun(job(), settings(), 3, tmp_path_factory.mktemp("resident"))
    driver = Driver(run.setup(SPEEDS))
    driver.run()
    assert driver.finished
    return run, driver


def entries(driver: Driver, kind: type) -> list:  # type: ignore[type-arg]
    return [e for record in driver.valid_records() for e in record.entries if isinstance(e, kind)]


def plain(record: bytes) -> bytes:
    """As it was before it was deflated, if it was."""
    own = record.removeprefix(DEFLATED)
    return record if own == record else zlib.decompress(own)


def test_no_sample_is_in_any_topic(ran: tuple[LocalRun, Driver]) -> None:
    """Of x no row, of any worker: all records of all topics, byte by byte. That the same search
    finds a row of the test set, which the master does send, shows that it can."""
    run, driver = ran
    topics = driver.log.topics(names.prefix_of("simulated"))
    reader = driver.log.reader()
    everything = b""
    for topic in topics:
        reader.follow(topic, 0)
        while records := reader.poll(0.0, limit=1000):
            everything += b"".join(plain(record.value) for record in records)
        reader.drop(topic)
    prepared, parts = run.divided()
    rows = [x.tobytes() for part in parts.values() for x in part.x]
    assert len(rows) > 1000
    assert sum(row in everything for row in rows) == 0
    labels = [part.y[:64].tobytes() for part in parts.values()]
    assert not any(some in everything for some in labels)
    samples, chosen = prepared.parts["test"]
    assert samples.x[chosen[0]].tobytes() in everything
    assert len(everything) > 100_000


def test_each_version_is_scored_by_all_and_the_sums_are_those_of_one_evaluation(
    ran: tuple[LocalRun, Driver],
) -> None:
    """Over all validation samples of all workers, whoever puts them together."""
    run, driver = ran
    scored = [entry for entry in entries(driver, VersionEvaluated) if entry.n]
    assert len(scored) > 3
    assert all(set(entry.workers) == set(SPEEDS) for entry in scored)
    state = driver.watch.state
    last = scored[-1]
    assert last.version == state.newest.version
    store = AtHand(run, driver.log, driver.log.generations)
    trainer = run.trainer()
    trainer.load(decode_tensors(store.get(state.newest.payload)))
    owns = [run.own_data(name) for name in SPEEDS]
    together = trainer.evaluate(batch for own in owns if own for batch in own.all_of("validation"))
    assert last.n == together.samples
    assert last.loss == pytest.approx(together.loss, rel=1e-6)
    assert last.accuracy == together.accuracy
    (final,) = entries(driver, RunScored)
    assert (final.validation_loss, final.validation_accuracy) == (last.loss, last.accuracy)
    assert final.test_accuracy is not None
    assert final.test_accuracy > 0.5
    counted = Counter(entry.worker for entry in entries(driver, ScoreNoted) if entry.n)
    assert set(counted) == set(SPEEDS)
    assert len(entries(driver, EvaluationAsked)) >= len(scored)


def test_a_grant_is_a_place_and_a_size(ran: tuple[LocalRun, Driver]) -> None:
    """No block, and never more than the worker has."""
    run, driver = ran
    for entry in entries(driver, BlocksGranted):
        own = run.own_data(entry.worker)
        assert own is not None
        assert entry.ranges == ()
        assert entry.start >= 0
        assert 0 < entry.size <= own.cut.train


def test_scoring_leaves_the_training_as_it_is(tmp_path: Path) -> None:
    """One worker that is asked often trains bit for bit what one trains that is hardly asked."""
    found, asked = set(), []
    for cost in (1, 30 * SECOND):
        run = LocalRun(job(), settings("bsp", stop__versions=12), 3, tmp_path)
        run.costs = run.costs._replace(evaluate=cost, step=SECOND // 2)
        driver = Driver(run.setup({"site-1": 1.0}), costs=run.costs)
        driver.run()
        asked.append(len(entries(driver, EvaluationAsked)))
        newest = driver.watch.state.newest
        assert newest is not None
        found.add((newest.version, newest.payload.digest))
    assert asked[0] > 2 * asked[1]
    assert len(found) == 1


def test_sums_that_are_not_finite_are_told_as_unknown() -> None:
    """A model that diverged has no sum."""
    trainer = LocalRun(job(), settings(), 0, Path()).trainer()
    weights = {name: np.full_like(value, np.inf) for name, value in trainer.weights().items()}
    trainer.load(weights)
    x, y = hermes.data.digits()
    sums = sums_of(trainer.evaluate([(x[:10], y[:10])]), counted=True)
    assert sums.loss is None
    assert sums.n == 10


# --- parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["iid", "dirichlet", "by-class"])
def test_a_jobs_data_are_divided_among_the_devices(tmp_path: Path, rule: str) -> None:
    """Every sample but the test set's is some device's, and one's only."""
    more = {"data__classes": 4} if rule == "by-class" else {}
    wanted = settings(data__partition=rule, **more)
    prepared, parts = divide(job(), wanted, 0, tuple(SPEEDS), tmp_path)
    assert set(parts) == set(SPEEDS)
    assert sum(part.size for part in parts.values()) + prepared.samples["test"] == 1797
    assert prepared.samples["train"] == prepared.samples["validation"] == 0
    rows = Counter(row.tobytes() for part in parts.values() for row in part.x)
    x, _ = hermes.data.digits()
    assert max((rows - Counter(row.tobytes() for row in x)).values(), default=0) == 0
    if rule == "by-class":
        assert all(len(np.unique(part.y)) <= 4 for part in parts.values())


def test_the_masters_own_set_is_what_validation_gives(tmp_path: Path) -> None:
    """And nothing else; its kind is what workers are held against."""
    x, y = hermes.data.digits()
    one = job(data=None, validation=lambda: ((x[:40], y[:40]), (x[40:50], y[40:50])))
    prepared = prepare_central(one, settings("hermes-paper"), tmp_path)
    assert prepared.samples == {"train": 0, "probe": 0, "validation": 40, "test": 10}
    assert prepared.kind == kind_of(Samples(x, y))
    assert {split for split, _, _ in prepared} == {"validation", "test"}


@pytest.mark.parametrize(
    ("one", "changes", "error", "words"),
    [
        (job(data=None), {"strategy": "hermes-paper"}, SettingError, "merge.rule=interpolate"),
        (job(data=None), {"data__resident": False}, SettingError, "lets no worker bring any"),
        (job(data=None), {"data__partition": "dirichlet"}, SettingError, "bring theirs"),
        (job(), {}, SettingError, "gives data itself"),
        (
            job(validation=hermes.data.digits),
            {"data__resident": False},
            JobError,
            "Job.validation is set",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, one: Job, changes: dict[str, object], error: type[HermesError], words: str
) -> None:
    """Before a byte is sent."""
    with pytest.raises(error, match=words):
        prepared_data(one, settings(**changes), 0, 2, tmp_path)  # type: ignore[arg-type]


# --- the commands ---------------------------------------------------------------------------------

JOB = """
import hermes
from hermes import nn

def model():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))

job = hermes.Job(
    model=model, data={data}, batch=16, optimizer=lambda params: nn.SGD(params, lr=0.1),
    loss=nn.CrossEntropy(), stop=hermes.Stop(samples=20_000),
)
"""
DEVICES = {
    "samples_per_second": 2000,
    "devices": [{"name": "a"}, {"name": "b", "speed": 0.3}],
    "links": {"default": {"latency_ms": 5, "up_mbit": 20, "down_mbit": 50}},
}


def test_simulate_divides_the_data_and_its_run_is_verified(shell: Shell, tmp_path: Path) -> None:
    """`--set data.resident=true`: nothing is granted by the block; verify puts the sums together
    again, and says what it cannot measure."""
    (tmp_path / "job.py").write_text(JOB.format(data="hermes.data.digits"))
    (tmp_path / "two.json").write_text(json.dumps(DEVICES))
    asked = ("simulate", str(tmp_path / "job.py"), "--devices", str(tmp_path / "two.json"))
    more = ("--strategy", "hermes", "--set", "data.resident=true", "--out", str(tmp_path))
    found = shell.json(*asked, *more, "--run", "one", "--keep-log")
    received = [found["traffic"][name]["data"]["received"] for name in ("a", "b")]
    assert max(received) < 10_000  # the job, and no block
    assert found["accuracy"]["validation"] > 0.5
    assert found["accuracy"]["test"] > 0.5
    assert found["best"]["loss"] <= found["loss"]["validation"]
    done = shell("verify", "one", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "the data stay with the workers" in done.stdout


def test_run_has_no_data_to_give_to_its_workers(shell: Shell, tmp_path: Path) -> None:
    """Exit code 2, and what to do instead; nor has a simulation."""
    (tmp_path / "job.py").write_text(JOB.format(data="None"))
    done = shell("run", str(tmp_path / "job.py"), "--strategy", "hermes", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "each worker brings its own" in done.stderr
    with pytest.raises(JobError, match="its workers bring theirs"):
        divide(job(data=None), settings(), 0, tuple(SPEEDS), tmp_path)


# --- faults ---------------------------------------------------------------------------------------


def test_schedules_of_faults_keep_every_invariant_where_workers_bring_their_data() -> None:
    """They finish; questions, answers and false answers came about."""
    tally = Tally()
    for seed in range(BRINGING, BRINGING + 60):
        tally.note(schedules.run(draw(seed)))
    for kind in (EvaluationAsked, ScoreNoted, VersionEvaluated, RunScored):
        assert tally.entries[kind.__name__] >= 50, kind
    assert tally.fired["lie"] >= 5
