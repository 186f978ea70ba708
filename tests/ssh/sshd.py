"""Where does a test find a machine that it may reach by SSH? An OpenSSH server of the test's own,
on loopback and a high port, for the user who runs the test, with a home folder of its own.

Needs no root. The server reads nothing of the machine's own settings: host key, configuration and
the one key that it lets in lie in a folder of the test's. What a session starts finds `$HOME`,
`$TMPDIR` and tmux's socket in the machine's home, and carries a mark by which it is found again.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psutil

CONFIG = """\
ListenAddress {address}
Port {port}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
AuthenticationMethods publickey
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
MaxStartups 100
LogLevel VERBOSE
SetEnv {environment}
Subsystem sftp internal-sftp
ForceCommand {folder}/session
"""

# A forced command, so that sessions start in the machine's home: the server itself only knows the
# one of the user's password entry.
SESSION = """\
#!/bin/sh
cd "$HOME" || exit 1
command=$SSH_ORIGINAL_COMMAND
unset SSH_ORIGINAL_COMMAND
case $command in
  '') exec "${SHELL:-/bin/sh}" -l ;;
  internal-sftp | */sftp-server) exec SFTP_SERVER ;;
  *) exec "${SHELL:-/bin/sh}" -c "$command" ;;
esac
"""

SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/sftp-server")


class Sshd:
    """A machine to reach by SSH: `address`, `port`, `user`, `key`, and what proves that it is it:
    a line in `known_hosts`, its `fingerprint`. A context manager; what a session left is ended."""

    address = "127.0.0.1"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.user = getpass.getuser()
        self.key = folder / "key"
        self.known_hosts = folder / "known_hosts"
        self.port = _free_port(self.address)
        self.mark = f"HERMES_TEST_MARK={uuid4()}"
        self._server: subprocess.Popen[bytes] | None = None
        (self.home / "tmp").mkdir(parents=True)
        _new_key(self.key)
        self.authorize(self.key)
        self.new_host_key()
        self.trust()
        self._write_session()
        self._write_config()

    def __enter__(self) -> Sshd:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        until = time.monotonic() + 5
        while (left := self.processes()) and time.monotonic() < until:
            for pid in left:
                _kill(pid)
            time.sleep(0.01)

    def start(self) -> None:
        """Listen; returns when connections are taken."""
        if os.geteuid() == 0:  # only then does the server ask for this folder
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            command = [program(), "-D", "-e", "-f", str(self.folder / "config")]
            self._server = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + 10
        while not _answers(self.address, self.port):
            assert self._server.poll() is None, f"sshd ended: {self.log()}"
            assert time.monotonic() < until, f"sshd does not listen: {self.log()}"
            time.sleep(0.01)
        while self._sessions() and time.monotonic() < until:  # who asked that has hung up
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop listening, and drop every connection: the machine is off the network.

        What was started in the background goes on, as it does on a machine of its own.
        """
        if self._server is not None:
            self._server.send_signal(signal.SIGSTOP)  # nobody comes in any more
            sessions = self._sessions()
            # The door goes first: who comes back before it is gone waits in its queue, and is told
            # of a reset, not that nobody listens.
            self._server.kill()
            self._server.wait()
            self._server = None
            _end(sessions)

    def drop(self) -> int:
        """Drop every connection, as a lost link does; how many there were."""
        sessions = self._sessions()
        _end(sessions)
        return len(sessions)

    def _sessions(self) -> list[psutil.Process]:
        assert self._server is not None, "it does not listen"
        return psutil.Process(self._server.pid).children()

    def new_host_key(self) -> None:
        """The machine has another key from its next start on: it was set up anew, or is another."""
        _new_key(self.folder / "host_key")

    def authorize(self, *keys: Path) -> None:
        """Let in who has one of these keys, and nobody else."""
        lines = [key.with_name(f"{key.name}.pub").read_text() for key in keys]
        (self.folder / "authorized_keys").write_text("".join(lines))

    def trust(self) -> None:
        """Write the machine's present key to `known_hosts`."""
        self.known_hosts.write_text(self.line + "\n")

    @property
    def line(self) -> str:
        """The machine's line for a known_hosts file."""
        kind, key, *_ = (self.folder / "host_key.pub").read_text().split()
        return f"[{self.address}]:{self.port} {kind} {key}"

    @property
    def fingerprint(self) -> str:
        """`SHA256:...` of the host key."""
        command = ["ssh-keygen", "-l", "-f", str(self.folder / "host_key.pub")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1]

    def log(self) -> str:
        """What the server said."""
        return (self.folder / "log").read_text(errors="replace")

    def processes(self) -> dict[int, str]:
        """Command lines by pid, of all that was started in sessions and still runs."""
        found = {}
        for process in psutil.process_iter():
            try:
                name, _, value = self.mark.partition("=")
                if process.environ().get(name) == value:
                    found[process.pid] = " ".join(process.cmdline())
            except psutil.Error:
                continue
        return found

    def left(self) -> dict[int, str]:
        """The same, without what is about to go: the watcher of a session's command is ended by the
        connection's end, shortly after whoever was connected has gone."""
        until = time.monotonic() + 5
        while "cat" in (found := self.processes()).values() and time.monotonic() < until:
            time.sleep(0.01)
        return found

    def client(self, program: str = "ssh") -> list[str]:
        """How this machine's own `ssh` or `sftp` gets in: the yardstick for ours."""
        port = "-P" if program == "sftp" else "-p"
        return [
            *(program, "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"),
            *("-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "GlobalKnownHostsFile=none"),
            *("-o", "IdentitiesOnly=yes", "-i", str(self.key), port, str(self.port)),
        ]

    def ssh(self, command: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """What `ssh` makes of a command there."""
        return subprocess.run(
            [*self.client(), f"{self.user}@{self.address}", command],
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )

    def _write_session(self) -> None:
        server = next((path for path in SFTP_SERVERS if Path(path).exists()), "false")
        session = self.folder / "session"
        session.write_text(SESSION.replace("SFTP_SERVER", server))
        session.chmod(0o700)

    def _write_config(self) -> None:
        places = {
            "HOME": self.home,
            "TMPDIR": self.home / "tmp",
            "TMUX_TMPDIR": self.home / "tmp",
        }
        environment = " ".join([*(f"{name}={value}" for name, value in places.items()), self.mark])
        text = CONFIG.format(
            address=self.address, port=self.port, folder=self.folder, environment=environment
        )
        (self.folder / "config").write_text(text)


def program() -> str:
    """Where the server is; it wants to be called by its whole path."""
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    assert found is not None, "no sshd here: run ./scripts/sshd, or leave out: -m 'not ssh'"
    return found


def _new_key(path: Path) -> None:
    path.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True)


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _offspring(process: psutil.Process) -> list[psutil.Process]:
    """The server's own processes of one connection; what the user started is not among them."""
    try:
        return [child for child in process.children() if child.name().startswith("sshd")]
    except psutil.Error:
        return []


def _end(sessions: list[psutil.Process]) -> None:
    for session in sessions:
        for process in [*_offspring(session), session]:
            _kill(process.pid)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
