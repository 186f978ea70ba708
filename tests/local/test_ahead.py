"""Do rounds that are trained aside, ahead of virtual time, come to what they come to in place?"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from commands import DIGITS, ENDLESS, ROOT, Shell, wait_for

from hermes.data.order import Part, batches
from hermes.errors import JobError, RunFailed
from hermes.jobfile import build, load_source
from hermes.machine.events import Segment, Train
from hermes.messages import JobSource
from hermes.policy.presets import resolve
from hermes.simulate import wire
from hermes.simulate.ahead import Process, placed
from hermes.simulate.devices import load
from hermes.simulate.driver import work_of
from hermes.simulate.modelled import ModelledRun, drive

EDGE = ROOT / "conf" / "devices" / "edge12.json"
MNIST = str(ROOT / "examples" / "mnist.py")

FAILS = """
import hermes
from hermes import nn

class Odd(nn.Linear):
    steps = 0
    def forward(self, x):
        Odd.steps += 1
        if Odd.steps > 40:
            raise ValueError("no more of this")
        return super().forward(x)

job = hermes.Job(model=lambda: nn.Sequential(nn.Flatten(), Odd(64, 10)), data=hermes.data.digits,
                 loss=nn.CrossEntropy(), optimizer=lambda p: nn.SGD(p, lr=0.1), batch=32)
"""

HALVES = {"codec__up": "fp16", "codec__down": "fp16"}

ONE_BAD = """
import hermes
from hermes import nn

def data():
    x, y = hermes.data.digits()
    x = x.copy()
    x[90] = 1e6
    return x, y

class Picky(nn.CrossEntropy):
    def forward(self, outputs, labels):
        if abs(outputs).max() > 1e4:
            raise ValueError("a bad sample")
        return super().forward(outputs, labels)

job = hermes.Job(model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), data=data,
                 loss=Picky(), optimizer=lambda p: nn.SGD(p, lr=0.1), batch=32)
"""

COUNTS = """
import hermes
from hermes import nn

class Counted(nn.SGD):
    def step(self, *given):
        super().step(*given)
        with open("{steps}", "a") as file:
            file.write("1")

job = hermes.Job(model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
                 data=hermes.data.digits, loss=nn.CrossEntropy(),
                 optimizer=lambda p: Counted(p, lr=0.1), batch=32)
"""


def modelled(file: str, folder: Path, strategy: str, *args: str, **settings: Any) -> ModelledRun:
    """A run of this job on twelve devices."""
    source = load_source(file)
    job = build(source.text, source.name, args)
    layer = {key.replace("__", "."): value for key, value in settings.items()}
    folder.mkdir()
    run = ModelledRun(job, resolve(strategy, [job.settings(), layer]), 0, folder, load(EDGE))
    run.source, run.threads = JobSource(source.name, source.text, args), 1
    return run


@pytest.mark.parametrize(
    ("file", "args", "strategy", "settings"),
    [
        (DIGITS, (), "asp", {"stop__samples": 3000}),
        (DIGITS, (), "hermes-paper", {"stop__samples": 3000}),
        (MNIST, ("--smoke",), "fedbuff", {"stop__versions": 2, "round__steps": 3}),
        (DIGITS, (), "hermes", {"stop__versions": 6, "gate__rate": 0.5, **HALVES}),
    ],
)
def test_the_same_with_one_process_and_with_two(
    file: str, args: tuple[str, ...], strategy: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Ledger and weights, byte for byte, twice: numpy and torch, by whoever waits and by whoever
    goes on from what is not decided. No process is left."""
    found = set()
    for number, processes in enumerate((1, 2, 2) if file == DIGITS else (1, 2)):
        run = modelled(file, tmp_path / str(number), strategy, *args, **settings)
        driver = run.driver(processes)
        try:
            drive(driver, [], lambda: None)
            pids = run.crew.pids if run.crew else ()
        finally:
            run.close()
        assert len(pids) == (processes if processes > 1 else 0)
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        newest = driver.watch.state.newest
        assert newest is not None
        assert newest.version >= 2
        found.add((newest.payload.digest, driver.watch.state.authority.chain))
    assert len(found) == 1


