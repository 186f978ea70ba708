"""Is what a node says shown as it is, whatever it holds, and is one node's defect no end of all?"""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from hermes.cluster import crew, doctor, facts, judged
from hermes.cluster.conf import Cluster, Config, Master, Node, Settings
from hermes.cluster.crew import running_on
from hermes.cluster.facts import Question
from hermes.cluster.judged import Around
from hermes.cluster.progress import Board

WORDS = ("it answers [/etc/profile]", "install Hermes[torch] at [bold]", "red \x1b[31m and \x07")


def told(*, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=200, no_color=True)
    with Board(["n1", "n2", "n3"], console) as board:
        for name, text in zip(("n1", "n2", "n3"), WORDS, strict=True):
            board.failed(name, text)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_words_of_a_node_are_no_markup_and_no_commands_of_a_terminal(terminal: bool) -> None:
    shown = told(terminal=terminal)
    assert WORDS[0] in shown
    assert WORDS[1] in shown
    assert r"red \x1b[31m and \x07" in shown
    assert "\x1b[31m" not in shown
    assert "\x07" not in shown


def test_a_defect_with_one_node_is_told_as_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object) -> object:
        raise ValueError("nobody thought of this")

    nodes = (Node(name="n1", host="h"),)
    cluster = Cluster(Config(nodes=nodes), Master(), Settings(), tmp_path, {})
    stop = threading.Event()
    monkeypatch.setattr(crew, "target_of", broken)
    ((_node, why),) = running_on(cluster, stop)
    assert why is not None
    assert "nobody thought of this" in why
    around = Around(cluster, "h:1", Question(None, listening=False), "", ())
    (finding,) = doctor._node(around, nodes[0], Board(["n1"], None), stop).findings
    assert (finding.check, finding.level) == ("ssh", "bad")
    assert "nobody thought of this" in finding.what


def seen(index: str, *, wanted: bool = True) -> dict[str, Any]:
    """What a node whose pip is told of this index says of itself."""
    asked = {
        "folder": "/tmp/x",
        "broker": None,
        "listening": False,
        "patience": 4,
        "modules": [],
        "index": wanted,
    }
    done = subprocess.run(
        [sys.executable, "-", json.dumps(asked)],
        input=facts._SCRIPT,
        env={
            "PATH": os.defpath,
            "HOME": "/nonexistent",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": index,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.removeprefix("FACTS"))
    return found


def test_an_index_that_cannot_be_reached_is_told_before_anything_is_installed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reached = seen(f"http://127.0.0.1:{port}/simple")
    assert reached["index"] == "127.0.0.1"
    shut = seen(f"http://127.0.0.1:{port}/simple")
    assert shut["index"] is None
    assert "index" not in seen(f"http://127.0.0.1:{port}/simple", wanted=False)
    for told, hermes, level in ((reached, "", "fine"), (shut, "", "bad"), (shut, "1.0", "note")):
        finding = judged._index(msgspec.convert({**told, "hermes": hermes}, facts.Facts))
        assert (finding.check, finding.level) == ("packages", level)
    assert "onnection refused)" in finding.what
    untried = msgspec.convert({**reached, "index": ""}, facts.Facts)
    assert judged._index(untried).text == "of its index (not tried)"
