"""What makes a broker of Apache Kafka secure? TLS, a password for everyone (SCRAM), and rights.

Its secrets lie in one folder of mode 0700: the authority (`hermes.broker.ca`), the broker's
certificate with its key, and a password a user. Two users are made with the broker: `broker`, as
which it comes to itself, and `master`, who may do all. Both must be in the metadata when they are
formatted, and the tool that formats takes passwords as arguments, which everybody on the machine
could read. It gets them in a file of arguments that only we can read, and that is removed.

Between broker and controller, in one process here, there are no passwords: they show each other the
broker's certificate. So nobody else on this machine may talk to the controller either.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from hermes.broker.places import ANY, Wanted
from hermes.errors import BrokerRefused, UsageError
from hermes.transport.access import Access, Secret
from hermes.transport.settings import SCRAM, SCRAM_ITERATIONS

BROKER, MASTER = "broker", "master"
"""Users that every secure broker has."""

CERTIFICATE = "broker.pem"
PROPERTIES = "server.properties"
USERS = "users"
"""Of the folder of secrets: NAME.password for each user."""

MARK = "hermes-users"
"""File of the data folder: a digest of the passwords that it was formatted with."""

_SUBJECT = "hermes-broker"

ARGUMENTS = "{arguments}"

SUITES = (
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
)
"""What TLS takes. With AES-256, which clients prefer, a broker on Java 17 used about twice the CPU
time for what it received (measured); devices without AES in hardware take ChaCha20."""

_TEXT = """\
listeners=CLIENT://{listen},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=CLIENT://{advertised}
listener.security.protocol.map=CONTROLLER:SSL,CLIENT:SASL_SSL
inter.broker.listener.name=CLIENT
sasl.enabled.mechanisms={mechanism}
sasl.mechanism.inter.broker.protocol={mechanism}
listener.name.client.{lower}.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required \
username="{user}" password="{password}";
ssl.cipher.suites={suites}
ssl.keystore.type=PEM
ssl.keystore.location={certificate}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
listener.name.client.ssl.client.auth={client_auth}
listener.name.controller.ssl.client.auth=required
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:{user};User:{master};User:CN={subject}
allow.everyone.if.no.acl.found=false
"""


class Secure(NamedTuple):
    """How a broker is to be secured."""

    secrets: Path | None = None
    """The folder of its secrets: made where it is missing, kept from start to start. None: in the
    folder of the broker's files."""
    client_auth: Literal["none", "required"] = "none"
    """Whether clients must show a certificate of the authority, too."""

    @property
    def folder(self) -> Path:
        """Of its secrets, once that is known."""
        assert self.secrets is not None
        return self.secrets

    def placed(self, home: Path) -> Secure:
        """With a folder for its secrets: by default in `home`."""
        return self._replace(secrets=(self.secrets or home / "secrets").expanduser().absolute())


class Locks(NamedTuple):
    """What a secure broker is started with."""

    secure: Secure
    authority: Path
    """The certificate that clients trust."""
    certificate: Path
    broker: Secret
    master: Secret
    mine: Path | None
    """The master's own certificate, where one is asked for."""

    @property
    def access(self) -> Access:
        """As which this machine gets in."""
        return Access(
            tls=True,
            ca=self.authority,
            certificate=self.mine,
            mechanism=SCRAM,
            user=MASTER,
            password=self.master,
        )

    def properties(self, listen: str, advertised: str, controller: int) -> str:
        """The part of the broker's settings that is about who gets in. Holds a password."""
        return _TEXT.format(
            listen=listen,
            advertised=advertised,
            controller=controller,
            mechanism=SCRAM,
            lower=SCRAM.lower(),
            user=BROKER,
            password=self.broker.reveal(),
            master=MASTER,
            subject=_SUBJECT,
            certificate=escaped(self.certificate.absolute()),
            authority=escaped(self.authority.absolute()),
            client_auth=self.secure.client_auth,
            suites=",".join(SUITES),
        )

    def digest(self) -> str:
        """What tells these passwords from others. They are random: it tells nothing of them."""
        both = f"hermes users\0{self.broker.reveal()}\0{self.master.reveal()}"
        return hashlib.sha256(both.encode()).hexdigest()[:32]