def test_what_is_under_way_when_a_run_ends_is_not_trained(tmp_path: Path) -> None:
    """In place, where it would be time lost: each step that was done is in a round that ended."""
    job, steps = tmp_path / "counts.py", tmp_path / "steps"
    job.write_text(COUNTS.format(steps=steps))
    settings = {"stop__versions": 4, "round__steps": 5}
    run = modelled(str(job), tmp_path / "run", "asp", **settings)
    driver = run.driver()
    drive(driver, [], lambda: None)
    counted = sum(member.rounds for member in driver.watch.state.members.values())
    trained, rest = divmod(len(steps.read_text()), 5)
    assert rest == 0
    assert 4 <= counted <= trained < 12  # some had ended, and nobody had heard; twelve had begun


@pytest.mark.parametrize("processes", [1, 2])
def test_what_fails_in_a_round_is_told_when_that_is_due(processes: int, tmp_path: Path) -> None:
    """Whatever the number of processes, and however quick they are: in a run of
    four versions the round with the bad sample does not end."""
    job = tmp_path / "bad.py"
    job.write_text(ONE_BAD)

    def ended(versions: int) -> int:
        folder = tmp_path / f"{versions}"
        settings = {"stop__versions": versions, "round__steps": 5}
        run = modelled(str(job), folder, "asp", **settings)
        driver = run.driver(processes)
        try:
            drive(driver, [], lambda: None)
        finally:
            run.close()
        newest = driver.watch.state.newest
        assert newest is not None
        return newest.version

    assert ended(4) == 4
    with pytest.raises(JobError, match="a bad sample"):
        ended(100)


def test_a_process_that_dies_and_a_job_that_raises_are_told(tmp_path: Path) -> None:
    """In one's own words, and nothing hangs."""
    run = modelled(DIGITS, tmp_path / "a", "fedavg", stop__samples=10**9)
    driver = run.driver(2)
    assert run.crew is not None
    try:
        driver.run(steps=2000)
        os.kill(run.crew.pids[0], signal.SIGKILL)
        with pytest.raises(RunFailed, match="has ended by signal 9"):
            driver.run_on(steps=10**6)
    finally:
        run.close()
    job = tmp_path / "fails.py"
    job.write_text(FAILS)
    run = modelled(str(job), tmp_path / "b", "fedavg", stop__samples=10**9)
    driver = run.driver(2)
    try:
        with pytest.raises(JobError, match="no more of this"):
            driver.run(steps=10**6)
    finally:
        run.close()


def test_ctrl_c_leaves_no_process_behind(shell: Shell) -> None:
    """Nor does the death of whoever wanted them."""
    say = ("simulate", DIGITS, "--devices", str(EDGE), "--strategy", "bsp", *ENDLESS)
    going = shell.start(*say, "--processes", "2")
    wait_for(going, r"version \d")
    assert sum("hermes.simulate.aside" in line for line in shell.left_behind()) == 2
    going.send_signal(signal.SIGINT)
    assert going.wait(60) == 130
    assert shell.left_behind() == []


def test_with_whoever_wanted_it_gone_a_process_ends(tmp_path: Path) -> None:
    """Its stdin ends, whatever it is at; and an answer never comes twice."""
    run = modelled(DIGITS, tmp_path / "a", "fedavg")
    opening = wire.Opening(run.source, "cpu", {}, 0, 1, str(tmp_path))
    process = Process(opening)
    process.close()
    assert not Path(f"/proc/{process.pid}").exists()
    with pytest.raises(RunFailed, match="a process that trains"):
        process.ask(1, 0, wire.Pack("1"))


def test_work_is_what_batches_make_of_a_round() -> None:
    """Known before it is trained, as the device's time is."""
    import numpy as np

    x = np.zeros((50, 1))
    for joined in (False, True):
        for stops in ([7], [8, 3], [16, 1, 50], [5, 5, 5]):
            segments = tuple(Segment(n, 0, 0, stop, 50) for n, stop in enumerate(stops))
            action = Train(1, segments, 8, joined, 0.0, "")
            parts = [Part(x, x, np.arange(stop)) for stop in stops]
            cuts = list(batches(parts, 8, joined=joined))
            assert work_of(action) == (len(cuts), sum(len(cut) for cut, _ in cuts))


def test_processes_have_about_as_much_to_do() -> None:
    """By the devices' speeds."""
    speeds = {"a": 1.0, "b": 0.5, "c": 0.3, "d": 0.2, "e": 0.1}
    where = placed(speeds, 2)
    loads = [sum(s for name, s in speeds.items() if where[name] == n) for n in (0, 1)]
    assert sorted(loads) == pytest.approx([1.0, 1.1])
    assert set(placed(speeds, 8).values()) == {0, 1, 2, 3, 4}
