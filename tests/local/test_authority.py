"""The authority of a cluster: what it issues, when that is renewed, and where its secrets lie."""

from __future__ import annotations

import datetime as dt
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

from hermes.broker.ca import Authority, certificate_in, names_in
from hermes.errors import UsageError
from hermes.secret_files import kept_password, private_folder, read_secret, write_secret

NAMES = ["broker.example", "localhost", "127.0.0.1", "10.0.0.1", "::1"]


def days_left(file: Path) -> int:
    return (certificate_in(file).not_valid_after_utc - dt.datetime.now(dt.timezone.utc)).days


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "secrets")


def test_what_it_issues_is_what_strict_readers_accept(authority: Authority) -> None:
    file = authority.folder / "broker.pem"
    assert authority.keep(file, NAMES)
    assert set(names_in(certificate_in(file))) == set(NAMES)
    for name, flag in (
        ("broker.example", "-verify_hostname"),
        ("10.0.0.1", "-verify_ip"),
        ("::1", "-verify_ip"),
    ):
        command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", flag, name]
        done = subprocess.run(
            [*command, "-CAfile", authority.path, file], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    ssl.create_default_context(cafile=authority.path).load_cert_chain(file)
    assert 363 <= days_left(file) <= 364
    assert 3650 <= days_left(authority.path) <= 3653


def test_it_is_the_same_at_the_next_start(authority: Authority) -> None:
    file = authority.folder / "broker.pem"
    authority.keep(file, NAMES)
    before = file.read_text()
    again = Authority(authority.folder)
    assert again.fingerprint == authority.fingerprint
    assert not again.keep(file, NAMES[:2])
    assert file.read_text() == before


def test_a_certificate_is_renewed_for_a_new_name_and_in_its_last_month(
    authority: Authority,
) -> None:
    file = authority.folder / "broker.pem"
    authority.keep(file, NAMES[:1])
    assert authority.keep(file, NAMES), "names were added"
    soon = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=336)
    file.write_text(authority.issue(NAMES, start=soon))
    assert days_left(file) == 28
    assert authority.keep(file, NAMES)
    assert days_left(file) > 300
    file.write_text("spoilt")
    assert authority.keep(file, NAMES)
    other = Authority(authority.folder.parent / "other")
    file.write_text(other.issue(NAMES))
    assert authority.keep(file, NAMES), "another authority's"


def test_nothing_outlives_the_authority(authority: Authority) -> None:
    file = authority.folder / "broker.pem"
    file.write_text(authority.issue(NAMES, days=9999))
    assert days_left(file) <= days_left(authority.path)


def test_secrets_are_for_nobody_else_to_read(authority: Authority) -> None:
    authority.keep(authority.folder / "broker.pem", NAMES)
    assert stat.S_IMODE(authority.folder.stat().st_mode) == 0o700
    for file in authority.folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    (authority.folder / "ca.key").chmod(0o644)
    with pytest.raises(UsageError, match="the authority's key can be read by others"):
        authority.issue(NAMES)


def test_a_folder_that_others_may_enter_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    assert stat.S_IMODE(private_folder(folder).stat().st_mode) == 0o700


def test_a_broken_pair_is_told(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    write_secret(authority.folder / "ca.key", read_secret(other.folder / "ca.key"))
    with pytest.raises(UsageError, match="this key is not that of") as caught:
        authority.issue(NAMES)
    assert "hermes up" in caught.value.remedy
    write_secret(authority.folder / "ca.key", b"rubbish")
    with pytest.raises(UsageError, match="not the key of an authority"):
        authority.issue(NAMES)
    (authority.folder / "ca.key").unlink()
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        authority.issue(NAMES)
    (authority.folder / "ca.pem").write_text("rubbish")
    with pytest.raises(UsageError, match="holds no certificate"):
        Authority(authority.folder)


def test_a_name_that_is_none_for_a_certificate(authority: Authority) -> None:
    with pytest.raises(UsageError, match="cannot stand in a certificate"):
        authority.issue(["bröker"])


def test_a_password_is_made_once(tmp_path: Path) -> None:
    file = tmp_path / "it.password"
    made = kept_password(file)
    assert len(made) >= 40
    assert kept_password(file) == made
    assert kept_password(tmp_path / "other.password") != made
    file.chmod(0o640)
    with pytest.raises(UsageError, match="a password can be read by others"):
        kept_password(file)


def test_a_secret_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(UsageError, match="a secret cannot be written"):
        write_secret(tmp_path / "taken", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
