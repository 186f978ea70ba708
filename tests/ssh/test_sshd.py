"""Is the SSH server of the tests a machine of its own: home, keys, what is left running?"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sshd import Sshd


def test_a_session_starts_in_the_machines_home_and_its_exit_code_comes_back(machine: Sshd) -> None:
    done = machine.ssh('echo "$HOME"; pwd; echo a > ~/left; exit 7')
    assert done.returncode == 7, done.stderr
    assert done.stdout.split() == [str(machine.home)] * 2
    assert (machine.home / "left").read_text() == "a\n"


def test_files_are_sent_relative_to_the_machines_home(machine: Sshd, tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(bytes(range(256)) * 1000)
    subprocess.run(
        [*machine.client("sftp"), "-q", "-b", "-", f"{machine.user}@{machine.address}"],
        input=f"put {tmp_path}/sent got\n".encode(),
        check=True,
        capture_output=True,
    )
    assert (machine.home / "got").read_bytes() == (tmp_path / "sent").read_bytes()


def test_a_machine_with_another_host_key_is_refused_until_that_is_trusted(machine: Sshd) -> None:
    before = machine.fingerprint
    machine.stop()
    machine.new_host_key()
    machine.start()
    assert machine.fingerprint != before
    done = machine.ssh("echo in")
    assert done.returncode == 255
    assert "HOST IDENTIFICATION HAS CHANGED" in done.stderr
    machine.trust()
    assert machine.ssh("echo in").stdout == "in\n"


def test_only_the_key_that_was_authorized_opens(machines: Callable[[], Sshd]) -> None:
    one, other = machines(), machines()
    one.authorize(other.key)
    done = one.ssh("echo in")
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr


def test_a_dropped_connection_ends_the_client_not_what_it_started(tmp_path: Path) -> None:
    with Sshd(tmp_path / "machine") as machine:
        endless = "import time; print('on', flush=True); time.sleep(600)"
        remote = f'setsid {sys.executable} -c "{endless}" > started 2>&1 < /dev/null & sleep 600'
        client = subprocess.Popen([*machine.client(), f"{machine.user}@{machine.address}", remote])
        until = time.monotonic() + 20
        while not (machine.home / "started").exists() or not (machine.home / "started").read_text():
            assert time.monotonic() < until, machine.log()
            time.sleep(0.02)
        assert machine.drop() == 1
        assert client.wait(10) == 255
        assert any("time.sleep(600)" in command for command in machine.processes().values())
        assert machine.ssh("true").returncode == 0
    assert machine.processes() == {}
    assert machine.ssh("true").returncode == 255
