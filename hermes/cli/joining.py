"""Where does a worker go, and what does it show there? What was typed, else what its token says."""

from __future__ import annotations

import base64
import getpass
import ssl
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

from hermes.broker.secured import MASTER
from hermes.cli.connect import at_flag
from hermes.errors import UsageError
from hermes.runtime.keys import (
    KeyFile,
    cluster_key,
    default_key_file,
    fingerprint,
    parse_key,
    read_key,
)
from hermes.transport.access import Access, access_to, known_access
from hermes.transport.address import is_local, parse_address
from hermes.transport.settings import SCRAM


class Token(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `hermes worker --join` is given: where to, and which key it takes (not the key)."""

    broker: str
    run: str
    key: str
    """Fingerprint."""
    ca: bytes = b""
    """Certificate (DER) of the CA that signed the broker's; none: no TLS."""
    user: str = ""
    """Who the worker is at the broker, and its name; the password stands in its key file."""

    def text(self) -> str:
        """As it is typed."""
        return base64.urlsafe_b64encode(msgspec.msgpack.encode(self)).decode().rstrip("=")


class Ticket(NamedTuple):
    """What a worker goes with."""

    broker: str
    run: str | None
    key: bytes
    access: Access

    @property
    def name(self) -> str | None:
        """Under which the broker knows this worker: a worker of ours is called as its user."""
        user = self.access.user
        return user if user not in (None, MASTER) else None


def read_token(text: str) -> Token:
    """The token in this text. Raises `UsageError`."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.msgpack.decode(data, type=Token)
    except (ValueError, msgspec.DecodeError):
        raise UsageError(
            "this is not a token",
            where="--join",
            remedy="Copy the whole line that the master printed: hermes worker --join TOKEN",
        ) from None


def ways_in(token: Token, access: Access, invite: str) -> list[str]:
    """How workers come to the run of this token, for whoever leads it: lines to type, and what to
    know of them. `access`: how its broker is got in at; `invite`: what lets one more in there."""
    local = is_local(parse_address(token.broker).host)
    join = f"hermes worker --join {token.text()}"
    start = "hermes broker start --listen 0.0.0.0 --advertise HOST:PORT"
    if access.mechanism is None:
        alone = "This broker is for this machine alone; there, give each worker a --name."
        return [join, f"({alone} For others: {start})"] if local else [join]
    if local:
        alone = "This broker is for this machine alone; workers here come in as the master's user: "
        others = f"For others: {start} --kind apache --secure, then {invite}"
        return [join, f"({alone}give each a --name. {others})"]
    return [
        join,
        "(With the access file that hermes up left there. Any other machine gets a line and a key "
        "file of its own, on the broker's machine:)",
        invite,
    ]


def ticket_of(
    join: str | None, broker: str | None, run: str | None, key_file: Path | None, default: str
) -> Ticket:
    """Broker, run, cluster key and access: what was typed, else what the token says, else the
    default. A key that is nowhere is asked for. Raises `UsageError`."""
    if join is None:
        place = broker or default
        with at_flag("--broker"):
            parse_address(place)
        return Ticket(place, run, cluster_key(key_file), access_to(place))
    token = read_token(join)
    shown = _key_for(token, key_file)
    place = broker or token.broker
    return Ticket(place, run or token.run or None, shown.key, _access(token, shown, place))


def certificate(access: Access) -> bytes:
    """The CA's certificate, as a token carries it; b"" where there is none to carry."""
    if not access.tls or access.ca is None:
        return b""
    try:
        return ssl.PEM_cert_to_DER_cert(access.ca.read_text("ascii").strip())
    except (OSError, ValueError):  # several of them, or those of a company: they have theirs
        return b""


def _key_for(token: Token, file: Path | None) -> KeyFile:
    """The cluster key that the token is for. Raises `UsageError`."""
    place = file or default_key_file()
    missing = _is_missing(place)
    if file is None and missing:
        if sys.stdin.isatty():
            return _fits(token, _typed(token), "what was typed")
        raise UsageError(
            "there is no cluster key on this machine, and the run takes one",
            where=str(place),
            remedy=f"{_remedy(token)} In a terminal it can be typed.",
        )
    if missing:
        raise UsageError("there is no such key file", where=str(place), remedy=_remedy(token))
    return _fits(token, read_key(place), str(place))


def _is_missing(place: Path) -> bool:
    """Whether it is not there; what may not be looked at is told as it is read."""
    try:
        return not place.exists()
    except OSError:
        return False


def _remedy(token: Token) -> str:
    """Which key file is the right one: a user's own has its password, too."""
    if token.user:
        return (
            f"Carry the file here that hermes invite {token.user} wrote (mode 0600), and name it: "
            "--key-file FILE."
        )
    return (
        f"Copy the master's key file here (mode 0600), to {default_key_file()}, or name it: "
        "--key-file FILE."
    )


def _fits(token: Token, found: KeyFile, where: str) -> KeyFile:
    ours = fingerprint(found.key)
    if ours != token.key:
        raise UsageError(
            f"the master has the cluster key {token.key}, this worker {ours} ({where})",
            where="--join",
            remedy=_remedy(token),
        )
    return found


def _typed(token: Token) -> KeyFile:
    """Asked for on the terminal, and shown nowhere."""
    what = "cluster key"
    if token.user:
        what += " and password (both lines of the key file, with a blank between)"
    typed = getpass.getpass(f"{what}: ")
    return parse_key(typed.replace(" password:", "\npassword:").strip(), "what was typed")


def _access(token: Token, shown: KeyFile, place: str) -> Access:
    """How the worker gets in. Raises `UsageError`."""
    if not token.ca:
        return access_to(place)
    authority = ssl.DER_cert_to_PEM_cert(token.ca)
    if not token.user:
        # Which machine this is, its own access file says, where it has one.
        known = known_access(place)
        if known is None or not known.tls:
            known = Access()
        return known._replace(tls=True, ca=None, authority=authority)
    if shown.password is None:
        raise UsageError(
            f"the key file holds no password for {token.user!r}",
            where="--key-file",
            remedy=f"Take the file that hermes invite {token.user} wrote, not the master's.",
        )
    return Access(
        tls=True, authority=authority, mechanism=SCRAM, user=token.user, password=shown.password
    )
