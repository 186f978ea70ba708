"""How does a client prove to a broker who it is, and see that the broker is the one it means?

What is needed for that stands in an *access file*: JSON beside the files that it names.

    {"version": 1, "broker": "10.0.0.1:9092", "tls": true, "ca": "ca.pem",
     "mechanism": "SCRAM-SHA-512", "user": "worker-3", "password_file": "worker-3.password"}

A password stands in a file of its own, which nobody else may read. `HERMES_ACCESS` names an access
file; without it a broker's is looked for in the configuration folder, by its address, where `hermes
up` and `hermes broker start --secure` leave it.
"""

from __future__ import annotations

import difflib
import json
import os
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from hermes.errors import HermesError, UsageError
from hermes.secret_files import refuse_open, write_private
from hermes.transport.address import Address, is_local, parse_address
from hermes.transport.sasl import MECHANISMS

VARIABLE = "HERMES_ACCESS"
INSECURE = "HERMES_INSECURE"
"""Set to 1: a broker without TLS is spoken to off this machine, too."""

VERSION = 1


class Secret:
    """Text that is never shown: neither printed, nor in a traceback's values."""

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text, for whoever has to send it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    __hash__ = None  # type: ignore[assignment]


class Access(NamedTuple):
    """What a client shows a broker, and by what it knows the broker. As it stands: nothing."""

    tls: bool = False
    ca: Path | None = None
    """PEM file with the certificates that may sign the broker's; None: those of this system."""
    authority: str | None = None
    """The same as text (PEM), in place of a file."""
    certificate: Path | None = None
    """PEM file with this client's own certificate and chain."""
    key: Path | None = None
    """PEM file with its key; None: it stands in the certificate's file."""
    mechanism: str | None = None
    """Of SASL: one of `MECHANISMS`."""
    user: str | None = None
    password: Secret | None = None
    insecure: bool = False
    """Whether no TLS is wanted off this machine."""

    def context(self) -> ssl.SSLContext:
        """Of TLS connections. Raises `UsageError` where a file does not fit."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.authority is not None:
            context.load_verify_locations(cadata=self.authority)
        elif self.ca is None:
            context.load_default_certs()
        else:
            with _about(self.ca, "this is no file of certificates (PEM)"):
                context.load_verify_locations(self.ca)
        if self.certificate is not None:
            with _about(self.certificate, "this is no certificate with its key (PEM)"):
                context.load_cert_chain(self.certificate, self.key)
        return context


class _about:
    """Names the file in whatever goes wrong with it."""

    def __init__(self, file: Path, what: str) -> None:
        self._file, self._what = file, what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, ValueError)):  # an SSLError is an OSError
            why = (
                self._what
                if isinstance(error, (ssl.SSLError, ValueError))
                else f"it cannot be read: {error.strerror or error}"
            )
            raise UsageError(
                why, where=str(self._file), remedy="Mend it, or the access file that names it."
            ) from None


class _File(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An access file, as it is written."""

    version: int
    broker: str = ""
    tls: bool = False
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    mechanism: str | None = None
    user: str | None = None
    password_file: str | None = None
    insecure: bool = False


def config_folder() -> Path:
    """The user's configuration of Hermes: `$HERMES_CONFIG`, else `~/.config/hermes`."""
    folder = os.environ.get("HERMES_CONFIG")
    if folder:
        return Path(folder)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "hermes"


def access_file(broker: str) -> Path:
    """Where this machine's access to the broker at HOST:PORT is looked for."""
    address = parse_address(broker)
    name = "".join(c if c.isalnum() or c in ".-" else "_" for c in address.host.lower())
    return config_folder() / "access" / f"{name}_{address.port}.json"


def access_to(broker: str) -> Access:
    """How this machine gets in at the broker at HOST:PORT.

    Raises `UsageError` for files that do not fit, and for a broker without TLS on another machine,
    where nobody has said that this is wanted.
    """
    found = known_access(broker) or Access()
    if _in_clear(found) and _leads_away(parse_address(broker)):
        raise _unsafe("this broker is on another machine", broker)
    return found


def known_access(broker: str) -> Access | None:
    """What the access file for this broker says; None where this machine has none. Raises
    `UsageError` for one that does not fit."""
    named = os.environ.get(VARIABLE)
    file = Path(named) if named else access_file(broker)
    return read_access(file) if named or file.exists() else None


def refuse_elsewhere(broker: Address, advertised: Iterable[Address], access: Access) -> None:
    """A broker that is reached on this machine may send its clients to another one: an SSH tunnel
    ends there, too. Raises `UsageError` as `access_to`."""
    if not _in_clear(access):
        return
    for address in advertised:
        if address != broker and _leads_away(address):
            raise _unsafe(f"this broker sends its clients to {address}, another machine", broker)


def _in_clear(access: Access) -> bool:
    """Whether there is no TLS, and nobody has said that this is wanted."""
    wanted = access.insecure or os.environ.get(INSECURE, "") not in ("", "0")
    return not access.tls and not wanted


