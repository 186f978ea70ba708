"""How do values become bytes, and bytes values? On any bytes: a value, or `DecodeError`. Pure."""

from __future__ import annotations

import hashlib
import hmac

import msgspec

from hermes.coded import decode_tensors
from hermes.errors import DecodeError
from hermes.messages import PROTOCOL, AnyMessage, Hello, StopRequested
from hermes.packing import encode_tensors

__all__ = [
    "decode",
    "decode_tensors",
    "digest_of",
    "encode",
    "encode_tensors",
    "proof_of",
    "same",
    "sign",
    "verified",
]

MAGIC = b"HM"
"""The first bytes of every small message; the third byte is the protocol's number."""

MAX_MESSAGE = 1 << 20
"""Bytes of the largest small message that we look at: a stock broker's record limit."""

_HEAD = MAGIC + bytes([PROTOCOL])

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: AnyMessage) -> bytes:
    """The bytes of a small message."""
    return _HEAD + _ENCODER.encode(message)


def decode(data: bytes | bytearray, limit: int = MAX_MESSAGE) -> AnyMessage:
    """The message in `data`, of at most `limit` bytes. Raises `DecodeError` for anything that is
    not one of ours."""
    if data[:2] != MAGIC:
        raise DecodeError("not a message of Hermes")
    if data[2:3] != bytes([PROTOCOL]):
        raise DecodeError(f"a message of another protocol than {PROTOCOL}")
    if len(data) > limit:
        raise DecodeError(f"a message of {len(data)} bytes; the limit is {limit}")
    try:
        return _DECODER.decode(memoryview(data)[3:])
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, ValueError) as error:
        raise DecodeError(f"a damaged message: {error}") from None


def proof_of(key: bytes, message: Hello | StopRequested) -> str:
    """HMAC-SHA256 (hex) of the message without its proof, under the cluster key."""
    bare = msgspec.structs.replace(message, proof="")
    return hmac.new(key, encode(bare), hashlib.sha256).hexdigest()


def same(one: str, other: str) -> bool:
    """Whether two proofs are the same, in a time that tells nothing; any text may be given."""
    return hmac.compare_digest(one.encode(), other.encode())


def verified(key: bytes, message: Hello | StopRequested) -> bool:
    """Whether the message carries the proof that the cluster key gives."""
    return same(message.proof, proof_of(key, message))


def sign(key: bytes, *parts: str) -> str:
    """HMAC-SHA256 (hex) over texts, unambiguously joined."""
    return hmac.new(key, _ENCODER.encode(parts), hashlib.sha256).hexdigest()


def digest_of(data: bytes | bytearray | memoryview) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()
