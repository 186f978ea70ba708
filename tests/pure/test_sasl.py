"""SCRAM, against the exchanges that its RFCs print."""

from __future__ import annotations

import base64

import pytest

from hermes.transport.sasl import NotTheServer, Scram, plain

# RFC 7677, part 3.
NONCE = "rOprNGfwEbeRWgbNEkqO"
FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
CHALLENGE = (
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
)
FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
PROVED = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def scram() -> Scram:
    return Scram("SCRAM-SHA-256", "user", "pencil", NONCE)


def test_the_exchange_of_the_rfc() -> None:
    one = scram()
    assert one.first() == FIRST
    assert one.final(CHALLENGE) == FINAL
    one.check(PROVED)


def test_a_server_that_does_not_know_the_password() -> None:
    one = scram()
    one.final(CHALLENGE)
    forged = b"v=" + base64.b64encode(bytes(32))
    for answer in (forged, b"", b"e=other-error", PROVED[:-2]):
        with pytest.raises(NotTheServer, match="password"):
            one.check(answer)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"r=rOprNGfwEbeRWgbNEkqO,i=4096",
        b"r=another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=!!,i=4096",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=0",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=100000000",
        b"\xff\xfe",
    ],
)
def test_what_is_no_challenge_of_ours(answer: bytes) -> None:
    """Another's nonce, a salt that is none, rounds that would take hours."""
    with pytest.raises(NotTheServer):
        scram().final(answer)


def test_a_name_with_a_comma() -> None:
    assert Scram("SCRAM-SHA-512", "a,b=c", "x", "n").first() == b"n,,n=a=2Cb=3Dc,r=n"


def test_plain() -> None:
    assert plain("tim", "tanstaaf") == b"\0tim\0tanstaaf"  # RFC 4616, part 4
