"""Does the doctor's report name every node and finding, however narrow the terminal is?"""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from hermes.cli import cluster
from hermes.cluster.doctor import Examined, Report
from hermes.cluster.judged import Finding

TEXTS = {
    "ssh": "yes",
    "python": "3.11.2",
    "disk": "24.1 GB free",
    "memory": "22.9 GB",
    "packages": "of master.wheels",
    "broker": "reached",
    "hermes": "not yet",
}


def shown(width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is printed of two nodes."""
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False)
    monkeypatch.setattr("hermes.report.tables.output", lambda: console)
    findings = tuple(Finding(check, "fine", text) for check, text in TEXTS.items())
    nodes = tuple(Examined(name, findings) for name in ("worker-1", "worker-2"))
    here = Examined("this machine", (Finding("broker", "fine", "up at 10.0.0.1:9092"),))
    cluster._show_report(Report(here, nodes), Path("lab"), quiet=False)
    return file.getvalue()


def test_a_table_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(120, monkeypatch).splitlines()
    assert lines[0].split() == ["node", *TEXTS]
    assert [line.partition(" ")[0] for line in lines[1:3]] == ["worker-1", "worker-2"]
    assert all(text in lines[1] for text in TEXTS.values())


@pytest.mark.parametrize("width", [80, 40])
def test_nothing_is_cut_where_there_is_none(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(width, monkeypatch)
    assert "…" not in text
    words = " ".join(text.split())
    for name in ("worker-1", "worker-2"):
        told = ", ".join(f"{check} {value}" for check, value in TEXTS.items())
        assert f"{name}: {told}" in words
    assert "this machine: broker: up at 10.0.0.1:9092" in words


def test_the_end_says_what_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """To bring it up; or, where the broker is up and all workers run, a run."""
    monkeypatch.setattr("hermes.report.tables.output", lambda: Console(file=io.StringIO()))

    def end(*workers: str, broker: bool = True) -> str:
        said: list[str] = []
        monkeypatch.setattr(cluster.typer, "echo", said.append)
        ours = Finding("hermes", "fine", "0.1.0")
        nodes = tuple(
            Examined(f"n{number}", (ours, Finding("worker", "fine", text)))
            for number, text in enumerate(workers)
        )
        up = "up at 10.0.0.1:9092" if broker else "not up yet; will be at 10.0.0.1:9092"
        limits = Finding("limits", "fine", "records of 2 MiB")  # told in both cases
        here = Examined("this machine", (Finding("broker", "fine", up), limits))
        cluster._show_report(Report(here, nodes), Path("lab"), quiet=False)
        return said[-1]

    assert end("runs", "runs") == "fit, and up: hermes run JOB.py --cluster lab"
    assert end("runs", "runs", broker=False) == "fit: hermes up lab"
    assert end("runs", "not yet") == "fit: hermes up lab"
    assert end("not yet", "not yet") == "fit: hermes up lab"
