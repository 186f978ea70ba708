"""Is what a node says shown as it is, whatever it holds, and is one node's defect no end of all?"""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest
from rich.console import Console

from hermes.cluster import crew, doctor
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
