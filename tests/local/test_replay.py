"""Does a replay come to every bit of a run, and does it name what it does not come to?"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blurred import JOB, finished
from commands import Shown
from crew import ALONE, KEY, Crew
from msgspec.structs import replace
from test_verify import copied, ledger_of, reseal

import hermes
from hermes import nn
from hermes.cli.entry import run as command
from hermes.data.cache import BlockCache
from hermes.errors import RunError
from hermes.messages import (
    BlocksGranted,
    DataPublished,
    RoundNoted,
    UpdateTaken,
    VersionPublished,
)
from hermes.perform.blocks import Blocks, read_upload
from hermes.perform.store import Store
from hermes.policy.presets import resolve
from hermes.replay.fit import fit
from hermes.replay.run import Material, Replayed, replay
from hermes.replay.spans import spans_of
from hermes.replay.story import Story
from hermes.runtime.exported import export_log
from hermes.runtime.sources import at_broker, training
from hermes.runtime.trying import fresh_trainer
from hermes.simulate.devices import Device, Link, Loaded, MasterMachine, World, read
from hermes.simulate.faults import Faults, MasterFault, WorkerFault, records_of
from hermes.simulate.local import RUN
from hermes.simulate.modelled import ModelledRun, drive
from hermes.transport import names
from hermes.transport.log import Log
from hermes.transport.memory import MemoryLog
from hermes.values import SECOND

SPEEDS = {"worker-1": 1.0, "worker-2": 0.8, "worker-3": 0.25}
FAULTS = Faults(
    duplicated=frozenset({5}),
    workers=(
        WorkerFault(SECOND // 2, "worker-2", "kill", SECOND),
        WorkerFault(SECOND // 3, "worker-3", "cut", 3 * SECOND),
    ),
    masters=(MasterFault(SECOND, "restart"), MasterFault(3 * SECOND // 2, "zombie")),
)
"""A death, a silence until it counts as lost, three masters."""

PRESETS: dict[str, dict[str, Any]] = {
    "bsp": {"stop.versions": 30},
    "ssp": {"stop.versions": 60, "round.steps": 8},
    "selsync": {"stop.versions": 8},
    "fedbuff": {"stop.versions": 16, "round.steps": 4},
    "hermes-paper": {"stop.versions": 10, "gate.alpha": -0.9},
    "hermes": {"stop.versions": 10},
}


def made(strategy: str, faults: Faults | None, **settings: Any) -> MemoryLog:
    """The log of a simulated run; few of its tensors are kept."""
    common = {"size.first": 80, "workers.lost": 1.5, "workers.heartbeat": 0.7}
    return finished(strategy, {**common, **PRESETS[strategy], **settings}, SPEEDS, faults).log


def again(log: Log, job: hermes.Job = JOB) -> Replayed:
    """Its replay, with this job."""
    with tempfile.TemporaryDirectory() as folder:

        def material(data: DataPublished, seed: int) -> Material:
            store = Store(log, RUN)
            _, manifest = read_upload(store, data)
            cache = BlockCache(Path(folder), 1 << 30)
            blocks = Blocks(store, manifest, cache)
            return Material(job, lambda: fresh_trainer(job, seed), lambda: blocks)

        return replay(at_broker(log, RUN), material)


@pytest.mark.parametrize("strategy", PRESETS)
def test_a_run_comes_to_the_same_bits_again(strategy: str) -> None:
    """Rounds, gates, updates, versions, momenta, decisions; masters and workers that died among
    them. Nothing is read of the run but its ledger and its data."""
    log = made(strategy, FAULTS)
    topics = log._store.topics
    for topic in [name for name in topics if not name.endswith((names.LEDGER, names.DATA))]:
        del topics[topic]
    found = again(log)
    assert found.finding is None
    state = Story().read(at_broker(log, RUN).ledger(0)).state
    assert state.newest is not None
    assert state.authority.term >= 2
    assert found.digest == state.newest.payload.digest
    assert found.versions == state.newest.version + 1
    assert found.rounds == sum(one.rounds for one in state.members.values()) > 8
    assert found.payloads >= found.versions + found.decided["UpdateTaken"]
    assert found.foreign == 0
    assert found.given.total() < found.decided.total() / 4


def test_workers_and_a_master_in_earnest_come_to_the_same_bits_again(tmp_path: Path) -> None:
    """Threads that race each other over one log: what chance decided is in the ledger."""
    crew = Crew(tmp_path, ALONE, "hermes", stop__versions=12, size__first=32).see_through(3)
    assert crew.error is None
    source = at_broker(crew.log, "r")
    with training(source, KEY, None, 1) as material:
        found = replay(source, material)
    assert found.finding is None
    assert (found.versions, found.digest) == (13, crew.result["digest"])


Change = Callable[[MemoryLog], int]


def heavier(log: MemoryLog) -> int:
    def change(entry: VersionPublished) -> VersionPublished:
        first, *others = entry.members
        return replace(entry, members=(replace(first, weight=2 * first.weight), *others))

    return reseal(log, VersionPublished, lambda entry: entry.version == 5, change)


CHANGES: dict[str, tuple[Change, str]] = {
    "a loss": (
        lambda log: reseal(
            log, RoundNoted, lambda e: e.round == 3, lambda e: replace(e, loss=e.loss + 1e-6)
        ),
        "round 3 of worker-1: loss is",
    ),
    "an update": (
        lambda log: reseal(
            log,
            UpdateTaken,
            lambda e: e.worker == "worker-2",
            lambda e: replace(
                e, update=replace(e.update, payload=replace(e.update.payload, digest="0" * 64))
            ),
        ),
        "update 1 of worker-2, round 1 of worker-2: the ledger names",
    ),
    "a weight": (heavier, "version 5, weights: it is ["),
    "a grant": (
        lambda log: reseal(
            log, BlocksGranted, lambda e: e.number == 3, lambda e: replace(e, size=e.size - 16)
        ),
        "BlocksGranted of worker-1: size is",
    ),
    "a moment": (
        lambda log: reseal(
            log, RoundNoted, lambda e: e.round == 4, lambda e: replace(e, upon=(e.upon[0] - 1,) * 2)
        ),
        "round 4 of worker-1: it acted upon",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_differs_is_named(what: str) -> None:
    """One thing changed, the chain made anew: the first that follows otherwise."""
    log = copied(made("bsp", None))
    change, text = CHANGES[what]
    offset = change(log)
    found = again(log).finding
    assert found is not None
    assert text in found.text
    assert found.offset == offset


def test_another_job_does_not_come_to_the_same() -> None:
    """A learning rate that differs in its last digits shows in the first update."""
    job = dataclasses.replace(JOB, optimizer=lambda p: nn.SGD(p, lr=0.1000001, momentum=0.5))
    found = again(made("bsp", None), job)
    assert found.finding is not None
    assert found.finding.entry.startswith("update 1 of worker-1")
    assert found.versions == 1


def test_what_cannot_be_replayed_is_refused() -> None:
    """A ledger of an older Hermes; one whose run went on from another's tensors."""
    log = copied(made("bsp", None))
    reseal(log, RoundNoted, lambda e: e.round == 2, lambda e: replace(e, upon=()))
    with pytest.raises(RunError, match="round 2 of worker-1 does not say upon which records"):
        again(log)
    short = copied(log)
    del ledger_of(short)[4:]
    with pytest.raises(RunError, match="no rounds that could be trained again"):
        again(short)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], shown: Shown) -> None:
    """An exported log, a key: exit code 0 and the digest; without its data, 2."""
    crew = Crew(tmp_path, ALONE, "fedavg", stop__versions=4, size__first=32).see_through(2)
    folder, key = tmp_path / "exported", tmp_path / "key"
    export_log(crew.log, "r", folder, "test")
    key.write_text(KEY.hex())
    key.chmod(0o600)
    typed = ["replay", str(folder), "--key-file", str(key)]
    assert command([*typed, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["same"], told["digest"]) == (True, crew.result["digest"])
    assert command(typed) == 0
    assert "the same, bit for bit" in capsys.readouterr().out
    saved = str(crew.folder.path)
    code = command(["replay", saved, "--key-file", str(key)])
    said = capsys.readouterr().err
    shown("a run is replayed whose broker is gone", "hermes replay r", code, said)
    assert code == 2
    assert "workers train on the run's data, which cannot be had" in said


# --- a model, fitted ----------------------------------------------------------------------------

WORLD = World(
    devices=(
        Device(name="one", speed=1.0, link="wire", round_ms=40.0, start_seconds=0.5),
        Device(name="two", speed=0.25, link="wire", round_ms=10.0, start_seconds=0.25),
    ),
    links={"wire": Link(latency_ms=8.0, up_mbit=1000.0, down_mbit=1000.0)},
    step_seconds=0.05,
    scoring=1000.0,
    master=MasterMachine(merge_ms=12.0, commit_ms=6.0),
)


def simulated(world: World, folder: Path, seed: int) -> Story:
    folder.mkdir()
    layer = {"stop.versions": 12, "size.first": 64, "size.rule": "speed", "round.steps": None}
    settings = resolve("fedavg", [JOB.settings(), {**layer, "round.epochs": 1}])
    run = ModelledRun(JOB, settings, seed, folder, Loaded("", "", world))
    driver = run.driver()
    drive(driver, [], lambda: None)
    return Story().read(records_of(driver.log, driver.topic))


def test_what_was_simulated_is_fitted_and_tells_another_run(tmp_path: Path) -> None:
    """Of a run on known devices the fit finds them; with it another seed takes the same time."""
    spans = spans_of(simulated(WORLD, tmp_path / "a", 1))
    found = fit(spans, 1000.0, "a run")
    devices = {device.name: device for device in found.world.devices}
    for device in WORLD.devices:
        again = devices[device.name]
        assert again.speed == pytest.approx(device.speed, rel=1e-3)
        assert again.round_ms == pytest.approx(device.round_ms, abs=0.5)
        assert again.jitter < 1e-3
        assert again.start_seconds == pytest.approx(device.start_seconds, abs=0.02)
    assert found.world.step_seconds == pytest.approx(0.05, rel=1e-3)
    assert found.world.links["fitted"].latency_ms == pytest.approx(8.0, abs=0.1)
    assert found.world.master.merge_ms == pytest.approx(12.0, abs=0.1)
    assert found.world.master.commit_ms == pytest.approx(6.0, abs=0.2)
    told = spans_of(simulated(found.world, tmp_path / "b", 2)).seconds
    true = spans_of(simulated(WORLD, tmp_path / "c", 2)).seconds
    assert told == pytest.approx(true, rel=0.01)


def test_the_command_writes_a_file_that_simulate_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shown: Shown
) -> None:
    """From a run's own folder; one that is too short is refused."""
    crew = Crew(tmp_path, ALONE, "fedavg", stop__versions=10, size__first=32).see_through(2)
    to = tmp_path / "devices.json"
    assert command(["fit", str(crew.folder.path), "--to", str(to), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["rounds"] for one in told["devices"]] == [10, 10]
    world = read(to.read_bytes(), str(to))
    assert [device.name for device in world.devices] == ["worker-1", "worker-2"]
    short = Crew(tmp_path / "s", ALONE, "fedavg", stop__versions=3, size__first=32).see_through(2)
    code = command(["fit", str(short.folder.path), "--to", str(tmp_path / "no.json")])
    said = capsys.readouterr().err
    shown("a model is fitted on a run that is too short", "hermes fit r", code, said)
    assert code == 2
    assert "has 3 rounds, and 8 of each worker are needed" in said
    assert not (tmp_path / "no.json").exists()
