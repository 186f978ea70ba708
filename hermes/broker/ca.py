"""Who vouches for the broker? A small authority of the cluster's own, made at first use.

Its certificate (`ca.pem`) goes to every node, its key (`ca.key`) stays in the folder of secrets of
the machine that starts the broker, and is needed only to issue or renew.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterable, Sequence
from pathlib import Path

from hermes.errors import UsageError
from hermes.extra import REMEDY
from hermes.secret_files import private_folder, read_secret, write_secret

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ModuleNotFoundError:
    raise UsageError("certificates need the package cryptography", remedy=REMEDY) from None

CERTIFICATE, KEY = "ca.pem", "ca.key"

DAYS_OF_AUTHORITY = 3653
DAYS = 365
"""Of what it issues, by default."""
RENEWED = 30
"""Days before its end from which a certificate is renewed."""

BEFORE = dt.timedelta(days=1)
"""A certificate holds from a day before it was made: the clocks of devices go wrong."""


class Authority:
    """The authority whose files lie in a folder; made there if the folder has none."""

    def __init__(self, folder: Path) -> None:
        """Raises `UsageError` for files that cannot be used."""
        self.folder = private_folder(folder)
        self.path = folder / CERTIFICATE
        """Its certificate, for clients to trust."""
        if not self.path.exists():
            _make(folder)
        self._certificate = _certificates(self.path)[0]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its certificate, in hex digits."""
        return self._certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def until(self) -> dt.datetime:
        """When it ends."""
        return self._certificate.not_valid_after_utc

    def issue(
        self,
        names: Iterable[str],
        days: int = DAYS,
        *,
        subject: str = "hermes-broker",
        start: dt.datetime | None = None,
    ) -> str:
        """A key and its chain of certificates, PEM, for a host of these names and addresses (or,
        without any, for a client). Raises `UsageError` for a name that cannot be in one, or if the
        authority's key is not here."""
        key, authority = ec.generate_private_key(ec.SECP256R1()), self._key()
        begin = start or _now() - BEFORE
        end = min(begin + dt.timedelta(days=days), self.until)
        builder = (
            _builder(subject, key.public_key(), begin, end)
            .issuer_name(self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
                critical=False,
            )
        )
        told = [_general(name) for name in dict.fromkeys(names)]
        if told:
            builder = builder.add_extension(x509.SubjectAlternativeName(told), critical=False)
        certificate = builder.sign(authority, hashes.SHA256())
        return _private(key) + _public(certificate) + _public(self._certificate)

    def keep(self, path: Path, names: Sequence[str], *, subject: str = "hermes-broker") -> bool:
        """See that this file holds a certificate of ours for these names that goes on for a month;
        whether it had to be issued, or renewed."""
        if path.exists() and self._holds(path, names):
            return False
        write_secret(path, self.issue(names, subject=subject).encode())
        return True

    def _holds(self, path: Path, names: Sequence[str]) -> bool:
        try:
            certificate = _certificates(path)[0]
            certificate.verify_directly_issued_by(self._certificate)
        except (UsageError, ValueError, TypeError, InvalidSignature):
            return False  # another authority's, or spoilt
        left = certificate.not_valid_after_utc - _now()
        return set(names) <= set(names_in(certificate)) and left > dt.timedelta(days=RENEWED)

    def _key(self) -> ec.EllipticCurvePrivateKey:
        path = self.folder / KEY
        try:
            text = read_secret(path, "the authority's key")
            key = serialization.load_pem_private_key(text, password=None)
        except (ValueError, TypeError):
            raise UsageError("this is not the key of an authority", where=str(path)) from None
        same = key.public_key() == self._certificate.public_key()
        if not same or not isinstance(key, ec.EllipticCurvePrivateKey):
            raise UsageError(
                f"this key is not that of {self.path}",
                where=str(path),
                remedy="Put the pair together again, from where it was saved; or remove both, and "
                "give the new ca.pem to every node (hermes up).",
            )
        return key


def names_in(certificate: x509.Certificate) -> list[str]:
    """The names and addresses that it is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in found]


def certificate_in(path: Path) -> x509.Certificate:
    """The first one in a PEM file. Raises `UsageError`."""
    return _certificates(path)[0]


def _make(folder: Path) -> None:
    """First the key: whoever finds the certificate finds its key, too."""
    key = ec.generate_private_key(ec.SECP256R1())
    begin = _now() - BEFORE
    until = begin + dt.timedelta(days=DAYS_OF_AUTHORITY)
    builder = _builder("hermes-authority", key.public_key(), begin, until)
    certificate = (
        builder.issuer_name(_name("hermes-authority"))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_secret(folder / KEY, _private(key).encode())
    write_secret(folder / CERTIFICATE, _public(certificate).encode())


def _builder(
    subject: str, key: ec.EllipticCurvePublicKey, begin: dt.datetime, end: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except (ValueError, TypeError):
        raise UsageError(
            f"{name!r} cannot stand in a certificate",
            remedy="Advertise the broker by its address in digits, or a name in ASCII.",
        ) from None


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        what = f"the certificate cannot be read: {error.strerror or error}"
    except ValueError:
        what = "this file holds no certificate"
    raise UsageError(what, where=str(path))


def _private(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def _public(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)
