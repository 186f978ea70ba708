"""Master and workers as they run for real, over the embedded broker and Apache Kafka."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hermes.broker.control import Child
from hermes.errors import HermesError, JobError, RunError, Unverified, UsageError
from hermes.jobfile import build
from hermes.machine.state import MasterState
from hermes.messages import JobSource, LogLine, RunOpened
from hermes.perform.ledger import Ledger
from hermes.perform.upload import Signer
from hermes.policy.presets import resolve, to_tree
from hermes.runtime import workshop
from hermes.runtime.archive import fold_archive
from hermes.runtime.folder import RunFolder
from hermes.runtime.master import READY, MasterOptions, MasterProcess
from hermes.runtime.outbox import Outbox
from hermes.runtime.software import software
from hermes.runtime.worker import Farewell, WorkerOptions, WorkerProcess
from hermes.transport import names
from hermes.transport.kafka import KafkaLog

pytestmark = pytest.mark.broker

JOB = """
import hermes
from hermes import nn

job = hermes.Job(
    model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)),
    data=hermes.data.digits,
    optimizer=lambda params: nn.SGD(params, lr=0.1),
    loss=nn.CrossEntropy(),
)
"""

KEY = b"k" * 32


class Watcher:
    """Listens to a master, and lets a test wait for what it sees."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.is_ready = threading.Event()
        self._changed = threading.Condition()
        self._state: MasterState | None = None

    def opened(self, vitals: object) -> None:
        """Nothing."""

    def took(self, record: object) -> None:
        """Nothing."""

    def uploading(self, sent: int, total: int) -> None:
        """Nothing."""

    def ready(self) -> None:
        """Workers may come."""
        self.is_ready.set()

    def changed(self, state: MasterState, now: int) -> None:
        """Wake whoever waits."""
        with self._changed:
            self._state = state
            self._changed.notify_all()

    def line(self, line: LogLine) -> None:
        """Keep it."""
        self.lines.append(line.text)

    def until(self, holds: Any, timeout: float = 30.0) -> None:
        """Wait until the state is as wanted; fails the test after `timeout` seconds."""
        with self._changed:
            reached = self._changed.wait_for(
                lambda: self._state is not None and holds(self._state), timeout
            )
        assert reached, "the state never came"


class Cluster:
    """One run in threads of this process, each with its own connection."""

    def __init__(self, address: str, run: str, folder: Path) -> None:
        self.address, self.run, self.folder = address, run, folder
        self.watcher = Watcher()
        self.result: dict[str, object] | HermesError | None = None
        self.farewells: dict[str, Farewell | HermesError] = {}
        self.threads: list[threading.Thread] = []
        self.workers: dict[str, WorkerProcess] = {}
        self.master: MasterProcess | None = None

    def start_master(self, strategy: str, expect: int, text: str = JOB, **settings: Any) -> None:
        """Start the master in a thread; settings with __ for the dot."""
        keys = {key.replace("__", "."): value for key, value in settings.items()}
        job = build(text, "job.py")
        options = MasterOptions(
            self.run,
            JobSource("job.py", JOB, ()),
            job,
            resolve(strategy, [job.settings(), keys]),
            1,
            expect,
            KEY,
            RunFolder(self.folder, self.run),
            self.folder / "cache",
        )
        log = KafkaLog(self.address).connect()
        self.master = MasterProcess(log, options, self.watcher)

        def see_through() -> None:
            assert self.master is not None
            try:
                self.result = self.master.run()
            except HermesError as error:
                self.result = error
            finally:
                log.close()

        self._thread(see_through)

    def start_worker(self, name: str, key: bytes = KEY, **options_: Any) -> threading.Thread:
        """Start a worker in a thread."""
        log = KafkaLog(self.address).connect()
        known = {"patience": 30.0, **options_}
        options = WorkerOptions(
            self.run, name, key, self.folder / "outbox", self.folder / "cache", **known
        )
        worker = WorkerProcess(log, options, lambda _text: None)
        self.workers[name] = worker

        def see_through() -> None:
            try:
                self.farewells[name] = worker.run()
            except HermesError as error:
                self.farewells[name] = error
            finally:
                log.close()

        return self._thread(see_through)

    def reached(self, version: int) -> int:
        """Wait for this version; the newest."""
        self.watcher.until(lambda state: state.newest and state.newest.version >= version)
        assert self.master is not None
        newest = self.master._ledger.state.newest
        assert newest is not None
        return newest.version

    def interrupt(self) -> None:
        """Of the master: the run ends."""
        assert self.master is not None
        self.master.interrupt()

    def finish(self) -> dict[str, Any]:
        """Wait for all; the master's result."""
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()
        assert isinstance(self.result, dict), self.result
        return self.result

    def _thread(self, what: Any) -> threading.Thread:
        thread = threading.Thread(target=what, daemon=True)
        thread.start()
        self.threads.append(thread)
        return thread


