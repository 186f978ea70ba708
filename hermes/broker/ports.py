"""Which process of this machine listens at a port? As far as Linux lets this user know."""

from __future__ import annotations

from pathlib import Path

LISTENING = "0A"
"""The state of a listening socket in /proc/net/tcp."""


def listener(port: int, proc: Path = Path("/proc")) -> str:
    """ "python3 (process 1234)"; "" where it cannot be known."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port, proc)}
    if not sockets:
        return ""
    for process in proc.glob("[0-9]*"):
        if _holds(process, sockets):
            try:
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
            except OSError:
                return f"process {process.name}"
    return ""


def _inodes(port: int, proc: Path) -> set[str]:
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


def _holds(process: Path, sockets: set[str]) -> bool:
    try:
        return any(str(link.readlink()) in sockets for link in (process / "fd").iterdir())
    except OSError:  # another user's, or gone
        return False
