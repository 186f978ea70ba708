"""Who gets into a machine of the bed by SSH, and how is it known to be that machine?

One key opens all workers; each has a host key of its own. The master's `~/.ssh` holds the key, the
hosts that it knows and a config, so that there `ssh worker-1` works, and so does what reads these.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

CONFIG = """\
ListenAddress 0.0.0.0
Port 22
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
UseDNS no
MaxStartups 100
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""

CLIENT = """\
Host {name} {address}
  HostName {address}
  User root
  IdentityFile {folder}/id_ed25519
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
"""


def program() -> str | None:
    """The server; it wants to be called by its whole path."""
    return shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")


def furnish(folder: Path, key: Path, inside: str) -> None:
    """Write into `folder` what a machine's server needs; there it is seen at `inside`."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "host_key").exists():
        new_key(folder / "host_key")
    (folder / "sshd_config").write_text(CONFIG.format(folder=inside))
    (folder / "authorized_keys").write_text(key.with_suffix(".pub").read_text())


def new_key(path: Path) -> None:
    """A key, and its public half beside it."""
    path.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True)


def introduce(folder: Path, machines: list[tuple[str, str, Path]]) -> None:
    """Write known_hosts and config of an .ssh folder for machines of (name, address, doors)."""
    known, config = [], []
    for name, address, doors in machines:
        kind, key, *_ = (doors / "host_key.pub").read_text().split()
        known.append(f"{name},{address} {kind} {key}\n")
        config.append(CLIENT.format(name=name, address=address, folder=folder))
    (folder / "known_hosts").write_text("".join(known))
    (folder / "config").write_text("\n".join(config))


def fingerprint(doors: Path) -> str:
    """`SHA256:...` of a machine's host key."""
    command = ["ssh-keygen", "-l", "-f", str(doors / "host_key.pub")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1]