@pytest.fixture(scope="module", params=["embedded", "apache"])
def address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A broker of each kind."""
    data = None if request.param == "embedded" else tmp_path_factory.mktemp("kafka")
    with Child(request.param, data=data) as broker:
        yield broker.address


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Whoever opened a connection closes it: no thread of the client outlives a test."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    left = [thread.name for thread in threading.enumerate() if thread not in before]
    assert left == []


@pytest.fixture
def cluster(address: str, tmp_path: Path, request: pytest.FixtureRequest) -> Cluster:
    """A run of its own for each test."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())
    return Cluster(address, name[-40:].strip("-"), tmp_path)


@pytest.mark.parametrize("strategy", ["hermes-paper", "bsp", "fedavg"])
def test_a_run_trains_and_leaves_what_it_promises(cluster: Cluster, strategy: str) -> None:
    """Three workers train; the ledger saved beside the result tells the same story."""
    samples = 20000 if strategy == "hermes-paper" else 4000
    cluster.start_master(strategy, 3, stop__samples=samples)
    for index in range(3):
        cluster.start_worker(f"worker-{index + 1}")
    result = cluster.finish()
    assert result["status"] == "finished"
    assert result["reason"] == "samples"
    assert result["samples"] >= samples
    assert sum(w["samples"] for w in result["workers"].values()) == result["samples"]
    updates = result["updates"]
    assert updates["pushed"] == updates["applied"] + updates["rejected"] + updates["undecided"]
    assert {f.code for f in cluster.farewells.values() if isinstance(f, Farewell)} == {"done"}
    folder = RunFolder(cluster.folder, cluster.run)
    saved = fold_archive(folder.ledger).state
    assert saved.newest is not None
    assert saved.newest.payload.digest == result["digest"]
    assert READY in folder.central_log.read_text()


