"""Why does a broker not let us in? TLS, then SASL, each with the cause of a refusal.

The client library retries what fails here in silence, and after half a minute says only that it
could not connect.
"""

from __future__ import annotations

import re
import secrets
import socket
import ssl
import struct
import time
from collections.abc import Callable

from hermes.errors import BrokerError, BrokerRefused, BrokerUnreachable
from hermes.transport.access import Access
from hermes.transport.address import Address
from hermes.transport.sasl import NotTheServer, Scram, plain

Ask = Callable[[int, int, bytes], bytes]
"""One request: its number, its version and its body; the answer's body."""

_HANDSHAKE, _AUTHENTICATE = 17, 36
_UNSUPPORTED_MECHANISM, _ILLEGAL_STATE, _FAILED = 33, 34, 58

SECURITY = "See docs/security.md."

_VERIFY = {
    10: "its certificate has expired",
    9: "its certificate is not valid yet: is this machine's clock right?",
    62: "its certificate is for another name",
    64: "its certificate is for another address",
}
"""OpenSSL's number of what does not hold -> what to say of it; any other: it is not signed by a CA
that we trust."""


def secured(
    plainly: socket.socket, address: Address, access: Access, seconds: float
) -> ssl.SSLSocket:
    """The connection, under TLS. Raises `BrokerUnreachable` with the cause."""
    plainly.settimeout(max(0.1, seconds))
    try:
        return access.context().wrap_socket(plainly, server_hostname=address.host)
    except ssl.SSLCertVerificationError as error:
        raise _stranger(address, access, error) from None
    except TimeoutError:
        what, remedy = "it does not answer our TLS greeting", "Is it a broker that is starting?"
        raise _no(address, what, remedy, retriable=True) from None
    except (ssl.SSLError, ConnectionError) as error:
        told = refused_by(error, access)
        if told is not None:
            raise _no(address, *told) from None
        raise _no(
            address,
            "it does not speak TLS, and our access file says that it does",
            'Is it the port of another listener, or a broker without TLS ("tls": false)?',
        ) from None


def refused_by(error: OSError, access: Access) -> tuple[str, str] | None:
    """What a broker that hung up under TLS wants, and the remedy; None: it did not say."""
    alert = str(getattr(error, "reason", "") or "")
    if "ALERT" not in alert:
        return None
    if access.certificate is None and re.search(
        "CERTIFICATE_REQUIRED|BAD_CERTIFICATE|HANDSHAKE", alert
    ):
        return (
            "it wants a certificate of its clients, and we have none",
            f'Name yours in the access file: "certificate" and "key". {SECURITY}',
        )
    said = alert.lower().replace("_", " ")
    return (
        f"it does not accept our certificate ({said})",
        f"Is it of the CA that the broker trusts, and still valid? {SECURITY}",
    )


def authenticate(ask: Ask, address: Address, access: Access) -> None:
    """Prove who we are. Raises `BrokerRefused` with the cause, and whatever `ask` raises."""
    assert access.mechanism is not None
    assert access.user is not None
    assert access.password is not None
    _agree(ask, address, access.mechanism)
    user, password = access.user, access.password.reveal()
    if access.mechanism == "PLAIN":
        _say(ask, address, user, plain(user, password))
        return
    scram = Scram(access.mechanism, user, password, secrets.token_hex(16))
    try:
        challenge = _say(ask, address, user, scram.first())
        scram.check(_say(ask, address, user, scram.final(challenge)))
    except NotTheServer as error:
        raise _refused(address, f"what listens there is not our broker: {error}") from None


def mechanisms(ask: Ask) -> str:
    """What a listener offers for proving who one is; "" if it asks nobody. Raises what `ask` does.

    Nothing is proved with it: a mechanism that nobody has is proposed.
    """
    answer = ask(_HANDSHAKE, 1, _text("NONE"))
    (error,) = struct.unpack_from(">h", answer)
    return ", ".join(_offered(answer)) if error == _UNSUPPORTED_MECHANISM else ""


def wants_a_user(address: Address, offered: str) -> BrokerError:
    """What to say where a broker asks who we are, and nothing here tells."""
    return _refused(
        address,
        f"it asks who we are ({offered}), and nothing here tells",
        "Take the line and the key file of hermes invite NAME, typed on the broker's machine; or "
        f"name an access file with user and password_file: HERMES_ACCESS=FILE. {SECURITY}",
    )


def _agree(ask: Ask, address: Address, mechanism: str) -> None:
    answer = ask(_HANDSHAKE, 1, _text(mechanism))
    (error,) = struct.unpack_from(">h", answer)
    if error == _UNSUPPORTED_MECHANISM:
        raise _refused(
            address,
            f"it does not take {mechanism}; it takes {', '.join(_offered(answer)) or 'nothing'}",
            'Say so in the access file: "mechanism".',
        )
    if error == _ILLEGAL_STATE:
        raise _refused(
            address,
            "it asks nobody who he is, and our access file gives a user",
            "Is it the port of another listener? Else leave mechanism, user and password_file out.",
        )
    if error:
        raise _refused(address, f"it refuses to talk of users (error {error})")


def _say(ask: Ask, address: Address, user: str, message: bytes) -> bytes:
    answer = ask(_AUTHENTICATE, 0, struct.pack(">i", len(message)) + message)
    error, size = struct.unpack_from(">hh", answer)
    at = 4 + max(0, size)
    if error == _FAILED:
        raise _refused(
            address,
            f"it does not know the user {user!r}, or not with this password",
            f"Was {user} revoked, or its password made anew? hermes up hands out what is in force; "
            f"without SSH: hermes invite {user}.",
        )
    if error:
        said = answer[4:at].decode("utf-8", "replace")
        raise _refused(address, f"it does not let {user!r} in: {said or f'error {error}'}")
    (length,) = struct.unpack_from(">i", answer, at)
    return answer[at + 4 : at + 4 + max(0, length)]


def _offered(answer: bytes) -> list[str]:
    (count,) = struct.unpack_from(">i", answer, 2)
    found, at = [], 6
    for _ in range(max(0, min(count, 50))):
        (size,) = struct.unpack_from(">h", answer, at)
        found.append(answer[at + 2 : at + 2 + size].decode("utf-8", "replace"))
        at += 2 + size
    return found


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _stranger(
    address: Address, access: Access, error: ssl.SSLCertVerificationError
) -> BrokerUnreachable:
    what = _VERIFY.get(error.verify_code)
    if error.verify_code in (62, 64):
        return _no(
            address,
            f"{what}: it does not hold for {address.host!r}",
            "Use the address that the broker advertises, or start it with this one: --advertise.",
        )
    if what is not None:
        return _no(address, what, "hermes up and hermes broker start make a new one.")
    if access.authority is not None:
        signer = "the CA in the token (--join)"
    else:
        signer = f"the CA in {access.ca}" if access.ca else "any CA that this system trusts"
    return _no(
        address,
        f"its certificate is not signed by {signer}",
        "Another broker than the one that is meant, or its CA was made anew: hermes up, or "
        f"hermes invite, hands out the one in force. {SECURITY}",
    )


def _no(address: Address, what: str, remedy: str, *, retriable: bool = False) -> BrokerUnreachable:
    error = BrokerUnreachable(what, where=str(address), remedy=remedy)
    error.retriable = retriable
    return error


def _refused(address: Address, what: str, remedy: str = SECURITY) -> BrokerRefused:
    return BrokerRefused(what, where=str(address), remedy=remedy)


def time_left(deadline: float) -> float:
    """Seconds, at least a few hundredths."""
    return max(0.05, deadline - time.monotonic())
