"""Do the commands say what is wrong, with the documented exit code, and show what was saved?"""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from hermes.broker.process import identity
from hermes.cli.app import app
from hermes.cli.connect import FIRST
from hermes.cli.entry import run
from hermes.cli.joining import Token, read_token
from hermes.cli.prepare import Wishes, new_run_id, parse_speeds, settings_of
from hermes.cli.trouble import exit_code_of, interrupted_with
from hermes.errors import UsageError
from hermes.jobfile import build, load_source
from hermes.messages import LogLine
from hermes.policy.presets import resolve
from hermes.report import picture, words
from hermes.report.story import Story
from hermes.runtime.archive import Archive, fold_archive
from hermes.runtime.folder import RunFolder, RunNote
from hermes.runtime.keys import cluster_key, fingerprint
from hermes.runtime.logs import CentralLog, utc_now
from hermes.runtime.observe import saved
from hermes.simulate.driver import Driver
from hermes.simulate.faults import records_of
from hermes.simulate.local import LocalRun
from hermes.transport.log import Record

REPOSITORY = Path(__file__).parents[2]
DIGITS = str(REPOSITORY / "examples" / "digits.py")
NOBODY = "127.0.0.1:9"
COMMANDS = ("demo", "run", "master", "worker", "broker", "runs", "status", "logs", "stop", "clean")

JOB = """\
import hermes
from hermes import nn

def model():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

job = hermes.Job(model=model, data=hermes.data.digits, loss=nn.CrossEntropy(),
                 optimizer=lambda params: nn.SGD(params, lr=0.1))
"""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of the test's own, and no variable of the person who runs the tests."""
    for name in [name for name in os.environ if name.startswith("HERMES_")]:
        monkeypatch.delenv(name)
    for name in ("CONFIG", "STATE", "CACHE"):
        monkeypatch.setenv(f"HERMES_{name}", str(tmp_path / "home" / name.lower()))
    monkeypatch.chdir(tmp_path)


# --- a saved run, made in deterministic mode ----------------------------------------------------


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """The ledger of a whole run: four workers, the last one slow."""
    source = load_source(DIGITS)
    job = build(source.text, source.name)
    settings = resolve("hermes-paper", [job.settings(), {"stop.samples": 60_000}])
    local = LocalRun(job, settings, 0, tmp_path_factory.mktemp("simulated"))
    driver = Driver(local.setup({"worker-1": 1, "worker-2": 1, "worker-3": 0.5, "worker-4": 0.1}))
    assert driver.run().finished
    return list(records_of(driver.log, driver.topic))


def save(out: Path, run: str, records: list[Record], pid: int = 0) -> RunFolder:
    folder = RunFolder(out, run)
    folder.create()
    archive = Archive(folder.ledger)
    for record in records:
        archive.add(record)
    archive.close()
    central = CentralLog(folder.central_log)
    central.write(LogLine("master", "info", "2026-01-02T03:04:05.678Z", "worker-4 is admitted"))
    central.write(LogLine("worker-4", "warning", utc_now(), "a line\nand its second half"))
    central.close()
    if pid:
        folder.take_note(RunNote(run, NOBODY, pid, identity(pid) or "", utc_now()))
    return folder


@pytest.fixture
def finished(tmp_path: Path, records: list[Record]) -> RunFolder:
    return save(tmp_path, "simulated", records)


# --- what there is ------------------------------------------------------------------------------


def test_help_lists_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"\b{command} ", shown)
    assert "130 interrupted" in shown
    for command in COMMANDS:
        assert run([command, "--help"]) == 0
        assert f"hermes {command}" in capsys.readouterr().out


