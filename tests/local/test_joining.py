"""How does a worker with a token get in? By the token's CA, and as who its key file or its machine
says that it is."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest

from hermes.broker.ca import Authority
from hermes.cli.access import invitation
from hermes.cli.joining import Ticket, Token, ticket_of, ways_in
from hermes.errors import UsageError
from hermes.runtime.keys import default_key_file, fingerprint
from hermes.transport.access import Access, access_file

KEY = bytes(range(32))
BROKER = "10.0.0.1:9092"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HERMES_CONFIG", str(tmp_path))
    monkeypatch.delenv("HERMES_ACCESS", raising=False)
    return tmp_path


def secret(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o600)
    return file


def came(place: Path, user: str = "", password: str = "") -> tuple[Ticket, str]:
    """What a worker goes with, and the CA of its token."""
    der = ssl.PEM_cert_to_DER_cert(Authority(place / "authority").path.read_text())
    token = Token(BROKER, "r", fingerprint(KEY), der, user)
    shown = f"{KEY.hex()}\npassword: {password}\n" if password else KEY.hex()
    key = secret(place / "it.key", shown)
    return ticket_of(token.text(), None, None, key, "127.0.0.1:9092"), ssl.DER_cert_to_PEM_cert(der)


def known(place: Path, **more: object) -> None:
    """This machine has an access file for the broker."""
    password = secret(place / "w.password", "of the file\n")
    tree = {
        "version": 1,
        "broker": BROKER,
        "tls": True,
        "ca": str(Authority(place / "another").path),
        "mechanism": "SCRAM-SHA-512",
        "user": "w",
        "password_file": str(password),
    }
    tree = {name: value for name, value in {**tree, **more}.items() if value is not None}
    secret(access_file(BROKER), json.dumps(tree))


def test_a_token_with_a_user_takes_the_password_of_its_key_file(place: Path) -> None:
    ticket, authority = came(place, "w7", "of the key")
    assert (ticket.broker, ticket.run, ticket.key, ticket.name) == (BROKER, "r", KEY, "w7")
    access = ticket.access
    assert (access.tls, access.ca, access.authority, access.user) == (True, None, authority, "w7")
    assert access.password is not None
    assert access.password.reveal() == "of the key"


def test_a_user_without_a_password_is_told_which_file_to_take(place: Path) -> None:
    with pytest.raises(UsageError, match="no password for 'w7'") as told:
        came(place, "w7")
    assert "hermes invite w7" in told.value.remedy


def test_a_users_key_errors_name_the_file_that_has_the_password(place: Path) -> None:
    token = Token(BROKER, "r", fingerprint(KEY), b"", "w7").text()
    other = secret(place / "other.key", bytes(32).hex())
    for file in (place / "none.key", other):
        with pytest.raises(UsageError) as told:
            ticket_of(token, None, None, file, "127.0.0.1:9092")
        assert "that hermes invite w7 wrote" in told.value.remedy
        assert str(file) in str(told.value)
    token = Token(BROKER, "r", fingerprint(KEY)).text()
    with pytest.raises(UsageError) as told:
        ticket_of(token, None, None, other, "127.0.0.1:9092")
    assert "Copy the master's key file here" in told.value.remedy


def test_without_a_user_the_machine_says_who_it_is(place: Path) -> None:
    known(place)
    ticket, authority = came(place)
    access = ticket.access
    assert (access.user, access.ca, access.authority) == ("w", None, authority)


def test_without_either_only_the_broker_is_known(place: Path) -> None:
    ticket, authority = came(place)
    access = ticket.access
    assert (access.user, access.password) == (None, None)
    assert (access.tls, access.authority) == (True, authority)


def test_an_access_file_without_tls_is_of_another_broker(place: Path) -> None:
    known(place, tls=False, ca=None)
    ticket, _ = came(place)
    assert (ticket.access.tls, ticket.access.user) == (True, None)


def test_a_bad_access_file_is_told(place: Path) -> None:
    known(place, mechanism="GUESSING")
    with pytest.raises(UsageError, match="GUESSING"):
        came(place)


USERS = Access(tls=True, mechanism="SCRAM-SHA-512", user="master")
INVITE = "hermes invite NAME --run r"


def ways(broker: str, access: Access) -> list[str]:
    """What the master says, with `TOKEN` for the token, which leads to the broker."""
    token = Token(broker, "r", fingerprint(KEY))
    lines = ways_in(token, access, INVITE)
    assert any(token.text() in line for line in lines)
    return [line.replace(token.text(), "TOKEN") for line in lines]


def test_the_master_says_how_workers_come() -> None:
    assert ways(BROKER, Access()) == ["hermes worker --join TOKEN"]
    join, alone = ways("127.0.0.1:9092", Access())
    assert join == "hermes worker --join TOKEN"
    assert "give each worker a --name" in alone
    assert "--secure" not in alone


def test_the_master_of_a_secure_broker_says_how_one_more_is_let_in() -> None:
    join, why, invite = ways(BROKER, USERS)
    assert (join, invite) == ("hermes worker --join TOKEN", INVITE)
    assert "access file" in why
    join, alone = ways("127.0.0.1:9092", USERS)
    assert "give each a --name" in alone
    assert f"--secure, then {INVITE}" in alone


def test_an_invitation_is_to_the_key_that_the_run_takes(place: Path) -> None:
    line = f"hermes invite NAME --run r --broker {BROKER}"
    assert invitation(BROKER, "r", KEY) == f"{line} --key-file FILE", "there is no key here"
    secret(default_key_file(), KEY.hex())
    assert invitation(BROKER, "r", KEY) == line
    assert invitation(BROKER, "r", bytes(32)) == f"{line} --key-file FILE"


def test_an_invitation_to_a_clusters_broker_names_the_cluster(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = secret(place / "lab" / "secrets" / "cluster.key", KEY.hex()).parent
    monkeypatch.setattr("hermes.cli.access._secrets_at", lambda broker: secrets)
    assert invitation(BROKER, "r", KEY) == f"{INVITE} --cluster {place}/lab"
    secret(default_key_file(), KEY.hex())
    assert invitation(BROKER, "r", KEY) == f"{INVITE} --broker {BROKER}"


def test_a_key_file_that_may_not_be_looked_at_is_the_users(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one in another user's home: no failure of this machine."""

    def refused(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    token = Token(BROKER, "r", fingerprint(KEY), b"", "w7").text()
    monkeypatch.setattr(Path, "exists", refused)
    with pytest.raises(UsageError, match="cannot be read"):
        ticket_of(token, None, None, place / "other" / "w7.key", BROKER)
