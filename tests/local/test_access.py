"""Access files: what they say, what is wrong with them, and where they are looked for."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest

from hermes.errors import UsageError
from hermes.transport.access import (
    Access,
    Secret,
    access_file,
    access_to,
    read_access,
    refuse_elsewhere,
    write_access,
)
from hermes.transport.address import Address, is_local

PASSWORD = "correct horse battery staple"
GOOD = {
    "version": 1,
    "broker": "10.0.0.1:9092",
    "tls": True,
    "mechanism": "SCRAM-SHA-512",
    "user": "worker-3",
    "password_file": "it.password",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HERMES_CONFIG", str(tmp_path))
    monkeypatch.delenv("HERMES_ACCESS", raising=False)
    monkeypatch.delenv("HERMES_INSECURE", raising=False)
    password = tmp_path / "it.password"
    password.write_text(PASSWORD + "\n")
    password.chmod(0o600)
    return tmp_path


def addresses() -> list[Any]:
    """Of this machine, IPv4."""
    every = psutil.net_if_addrs().values()
    return [one for some in every for one in some if one.family == socket.AF_INET]


def written(place: Path, tree: Any) -> Path:
    file = place / "access.json"
    file.write_text(tree if isinstance(tree, str) else json.dumps(tree))
    return file


def complaint(file: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_access(file)
    assert PASSWORD not in str(caught.value)
    return caught.value


def test_what_was_written_is_read(place: Path) -> None:
    (place / "ca.pem").touch()
    wanted = Access(
        tls=True,
        ca=place / "ca.pem",
        mechanism="SCRAM-SHA-512",
        user="worker-3",
        password=Secret(PASSWORD),
    )
    file = write_access(place / "a", "10.0.0.1:9092", wanted)
    assert read_access(file) == wanted
    assert file.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in file.read_text()
    assert (place / "a" / "access.password").stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in repr(wanted)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "version is 2"),
        ({"usr": "x"}, "unknown key 'usr'"),
        ({"password": PASSWORD}, "a password stands in it"),
        ({"tls": "yes"}, "tls"),
        ({"mechanism": "GSSAPI"}, "GSSAPI"),
        ({"user": None}, "go together"),
        ({"mechanism": "PLAIN", "tls": False}, "needs tls"),
        ({"tls": False, "ca": "ca.pem"}, "of TLS, which is off"),
        ({"password_file": "none"}, "No such file"),
    ],
)
def test_what_does_not_fit(place: Path, change: dict[str, Any], words: str) -> None:
    error = complaint(written(place, {**GOOD, **change}))
    assert words in str(error)
    assert str(place) in error.where
    assert error.remedy


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"version": 1'])
def test_what_is_no_access_file(place: Path, text: str) -> None:
    assert "JSON" in complaint(written(place, text)).what


def test_a_key_with_a_neighbour_is_proposed(place: Path) -> None:
    assert "password_file" in complaint(written(place, {**GOOD, "password_fil": "x"})).remedy


def test_a_password_that_others_can_read(place: Path) -> None:
    (place / "it.password").chmod(0o640)
    assert "chmod 600" in complaint(written(place, GOOD)).remedy


def test_an_empty_password(place: Path) -> None:
    (place / "it.password").write_text("\n")
    assert "empty" in complaint(written(place, GOOD)).what


def test_files_that_are_no_certificates(place: Path) -> None:
    (place / "ca.pem").write_text("not PEM")
    for change in ({"ca": "ca.pem"}, {"certificate": "ca.pem"}, {"ca": "none.pem"}):
        access = read_access(written(place, {**GOOD, **change}))
        with pytest.raises(UsageError) as caught:
            access.context()
        assert str(place) in caught.value.where


def test_where_a_brokers_access_is_looked_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = access_file("10.0.0.1:9092")
    write_access(place, "10.0.0.1:9092", Access(tls=True), file.stem)
    file.parent.mkdir()
    (place / f"{file.stem}.json").rename(file)
    assert access_to("10.0.0.1:9092").tls
    assert access_file("[::1]:9092") != access_file("[::2]:9092")
    other = write_access(place, "10.0.0.1:9092", Access(insecure=True), "other")
    monkeypatch.setenv("HERMES_ACCESS", str(other))
    assert not access_to("10.0.0.1:9092").tls


def test_a_broker_elsewhere_without_tls_must_be_wanted(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="without TLS"):
        access_to("10.0.0.1:9092")
    for local in ("127.0.0.1:9092", "localhost:9092", "[::1]:9092", "no-such-host.invalid:9092"):
        assert access_to(local) == Access()
    monkeypatch.setenv("HERMES_INSECURE", "0")
    with pytest.raises(UsageError, match="without TLS"):
        access_to("10.0.0.1:9092")
    monkeypatch.setenv("HERMES_INSECURE", "1")
    assert access_to("10.0.0.1:9092") == Access()


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.8.7", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("127.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("128.0.0.1", False),
        ("0.0.0.0", False),
        ("", False),
    ],
)
def test_what_means_this_machine(host: str, local: bool) -> None:
    assert is_local(host) == local


def test_a_broker_behind_a_tunnel_must_not_send_us_elsewhere(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = Address("127.0.0.1", 9092), Address("10.0.0.1", 9092)
    with pytest.raises(UsageError, match=r"to 10\.0\.0\.1:9092, another machine"):
        refuse_elsewhere(here, [here, there], Access())
    refuse_elsewhere(here, [here, Address("localhost", 9093)], Access())
    refuse_elsewhere(here, [there], Access(tls=True))
    refuse_elsewhere(here, [there], Access(insecure=True))
    monkeypatch.setenv("HERMES_INSECURE", "1")
    refuse_elsewhere(here, [there], Access())


def test_this_machine_s_own_address_is_no_other_machine(place: Path) -> None:
    own = [address.address for address in addresses() if not is_local(address.address)]
    if not own:
        pytest.skip("this machine has no address but loopback")
    assert access_to(f"{own[0]}:9092") == Access()
