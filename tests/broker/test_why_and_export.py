"""Do `hermes why` and `hermes export` read a run that goes on, and one that is over?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import safetensors.numpy
from commands import DIGITS, ENDLESS, Shell, wait_for

from hermes.broker.control import Child
from hermes.cli.entry import run as command
from hermes.transport import names
from hermes.transport.kafka import KafkaLog

pytestmark = pytest.mark.broker

Typed = Callable[..., tuple[str, str]]


@pytest.fixture
def typed(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Typed:
    """Commands that only read, in this process (to start Python for each takes longer): what they
    print on stdout and stderr."""
    monkeypatch.chdir(shell.folder)

    def type_(*args: str, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        assert command(list(args)) == code, capsys.readouterr()
        shown = capsys.readouterr()
        return shown.out, shown.err

    return type_


def files(shown: tuple[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(shown[0])["files"]
    return found


def test_a_run_under_way_and_after_it(shell: Shell, typed: Typed, embedded: Child) -> None:
    run = f"why-{uuid4().hex[:8]}"
    at = ("--broker", embedded.address)
    short = ("--strategy", "hermes-paper", "--set", "size.first=200", "--set", "round.epochs=1")
    # However many versions pass before the run is stopped: version 1 is asked for after it.
    keeps = ("--set", "retention.keep=all")
    said = (*at, "--run", run, "--expect", "1", *ENDLESS, *short, *keeps)
    master = shell.start("master", DIGITS, *said)
    wait_for(master, r"Master has been successfully initialized!")
    assert "no worker has come yet" in typed("why", "one", "--run", run, code=2)[1]
    worker = shell.start("worker", *at, "--run", run, "--name", "one")
    wait_for(master, r"version [3-9]")

    live, _ = typed("why", "one", "--run", run)
    assert f"one in {run} (hermes-paper; live at {embedded.address})" in live
    assert "all agree" in live
    found = json.loads(typed("why", "one", *at, "--run", run, "--json")[0])
    assert (found["source"], found["differ"]) == ("live", 0)
    merged = [d for d in found["decisions"] if d["kind"] == "merged"]
    assert merged
    assert {d["outcome"] for d in merged} == {"agrees"}
    assert json.loads(typed("why", "master", "--run", run, "--json")[0])["differ"] == 0

    (last,) = files(typed("export", run, *at, "--json"))
    assert last["source"] == embedded.address
    assert last["version"] >= 3
    assert last["sha256"] == last["model_digest"]
    assert safetensors.numpy.load_file(last["path"])
    curves = files(typed("export", run, "--format", "csv", "--to", "live", "--json"))
    assert curves[1]["rows"] > 3
    best, _ = typed("export", run, "--version", "best", "--to", "best.safetensors")
    assert "the best on validation" in best

    assert shell.json("stop", run)["status"] == "stopped"
    worker.communicate()
    master.communicate()
    assert master.returncode == 0
    (first,) = files(typed("export", run, "--version", "v1", "--json"))
    assert first["source"] == embedded.address, "the folder keeps the last and the best alone"
    data = Path(first["path"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == first["model_digest"]
    result = json.loads((shell.folder / "runs" / run / "result.json").read_text())
    (end,) = files(typed("export", run, "--to", "end.safetensors", "--json"))
    assert (end["version"], end["sha256"]) == (result["version"], result["digest"])
    assert end["source"].endswith("model.safetensors")
    assert "as saved in" in typed("why", "one", "--run", run)[0]

    for name in ("model", "best"):
        (shell.folder / "runs" / run / f"{name}.safetensors").write_bytes(b"rubbish")
    _, warned = typed("export", run, "--to", "mended.safetensors")
    assert warned.count("its bytes are those of no version in the ledger; taken from 127") == 2
    assert (shell.folder / "mended.safetensors").read_bytes() == Path(end["path"]).read_bytes()
    with KafkaLog(embedded.address) as log:
        log.delete([names.physical(run, names.MODEL)])
    assert "does not keep it any more" in typed("export", run, "--version", "v2", code=5)[1]
    assert shell.left_behind() == []
