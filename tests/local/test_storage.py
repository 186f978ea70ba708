"""Does a run count what it writes, warn, and stop at its limit with nothing lost?"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hermes.cli.storage import rounded, stopped_short, used_at_end
from hermes.errors import BrokerUnreachable, HermesError
from hermes.jobfile import build
from hermes.machine.state import MasterState
from hermes.messages import JobSource, LogLine, VersionPublished
from hermes.policy.presets import parse_assignment, resolve
from hermes.policy.storage import Pace
from hermes.runtime import storage
from hermes.runtime.bounds import cut, keep_newest
from hermes.runtime.folder import RunFolder
from hermes.runtime.local import LocalCluster, LocalOptions
from hermes.runtime.master import MasterOptions, MasterProcess
from hermes.runtime.storage import OVERHEAD, Meter, StorageWatch
from hermes.runtime.worker import WorkerOptions, WorkerProcess
from hermes.transport import names
from hermes.transport.counting import CountingLog
from hermes.transport.held import Held
from hermes.transport.memory import MemoryLog
from hermes.values import SECOND, Payload, Reason

JOB = """
import numpy as np

import hermes
from hermes import nn


def data():
    x, y = hermes.data.digits()
    return x + 0.01 * np.random.default_rng(1).random(x.shape, np.float32), y  # not to be deflated