def escaped(path: Path) -> str:
    """As Java reads it in a file of properties: that is ISO-8859-1, with backslashes."""
    utf16 = str(path).replace("\\", "\\\\").encode("utf-16-be", "surrogatepass")
    units = (int.from_bytes(utf16[at : at + 2], "big") for at in range(0, len(utf16), 2))
    return "".join(chr(unit) if 0x20 <= unit < 0x7F else f"\\u{unit:04x}" for unit in units)


def locks(secure: Secure, wanted: Wanted) -> Locks:
    """Make what is missing, renew what ends within a month. Raises `UsageError`."""
    from hermes.broker.ca import Authority
    from hermes.secret_files import kept_password, private_folder

    folder = private_folder(secure.folder)
    private_folder(folder / USERS)
    authority = Authority(folder)
    certificate = folder / CERTIFICATE
    authority.keep(certificate, _names(wanted), subject=_SUBJECT)
    mine = None
    if secure.client_auth == "required":
        mine = folder / "master.pem"
        authority.keep(mine, [], subject=MASTER)
    return Locks(
        secure,
        authority.path,
        certificate,
        Secret(kept_password(password_file(folder, BROKER))),
        Secret(kept_password(password_file(folder, MASTER))),
        mine,
    )


def password_file(secrets: Path, user: str) -> Path:
    """Where a user's password lies."""
    return secrets / USERS / f"{user}.password"


def _names(wanted: Wanted) -> list[str]:
    """By which clients may call it."""
    names = [wanted.advertised.host, "localhost", "127.0.0.1"]
    if wanted.listen not in ANY:
        names.append(wanted.listen)
    return list(dict.fromkeys(names))


def check_data(data: Path, found: Locks | None) -> None:
    """See that a data folder that was formatted before fits how the broker is to be started.

    Raises `UsageError`: its users have other passwords, it has none, or it would be opened to all.
    """
    if not (data / "meta.properties").exists():
        return
    mark = data / MARK
    there = mark.read_text("ascii").strip() if mark.exists() else None
    if found is None and there is not None:
        raise UsageError(
            "these records were kept by a secure broker; without --secure everyone could read them",
            where=str(data),
            remedy="--secure, or another folder: --data DIR",
        )
    if found is not None and there is None:
        raise UsageError(
            "this folder was made for a broker without users, and gets none afterwards",
            where=str(data),
            remedy="Begin another one: --data DIR",
        )
    if found is not None and there != found.digest():
        raise UsageError(
            "the users in this folder have other passwords than those kept in "
            f"{found.secure.folder}",
            where=str(data),
            remedy="Name the folder of secrets that it was made with (--secrets DIR), or begin "
            "another one: --data DIR",
        )


def format_with_users(
    command: list[str],
    arguments: list[str],
    found: Locks,
    data: Path,
    timeout: float,
    environment: Mapping[str, str],
) -> None:
    """Format `data`, with its two users. `command` runs Java on a file of arguments (`ARGUMENTS`
    stands for it), which are `arguments`; `environment`: on top of ours. Raises `BrokerRefused`,
    `subprocess.TimeoutExpired`.

    What the tool says on its standard output holds keys: it is thrown away.
    """
    from hermes.secret_files import write_secret

    users = [(BROKER, found.broker), (MASTER, found.master)]
    for name, password in users:
        credential = f"name={name},iterations={SCRAM_ITERATIONS},password={password.reveal()}"
        arguments = [*arguments, "--add-scram", f"{SCRAM}=[{credential}]"]
    file = write_secret(found.secure.folder / "format.args", _as_file(arguments).encode())
    (data / MARK).write_text(found.digest() + "\n", "ascii")
    try:
        done = subprocess.run(
            [part.replace(ARGUMENTS, str(file)) for part in command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=timeout,
            env={**os.environ, **environment},
        )
    finally:
        with contextlib.suppress(OSError):
            file.unlink()
    if done.returncode:
        said = done.stderr.strip()[-2000:]
        for _, password in users:
            said = said.replace(password.reveal(), "***")
        raise BrokerRefused(f"Kafka cannot format its data folder:\n{said}", where=str(data))


def _as_file(arguments: list[str]) -> str:
    """As Java's launcher reads them: one a line, in quotes."""
    quoted = [part.replace("\\", "\\\\").replace('"', '\\"') for part in arguments]
    return "".join(f'"{part}"\n' for part in quoted)