def _unsafe(what: str, broker: object) -> UsageError:
    return UsageError(
        f"{what}, and nothing says how to reach it safely: without TLS whoever is on the way reads "
        "and changes what is sent",
        where=str(broker),
        remedy=f"Name its access file: {VARIABLE}=FILE (hermes up, hermes invite and hermes "
        f"broker start --secure make one). In a network that you trust: {INSECURE}=1.",
    )


def _leads_away(address: Address) -> bool:
    """Whether this address means another machine. A name that leads nowhere does not: that is told
    when it is used."""
    if is_local(address.host):
        return False
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return not all(_is_here(place[0], place[4]) for place in found)


def _is_here(family: int, place: Any) -> bool:
    """Whether this is an address of this machine: what is sent to it does not leave it. The system
    tells: only from such an one would it send to it from the very same. (Nothing is sent.)"""
    if is_local(str(place[0])):
        return True
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asked:
            asked.connect(place)
            return bool(asked.getsockname()[0] == place[0])
    except OSError:
        return False


def read_access(file: Path) -> Access:
    """What an access file says. Raises `UsageError` that names the file, the key and a remedy."""
    try:
        text = file.read_bytes()
    except OSError as error:
        raise UsageError(
            f"the access file cannot be read: {error.strerror}",
            where=str(file),
            remedy=f"See that {VARIABLE} names the file.",
        ) from None
    found = _decoded(file, text)
    _check(file, found)
    place = file.parent
    return Access(
        tls=found.tls,
        ca=_beside(place, found.ca),
        certificate=_beside(place, found.certificate),
        key=_beside(place, found.key),
        mechanism=found.mechanism,
        user=found.user,
        password=_password(_beside(place, found.password_file)),
        insecure=found.insecure,
    )


def write_access(
    folder: Path, broker: str, access: Access, name: str = "access", file: Path | None = None
) -> Path:
    """Write an access file to `folder` (default name: access.json; or `file`), and its password
    beside it, where there is one: NAME.password, for nobody else to read. Returns the access file.
    Paths in it are those of `access`, short where they lie beside it. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = file or folder / f"{name}.json"
    password = None
    if access.password is not None:
        password = folder / f"{name}.password"
        write_private(password, access.password.reveal() + "\n")
    told = _File(
        version=VERSION,
        broker=broker,
        tls=access.tls,
        ca=_told(file, access.ca),
        certificate=_told(file, access.certificate),
        key=_told(file, access.key),
        mechanism=access.mechanism,
        user=access.user,
        password_file=_told(file, password),
        insecure=access.insecure,
    )
    write_private(file, json.dumps(msgspec.to_builtins(told), indent=2) + "\n")
    return file


def _decoded(file: Path, text: bytes) -> _File:
    known = [field.name for field in msgspec.structs.fields(_File)]
    try:
        tree: Any = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise _bad(file, f"this is not JSON: {error}") from None
    if not isinstance(tree, dict):
        raise _bad(file, "this is not a JSON object")
    for key in tree:
        if key == "password":
            raise _bad(
                file,
                "a password stands in it",
                "Put it into a file of its own (mode 0600), and name that: password_file.",
            )
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(known)}."
            raise _bad(file, f"unknown key {key!r}", hint)
    if tree.get("version") != VERSION:
        raise _bad(file, f"version is {tree.get('version')!r}; this Hermes reads {VERSION}")
    try:
        return msgspec.convert(tree, _File)
    except msgspec.ValidationError as error:
        raise _bad(file, str(error)) from None


def _check(file: Path, found: _File) -> None:
    if found.mechanism is not None and found.mechanism not in MECHANISMS:
        raise _bad(
            file,
            f"mechanism is {found.mechanism!r}",
            f"It is one of {', '.join(MECHANISMS)}.",
        )
    if (found.mechanism is None) != (found.user is None) or (
        (found.user is None) != (found.password_file is None)
    ):
        raise _bad(file, "mechanism, user and password_file go together: give all three, or none")
    if found.mechanism == "PLAIN" and not found.tls:
        raise _bad(file, "PLAIN sends the password as it is: it needs tls")
    if not found.tls and (found.ca or found.certificate):
        raise _bad(file, "ca and certificate are of TLS, which is off", 'Add "tls": true.')


def _bad(file: Path, what: str, remedy: str = "") -> HermesError:
    return UsageError(what, where=str(file), remedy=remedy or "docs/security.md shows one.")


def _beside(place: Path, name: str | None) -> Path | None:
    return None if name is None else place / Path(name).expanduser()


def _told(file: Path, path: Path | None) -> str | None:
    if path is None:
        return None
    return path.name if path.parent.absolute() == file.parent.absolute() else str(path.absolute())


def _password(file: Path | None) -> Secret | None:
    if file is None:
        return None
    with _about(file, "it is not text"):
        refuse_open(file, "the password")
        text = file.read_text("utf-8").strip()
    if not text:
        raise UsageError("the password file is empty", where=str(file), remedy="Write it anew.")
    return Secret(text)
