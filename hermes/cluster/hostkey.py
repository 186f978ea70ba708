"""Is the machine that answers the one that is meant? Its SSH host key says so, or we go no further.

A fingerprint in conf decides alone; else the user's and the machine's known_hosts do. There is no
asking and no trust on first use: an unknown key is refused with the line to add.
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hermes.errors import NodeError

if TYPE_CHECKING:
    import paramiko

SYSTEM = Path("/etc/ssh/ssh_known_hosts")


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
    return [entry[0] for entry in _known(identity)]


def check(identity: Identity, key: paramiko.PKey) -> None:
    """Raise `NodeError` if this is not the key that the host is known by."""
    shown = fingerprint_of(key.asbytes())
    if identity.fingerprint is not None:
        if identity.fingerprint != shown:
            raise _changed(identity, key, f"conf says {identity.fingerprint}")
        return
    known = _known(identity)
    if any(blob == key.asbytes() for _kind, blob in known):
        return
    of_this_kind = [fingerprint_of(blob) for kind, blob in known if kind == key.get_name()]
    if of_this_kind:
        raise _changed(identity, key, f"known_hosts says {of_this_kind[0]}")
    raise _unknown(identity, key)


def line_for(identity: Identity, key: paramiko.PKey) -> str:
    """The line for known_hosts."""
    return f"{identity.place} {key.get_name()} {key.get_base64()}"


def _known(identity: Identity) -> list[tuple[str, bytes]]:
    """(kind, key) of every line for this host. Lines that cannot be read count as absent."""
    import paramiko

    found = []
    for file in (known_hosts(), SYSTEM):
        hosts = paramiko.HostKeys()
        try:
            hosts.load(str(file))
        except OSError:
            continue
        keys = hosts.lookup(identity.place)
        for kind in keys.keys() if keys is not None else ():
            key = keys[kind]
            found.append((kind, key.asbytes()))
    return found


def _unknown(identity: Identity, key: paramiko.PKey) -> NodeError:
    return NodeError(
        f"its SSH host key is not known here: {key.get_name()} {fingerprint_of(key.asbytes())}",
        where=f"{identity.node} ({identity.place})",
        remedy="Compare it with what the device itself says (there: ssh-keygen -lf "
        "/etc/ssh/ssh_host_ed25519_key.pub). If it is the same, give the node this in "
        f'conf/config.json:\n    "fingerprint": "{fingerprint_of(key.asbytes())}"\n'
        f"  or add this line to {known_hosts()}:\n    {line_for(identity, key)}",
    )


def _changed(identity: Identity, key: paramiko.PKey, known: str) -> NodeError:
    return NodeError(
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
