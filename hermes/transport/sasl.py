"""How does a client prove that it knows a password? SCRAM (RFC 5802, 7677) and PLAIN (RFC 4616).

Only for the first question to a broker (`probe`), which must name a cause where the client library
retries in silence. Pure, but for the nonce that is passed in.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")


class NotTheServer(Exception):
    """What answers does not know the password either, or does not speak SCRAM."""


def plain(user: str, password: str) -> bytes:
    """The one message of PLAIN."""
    return b"\0".join([b"", user.encode(), password.encode()])


class Scram:
    """One proof: `first`, then `final` of the answer, then `check` of the answer to that."""

    def __init__(self, mechanism: str, user: str, password: str, nonce: str) -> None:
        """`nonce`: printable text that was never used before, without a comma."""
        self._hash = mechanism.removeprefix("SCRAM-").replace("-", "").lower()
        self._password = password.encode()
        self._nonce = nonce
        name = user.replace("=", "=3D").replace(",", "=2C")
        self._bare = f"n={name},r={nonce}"
        self._server = b""

    def first(self) -> bytes:
        return b"n,," + self._bare.encode()

    def final(self, answer: bytes) -> bytes:
        """The proof, for the server's salt. Raises `NotTheServer`."""
        fields = _fields(answer)
        try:
            salt = base64.b64decode(fields["s"], validate=True)
            rounds, nonce = int(fields["i"]), fields["r"]
        except (KeyError, ValueError, binascii.Error):
            raise NotTheServer("its answer is not one of SCRAM") from None
        if not nonce.startswith(self._nonce) or not 0 < rounds <= 1_000_000:
            raise NotTheServer("its answer is not for our question")
        salted = hashlib.pbkdf2_hmac(self._hash, self._password, salt, rounds)
        without = f"c=biws,r={nonce}"
        signed = ",".join([self._bare, answer.decode(), without]).encode()
        ours = self._mac(salted, b"Client Key")
        stored = hashlib.new(self._hash, ours).digest()
        proof = bytes(a ^ b for a, b in zip(ours, self._mac(stored, signed), strict=True))
        self._server = self._mac(self._mac(salted, b"Server Key"), signed)
        return f"{without},p={base64.b64encode(proof).decode()}".encode()

    def check(self, answer: bytes) -> None:
        """See that the server knows the password, too. Raises `NotTheServer`."""
        told = _fields(answer).get("v", "").encode()
        if not hmac.compare_digest(told, base64.b64encode(self._server)):
            raise NotTheServer("it does not know this user's password itself")

    def _mac(self, key: bytes, data: bytes) -> bytes:
        return hmac.new(key, data, self._hash).digest()


def _fields(message: bytes) -> dict[str, str]:
    parts = message.decode("utf-8", "replace").split(",")
    return {part[:1]: part[2:] for part in parts if part[1:2] == "="}
