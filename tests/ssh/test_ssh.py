"""Is a node reached over SSH, and is whoever must not be trusted refused, in words that help?"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from commands import Shown
from sshd import Sshd

from hermes.cluster.ssh import _SCRIPT, Interrupted, Shell, Target
from hermes.errors import NodeError, UsageError


@pytest.fixture(autouse=True)
def _nobody_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No host is known, and there is no agent."""
    monkeypatch.setenv("HERMES_KNOWN_HOSTS", str(tmp_path / "known_hosts"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def target(machine: Sshd, **changes: object) -> Target:
    made = Target(
        "n1", machine.address, machine.user, machine.port, machine.key, machine.fingerprint
    )
    return made._replace(**changes)  # type: ignore[arg-type]


# --- commands and files ---------------------------------------------------------------------------


def test_a_command_answers_with_its_code_and_both_outputs(machine: Sshd) -> None:
    with Shell(target(machine)) as shell:
        said = shell.run('echo "$HOME"\necho oops >&2\nexit 7')
        assert said == (7, f"{machine.home}\n", "oops\n")
        assert shell.run("cat").code == 0, "its standard input is empty"
        big = shell.run("head -c 3000000 /dev/zero | tr '\\0' x")
        assert len(big.out) == 3_000_000


def test_lines_are_told_as_they_come(machine: Sshd) -> None:
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        (machine.home / "go").touch()  # without this, the second would never come

    with Shell(target(machine)) as shell:
        shell.run("echo a; until [ -e ~/go ]; do sleep 0.05; done; echo b", tell=tell)
    assert told == ["a", "b"]


def test_nothing_of_a_command_is_in_the_list_of_processes(machine: Sshd) -> None:
    with Shell(target(machine)) as shell:
        said = shell.run("x=SECRETWORD; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; true")
    assert "sh" in said.out
    assert "SECRETWORD" not in said.out


def test_a_file_is_never_readable_by_others_and_never_half_there(machine: Sshd) -> None:
    data = os.urandom(2_000_000)
    seen: set[int] = set()
    over = threading.Event()

    def watch() -> None:
        last = False
        while not last:
            last = over.is_set()
            for path in machine.home.glob("secret*"):
                with contextlib.suppress(OSError):
                    seen.add(stat.S_IMODE(path.stat().st_mode))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with Shell(target(machine)) as shell:
        shell.run("umask 000")
        shell.put(data, "~/secret key", 0o600)
        shell.put(b"new", "~/secret key", 0o600)
        shell.put(b"#!/bin/sh\n", "~/run me", 0o700)
    over.set()
    watcher.join()
    assert seen == {0o600}
    assert (machine.home / "secret key").read_bytes() == b"new"
    assert os.access(machine.home / "run me", os.X_OK)
    assert not list(machine.home.glob("*.draft"))


def test_a_command_ends_with_the_connection(machine: Sshd) -> None:
    stop = threading.Event()

    def runs() -> bool:
        return any("sleep 600" in text for text in machine.processes().values())

    def once_it_runs() -> None:
        wait(runs)
        stop.set()

    threading.Thread(target=once_it_runs).start()
    with Shell(target(machine), stop) as shell, pytest.raises(Interrupted):
        shell.run("sleep 600; echo more")
    assert wait(lambda: not runs())


def test_what_is_put_into_the_background_stays(machine: Sshd) -> None:
    with Shell(target(machine)) as shell:
        shell.run("setsid sleep 601 </dev/null >/dev/null 2>&1 &")
        assert wait(lambda: runs(machine, "sleep 601"))
    time.sleep(0.2)
    assert runs(machine, "sleep 601")


@pytest.mark.parametrize("block", [4096, 8192, 16384])
def test_a_script_of_any_length_is_read_to_its_end(block: int) -> None:
    """dash reads its standard input in blocks: none of it is left there for the watcher to take."""
    for size in range(block - 8, block + 168, 4):
        text = "echo ok #"
        text += "x" * (size - len(_SCRIPT.format(text=text)))
        with subprocess.Popen(
            ["sh", "-s"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            process.stdin.write(_SCRIPT.format(text=text).encode())
            process.stdin.flush()  # and stays open, as the connection does
            try:
                assert process.wait(10) == 0, size
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            assert process.stdout is not None
            assert process.stdout.read() == b"ok\n"


def test_what_holds_the_output_open_is_not_waited_for(machine: Sshd) -> None:
    with Shell(target(machine)) as shell:
        began = time.monotonic()
        assert shell.run("echo said; sleep 30 &").out == "said\n"
        assert time.monotonic() - began < 10


def test_a_flood_of_words_is_ended(machine: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes.cluster.ssh.MOST", 1 << 20)
    for where in ("", " >&2"):
        with Shell(target(machine)) as shell, pytest.raises(NodeError, match="more than 1 MiB"):
            shell.run(f"yes{where}")
    assert wait(lambda: not any("yes" in text for text in machine.processes().values()))


def test_what_a_command_complains_of_is_fit_for_a_terminal(machine: Sshd) -> None:
    with Shell(target(machine)) as shell:
        assert shell.run("printf 'a\\033[31mred\\007' >&2; exit 1").last == r"a\x1b[31mred\x07"


def test_a_connection_that_breaks_is_made_anew_once(machine: Sshd) -> None:
    told: list[str] = []
    with Shell(target(machine), tell=told.append) as shell:
        once(lambda: runs(machine, "sleep 600"), machine.drop)
        said = shell.run("echo x >> ~/times; [ $(wc -l < ~/times) -gt 1 ] || sleep 600; echo on")
        assert said.out == "on\n"
        assert told == ["the SSH connection broke; connecting again"]
        once(lambda: runs(machine, "sleep 600"), machine.drop)
        with pytest.raises(NodeError, match="broke twice"):
            shell.run("sleep 600")
    assert wait(lambda: not any("sleep 600" in text for text in machine.processes().values()))


def test_what_a_lost_link_has_left_running_is_ended_before_it_runs_again(machine: Sshd) -> None:
    with Shell(target(machine)) as shell:

        def lose() -> None:  # nobody at the other end learns that it is lost
            for process in psutil.Process(machine._server.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if process.name().startswith("sshd"):
                        process.suspend()
            shell._client.get_transport().sock.close()

        once(lambda: bool(shell._script) and runs(machine, "sleep 602"), lose)
        said = shell.run("echo x >> ~/times; [ $(wc -l < ~/times) -gt 1 ] || sleep 602; echo on")
        assert said.out == "on\n"
        assert wait(lambda: not any("sleep 602" in text for text in machine.processes().values()))


def runs(machine: Sshd, text: str) -> bool:
    """Whether a process there has this on its command line, and is that command (no shell's)."""
    return any(command.startswith(text) for command in machine.processes().values())


def once(true: Callable[[], bool], act: Callable[[], object]) -> None:
    """Do it, from another thread, when this is so."""

    def look() -> None:
        if wait(true, 60):
            act()

    threading.Thread(target=look, daemon=True).start()


def wait(true: Callable[[], bool], seconds: float = 5) -> bool:
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


# --- host keys ------------------------------------------------------------------------------------


def test_an_unknown_host_key_is_refused_with_what_to_add(
    machine: Sshd, tmp_path: Path, shown: Shown
) -> None:
    with pytest.raises(NodeError) as caught:
        Shell(target(machine, fingerprint=None))
    said = str(caught.value)
    shown("an unknown SSH host key", "hermes up", 5, f"error: {said}")
    assert f'"fingerprint": "{machine.fingerprint}"' in said
    assert machine.line in said
    (tmp_path / "known_hosts").write_text(machine.line + "\n")
    with Shell(target(machine, fingerprint=None)) as shell:
        assert shell.run("echo in").out == "in\n"


def test_a_hashed_known_hosts_and_other_kinds_of_keys_are_understood(
    machine: Sshd, tmp_path: Path
) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(machine.line + "\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    assert machine.address not in file.read_text()
    file.write_text("# a comment\nnonsense\nhost ssh-new AAAA\n" + file.read_text())
    Shell(target(machine, fingerprint=None)).close()


def test_a_changed_host_key_is_refused_and_named_so(
    machine: Sshd, tmp_path: Path, shown: Shown
) -> None:
    (tmp_path / "known_hosts").write_text(machine.line + "\n")
    before = machine.fingerprint
    machine.stop()
    machine.new_host_key()
    machine.start()
    for fingerprint in (None, before):
        with pytest.raises(NodeError) as caught:
            Shell(target(machine, fingerprint=fingerprint))
        said = str(caught.value)
        assert "has CHANGED" in said
        assert before in said
        assert machine.fingerprint in said
    shown("a changed SSH host key", "hermes up", 5, f"error: {said}")
    assert "Accepted" not in machine.log(), "nobody logged in"


def host_key(folder: Path, kind: str) -> Path:
    path = folder / f"other-{kind}"
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True)
    return path


def line_of(machine: Sshd, key: Path) -> str:
    kind, text, *_ = key.with_name(f"{key.name}.pub").read_text().split()
    return f"{machine.line.split()[0]} {kind} {text}"


def test_lines_that_cannot_be_read_and_those_of_others_are_passed_over(
    machine: Sshd, tmp_path: Path
) -> None:
    place = machine.line.split()[0]
    before = [
        "@cert-authority *.example.org ssh-rsa AAAAB3Nz",
        f"@cert-authority {place} ssh-ed25519 AAA",
        "other ssh-ed25519 AAAA=broken",
        f"{place} ssh-ed25519 AAA",
        f"{place} ssh-ed25519",
        "|1|nonsense|= ssh-ed25519 AAAA",
        line_of(machine, host_key(tmp_path, "ed25519")),  # two of one kind: either will do
    ]
    file = tmp_path / "known_hosts"
    file.write_text("\n".join([*before, machine.line]) + "\n")
    Shell(target(machine, fingerprint=None)).close()
    pattern = machine.line.replace("127.0.0.1", "127.*")
    for last, told in ((pattern, None), (f"!{place},{pattern}", "has CHANGED")):
        file.write_text("\n".join([*before, last]) + "\n")
        if told is None:
            Shell(target(machine, fingerprint=None)).close()
        else:
            with pytest.raises(NodeError, match=told):
                Shell(target(machine, fingerprint=None))


def test_a_revoked_host_key_is_refused(machine: Sshd, tmp_path: Path) -> None:
    lines = f"{machine.line}\n@revoked {machine.line}\n"
    (tmp_path / "known_hosts").write_text(lines)
    with pytest.raises(NodeError, match="marked @revoked"):
        Shell(target(machine, fingerprint=None))


def test_the_fingerprint_of_any_of_its_host_keys_will_do(machine: Sshd, tmp_path: Path) -> None:
    machine.stop()
    config = machine.folder / "config"
    keys = [host_key(tmp_path, kind) for kind in ("rsa", "ecdsa")]
    config.write_text(config.read_text() + "".join(f"HostKey {key}\n" for key in keys))
    machine.start()
    for key in keys:
        command = ["ssh-keygen", "-l", "-f", str(key)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        with Shell(target(machine, fingerprint=told.split()[1])) as shell:
            assert shell.run("echo in").out == "in\n"
    with pytest.raises(NodeError, match="has CHANGED"):
        Shell(target(machine, fingerprint="SHA256:" + "a" * 43))


# --- being let in ---------------------------------------------------------------------------------


def test_a_wrong_user_or_key_is_refused(
    machine: Sshd, machines: Callable[[], Sshd], shown: Shown
) -> None:
    with pytest.raises(NodeError, match="does not let the user 'nobody-here' in") as caught:
        Shell(target(machine, user="nobody-here"))
    assert "ssh-copy-id -i" in str(caught.value)
    shown("a wrong user", "hermes up", 5, f"error: {caught.value}")
    with pytest.raises(NodeError, match="does not let the user"):
        Shell(target(machine, key=machines().key))
    with pytest.raises(NodeError, match="with the agent's keys and those in"):
        Shell(target(machine, key=None))


def test_a_key_file_that_is_missing_open_or_locked_is_told(machine: Sshd, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Shell(target(machine, key=tmp_path / "absent"))
    copy = tmp_path / "copy"
    copy.write_bytes(machine.key.read_bytes())
    copy.chmod(0o644)
    with pytest.raises(UsageError, match="can be read by others"):
        Shell(target(machine, key=copy))
    copy.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "word", "-f", str(copy)], check=True,
                   capture_output=True)  # fmt: skip
    with pytest.raises(NodeError, match="passphrase") as caught:
        Shell(target(machine, key=copy))
    assert "ssh-add" in str(caught.value)


def test_the_default_keys_are_tried(machine: Sshd, tmp_path: Path) -> None:
    folder = tmp_path / ".ssh"
    folder.mkdir()
    copy = folder / "id_ed25519"
    copy.write_bytes(machine.key.read_bytes())
    copy.chmod(0o600)
    Shell(target(machine, key=None)).close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"host": "no-such-host.invalid"}, "does not resolve"),
        ({"port": 1}, "connection refused"),
    ],
)
def test_a_machine_that_is_not_there_is_told(
    machine: Sshd, change: dict[str, object], said: str
) -> None:
    began = time.monotonic()
    with pytest.raises(NodeError, match=said) as caught:
        Shell(target(machine, **change))
    assert time.monotonic() - began < 5
    assert caught.value.remedy


def test_what_is_no_ssh_server_is_told(machine: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            peer, _ = server.accept()
            peer.sendall(b"HTTP/1.0 400 Bad\r\n\r\n" * 40)
            peer.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(NodeError, match="does not become an SSH connection"):
            Shell(target(machine, port=server.getsockname()[1]))
        thread.join()