def test_a_worker_settles_when_its_job_is_there_and_until_it_leaves(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each look for garbage as versions come goes through all of a framework."""
    did: list[str] = []
    monkeypatch.setattr(workshop, "settle", lambda: did.append("settled"))
    monkeypatch.setattr(workshop, "be_as_before", lambda: did.append("as before"))
    cluster.start_master("bsp", 1, stop__versions=3)
    cluster.start_worker("worker-1")
    cluster.finish()
    assert did == ["settled", "as before"]


def test_the_models_file_is_the_digest(cluster: Cluster) -> None:
    """The SHA-256 of model.safetensors is the digest that the result names."""
    from hermes.codec import decode_tensors, digest_of

    cluster.start_master("bsp", 1, stop__versions=3)
    cluster.start_worker("worker-1")
    result = cluster.finish()
    data = RunFolder(cluster.folder, cluster.run).model.read_bytes()
    assert digest_of(data) == result["digest"]
    assert set(decode_tensors(data)) == {"1.weight", "1.bias", "3.weight", "3.bias"}


def test_a_worker_that_leaves_is_not_waited_for(cluster: Cluster) -> None:
    """bsp closes over those that are left; the one that left said bye."""
    cluster.start_master("bsp", 2)
    cluster.start_worker("worker-1")
    cluster.start_worker("worker-2")
    reached = cluster.reached
    reached(3)
    cluster.workers["worker-2"].interrupt("enough")
    cluster.watcher.until(lambda state: state.members["worker-2"].status == "left")
    enough = reached(reached(0) + 3)
    cluster.interrupt()
    result = cluster.finish()
    assert result["version"] >= enough
    assert result["workers"]["worker-2"]["status"] == "left"
    assert cluster.farewells["worker-2"] == Farewell("interrupted", "enough")


def test_a_late_worker_joins(cluster: Cluster) -> None:
    """A worker that comes after the start is admitted and takes part."""
    cluster.start_master("bsp", 1)
    cluster.start_worker("worker-1")
    cluster.reached(2)
    cluster.start_worker("worker-2")
    cluster.watcher.until(
        lambda state: "worker-2" in state.members and state.members["worker-2"].applied > 0
    )
    cluster.interrupt()
    result = cluster.finish()
    assert result["workers"]["worker-2"]["applied"] > 0


def test_an_interrupt_writes_the_results(cluster: Cluster) -> None:
    """`Stop(interrupted)`: the run ends at once, with everything written."""
    cluster.start_master("hermes-paper", 1)
    cluster.start_worker("worker-1")
    cluster.reached(1)
    cluster.interrupt()
    result = cluster.finish()
    assert (result["status"], result["reason"]) == ("stopped", "interrupted")
    assert result["accuracy"]["test"] is not None


def test_a_wrong_key_is_told_and_runs_nothing(cluster: Cluster) -> None:
    """A worker with another cluster key says so itself, and is not admitted."""
    cluster.start_master("bsp", 1, stop__versions=2)
    cluster.watcher.is_ready.wait(30)
    cluster.start_worker("worker-9", key=b"x" * 32).join(30)
    wrong = cluster.farewells["worker-9"]
    assert isinstance(wrong, Unverified)
    assert "another cluster key" in str(wrong)
    cluster.start_worker("worker-1")
    assert set(cluster.finish()["workers"]) == {"worker-1"}


def test_a_name_is_taken_once(cluster: Cluster) -> None:
    """A second worker of one name on one machine is refused by the outbox's lock."""
    cluster.start_master("bsp", 1)
    cluster.start_worker("worker-1")
    cluster.reached(1)
    first = cluster.farewells
    second = WorkerProcess(
        KafkaLog(cluster.address).connect(),
        WorkerOptions(
            cluster.run, "worker-1", KEY, cluster.folder / "outbox", cluster.folder / "cache"
        ),
        lambda _text: None,
    )
    with pytest.raises(UsageError, match="another worker of this name"):
        second.run()
    second.log.close()
    cluster.interrupt()
    cluster.finish()
    assert first["worker-1"] == Farewell("done", "the run has stopped: interrupted")


def test_who_died_between_hello_and_admission_is_not_refused(cluster: Cluster) -> None:
    """What it named when it knocked again may never have come to the master: then who was before
    it is named."""
    cluster.start_master("bsp", 1)
    cluster.start_worker("worker-1")
    cluster.reached(1)
    assert cluster.master is not None
    old = cluster.master._ledger.state.members["worker-1"].incarnation
    dead = Outbox(cluster.folder / "other" / cluster.run / "worker-1", cluster.run)
    dead.begin(old)
    dead.knock("never-came")
    dead.close()
    said: list[str] = []
    log = KafkaLog(cluster.address).connect()
    options = WorkerOptions(
        cluster.run, "worker-1", KEY, cluster.folder / "other", cluster.folder / "cache"
    )
    again = WorkerProcess(log, options, said.append)
    thread = threading.Thread(target=again.run)
    thread.start()
    cluster.watcher.until(lambda state: state.members["worker-1"].incarnation != old)
    cluster.master.interrupt()
    thread.join(30)
    log.close()
    cluster.finish()
    assert any("Beginning again: name-taken" in text for text in said)
    first = cluster.farewells["worker-1"]
    assert isinstance(first, Farewell)
    assert first.code == "fenced"


def test_a_second_master_is_refused(cluster: Cluster) -> None:
    """An existing run id is not opened twice."""
    cluster.start_master("bsp", 1, stop__versions=2)
    cluster.start_worker("worker-1")
    cluster.finish()
    again = Cluster(cluster.address, cluster.run, cluster.folder)
    again.start_master("bsp", 1)
    again.threads[0].join(30)
    assert isinstance(again.result, RunError)
    assert "exists already" in str(again.result)


def test_a_finished_run_takes_no_worker(cluster: Cluster) -> None:
    """Who names a run that has stopped is told so."""
    cluster.start_master("bsp", 1, stop__versions=2)
    cluster.start_worker("worker-1")
    cluster.finish()
    cluster.start_worker("worker-2").join(30)
    late = cluster.farewells["worker-2"]
    assert isinstance(late, RunError)
    assert "has stopped already" in str(late)


def test_a_metric_that_raises_ends_the_run(cluster: Cluster) -> None:
    """What breaks in the evaluation's thread is raised, not lost: here the user's own metric."""
    text = """
calls = []
def metric(outputs, y):
    calls.append(1)
    if len(calls) > 3:
        raise ValueError("no more")
    return 0.5
""" + JOB.replace("loss=nn", "metric=metric, loss=nn")
    cluster.start_master("bsp", 1, text=text)
    cluster.start_worker("worker-1")
    cluster.threads[0].join(30)
    assert isinstance(cluster.result, JobError)
    assert "no more" in str(cluster.result)
    cluster.workers["worker-1"].interrupt()
    cluster.threads[1].join(30)


def test_a_master_that_is_gone_is_not_waited_for(cluster: Cluster) -> None:
    """A run that was opened, and whose master died: the worker says so after its patience."""
    with KafkaLog(cluster.address) as log:
        log.create(names.physical(cluster.run, short) for short in names.RUN_TOPICS)
        ledger = Ledger(log, names.physical(cluster.run, names.LEDGER))
        ledger.start("ab" * 16)
        opened = RunOpened(
            cluster.run, to_tree(resolve("bsp", [])), 0, 1, "", software(""),
            Signer(cluster.run, KEY).opening(),
        )  # fmt: skip
        ledger.commit((opened,), (), 0)
    cluster.start_worker("worker-1", patience=4.0).join(30)
    gone = cluster.farewells["worker-1"]
    assert isinstance(gone, RunError)
    assert "no master answered" in str(gone)


def test_nobody_appears(cluster: Cluster) -> None:
    """A worker whose run does not come says so after its patience."""
    cluster.start_worker("worker-1", patience=0.1).join(30)
    gone = cluster.farewells["worker-1"]
    assert isinstance(gone, RunError)
    assert "did not appear" in str(gone)
