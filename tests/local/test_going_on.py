"""May a master go on with a run, and with what? As a supervisor asks, who types the same again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
from msgspec.structs import replace

from hermes.errors import RunError, SettingError
from hermes.machine.ledger import Authority
from hermes.machine.state import MasterState
from hermes.messages import VersionPublished
from hermes.runtime.folder import RunFolder, note_of
from hermes.runtime.going_on import changed, refuse_if_led, untold
from hermes.transport.log import Log
from hermes.values import Payload, Reason

NO_LOG = cast(Log, None)
"""Whoever listens for a beat asks it, and fails."""

PAYLOAD = Payload("00" * 16, "model", 0, 1, 1, 1, 8, "ab" * 32)
NEWEST = VersionPublished(7, PAYLOAD, (), "mean", 0.0, 100, Reason("each"))
RUNNING = MasterState(newest=NEWEST, authority=Authority(3, "three"))
STOPPED = replace(RUNNING, stopped=Reason("requested"), status="stopped")
SCORED = replace(STOPPED, scored=True)


def folder_of(out: Path, nonces: tuple[str, ...], *, dead: bool = True) -> RunFolder:
    """A run that masters with these nonces have led, one after the other; "" never claimed it."""
    folder = RunFolder(out, "r")
    folder.create()
    for nonce in nonces:
        begun = note_of("r", "127.0.0.1:9")
        begun = replace(begun, born="another start of this machine") if dead else begun
        folder.take_note(begun)
        folder.take_note(replace(folder.read_note() or begun, nonce=nonce))
    return folder


# --- is its master gone? --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nonces",
    [
        pytest.param(("three",), id="the last one was in force"),
        pytest.param(("three", "four"), id="the last one died before its claim was there"),
        pytest.param(("three", "", ""), id="so did two that had not even begun to"),
    ],
)
def test_a_master_of_this_machine_that_is_dead_is_not_listened_for(
    tmp_path: Path, nonces: tuple[str, ...]
) -> None:
    refuse_if_led(NO_LOG, folder_of(tmp_path, nonces), RUNNING)


def test_another_machines_master_is_listened_for(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        refuse_if_led(NO_LOG, folder_of(tmp_path, ("one", "two")), RUNNING)


def test_a_master_that_was_taken_from_may_live(tmp_path: Path) -> None:
    """Whoever began while another one led does not know that it has ended."""
    folder = folder_of(tmp_path, ("three",), dead=False)
    with pytest.raises(RunError, match="its master lives"):
        refuse_if_led(NO_LOG, folder, RUNNING)
    taker = replace(note_of("r", "127.0.0.1:9"), born="another start of this machine")
    folder.take_note(taker)
    with pytest.raises(AttributeError):
        refuse_if_led(NO_LOG, folder, RUNNING)


# --- with what? -----------------------------------------------------------------------------------


def test_the_same_command_again_changes_nothing() -> None:
    settings = RUNNING.settings
    same = {"gate.alpha": settings.gate.alpha, "workers.lost": settings.workers.lost}
    assert changed(RUNNING, same, "--set") is None
    other = changed(RUNNING, {**same, "stop.samples": 5}, "--set")
    assert other is not None
    assert other.reason.facts == {"stop.samples": 5}
    with pytest.raises(SettingError, match=r"gate\.alpha cannot change within a run"):
        changed(RUNNING, {"gate.alpha": settings.gate.alpha - 1}, "--set")


# --- are its results written? ---------------------------------------------------------------------


def test_a_stop_whose_results_are_not_written_is_ended_not_undone(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ("three",))
    assert not untold(RUNNING, folder)
    assert untold(STOPPED, folder)
    assert untold(SCORED, folder)
    assert changed(SCORED, {}, "--set", ending=True) is None
    assert changed(SCORED, {"stop.samples": 5}, "--set", ending=True) is not None

    folder.write(folder.result, json.dumps({"status": "stopped", "version": 6}).encode())
    assert untold(SCORED, folder), "that is the result of a stop before"
    folder.write(folder.result, json.dumps({"status": "stopped", "version": 7}).encode())
    assert not untold(SCORED, folder)
    assert changed(SCORED, {}, "--set") is not None


def test_a_run_that_failed_goes_on(tmp_path: Path) -> None:
    failed = replace(STOPPED, status="failed")
    assert not untold(failed, folder_of(tmp_path, ("three",)))


def test_on_another_machine_a_run_that_is_over_is_over(tmp_path: Path) -> None:
    assert not untold(SCORED, RunFolder(tmp_path, "r"))
