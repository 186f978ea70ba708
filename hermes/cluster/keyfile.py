"""Is this the file of a private SSH key, and is it private?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

HEAD = 4096
"""Bytes that are looked at; they are not kept."""


class Trouble(NamedTuple):
    """What is wrong with a key file."""

    what: str
    """`which others can read`."""
    remedy: str


def trouble(key: Path) -> Trouble | None:
    """What is wrong with it; None: nothing that can be seen from outside."""
    try:
        mode = key.stat().st_mode
        with key.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        return Trouble(
            f"which cannot be read: {error.strerror or error}",
            "Name the file of a private SSH key, or leave it out: then the agent and the usual "
            "files of ~/.ssh are asked. To make one: ssh-keygen -t ed25519",
        )
    if re.match(rb"(ssh|ecdsa|sk)-[\w@.-]+ ", head) or b"PUBLIC KEY" in head:
        return Trouble("a public key", "Name the private one: mostly the same without .pub.")
    if mode & 0o077:
        return Trouble("which others can read", f"Take that away: chmod 600 {key}")
    if head.startswith(b"PuTTY-User-Key"):
        return Trouble("a key in PuTTY's form", "Convert it: puttygen KEY -O private-openssh -o K")
    if b"PRIVATE KEY" not in head:
        return Trouble("no SSH key", "Name the file of a private key: ssh-keygen -t ed25519")
    return None
