"""Does `hermes verify` read a run at its broker, while it goes on and when it is over, and the
files that its log was exported to?"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from commands import DIGITS, ENDLESS, Shell, wait_for

from hermes.broker.control import Child
from hermes.cli.entry import run as command
from hermes.transport import names
from hermes.transport.kafka import KafkaLog

pytestmark = pytest.mark.broker

KEEP = ("--set", "retention.keep=last:3", "--set", "retention.snapshots=1")
SHORT = ("--strategy", "hermes-paper", "--set", "size.first=200", "--set", "round.epochs=1")


Typed = Callable[..., tuple[str, str]]


@pytest.fixture
def typed(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Typed:
    """Commands that only read, in this process: what they print on stdout and stderr."""
    monkeypatch.chdir(shell.folder)
    monkeypatch.setenv("HERMES_CONFIG", shell.environment["HERMES_CONFIG"])

    def type_(*args: str, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        assert command(list(args)) == code, capsys.readouterr()
        shown = capsys.readouterr()
        return shown.out, shown.err

    return type_


@pytest.mark.parametrize("kind", ["embedded", "apache"])
def test_live_saved_and_exported(
    kind: str, shell: Shell, typed: Typed, request: pytest.FixtureRequest
) -> None:
    broker: Child = request.getfixturevalue(kind)
    run, at = f"verify-{uuid4().hex[:8]}", ("--broker", broker.address)
    master = shell.start(
        "master", DIGITS, *at, "--run", run, "--expect", "1", *ENDLESS, *KEEP, *SHORT
    )
    wait_for(master, r"Master has been successfully initialized!")
    worker = shell.start("worker", *at, "--run", run, "--name", "one")
    wait_for(master, r"version (2[5-9]|[3-9][0-9])")

    live = json.loads(typed("verify", run, "--json")[0])
    assert (live["source"], live["holds"]) == ("live", True), live["findings"]
    seen = live["outcomes"]  # where the run goes on, retention may be faster than we are
    assert sum(seen.get(name, 0) for name in ("recomputed", "checked", "trimmed")) >= 1
    typed("export", run, "--format", "log", "--to", "going-on", *at)
    going = json.loads(typed("verify", "going-on", "--json")[0])
    assert going["holds"], going["findings"]
    assert going["records"] > live["records"]

    assert shell.json("stop", run)["status"] == "stopped"
    worker.communicate()
    master.communicate()
    saved = json.loads(typed("verify", run, "--scores", "--json")[0])
    assert (saved["source"], saved["holds"]) == ("saved", True), saved["findings"]
    assert saved["scores"] >= 4
    assert saved["outcomes"].get("recomputed", 0) >= 1, saved["outcomes"]
    assert "result.json says what the ledger says" in saved["notes"]
    assert saved["updates"]["pushed"] == sum(
        saved["updates"][key] for key in ("applied", "rejected", "undecided")
    )
    (done,) = json.loads(typed("export", run, "--format", "log", "--json")[0])["files"]
    exported = json.loads(typed("verify", done["path"], "--json")[0])
    assert exported["holds"], exported["findings"]
    assert same(exported) == same(saved)
    assert "there already" in typed("export", run, "--format", "log", code=2)[1]

    with KafkaLog(broker.address) as log:
        log.delete(log.topics(names.physical(run, names.MODEL)))
    assert "lost by the broker" in typed("verify", run, *at, code=5)[1]
    assert "verified: " in typed("verify", done["path"])[0], "the files are as they were"
    assert shell.left_behind() == []


def same(found: dict[str, Any]) -> str:
    """What must not depend on where a run is read from."""
    keys = ("records", "decisions", "versions", "updates", "blocks", "norms")
    return json.dumps([found[key] for key in keys])
