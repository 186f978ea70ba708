"""Do whole runs under a lossy codec keep what others keep? One outcome whatever befalls the master,
versions that can be formed again, and no step too small to be learned."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from blurred import finished
from crew import ALONE, Crew
from safetensors.numpy import load_file

from hermes.codec import digest_of
from hermes.coded import codec_of, published
from hermes.machine.audit import Audit
from hermes.messages import Republished, UpdateRejected, UpdateTaken, VersionPublished
from hermes.runtime.sources import at_broker, of_folder
from hermes.simulate import kills
from hermes.simulate.driver import MILLI, Driver
from hermes.simulate.faults import BrokerFault, Faults, MasterFault
from hermes.simulate.local import RUN
from hermes.verify.run import verify

SPEEDS = {"worker-1": 1.0, "worker-2": 0.8, "worker-3": 0.4}
HALF = {"codec.up": "fp16", "codec.down": "fp16"}

SETTINGS: dict[str, dict[str, Any]] = {
    # Updates of older bases, and a loss of each before it is merged.
    "hermes-paper": {"gate.alpha": -0.7, "size.first": 64, "stop.versions": 8},
    # What the master holds beside the model is formed again.
    "fedavgm": {"size.first": 64, "stop.versions": 8, "round.steps": 2, "retention.snapshots": 3},
    # What is unsent and undecided goes on in the local model.
    "asp": {"size.first": 64, "stop.versions": 24, "round.steps": 4},
}


def run(strategy: str, faults: Faults | None = None, **settings: Any) -> Driver:
    wanted = {**SETTINGS[strategy], **HALF, "retention.keep": "all", **settings}
    driver = finished(strategy, wanted, SPEEDS, faults)
    Audit().read(driver.valid_records())
    return driver


@functools.cache
def calm(strategy: str) -> Driver:
    return run(strategy)


def entries(driver: Driver, kind: type) -> list[Any]:
    return [e for record in driver.valid_records() for e in record.entries if isinstance(e, kind)]


@pytest.mark.parametrize("strategy", SETTINGS)
def test_kills_and_what_a_broker_loses_change_no_bit(strategy: str) -> None:
    """The master killed again and again; versions lost and made again, with none alive."""
    whole = calm(strategy)
    killed = run(strategy, kills.everywhere(whole))
    assert killed.masters > 5
    assert kills.outcome(killed) == kills.outcome(whole)
    at = whole.queue.now // 2
    lost = run(
        strategy,
        Faults(
            brokers=(BrokerFault(at, "tail", "model", 2),),
            masters=(MasterFault(at - MILLI, "restart", 2 * MILLI),),
        ),
    )
    assert len(entries(lost, Republished)) == 2
    assert kills.outcome(lost) == kills.outcome(whole)


@pytest.mark.parametrize("strategy", SETTINGS)
def test_each_version_is_recomputed_and_half_as_large(strategy: str) -> None:
    driver = calm(strategy)
    assert not entries(driver, UpdateRejected)
    report = verify(at_broker(driver.log, RUN))
    assert report.findings == []
    assert {one.outcome for one in report.versions[1:]} == {"recomputed"}
    versions = entries(driver, VersionPublished)
    assert {version.codec for version in versions} == {"fp16"}
    assert {taken.update.codec for taken in entries(driver, UpdateTaken)} == {"fp16"}


def test_steps_too_small_for_a_half_are_learned() -> None:
    """Nearest would publish the same version again and again."""
    driver = run("asp", **{"merge.scale": 1e-4, "stop.versions": 60, "codec.up": "fp32"})
    versions = [v.payload for v in entries(driver, VersionPublished)]
    assert len({payload.digest for payload in versions}) == len(versions)


def test_the_users_file_is_the_version_in_its_own_types(tmp_path: Path) -> None:
    """float32; the version's bytes come of it again, so that verify and a fork know it."""
    crew = Crew(tmp_path, ALONE, "fedavg", stop__versions=4, round__steps=2, codec__down="fp16")
    result = crew.see_through(2).result
    assert (result["status"], crew.error) == ("finished", None)
    data = crew.folder.model.read_bytes()
    assert {array.dtype.name for array in load_file(crew.folder.model).values()} == {"float32"}
    assert codec_of(data) == "fp32"
    assert digest_of(data) != result["digest"] == digest_of(published(data, "fp16"))
    report = verify(at_broker(crew.log, "r"))
    assert report.findings == []
    found, notes = of_folder(crew.folder, report)
    assert found == []
    assert "model.safetensors is version 4" in notes
    damaged = bytearray(data)
    damaged[-3] ^= 1
    crew.folder.model.write_bytes(damaged)
    assert [one.entry for one in of_folder(crew.folder, report)[0]] == [str(crew.folder.model)]