job = hermes.Job(
    model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
    data=data,
    optimizer=lambda params: nn.SGD(params, lr=0.1),
    loss=nn.CrossEntropy(),
)
"""

KEY = b"k" * 32
MB = 10**6


class Silent(MemoryLog):
    """A broker that does not say what it holds, as the embedded one."""

    def connect(self) -> Silent:
        return Silent(_store=self._store)

    def held(self, prefix: str) -> None:  # type: ignore[override]
        return None


class Listener:
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []

    def opened(self, vitals: object) -> None: ...
    def took(self, record: object) -> None: ...
    def uploading(self, sent: int, total: int) -> None: ...
    def ready(self) -> None: ...
    def changed(self, state: MasterState, now: int) -> None: ...

    def line(self, line: LogLine) -> None:
        self.lines.append(line)

    def said(self, what: str) -> list[LogLine]:
        return [line for line in self.lines if what in line.text]


def run(
    log: MemoryLog, folder: Path, limit: str, workers: int = 2, strategy: str = "bsp", **more: Any
) -> tuple[dict[str, Any], Listener, MasterProcess]:
    """A whole run, master and workers in threads, over a log in memory."""
    job, listener = build(JOB, "job.py"), Listener()
    layers = [job.settings(), dict([parse_assignment(f"storage.max={limit}")]), more]
    options = MasterOptions(
        "r",
        JobSource("job.py", JOB, ()),
        job,
        resolve(strategy, layers),
        0,
        workers,
        KEY,
        RunFolder(folder, "r"),
        folder / "cache",
    )
    master = MasterProcess(log.connect(), options, listener)
    threads = []
    for index in range(workers):
        wanted = WorkerOptions(
            "r", f"w{index}", KEY, folder / "outbox", folder / "cache", patience=30.0
        )
        worker = WorkerProcess(log.connect(), wanted, lambda _text: None)
        threads.append(threading.Thread(target=until_the_end, args=(worker,)))
        threads[-1].start()
    result = master.run()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return result, listener, master


def until_the_end(worker: WorkerProcess) -> None:
    with contextlib.suppress(HermesError):  # a run that never began has no place for it
        worker.run()


# --- a run at its limit -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MemoryLog, Silent])
def test_a_run_stops_at_its_limit_with_nothing_lost(tmp_path: Path, kind: type[MemoryLog]) -> None:
    with kind() as log:
        result, listener, _ = run(log, tmp_path, "3MB")
        held = MemoryLog.held(log, "hermes.r.")
    assert (result["status"], result["reason"]) == ("stopped", "storage")
    updates = result["updates"]
    assert updates["pushed"] > 0
    assert updates["pushed"] == updates["applied"] + updates["rejected"] + updates["undecided"]
    assert result["version"] > 0
    assert Path(result["paths"]["model"]).stat().st_size > 0
    assert result["accuracy"]["test"] is not None
    used, limit = result["storage"]["used"], result["storage"]["limit"]
    assert limit == 3 * MB
    assert used >= limit
    assert used < 1.2 * limit, "what was under way is a few updates"
    assert held.bytes < 1.2 * limit
    (warning,) = listener.said("are used; in about")
    assert warning.level == "warning"
    assert len(listener.said("are sent now")) == 1, "the opening is told once"
    assert result["reason_facts"]["used"] >= 3 * MB


def test_data_that_do_not_fit_are_not_sent(tmp_path: Path) -> None:
    with MemoryLog() as log:
        result, listener, _ = run(log, tmp_path, "200kB", workers=1)
        held = log.held("hermes.r.data")
    assert (result["reason"], result["version"]) == ("storage", None)
    assert result["reason_facts"]["needed"] > 200_000
    assert held.bytes == 0
    assert listener.said("enough for not even the data")


def test_what_is_counted_is_what_is_there(tmp_path: Path) -> None:
    """A broker that says nothing is as well known as one that does."""
    with Silent() as log:
        result, _, _ = run(log, tmp_path, "off", **{"stop.versions": 10})
        ends = log.ends(log.topics("hermes.r."))
        held = MemoryLog.held(log, "hermes.r.")
    assert result["storage"]["limit"] is None
    expected = held.bytes + OVERHEAD * sum(ends.values())
    # Workers' last words may come after the master's last look.
    assert result["storage"]["used"] == pytest.approx(expected, rel=0.01)


def test_its_master_tells_everybody_in_its_beats(tmp_path: Path) -> None:
    from hermes.runtime.observe import last_beat

    with MemoryLog() as log:
        run(log, tmp_path, "1GB", **{"stop.versions": 3})
        beat = last_beat(log, "r")
    assert beat is not None
    assert beat.limit == 10**9
    assert beat.used > 0


# --- the meter ----------------------------------------------------------------------------------


def test_a_record_that_comes_by_twice_is_counted_once() -> None:
    with Silent() as log:
        meter = Meter(log, "r")
        counting = CountingLog(log, meter.appended)
        lobby, lines, own = (names.physical("r", short) for short in ("lobby", "logs", "model"))
        log.create([lobby, lines, own])
        log.append(lobby, b"x" * 100)
        counting.append(lines, b"y" * 50)
        counting.append(own, b"z" * 10)
        assert meter.used() == 10 + OVERHEAD
        reader = log.reader()
        for _ in range(2):
            for topic in (lobby, lines):
                reader.follow(topic, 0)
                for record in reader.poll(1.0):
                    meter.seen(record)
        assert meter.ask() is None
        assert meter.used() == 160 + 3 * OVERHEAD


def test_what_the_broker_says_counts_and_what_came_since_is_added() -> None:
    with MemoryLog() as log:
        meter = Meter(log, "r")
        topic = names.physical("r", "model")
        log.create([topic])
        log.append(topic, b"x" * 1000)  # by a master before us
        meter.appended(topic, 5)
        assert meter.ask() == Held({topic: 1000}, None)
        assert meter.used() == 1000
        meter.appended(topic, 7)
        assert meter.used() == 1000 + 7 + OVERHEAD


def test_other_runs_in_the_same_memory_are_told_of() -> None:
    with Silent() as log:
        log.create(["hermes.r.model"])
        guess = Pace(1000, 0, 600.0, 600.0, 600.0, 1000)
        alone = StorageWatch(Meter(log, "r"), "1GB", guess, 0)
        assert alone.opening().text.endswith("about 555 h 33 min.")
        log.create(["hermes.a.model", "hermes.a.data", "hermes.b.ledger", "not-ours"])
        beside = StorageWatch(Meter(log, "r"), "1GB", guess, 0)
        assert "2 other runs lie in that memory, too" in beside.opening().text


def test_an_outage_is_ridden_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "EVERY", 0.001)
    asked = threading.Semaphore(0)

    class Away(MemoryLog):
        def held(self, prefix: str) -> Held:
            asked.release()
            raise BrokerUnreachable("away")

    with Away() as log:
        asker = storage.Asker(Meter(log, "r"))
        for _ in range(3):
            assert asked.acquire(timeout=10), "it goes on asking"
        asker.stop()


# --- what is said -------------------------------------------------------------------------------


def trained(seconds: float, version: int) -> MasterState:
    payload = Payload("0" * 32, "model", 0, 0, 0, 1, 1, "0" * 64)
    newest = VersionPublished(version, payload, (), "mean", 0.0, 0, Reason("x"))
    return MasterState(started=0, time=int(seconds * SECOND), newest=newest)


def watch(limit: str | None = "1GB") -> tuple[StorageWatch, Meter]:
    """Of a run that is expected to write 1.8 MB an hour."""
    meter = Meter(Silent(), "r")
    return StorageWatch(meter, limit, Pace(1000, 0, 600.0, 600.0, 600.0, 1000), 0), meter


def test_a_pace_that_is_far_off_is_said_once() -> None:
    watching, meter = watch()
    assert watching.look(trained(0.0, 0)) == ([], None)
    meter.appended("hermes.r.model", 10 * MB)
    assert watching.look(trained(9.0, 30)) == ([], None), "too early to tell"
    lines, stop = watching.look(trained(10.0, 30))
    assert stop is None
    assert [line.text for line in lines] == [
        "Storage: it is 3.6 GB an hour, not 1.8 MB; the limit of 1.0 GB is reached in about "
        "16 min 29 s"
    ]
    assert watching.look(trained(61.0, 60)) == ([], None)
    assert watching.result()["measured_per_hour"] == pytest.approx(590 * MB, rel=0.01)


def test_a_pace_as_expected_is_not_worth_a_line() -> None:
    watching, meter = watch()
    watching.look(trained(0.0, 0))
    meter.appended("hermes.r.model", 20_000)
    assert watching.look(trained(60.0, 1)) == ([], None)
    assert watching.result()["measured_per_hour"] > 0


def test_a_run_without_a_limit_never_stops() -> None:
    watching, meter = watch(None)
    meter.appended("hermes.r.model", 10**15)
    assert watching.look(trained(1.0, 1)) == ([], None)
    assert "There is no limit" in watching.opening().text
    assert watching.no_room() is None


def test_a_stop_is_asked_for_once_and_not_of_a_run_that_has_stopped() -> None:
    watching, meter = watch("1MB")
    meter.appended("hermes.r.model", 2 * MB)
    stopping = replace(trained(1.0, 1), stopped=Reason("interrupted"))
    assert watching.look(stopping) == ([], None)
    _, stop = watching.look(trained(1.0, 1))
    assert stop is not None
    assert stop.reason.facts == {"used": 2 * MB + OVERHEAD, "limit": MB, "of": "memory"}
    assert watching.look(trained(1.0, 1)) == ([], None)


@pytest.mark.parametrize(("of", "tip"), [("memory", "--kind apache"), ("disk", "hermes clean")])
def test_the_message_names_used_and_limit_and_a_way_out(of: str, tip: str) -> None:
    result = {
        "run": "r",
        "version": 7,
        "storage": {"used": 3_020_000, "limit": 3 * MB, "of": of},
        "reason_facts": {},
        "paths": {"model": "/runs/r/model.safetensors"},
    }
    error = stopped_short(result)
    assert error.exit_code == 4
    told = str(error)
    assert f"3.0 MB of 3.0 MB of the broker's {of}" in told
    assert "version 7, is in /runs/r/model.safetensors" in told
    assert "--set storage.max=6MB" in told
    assert tip in told


def test_a_size_to_type_is_rounded_up() -> None:
    assert [rounded(n) for n in (1_200, 6 * MB, 6 * MB + 1, 2 * 10**9)] == [
        "2kB",
        "6MB",
        "7MB",
        "2GB",
    ]


@pytest.mark.parametrize("text", ["", "{}", '{"storage": null}', '{"storage": {"used": "x"}}'])
def test_a_result_that_does_not_say_is_no_error(tmp_path: Path, text: str) -> None:
    folder = RunFolder(tmp_path, "r")
    folder.create()
    assert used_at_end(folder) is None
    folder.result.write_text(text)
    assert used_at_end(folder) is None
    folder.result.write_text(json.dumps({"storage": {"used": 5, "limit": None}}))
    assert str(used_at_end(folder)) == "5 B"


@pytest.mark.parametrize(
    ("typed", "what"), [("lots", "500MB"), ("3", "leave out its unit"), ("-1GB", "500MB")]
)
def test_a_bad_limit_is_told_with_what_is_meant(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shown: Callable[..., None],
    typed: str,
    what: str,
) -> None:
    from hermes.cli.entry import run as hermes

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERMES_CONFIG", str(tmp_path))
    (tmp_path / "job.py").write_text(JOB)
    command = ["run", "job.py", "--set", f"storage.max={typed}"]
    code = hermes(command)
    told = capsys.readouterr().err
    shown(f"a storage limit of {typed!r}", f"hermes {' '.join(command)}", code, told)
    assert code == 2
    assert "storage.max" in told
    assert what in told


# --- files that others write --------------------------------------------------------------------


def test_a_file_is_cut_and_its_writer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "worker-1.out"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"a" * 900 + b"b" * 100)
        assert not cut(path, 1000, 100)
        writer.write(b"c")
        assert cut(path, 1000, 100)
        writer.write(b"next")
    assert path.read_bytes() == b"next"
    assert (tmp_path / "worker-1.out.1").read_bytes() == b"b" * 99 + b"c"


def test_a_file_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    assert not cut(tmp_path / "none")


def test_the_outputs_of_workers_are_bounded_while_a_run_goes_on(tmp_path: Path) -> None:
    job = build(JOB, "job.py")
    folder = RunFolder(tmp_path, "r")
    folder.create()
    settings = resolve("bsp", [])
    source = JobSource("job.py", JOB, ())
    master = MasterOptions("r", source, job, settings, 0, 1, b"k", folder, tmp_path / "c")
    options = LocalOptions(master, None, 1, None, tmp_path / "key")
    cluster = LocalCluster(options, "broker", Listener())
    output = folder.log / "worker-1.out"
    with output.open("wb") as file:
        file.truncate(5 << 20)

    class Running:
        def poll(self) -> None: ...

    cluster.processes["worker-1"] = Running()  # type: ignore[assignment]
    cluster.changed(MasterState(), 0)
    assert output.stat().st_size == 0
    assert output.with_name("worker-1.out.1").stat().st_size == 1 << 20


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for index in range(25):
        (tmp_path / f"20260101-{index:06}-1.txt").touch()
    keep_newest(tmp_path.glob("*.txt"), 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"20260101-{i:06}-1.txt" for i in range(5, 25)
    ]


def test_reports_of_defects_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hermes.cli.trouble import exit_code_of
    from hermes.errors import Defect

    monkeypatch.setenv("HERMES_STATE", str(tmp_path))
    folder = tmp_path / "defects"
    folder.mkdir()
    for index in range(30):
        (folder / f"20200101-{index:06}-1.txt").touch()
    assert exit_code_of(Defect("one more")) == 1
    left = sorted(path.name for path in folder.iterdir())
    assert len(left) == 20
    assert not left[-1].startswith("2020"), "the newest stays"
