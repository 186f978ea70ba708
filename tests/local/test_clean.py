"""Does `hermes clean` remove all that a run has left, nothing else, and say so before?"""

from __future__ import annotations

import fcntl
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hermes.broker.process import identity
from hermes.cli.entry import run
from hermes.codec import encode
from hermes.data.cache import BlockCache
from hermes.errors import RunError, UsageError
from hermes.messages import LogLine, MasterBeat
from hermes.runtime import clean
from hermes.runtime.archive import Archive
from hermes.runtime.caches import caches
from hermes.runtime.folder import RunFolder, RunNote
from hermes.runtime.logs import CentralLog, utc_now
from hermes.runtime.outbox import Outbox
from hermes.transport import names
from hermes.transport.memory import MemoryLog

NOBODY = "127.0.0.1:9"
MADE = (
    "best.safetensors",
    "central.log",
    "central.log.1",
    "curves.png",
    "log/blocks",
    "log/ledger.records",
    "log/quarantine.jsonl",
    "log/worker-1.out",
    "log/worker-1.out.1",
    "model.safetensors",
    "result.json",
    "run.json",
    "work/outbox/names/worker-1-0123456789abcdef.lock",
    "work/outbox/workers/r/worker-1/journal.jsonl",
    "work/outbox/workers/r/worker-1/lock",
    "work/outbox/workers/r/worker-1/outbox.msgpack",
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, and no variable of the person who runs the tests."""
    for name in [name for name in os.environ if name.startswith("HERMES_")]:
        monkeypatch.delenv(name)
    for name in ("CONFIG", "STATE", "CACHE"):
        monkeypatch.setenv(f"HERMES_{name}", str(tmp_path / "home" / name.lower()))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def block(home: Path, data: bytes) -> str:
    return BlockCache(home / "cache" / "blocks", 1 << 20).put(data)


def left_by(out: Path, name: str, blocks: list[str], *, pid: int = 0, born: str = "") -> RunFolder:
    """The folder of a run, with everything that a run can leave there."""
    folder = RunFolder(out, name)
    folder.create()
    Archive(folder.ledger).close()
    CentralLog(folder.central_log).close()
    names_of = folder.work / "outbox" / "names"
    names_of.mkdir(parents=True)
    (names_of / "worker-1-0123456789abcdef.lock").touch()
    (folder.log / "quarantine.jsonl").touch()
    for path in ("central.log.1", "log/worker-1.out", "log/worker-1.out.1", "curves.png"):
        (folder.path / path).write_bytes(b"x")
    for file in (folder.result, folder.model, folder.best):
        folder.write(file, b"{}")
    folder.note_blocks(blocks)
    folder.take_note(RunNote(name, NOBODY, pid, born, utc_now()))
    outbox = Outbox(folder.work / "outbox" / "workers" / name / "worker-1", name)
    outbox.begin("i")
    outbox.close()
    return folder


def files(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if not p.is_dir())


def log_of(name: str = "r") -> MemoryLog:
    log = MemoryLog()
    topics = [names.physical(name, short) for short in (*names.RUN_TOPICS, "from.worker-1")]
    log.create([*topics, "hermes.other.ledger", "somebody-elses"])
    log.append(names.physical(name, "model"), b"x" * 1000)
    return log


# --- what goes ----------------------------------------------------------------------------------


def test_everything_goes_and_nothing_else(tmp_path: Path, home: Path) -> None:
    alone, shared = block(home, b"alone"), block(home, b"shared")
    left_by(tmp_path, "other", [shared])
    folder = left_by(tmp_path, "r", [alone, shared])
    assert files(folder.path) == list(MADE), "a file that a run writes is known to clean"
    elsewhere = Outbox(home / "state" / "workers" / "r" / "device-7", "r")
    elsewhere.begin("i")
    elsewhere.close()
    with log_of() as log:
        left = clean.leftovers(tmp_path, "r", home / "state", home / "cache" / "blocks", log)
        assert len(left.topics) == 7
        assert {t.name: t.size for t in left.topics}["hermes.r.model"] == 1000
        assert [thing.path.name for thing in left.blocks] == [alone]
        assert left.latest is not None
        clean.remove(left, log)
        assert log.topics() == ["hermes.other.ledger", "somebody-elses"]
    assert not folder.path.exists()
    assert not (home / "state" / "workers" / "r").exists()
    assert files(home / "cache") == [f"blocks/{shared}"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["latest", "other"]
    assert (tmp_path / "runs" / "latest").readlink() == Path("other"), "the newest that is left"
    assert files(tmp_path / "runs" / "other")


def test_the_link_to_another_run_stays(tmp_path: Path, home: Path) -> None:
    left_by(tmp_path, "r", [])
    left_by(tmp_path, "newer", [])
    assert run(["clean", "r", "--yes", "--quiet"]) == 0
    assert (tmp_path / "runs" / "latest").readlink() == Path("newer")


def test_what_hermes_did_not_make_stays_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = left_by(tmp_path, "r", [])
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "result.json").write_text("mine")
    (folder.path / "notes.txt").write_text("mine")
    (folder.path / "log" / "extra").mkdir()
    (folder.path / "elsewhere").symlink_to(precious)
    (folder.path / "report.html").symlink_to(precious / "result.json")
    assert run(["clean", "r", "--yes"]) == 0
    shown = capsys.readouterr().out
    for name in ("notes.txt", "log/extra", "elsewhere", "report.html"):
        assert f"  {folder.path / name}" in shown
    assert sorted(path.name for path in folder.path.rglob("*")) == [
        "elsewhere",
        "extra",
        "log",
        "notes.txt",
        "report.html",
    ]
    assert (precious / "result.json").read_text() == "mine"
    assert run(["clean", "r", "--yes"]) == 0
    assert "nothing was removed" in capsys.readouterr().err, "again: nothing of ours is left"


@pytest.mark.parametrize("inside", ["log", "work", "work/outbox/workers/r"])
def test_a_folder_that_became_a_link_is_not_followed(
    tmp_path: Path, home: Path, inside: str
) -> None:
    folder = left_by(tmp_path, "r", [])
    place, moved = folder.path / inside, tmp_path / "moved"
    place.rename(moved)
    place.symlink_to(moved)
    before = files(moved)
    assert run(["clean", "r", "--yes", "--quiet"]) == 0
    assert files(moved) == before
    assert place.is_symlink()


def test_a_topic_that_is_none_of_ours_stays(tmp_path: Path, home: Path) -> None:
    with log_of() as log:
        log.create(["hermes.r.notes"])
        left = clean.leftovers(tmp_path, "r", home / "state", home / "cache", log)
        assert left.strange_topics == ("hermes.r.notes",)
        clean.remove(left, log)
        assert "hermes.r.notes" in log.topics()


def test_what_was_broken_off_can_be_done_again(tmp_path: Path, home: Path) -> None:
    """The ledger goes last at the broker, run.json last here: by them the run is found again."""
    folder = left_by(tmp_path, "r", [])
    order: list[str] = []

    class Watched(MemoryLog):
        def delete(self, topics):  # type: ignore[no-untyped-def]
            order.extend(topics)
            super().delete(topics)

    with Watched() as log:
        log.create([names.physical("r", short) for short in names.RUN_TOPICS])
        left = clean.leftovers(tmp_path, "r", home / "state", home / "cache", log)
        (folder.path / "model.safetensors").unlink()
        log.delete(["hermes.r.model"])
        clean.remove(left, log)
        assert order[-1] == "hermes.r.ledger"
        clean.remove(left, log)
        after = clean.leftovers(tmp_path, "r", home / "state", home / "cache", log)
    assert after.nothing


# --- what is refused ----------------------------------------------------------------------------


def test_a_bad_moment_a_run_that_is_under_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shown: Callable[..., None]
) -> None:
    pid = os.getpid()
    folder = left_by(tmp_path, "r", [], pid=pid, born=identity(pid) or "")
    before = files(folder.path)
    assert run(["clean", "r", "--yes"]) == 2
    text = capsys.readouterr().err
    shown("clean: a run that is under way", "hermes clean r --yes", 2, text)
    assert "hermes stop r" in text
    assert files(folder.path) == before


@pytest.mark.parametrize("lock", [path for path in MADE if path.endswith("lock")])
def test_a_worker_that_holds_its_lock_is_under_way(tmp_path: Path, lock: str) -> None:
    folder = left_by(tmp_path, "r", [])
    place = folder.path / lock
    with place.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run(["clean", "r", "--yes"]) == 2
    assert folder.result.exists()
    assert run(["clean", "r", "--yes", "--quiet"]) == 0


def test_a_master_that_is_heard_elsewhere_is_under_way(tmp_path: Path, home: Path) -> None:
    with log_of() as log:
        left = clean.leftovers(tmp_path, "r", home / "state", home / "cache", log)

        class Beating(MemoryLog):
            """Its master beats once somebody listens."""

            def reader(self):  # type: ignore[no-untyped-def]
                reader = super().reader()
                follow = reader.follow

                def listened(topic: str, offset: int, need: int | None = None) -> None:
                    follow(topic, offset, need)
                    if topic == "hermes.r.logs":
                        log.append(topic, encode(MasterBeat(1, "n", 1)))

                reader.follow = listened  # type: ignore[method-assign]
                return reader

        with pytest.raises(RunError, match="its master is heard"):
            clean.refuse_live(tmp_path, left, Beating(_store=log._store))


def test_a_run_that_nobody_beats_for_may_go(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hermes.runtime.observe.beating", lambda *_: set())
    monkeypatch.setattr(clean, "beating", lambda *_: set())
    with log_of() as log:
        log.append("hermes.r.logs", encode(LogLine("master", "info", "", "the last words")))
        left = clean.leftovers(tmp_path, "r", home / "state", home / "cache", log)
        clean.refuse_live(tmp_path, left, log)


BAD = [
    ("clean: which run?", ["clean"], "Which run?"),
    ("clean: two things at once", ["clean", "r", "--caches"], "one run, or --caches"),
    ("clean: an unknown run", ["clean", "nope", "--yes"], "there is no run 'nope'"),
    ("clean: no run id", ["clean", "../r", "--yes"], "is not a run id"),
    ("clean: nobody to ask", ["clean", "r"], "Add --yes"),
    ("clean: nobody to ask, in JSON", ["clean", "r", "--json"], "Add --yes"),
    ("clean: a broker that is not there", ["clean", "r", "--broker", NOBODY], "nothing listens"),
]


@pytest.mark.parametrize(("title", "args", "what"), BAD)
def test_bad_wishes_are_refused_and_nothing_goes(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    shown: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    title: str,
    args: list[str],
    what: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    folder = left_by(tmp_path, "r", [])
    before = files(tmp_path)
    code = run(args)
    text = capsys.readouterr().err
    shown(title, f"hermes {' '.join(args)}", code, text)
    assert code == (3 if "--broker" in args else 2)
    assert what in text
    assert files(tmp_path) == before
    assert folder.path.is_dir()


def test_a_bad_place_a_folder_that_is_a_link(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shown: Callable[..., None]
) -> None:
    left_by(tmp_path / "elsewhere", "r", [])
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "r").symlink_to(tmp_path / "elsewhere" / "runs" / "r")
    before = files(tmp_path)
    code = run(["clean", "r", "--yes"])
    text = capsys.readouterr().err
    shown("clean: a folder that is a link", "hermes clean r --yes", code, text)
    assert (code, files(tmp_path)) == (2, before)
    assert "links are not followed" in text


def test_a_bad_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(UsageError, match="Permission denied") as caught:
        clean.unlink([tmp_path / "x"])
    assert caught.value.where == str(tmp_path / "x")


# --- how it is told -----------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "gone"), [("y\n", True), ("n\n", False), ("", False)])
def test_it_asks_at_a_terminal(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    gone: bool,
) -> None:
    folder = left_by(tmp_path, "r", [])
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert run(["clean", "r"]) == 0
    told = capsys.readouterr()
    assert "Remove all this? [y/N]" in told.err
    assert "model.safetensors" in told.out
    assert folder.path.exists() != gone


def test_a_dry_run_removes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left_by(tmp_path, "r", [])
    before = files(tmp_path)
    assert run(["clean", "r", "--dry-run", "--yes"]) == 0
    told = capsys.readouterr()
    assert "nothing was removed" in told.err
    assert files(tmp_path) == before
    for name in MADE:
        assert f"  {name}  " in told.out


def test_in_json_every_file_is_named(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = left_by(tmp_path, "r", [block(home, b"alone")])
    (folder.path / "notes.txt").write_text("mine")
    assert run(["clean", "r", "--yes", "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["removed"] is True
    assert found["broker"] is None
    assert [Path(file["path"]).relative_to(folder.path).as_posix() for file in found["files"]] == (
        list(MADE)
    )
    assert found["blocks"] == {"count": 1, "bytes": 5}
    assert found["left_alone"] == [str(folder.path / "notes.txt")]
    assert f"--broker {NOBODY}" in told.err, "topics could not be removed, and it says so"


# --- the caches ---------------------------------------------------------------------------------


def test_caches_go_and_kafkas_files_only_when_asked_for(home: Path) -> None:
    cache = home / "cache"
    block(home, b"one")
    (cache / "blocks" / ("0" * 32 + ".part")).write_bytes(b"half")
    (cache / "blocks" / "mine.txt").write_text("mine")
    for name in ("kafka-4.3.1", "fetching-abc", "fetching-new", "kafka-mine"):
        (cache / name).mkdir()
        (cache / name / "a.jar").write_bytes(b"12345")
    os.utime(cache / "fetching-abc", (0, 0))
    (cache / "kafka-9.9").symlink_to(cache / "kafka-mine")
    assert [t.path.name for t in caches(cache, everything=False).folders] == ["fetching-abc"]
    assert run(["clean", "--caches", "--yes", "--quiet"]) == 0
    kept = ["blocks", "fetching-new", "kafka-4.3.1", "kafka-9.9", "kafka-mine"]
    assert sorted(path.name for path in cache.iterdir()) == kept
    assert files(cache / "blocks") == ["mine.txt"]
    assert run(["clean", "--caches", "--all", "--yes", "--quiet"]) == 0
    kept.remove("kafka-4.3.1")
    assert sorted(path.name for path in cache.iterdir()) == kept
    assert run(["clean", "--caches", "--yes", "--quiet"]) == 0, "again is no error"
