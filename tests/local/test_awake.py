"""Does a machine stay awake while it leads a run, and no longer than that?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hermes.runtime.awake import awake

INHIBIT = """\
#!/bin/sh
# As systemd-inhibit: holds a lock while the command that it is given runs.
printf '%s\\n' "$@" > "{folder}/asked"
while [ "${{1#--}}" != "$1" ]; do shift; done
echo $$ > "{folder}/held"
"$@"
rm "{folder}/held"
"""


def wait_until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Look again and again."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


HOLDER = """\
import sys, time
from hermes.runtime.awake import awake
with awake("r"):
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there as long as a fake systemd-inhibit holds its lock."""
    script = tmp_path / "systemd-inhibit"
    script.write_text(INHIBIT.format(folder=tmp_path))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "held"


def test_the_lock_is_held_as_long_as_the_run(held: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes.runtime.awake.LEAVING", 60.0)
    with awake("digits-1"):
        wait_until(held.exists)
        asked = (held.parent / "asked").read_text().splitlines()
    assert not held.exists()
    assert asked[:4] == [
        "--what=sleep:idle",
        "--who=hermes",
        "--why=run digits-1 is under way",
        "--mode=block",
    ]


def test_it_never_outlives_its_holder(held: Path) -> None:
    """Killed by SIGKILL, the holder can do nothing any more: the pipe does it."""
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "up\n"
        wait_until(held.exists)
        holder.send_signal(signal.SIGKILL)
    wait_until(lambda: not held.exists())


@pytest.mark.parametrize("there", ["absent", "fails", "cannot be started", "does not leave"])
def test_nothing_breaks_where_there_is_none(
    there: str, held: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    script = held.parent / "systemd-inhibit"
    if there == "absent":
        monkeypatch.setenv("PATH", str(held.parent / "nothing"))
    elif there == "fails":
        script.write_text("#!/bin/sh\necho Access denied >&2\nexit 1\n")
    elif there == "cannot be started":
        script.write_text("#!/nowhere/sh\n")
    else:
        monkeypatch.setattr("hermes.runtime.awake.LEAVING", 0.1)
        script.write_text("#!/bin/sh\nexec sleep 600\n")
    with awake("r"):
        pass
    assert not held.exists()
    assert capfd.readouterr() == ("", "")
