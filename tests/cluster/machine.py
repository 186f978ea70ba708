"""What does a machine of the bed see of the disk, and what runs there first?

This is the first process of a machine (`unshare` has made its namespaces): it puts the machine's
own folders over this computer's, starts the SSH server, reaps what is orphaned, and ends, and with
it all that runs on the machine, when the bed at the other end of its standard input does.

The machine's own: its home, /tmp and /var/tmp, /run, /proc, the names of hosts. A worker can write
nowhere else. The rest is the disk of this computer, with its programs. What must stay visible in
spite of an own folder over it (the Python that runs this, if it lies in root's home) is kept.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

DOORS = "/run/bed"
"""Where the server's keys and configuration are, on the machine."""

LOG = f"{DOORS}/log"


class Sight(NamedTuple):
    """What a machine sees; plain values, for it comes as JSON (`sight.json` in its folder)."""

    name: str
    home: str
    folder: str
    """The folder of the machine's own things, on this computer."""
    hidden: list[str]
    """Folders that the machine has of its own; its home is another."""
    kept: list[str]
    """Folders that stay visible, though a folder over them is the machine's own."""
    disk: str | None = None
    """The size of its home (`64m`), which is in memory then."""
    read_only: bool = False
    """Can nothing be written to its home?"""
    worker: bool = True
    server: str = ""
    """The SSH server, on a worker."""

    @property
    def own(self) -> Path:
        return Path(self.folder)


def main(folder: str) -> None:
    """Be the first process of a machine."""
    sight = Sight(**json.loads((Path(folder) / "sight.json").read_text()))
    furnish(sight)
    if sight.worker:
        answer(sight.server)
    signal.signal(signal.SIGCHLD, reap)
    reap()
    print("ready", flush=True)
    os.read(0, 1)
    os._exit(0)


def furnish(sight: Sight) -> None:
    """Put the machine's own folders in place."""
    subprocess.run(["hostname", sight.name], check=True)
    home = sight.own / "home"
    if sight.disk is not None:
        mount("-t", "tmpfs", "-o", f"size={sight.disk},mode=700", "bed", str(home))
    covers = {folder: sight.own / folder.strip("/").replace("/", "-") for folder in sight.hidden}
    covers[sight.home] = home
    for kept in sight.kept:
        keep(kept, covers, sight.worker)
    if sight.read_only:
        mount("--rbind", str(home), str(home))
        mount("-o", "remount,bind,ro", str(home))
    for file in ("hosts", "hostname"):
        if Path(f"/etc/{file}").exists():
            mount("--bind", str(sight.own / "etc" / file), f"/etc/{file}")
    for folder in sorted(covers, key=sight.folder.startswith):  # what holds all these comes last
        mount("--rbind", str(covers[folder]), folder)
    mount("-t", "proc", "proc", "/proc")
    if sight.worker:
        mount("-o", "remount,bind,ro", "/")


def keep(folder: str, covers: dict[str, Path], read_only: bool) -> None:
    """Let a folder be seen where one of the machine's own will lie over it."""
    for cover, own in covers.items():
        if Path(folder).is_relative_to(cover):
            there = own / Path(folder).relative_to(cover)
            there.mkdir(parents=True, exist_ok=True)
            mount("--rbind", folder, str(there))
            if read_only:
                mount("-o", "remount,bind,ro", str(there))


def answer(server: str) -> None:
    """Start the SSH server."""
    with Path(LOG).open("ab") as log:
        command = [server, "-D", "-e", "-f", f"{DOORS}/sshd_config"]
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")


def mount(*options: str) -> None:
    subprocess.run(["mount", *options], check=True)


def reap(*_: object) -> None:
    """Forget children that ended, and the orphans that became children."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    main(sys.argv[1])
