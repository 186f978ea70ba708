"""A secure broker of Apache Kafka for tests, with doors that no user would open beside its own: one
that wants client certificates, one whose certificate has expired, one whose certificate is for
another name, and an open one without TLS."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from commands import Shell

from hermes.broker import apache, control
from hermes.broker.ca import Authority
from hermes.broker.places import free_port
from hermes.broker.refusals import Refusal, refusals
from hermes.broker.secured import Secure
from hermes.cluster.users import ensure_user
from hermes.errors import BrokerError, HermesError
from hermes.transport.access import Access, Secret, read_access
from hermes.transport.kafka import KafkaLog

DOORS = {
    "MUTUAL": "SASL_SSL",
    "EXPIRED": "SASL_SSL",
    "ELSEWHERE": "SASL_SSL",
    "OPEN": "PLAINTEXT",
}

EXTRA = """
listener.name.mutual.ssl.client.auth=required
listener.name.expired.ssl.keystore.location={folder}/expired.pem
listener.name.expired.ssl.keystore.type=PEM
listener.name.elsewhere.ssl.keystore.location={folder}/elsewhere.pem
listener.name.elsewhere.ssl.keystore.type=PEM
"""
JAAS = (
    "listener.name.{}.scram-sha-512.sasl.jaas.config="
    "org.apache.kafka.common.security.scram.ScramLoginModule required;\n"
)
SOON = 5.0
"""Seconds within which a cause is told."""

LONG_AGO = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=90)


class Fortress(NamedTuple):
    """The broker, and ways to it."""

    running: control.Running
    shell: Shell
    """Commands of its master's machine."""
    doors: dict[str, str]
    """HOST:PORT of each that is not its own."""

    @property
    def address(self) -> str:
        return self.running.address

    @property
    def secrets(self) -> Path:
        assert self.running.secrets is not None
        return Path(self.running.secrets)

    @property
    def master(self) -> Access:
        return read_access(self.secrets / "access.json")

    def user(self, name: str) -> Access:
        """As a worker of this name comes in; it is made where it is missing."""
        with KafkaLog(self.address, access=self.master) as log:
            password = ensure_user(log, self.secrets, name).read_text().strip()
        return self.master._replace(user=name, password=Secret(password))

    def refused(self) -> list[Refusal]:
        """Whom its log says that it refused."""
        return refusals(Path(self.running.log))


def refused(act: Callable[[], object]) -> HermesError:
    """What it raises, within the time."""
    began = time.monotonic()
    with pytest.raises(BrokerError) as caught:
        act()
    assert time.monotonic() - began < SOON
    return caught.value


def told(fortress: Fortress, user: str | None, what: str, why: str) -> None:
    """The broker's log tells of it, within the time."""
    end = time.monotonic() + SOON
    while True:
        found = fortress.refused()
        if any((one.user, one.what, one.why) == (user, what, why) for one in found):
            return
        assert time.monotonic() < end, found
        time.sleep(0.05)


def raised(folder: Path) -> Iterator[Fortress]:
    """One that stands until the test is over, its secrets in `folder`/secrets."""
    shell = Shell(folder)
    ports = dict.fromkeys(free_port() for _ in range(4 * len(DOORS)))  # not one of them twice
    doors = {name: f"127.0.0.1:{port}" for name, port in zip(DOORS, ports, strict=False)}
    secure = Secure(folder / "secrets")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("HERMES_"):
                patch.delenv(name)
        for name in ("CONFIG", "STATE"):
            patch.setenv(f"HERMES_{name}", shell.environment[f"HERMES_{name}"])
        write = apache._write_properties

        def with_doors(*args: object) -> Path:
            path = write(*args)  # type: ignore[arg-type]
            path.write_text(_with_doors(path.read_text(), doors, path.parent))
            return path

        patch.setattr(apache, "_write_properties", with_doors)
        running = control.start("apache", port=0, secure=secure)
        try:
            yield Fortress(running, shell, doors)
        finally:
            control.stop(running.port)


def _with_doors(text: str, doors: dict[str, str], folder: Path) -> str:
    authority = Authority(folder)
    expired = authority.issue(["127.0.0.1"], 30, start=LONG_AGO)
    (folder / "expired.pem").write_text(expired)
    (folder / "elsewhere.pem").write_text(authority.issue(["elsewhere.example"]))
    more = "".join(f"{name}://{place}," for name, place in doors.items())
    text = text.replace("listeners=CLIENT://", f"listeners={more}CLIENT://")
    kinds = "".join(f"{name}:{kind}," for name, kind in DOORS.items())
    text = text.replace("protocol.map=", f"protocol.map={kinds}")
    jaas = [JAAS.format(name.lower()) for name, kind in DOORS.items() if kind == "SASL_SSL"]
    return text + EXTRA.format(folder=folder) + "".join(jaas)