def commands(group, path: tuple[str, ...] = ()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_every_flag_has_its_variable() -> None:
    exempt = {"--help", "--follow", "--state", "--cache"}  # the last two: HERMES_STATE as a root
    for path, command in commands(get_command(app)):
        for param in command.params:
            flags = [flag for flag in param.opts if flag.startswith("--")]
            if flags and not exempt & set(flags):
                assert str(param.envvar).startswith("HERMES_"), (path, flags)


def test_no_command_is_wrong_usage_and_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    shown = capsys.readouterr()
    assert "master" in shown.out + shown.err


def test_the_program_starts_without_numpy() -> None:
    program = (
        "import sys; from hermes.cli.entry import run; run(['--version']);"
        "sys.exit('numpy' in sys.modules or 'kafka' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout[:7]) == (0, "hermes ")


# --- bad input ----------------------------------------------------------------------------------

BAD = [
    (["run", "absent.py"], 2, "absent.py: there is no such job file"),
    (["master", "absent.py"], 2, "absent.py: there is no such job file"),
    (["run", "raises.py"], 2, "raises.py:2: the job file raises ValueError: out of luck"),
    (["run", "nojob.py"], 2, "nojob.py: the job file defines no `job`"),
    (["run", "job.py", "--set", "gate.alhpa=1"], 2, "Did you mean gate.alpha?"),
    (["run", "job.py", "--set", "gate.alpha=high"], 2, '--set: gate.alpha is "high"'),
    (["run", "job.py", "--set", "stop.samples=0"], 2, "stop.samples is 0"),
    (["run", "job.py", "--set", "nonsense"], 2, "is not KEY=VALUE"),
    (["run", "job.py", "--strategy", "hermes-papr"], 2, "Did you mean hermes-paper?"),
    (["run", "job.py", "--workers", "0"], 2, "0 workers"),
    (["run", "job.py", "--workers", "three"], 2, "--workers: 'three' is no whole number"),
    (["run", "job.py", "--workers", "3", "--speeds", "1,1"], 2, "2 speeds for 3 workers"),
    (["run", "job.py", "--speeds", "1,fast"], 2, "--speeds: '1,fast' is no list of speeds"),
    (["run", "job.py", "--speeds", "1,0"], 2, "--speeds: 0 is no speed"),
    (["run", "job.py", "--run", "A run"], 2, "'A run' is not a run id"),
    (["run", "job.py", "--device", "cuda:0"], 2, "the device is cuda:0"),
    (["run", "job.py", "--key-file", "none.key"], 2, "none.key: the cluster key cannot be read"),
    (["run", "job.py", "--", "x"], 2, "the job takes no ARGS"),
    (["run", "job.py", "--frobnicate"], 2, "no such option: --frobnicate"),
    (["report", "--run", "one"], 2, "RUN is named without one (hermes report RUN)"),
    (["verify", "--run", "one"], 2, "RUN is named without one (hermes verify RUN)"),
    (["run", "job.py", "--args", "x"], 2, "no such option: --args"),
    (["run", "job.py", "--broker", "nonsense"], 2, "'nonsense' is not HOST:PORT"),
    (["run", "job.py", "--broker", NOBODY, "--patience", "0"], 3, "nothing listens there"),
    (["master", "job.py", "--broker", NOBODY, "--patience", "0"], 3, "nothing listens there"),
    (["master", "job.py", "--expect", "0"], 2, "0 workers are expected"),
    (["worker", "--broker", NOBODY, "--patience", "0"], 3, "nothing listens there"),
    (["worker", "--broker", NOBODY, "--name", "A"], 2, "'A' is not a worker's name"),
    (["worker", "--broker", NOBODY, "--speed", "0"], 2, "--speed: 0 is out of range"),
    (["worker", "--join", "nonsense"], 2, "this is not a token"),
    (["status"], 2, "there is no run here"),
    (["status", "nope"], 2, "there is no run 'nope'"),
    (["status", "--watch"], 2, "there is no run here"),
    (["status", "nope", "--watch", "--broker", NOBODY], 3, "nothing listens there"),
    (["status", "--watch", "--every", "0.1"], 2, "--every: '0.1' is not 0.25 or more"),
    (["status", "nope", "--broker", NOBODY], 3, "nothing listens there"),
    (["runs", "--broker", NOBODY], 3, "nothing listens there"),
    (["logs", "nope"], 2, "there is no run 'nope'"),
    (["stop"], 2, "no run is under way"),
    (["stop", "nope"], 2, "there is no run 'nope'"),
    (["broker", "stop"], 2, "no broker that Hermes started runs"),
    (["broker", "start", "--kind", "rabbit"], 2, "--kind: 'rabbit' is not one of"),
    (["frobnicate"], 2, "no such command 'frobnicate'"),
]


@pytest.mark.parametrize(("args", "code", "said"), BAD, ids=lambda value: str(value)[:60])
def test_bad_input_gives_one_message_and_its_exit_code(
    args: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "raises.py").write_text("import hermes\nraise ValueError('out of luck')\n")
    (tmp_path / "nojob.py").write_text("x = 1\n")
    started = time.perf_counter()
    assert run(args) == code
    assert time.perf_counter() - started < 5
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert shown.err.count("error: ") == 1
    assert "\n  " in shown.err, "a remedy"
    assert "Traceback" not in shown.err
    assert not (tmp_path / "runs").exists()


class Page(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web_server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("args", [["run", DIGITS], ["master", DIGITS], ["worker"], ["status", "x"]])
def test_a_broker_that_is_none_is_named(
    args: list[str], web_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.perf_counter()
    assert run([*args, "--broker", web_server]) == 3
    assert time.perf_counter() - started < 5
    assert "not a Kafka broker: it is a web server" in capsys.readouterr().err


WAITING = f"""
import sys, threading, time
from hermes.cli.entry import run

class Patient(threading.Event):
    def wait(self, timeout=None):
        waits.append(timeout)
        return super().wait(timeout)

def sleep(seconds):
    waits.append(seconds)
    sleeping(seconds)

waits, sleeping = [], time.sleep
threading.Event, time.sleep = Patient, sleep
code = run(["master", {DIGITS!r}, "--broker", {NOBODY!r}])
print(sum(waits), time.process_time())
sys.exit(code)
"""


def test_a_broker_that_is_not_there_is_waited_for_shortly(tmp_path: Path) -> None:
    """A cause is told within 5 s: what it waits, and what it computes, the start of Python included
    (how long that takes beside other work is not ours)."""
    command = [sys.executable, "-c", WAITING]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "nothing listens there" in done.stderr
    waited, computed = map(float, done.stdout.split())
    assert 1 < waited <= FIRST
    assert waited + computed < 5


def test_a_job_file_is_its_own_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, DIGITS, "--expect", "0"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "0 workers are expected" in done.stderr


def test_a_defect_of_ours_leaves_its_traceback_in_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        _ = 1 / 0
    assert exit_code_of(caught.value) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (path,) = (tmp_path / "home" / "state" / "defects").iterdir()
    assert str(path) in said
    assert "ZeroDivisionError" in path.read_text()


# --- what words mean ----------------------------------------------------------------------------


def test_run_ids() -> None:
    assert re.fullmatch(r"digits-\d{4}-\d{4}-[a-z2-9]{4}", new_run_id("examples/digits.py"))
    for name in ("Ünser Job (2).py", "x" * 90 + ".py", "__.py"):
        assert re.fullmatch(r"[a-z0-9-]{1,40}", new_run_id(name))
    assert len({new_run_id("a.py") for _ in range(20)}) == 20


def test_a_flag_wins_over_its_variable_and_both_over_the_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HERMES_SET", "stop.samples=2 stop.versions=2")
    wishes = Wishes("j.py", (), None, ("stop.samples=3",), 0, Path(), None, None, False)
    text = JOB.replace(
        "job = hermes.Job(", "job = hermes.Job(stop=hermes.Stop(samples=1, versions=1, loss=1.0), "
    )
    stop = settings_of(wishes, build(text, "j.py")).stop
    assert (stop.samples, stop.versions, stop.loss) == (3, 2, 1.0)


def test_a_run_that_nothing_stops_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    wishes = Wishes("j.py", (), None, (), 0, Path(), None, None, False)
    settings_of(wishes, build(JOB, "j.py"))
    assert "no stopping rule" in capsys.readouterr().err


def test_speeds() -> None:
    assert parse_speeds(None) is None
    assert parse_speeds("1, 0.5,.1") == (1, 0.5, 0.1)


def test_tokens_hold_no_key_and_are_checked_against_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = cluster_key()
    token = Token(NOBODY, "a-run", fingerprint(key))
    assert read_token(token.text()) == token
    assert key.hex() not in token.text()
    for text in ("", "e30", "%%", token.text()[:-9]):
        with pytest.raises(UsageError, match="not a token"):
            read_token(text)
    other = tmp_path / "other.key"
    other.write_text("ab" * 32)
    other.chmod(0o600)
    assert run(["worker", "--join", token.text(), "--key-file", str(other)]) == 2
    assert f"the master has the cluster key {token.key}" in capsys.readouterr().err


# --- looking at what was saved ------------------------------------------------------------------


def test_status_of_a_saved_run(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["status"], ["status", "simulated"]):
        assert run(args) == 0
        shown = capsys.readouterr().out
        assert "finished: samples" in shown
        assert re.search(r"worker-4: 314 -> \d+ samples: its round took [\d.]+ m?s, the", shown)
        assert "Q1 .. Q3" in shown


def test_status_as_json(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert shown.out.count("\n") == 1
    assert shown.err == ""
    assert (found["run"], found["source"], found["status"]) == ("simulated", "saved", "finished")
    assert found["stop"]["code"] == "samples"
    assert sum(worker["samples"] for worker in found["workers"].values()) == found["samples"]
    assert found["reallocations"] == len(found["resizings"]) > 0
    slow = next(r for r in found["resizings"] if r["worker"] == "worker-4")
    assert slow["after"] < slow["before"]
    assert {"time", "q1", "q3", "median", "a", "b", "steps"} <= set(slow["facts"])


def test_a_run_whose_master_is_gone(
    tmp_path: Path, records: list[Record], capsys: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    save(tmp_path, "cut", records[: len(records) // 2], pid=gone.pid)
    assert run(["status"]) == 0
    assert "broken off" in capsys.readouterr().out
    assert run(["runs", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["runs"]
    assert (row["run"], row["status"]) == ("cut", "broken off")


def test_runs(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs"]) == 0
    assert re.search(r"simulated +finished +hermes-paper", capsys.readouterr().out)
    assert run(["runs", "--out", "elsewhere", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"runs": []}


def test_logs(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["logs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == finished.central_log.read_text().splitlines()
    assert run(["logs", "simulated", "-f", "--json"]) == 0
    first, second, third = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {
        "at": "2026-01-02T03:04:05.678Z",
        "source": "master",
        "level": "info",
        "text": "worker-4 is admitted",
    }
    assert (second["level"], third) == ("warning", {"text": "and its second half"})


def test_stop_never_guesses(
    tmp_path: Path, records: list[Record], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        save(tmp_path, name, records[: len(records) // 2], pid=os.getpid())
    save(tmp_path, "over", records, pid=os.getpid())
    assert run(["stop"]) == 2
    said = capsys.readouterr().err
    assert "several runs are under way" in said
    assert "one" in said
    assert "two" in said
    assert "over" not in said


def test_a_run_id_that_is_taken(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", DIGITS, "--run", "simulated"]) == 2
    assert "there is a run 'simulated' already" in capsys.readouterr().err


# --- pictures and words -------------------------------------------------------------------------


@pytest.fixture
def story(finished: RunFolder) -> Story:
    told = Story()
    saved(finished, told.read)
    return told


def test_the_story_agrees_with_the_fold(story: Story, finished: RunFolder) -> None:
    state = fold_archive(finished.ledger).state
    assert len(story.resizes) == state.resizes
    assert {name: known[-1][1] for name, known in story.shards.items()} == {
        name: member.size for name, member in state.members.items()
    }
    assert {name: len(times) for name, times in story.pushes.items()} == {
        name: member.pushes for name, member in state.members.items() if member.pushes
    }
    assert story.points[-1].loss == state.scores["validation_loss"]


def test_the_picture(story: Story, tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    picture.draw(story, "a run", path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    picture.draw(Story(), "a run of nothing", path)


def test_numbers_for_people() -> None:
    assert [words.duration(s) for s in (0.0123, 3.25, 245, 7400)] == [
        "12.3 ms",
        "3.2 s",
        "4 min 05 s",
        "2 h 03 min",
    ]
    assert [words.size(n) for n in (12, 1500, 2_500_000)] == ["12 B", "1.5 kB", "2.5 MB"]
    assert words.sparkline([0, 1, 2, 3]) == "▁▃▆█"
    assert words.sparkline([4627, 2936], zero=True) == "█▆", "63 % is not the least of all"
    assert words.sparkline([]) == ""
    assert len(words.sparkline(list(range(1000)))) == 24


def test_an_interrupt_says_what_is_left_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    """The words come before it ends the command; without one there are none."""
    with interrupted_with(lambda: "nothing was run"):
        pass
    assert capsys.readouterr().err == ""
    with pytest.raises(KeyboardInterrupt), interrupted_with(lambda: "nothing was run"):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "nothing was run\n"
