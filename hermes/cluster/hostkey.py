"""Is the machine that answers the one that is meant? Its SSH host key says so, or we go no further.

A fingerprint in conf decides alone; else the user's and the machine's known_hosts do. There is no
asking and no trust on first use: an unknown key is refused with the line to add.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hermes.errors import NodeError

if TYPE_CHECKING:
    import paramiko

SYSTEM = Path("/etc/ssh/ssh_known_hosts")


class Changed(NodeError):
    """It shows another key than the one that it is known by."""


class Line(NamedTuple):
    """Of known_hosts."""

    kind: str
    key: bytes
    revoked: bool


class Identity(NamedTuple):
    """Whose key is to be seen, and by what it is known."""

    node: str
    host: str
    port: int
    fingerprint: str | None
    """Of conf; None: known_hosts decides."""

    @property
    def place(self) -> str:
        """As known_hosts names it."""
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"


def known_hosts() -> Path:
    """The user's file; `HERMES_KNOWN_HOSTS` names another one."""
    chosen = os.environ.get("HERMES_KNOWN_HOSTS")
    return Path(chosen) if chosen else Path.home() / ".ssh" / "known_hosts"


def fingerprint_of(key: bytes) -> str:
    """`SHA256:...`, as `ssh-keygen -l` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def kinds_known(identity: Identity) -> list[str]:
    """The kinds of keys that known_hosts has for the host: those are asked for first."""
    if identity.fingerprint is not None:
        return []
    return [line.kind for line in _known(identity) if not line.revoked]


def check(identity: Identity, key: paramiko.PKey) -> None:
    """Raise `NodeError` if this is not the key that the host is known by."""
    shown = fingerprint_of(key.asbytes())
    if identity.fingerprint is not None:
        if identity.fingerprint != shown:
            raise _changed(identity, key, f"conf says {identity.fingerprint}")
        return
    known = _known(identity)
    seen = [line for line in known if line.key == key.asbytes()]
    if any(line.revoked for line in seen):
        raise _revoked(identity, key)
    if seen:
        return
    of_this_kind = [
        fingerprint_of(line.key)
        for line in known
        if line.kind == key.get_name() and not line.revoked
    ]
    if of_this_kind:
        raise _changed(identity, key, f"known_hosts says {' or '.join(of_this_kind)}")
    raise _unknown(identity, key)


def line_for(identity: Identity, key: paramiko.PKey) -> str:
    """The line for known_hosts."""
    return f"{identity.place} {key.get_name()} {key.get_base64()}"


def _known(identity: Identity) -> list[Line]:
    """Every line for this host. What cannot be read counts as absent."""
    found = []
    for file in (known_hosts(), SYSTEM):
        try:
            text = file.read_text("utf-8", "replace")
        except OSError:
            continue
        found += list(_lines_for(identity.place.lower(), text))
    return found


def _lines_for(place: str, text: str) -> Iterator[Line]:
    for line in text.splitlines():
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or marker not in ("", "@revoked") or words[0].startswith("#"):
            continue  # authorities sign certificates, which we do not take
        hosts, kind, key, *_ = words
        try:
            blob = base64.b64decode(key, validate=True)
            if _names(hosts, place):
                yield Line(kind, blob, marker == "@revoked")
        except binascii.Error:
            continue


def _names(hosts: str, place: str) -> bool:
    """Whether this list of hosts, or a hashed one, has the place. Raises `binascii.Error`."""
    if hosts.startswith("|1|"):
        salt, _, digest = hosts[3:].partition("|")
        made = hmac.new(base64.b64decode(salt), place.encode(), "sha1").digest()
        return hmac.compare_digest(made, base64.b64decode(digest))
    patterns = hosts.lower().split(",")
    if any(one.startswith("!") and _fits(one[1:], place) for one in patterns):
        return False
    return any(_fits(one, place) for one in patterns)


def _fits(pattern: str, place: str) -> bool:
    wild = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(wild, place) is not None


def _unknown(identity: Identity, key: paramiko.PKey) -> NodeError:
    return NodeError(
        f"its SSH host key is not known here: {key.get_name()} {fingerprint_of(key.asbytes())}",
        where=f"{identity.node} ({identity.place})",
        remedy="Compare it with what the device itself says (there: ssh-keygen -lf "
        "/etc/ssh/ssh_host_ed25519_key.pub). If it is the same, give the node this in "
        f'conf/config.json:\n    "fingerprint": "{fingerprint_of(key.asbytes())}"\n'
        f"  or add this line to {known_hosts()}:\n    {line_for(identity, key)}",
    )


def _revoked(identity: Identity, key: paramiko.PKey) -> NodeError:
    return NodeError(
        f"its SSH host key is marked @revoked in known_hosts: {key.get_name()} "
        f"{fingerprint_of(key.asbytes())}",
        where=f"{identity.node} ({identity.place})",
        remedy="That key is not to be trusted any more: give the device a new one (there: "
        "ssh-keygen -A, once the old ones are removed), and add that one to known_hosts.",
    )


def _changed(identity: Identity, key: paramiko.PKey, known: str) -> Changed:
    return Changed(
        f"its SSH host key has CHANGED: it shows {key.get_name()} "
        f"{fingerprint_of(key.asbytes())}, {known}",
        where=f"{identity.node} ({identity.place})",
        remedy="Either it was set up anew, or another machine answers in its place: nothing was "
        "sent to it. Compare with what the device itself says; if it is right, mend "
        + (
            "fingerprint in conf/config.json."
            if identity.fingerprint is not None
            else f"known_hosts: ssh-keygen -R '{identity.place}' -f {known_hosts()}, then add\n"
            f"    {line_for(identity, key)}"
        ),
    )
