"""Does a worker see that it shares its machine, and take one thread then?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hermes.cli.options import limit_threads
from hermes.runtime import neighbours as module
from hermes.runtime.neighbours import Share, cores_here, neighbours
from hermes.runtime.outbox import claimed

HOLD = """
import sys
from pathlib import Path
from hermes.runtime.outbox import claimed
with claimed(Path(sys.argv[1]), "here:1", "run", sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


def another(folder: Path, name: str) -> subprocess.Popen[str]:
    """Another process that is a worker of this name, until its input ends."""
    command = [sys.executable, "-c", HOLD, str(folder), name]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_neighbours_are_other_processes_that_live(tmp_path: Path) -> None:
    """Not this one, not one that has ended (however), not what is no lock."""
    assert neighbours(tmp_path / "nowhere") == 0
    (tmp_path / "odd.lock").write_text("no number")
    (tmp_path / "old.lock").write_text(str(os.getppid()))  # alive, and holds nothing
    with claimed(tmp_path, "here:1", "run", "mine"):
        assert neighbours(tmp_path) == 0
        first, second = another(tmp_path, "first"), another(tmp_path, "second")
        assert neighbours(tmp_path) == 2
        first.kill()
        first.communicate()
        assert neighbours(tmp_path) == 1
        second.communicate()
        assert neighbours(tmp_path) == 0


def test_a_look_takes_no_name(tmp_path: Path) -> None:
    """Whoever starts while somebody looks finds its name free."""
    other = another(tmp_path, "other")
    assert neighbours(tmp_path) == 1
    other.communicate()
    with claimed(tmp_path, "here:1", "run", "other"):
        assert neighbours(tmp_path) == 0


def test_who_is_alone_has_all_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Share(7, tmp_path).threads() == 7
    assert Share(None, None).threads() == 1
    assert Share(None, tmp_path).threads() == cores_here() >= 1
    other = another(tmp_path, "other")
    share = Share(None, tmp_path)
    assert share.threads() == 1
    other.communicate()
    assert share.threads() == 1  # it does not look again at once
    monkeypatch.setattr(module.time, "monotonic", lambda: 1e9)
    assert share.threads() == cores_here()


def test_what_was_asked_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert limit_threads(None) == 3
    assert limit_threads(2) == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert limit_threads(None) is None
    assert "OMP_NUM_THREADS" not in os.environ  # NumPy is loaded: it is too late to tell it
