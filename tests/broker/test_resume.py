"""A run whose master is gone goes on with the same weights; and who may not go on is told why."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from commands import DIGITS, ENDLESS, Shell

from hermes.broker.control import Child
from hermes.machine.state import MasterState
from hermes.perform.ledger import Ledger
from hermes.transport import names
from hermes.transport.kafka import KafkaLog

pytestmark = pytest.mark.broker


def until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait for it, so long at most."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


class Run:
    """A run of two workers whose pieces are processes of their own."""

    def __init__(self, shell: Shell, broker: Child) -> None:
        self.shell, self.broker = shell, broker
        self.name = f"again-{uuid4().hex[:8]}"
        self.log = KafkaLog(broker.address).connect()
        self.at = ("--broker", broker.address)

    def begin(self, *more: str) -> None:
        """A master, and its workers."""
        args = ("master", DIGITS, *self.at, "--run", self.name, "--expect", "2", *ENDLESS, *more)
        self.master = self.shell.start(*args)
        for number in (1, 2):
            name = f"worker-{number}"
            self.shell.start(
                "worker", *self.at, "--run", self.name, "--name", name, "--speed", "0.5"
            )

    def state(self) -> MasterState:
        """As the ledger has it."""
        ledger = Ledger(self.log, names.physical(self.name, names.LEDGER))
        ledger.fold()
        return ledger.state

    def reaches(self, version: int) -> MasterState:
        """Wait until there is a version like this."""

        def there() -> bool:
            topic = names.physical(self.name, names.LEDGER)
            if topic not in self.log.topics(topic):
                return False
            newest = self.state().newest
            return newest is not None and newest.version >= version

        until(there, 60)
        return self.state()

    def kill_master(self) -> MasterState:
        """Its process is gone, at once."""
        self.master.send_signal(signal.SIGKILL)
        self.master.wait(10)
        return self.state()


@pytest.fixture
def run(shell: Shell, embedded: Child) -> Iterator[Run]:
    made = Run(shell, embedded)
    yield made
    made.log.close()


def test_a_run_goes_on_after_its_master_was_killed(run: Run) -> None:
    """With nothing typed but the run: the same weights, workers that waited, one history; then
    again with another end, and its books are right."""
    run.begin()
    before = run.reaches(2)
    died = run.kill_master()
    assert died.stopped is None
    going_on = run.shell.start("resume", run.name, "--json")
    after = run.reaches(died.newest.version + 2 if died.newest else 4)
    assert after.authority.term == 2
    assert {m.incarnation for m in after.members.values()} == {
        m.incarnation for m in before.members.values()
    }, "the very same workers"
    assert run.shell("stop", run.name).returncode == 0
    out, err = going_on.communicate(timeout=60)
    assert going_on.returncode == 0, err
    result = json.loads(out)
    updates = result["updates"]
    assert updates["pushed"] == updates["applied"] + updates["rejected"] + updates["undecided"]
    assert result["version"] >= after.newest.version if after.newest else False
    log = (run.shell.folder / "runs" / run.name / "central.log").read_text("utf-8")
    assert log.count("Master has been successfully initialized!") == 1, "no line twice"
    assert "The run goes on from version" in log

    # A run that was stopped goes on, too, with workers of this machine; then it has finished.
    last = result["version"] + 2
    more = ("--set", f"stop.versions={last}", "--workers", "2", "--json")
    done = run.shell("resume", run.name, *more)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"] == last
    assert json.loads(done.stdout)["status"] == "finished"
    found = run.shell("verify", run.name, "--json")
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_bad_time_to_resume_is_told(run: Run, shown: Callable[..., None], tmp_path: Path) -> None:
    """A live run, an unknown one, another job, another key, a setting that is another run's."""
    run.begin()
    run.reaches(1)
    other = tmp_path / "other.py"
    other.write_text(Path(DIGITS).read_text("utf-8") + "\n# another\n", "utf-8")
    key = tmp_path / "other.key"
    key.write_text("ab" * 32 + "\n", "utf-8")
    key.chmod(0o600)
    tries = {
        "resume of a run that lives": ("resume", run.name),
        "resume of a run that is not there": ("resume", "nothing-here", *run.at),
        "a master for a run of another job": ("master", str(other), *run.at, "--run", run.name),
        "resume with another cluster key": ("resume", run.name, "--key-file", str(key)),
        "resume with what makes another run": (
            "resume",
            run.name,
            "--take-over",
            "--set",
            "gate.alpha=-1",
        ),
    }
    says = {
        "resume of a run that lives": "its master lives",
        "resume of a run that is not there": "there is no run 'nothing-here'",
        "a master for a run of another job": "the run was opened with another job",
        "resume with another cluster key": "another cluster key",
        "resume with what makes another run": "hermes fork",
    }
    for what, args in tries.items():
        done = run.shell(*args)
        shown(what, f"hermes {' '.join(args[:2])}", done.returncode, done.stderr)
        assert done.returncode == 2, (what, done.stderr)
        assert says[what] in done.stderr, what
        assert "Traceback" not in done.stderr
    assert run.state().authority.term == 1, "nobody has claimed it"
    assert run.shell("stop", run.name).returncode == 0
    assert run.master.wait(60) == 0


def test_a_master_that_is_taken_over_ends_and_a_finished_run_says_so(
    run: Run, shown: Callable[..., None]
) -> None:
    run.begin()
    state = run.reaches(1)
    assert state.newest is not None
    end = state.newest.version + 6
    taker = run.shell.start("resume", run.name, "--take-over", "--set", f"stop.versions={end}")
    assert run.master.wait(60) == 4, "fenced"
    told = run.master.stderr.read() if run.master.stderr else ""
    assert "another master (term 2) has taken over this run" in told
    assert taker.wait(90) == 0
    again = run.shell("resume", run.name)
    shown("resume of a finished run", "hermes resume RUN", again.returncode, again.stderr)
    assert again.returncode == 2
    assert f"stop.versions={end} is reached" in again.stderr
    assert run.state().authority.term == 2


def test_an_embedded_broker_of_a_runs_own_takes_its_records_along(
    shell: Shell, shown: Callable[..., None]
) -> None:
    """`hermes run` was killed: what it leaves is in its folder, and `resume` says so."""
    args = ("run", DIGITS, "--run", "own", "--workers", "1", *ENDLESS)
    process = shell.start(*args)
    note = shell.folder / "runs" / "own" / "run.json"
    until(note.exists, 30)
    until((note.parent / "log" / "ledger.records").exists, 30)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    until(lambda: not shell.left_behind(), 20)
    done = shell("resume")
    shown("resume of a run whose broker was its own", "hermes resume", done.returncode, done.stderr)
    assert done.returncode == 2
    assert "its broker was an embedded one of its own and ended with it" in done.stderr
