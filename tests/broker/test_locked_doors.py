"""Who does not belong is refused: with the cause, within 5 seconds, and it is told in the status.

On Apache Kafka with TLS, passwords (SCRAM) and rights, as `hermes broker start --secure` starts it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Shell, Shown
from fortress import LONG_AGO, SOON, Fortress, raised, refused, told

from hermes.broker.ca import Authority
from hermes.errors import BrokerError, BrokerRefused
from hermes.transport import names
from hermes.transport.access import Access, Secret
from hermes.transport.kafka import KafkaLog
from hermes.transport.rights import of_run, of_worker

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

RUN = "locked"


@pytest.fixture(scope="module")
def fortress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fortress]:
    for made in raised(tmp_path_factory.mktemp("fortress")):
        with KafkaLog(made.address, access=made.master) as log:
            shorts = [*names.RUN_TOPICS, "from.w1", "from.w2"]
            log.create([names.physical(RUN, short) for short in shorts])
            assert log.guards is not None
            log.guards.allow([*of_run(RUN), *of_worker(RUN, "w1"), *of_worker(RUN, "w2")])
        yield made


# --- at the door --------------------------------------------------------------------------------

Case = tuple[Callable[[Fortress, Path], tuple[str, Access]], str, str | None]


def _other(folder: Path) -> Authority:
    return Authority(folder / "other")


def _certificate(authority: Authority, folder: Path, **more: object) -> Path:
    file = folder / "mine.pem"
    file.write_text(authority.issue([], 30, subject="w1", **more))  # type: ignore[arg-type]
    file.chmod(0o600)
    return file


CASES: dict[str, Case] = {
    "no certificate": (
        lambda f, _: (f.doors["MUTUAL"], f.user("w1")),
        "it wants a certificate of its clients, and we have none",
        "showed no certificate",
    ),
    "a certificate of another authority": (
        lambda f, t: (
            f.doors["MUTUAL"],
            f.user("w1")._replace(certificate=_certificate(_other(t), t)),
        ),
        "it does not accept our certificate",
        "its certificate is of another authority",
    ),
    "an expired certificate of ours": (
        lambda f, t: (
            f.doors["MUTUAL"],
            f.user("w1")._replace(
                certificate=_certificate(Authority(f.secrets), t, start=LONG_AGO)
            ),
        ),
        "it does not accept our certificate",
        "its certificate has expired, or is not valid yet",
    ),
    "another authority than the broker's": (
        lambda f, t: (f.address, f.user("w1")._replace(ca=_other(t).path)),
        "its certificate is not signed by the CA in",
        "it does not trust this broker's certificate",
    ),
    "another authority than the token's": (
        lambda f, t: (
            f.address,
            f.user("w1")._replace(ca=None, authority=_other(t).path.read_text()),
        ),
        "its certificate is not signed by the CA in the token (--join)",
        "it does not trust this broker's certificate",
    ),
    "the broker's certificate is for another name": (
        lambda f, _: (f.doors["ELSEWHERE"], f.user("w1")),
        "its certificate is for another address: it does not hold for '127.0.0.1'",
        "it does not trust this broker's certificate",
    ),
    "the broker's certificate has expired": (
        lambda f, _: (f.doors["EXPIRED"], f.user("w1")),
        "its certificate has expired",
        "it does not trust this broker's certificate",
    ),
    "a wrong password": (
        lambda f, _: (f.address, f.user("w1")._replace(password=Secret("guessed"))),
        "it does not know the user 'w1', or not with this password",
        "unknown user, or wrong password",
    ),
    "an unknown user": (
        lambda f, _: (f.address, f.user("w1")._replace(user="stranger")),
        "it does not know the user 'stranger', or not with this password",
        "unknown user, or wrong password",
    ),
    "no user": (
        lambda f, _: (f.address, Access(tls=True, ca=f.master.ca)),
        "it asks who we are (SCRAM-SHA-512), and nothing here tells",
        "did not say who it is",
    ),
    "no TLS where it is wanted": (
        lambda f, _: (f.address, Access()),
        "it expects TLS, and we came without",
        "came without TLS",
    ),
    "TLS where there is none": (
        lambda f, _: (f.doors["OPEN"], f.user("w1")),
        "it does not speak TLS, and our access file says that it does",
        "came with TLS to a port without",
    ),
    "another mechanism": (
        lambda f, _: (f.address, f.user("w1")._replace(mechanism="PLAIN")),
        "it does not take PLAIN; it takes SCRAM-SHA-512",
        None,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_who_does_not_fit_the_door(
    fortress: Fortress, shown: Shown, tmp_path: Path, case: str
) -> None:
    make, cause, why = CASES[case]
    address, access = make(fortress, tmp_path)
    error = refused(lambda: KafkaLog(address, access=access).connect())
    assert cause in error.what
    assert error.remedy
    if access.password is not None:
        assert access.password.reveal() not in f"{error}"
    if why is not None:
        told(fortress, None, "the connection", why)
    shown(f"At a secure broker: {case}", "hermes worker", error.exit_code, f"error: {error}")


def test_who_fits_comes_in(fortress: Fortress, tmp_path: Path) -> None:
    """The cases above differ from this in one thing each."""
    for address, access in (
        (fortress.address, fortress.user("w1")),
        (
            fortress.doors["MUTUAL"],
            fortress.user("w1")._replace(
                certificate=_certificate(Authority(fortress.secrets), tmp_path)
            ),
        ),
    ):
        with KafkaLog(address, access=access) as log:
            assert log.append(names.physical(RUN, "from.w1"), b"x").offset() >= 0
            assert log.guards is None, "rights are not a worker's to give"


def test_the_controller_talks_to_the_broker_alone(fortress: Fortress, tmp_path: Path) -> None:
    """It listens on this machine, whose other users are no masters: nor is a worker with a
    certificate."""
    text = (fortress.secrets / "server.properties").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("listeners=")]
    controller = line.rpartition("CONTROLLER://")[2]
    assert controller.startswith("127.0.0.1:")
    with pytest.raises(BrokerError):
        KafkaLog(controller, access=Access()).connect()
    told(fortress, None, "a connection to its controller", "came without TLS")
    with pytest.raises(BrokerError):
        KafkaLog(controller, access=Access(tls=True, ca=fortress.master.ca)).connect()
    told(fortress, None, "a connection to its controller", "showed no certificate")


# --- inside -------------------------------------------------------------------------------------

DENIED: dict[str, tuple[Callable[[KafkaLog], object], str]] = {
    "writes the ledger": (
        lambda log: log.append(names.physical(RUN, "ledger"), b"x").offset(),
        f"write hermes.{RUN}.ledger",
    ),
    "writes the data": (
        lambda log: log.append(names.physical(RUN, "data"), b"x").offset(),
        f"write hermes.{RUN}.data",
    ),
    "writes the model": (
        lambda log: log.append(names.physical(RUN, "model"), b"x").offset(),
        f"write hermes.{RUN}.model",
    ),
    "writes another's topic": (
        lambda log: log.append(names.physical(RUN, "from.w2"), b"x").offset(),
        f"see hermes.{RUN}.from.w2",
    ),
    "reads another's topic": (
        lambda log: read(log, "from.w2"),
        f"see hermes.{RUN}.from.w2",
    ),
    "reads the state": (
        lambda log: read(log, "state"),
        f"see hermes.{RUN}.state",
    ),
    "reads the lobby": (
        lambda log: read(log, "lobby"),
        f"read hermes.{RUN}.lobby",
    ),
    "makes a topic": (
        lambda log: log.create([names.physical(RUN, "from.w3")]),
        f"create hermes.{RUN}.from.w3",
    ),
    "deletes the ledger": (
        lambda log: log.delete([names.physical(RUN, "ledger")]),
        f"delete hermes.{RUN}.ledger",
    ),
    "makes itself a password of the master's": (
        lambda log: log._library.admin.set_user("master", "mine"),  # type: ignore[attr-defined]
        "set a password",
    ),
    "gives itself rights": (
        lambda log: log._library.admin.allow(of_worker(RUN, "w2")),
        "give rights",
    ),
}


def read(log: KafkaLog, short: str) -> object:
    reader = log.reader()
    reader.follow(names.physical(RUN, short), 0)
    end = time.monotonic() + SOON
    try:
        while time.monotonic() < end:
            if found := reader.poll(0.5):
                return found
    finally:
        reader.close()
    return None


@pytest.mark.parametrize("case", DENIED)
def test_a_valid_worker_does_what_it_must_not(fortress: Fortress, shown: Shown, case: str) -> None:
    act, what = DENIED[case]
    with KafkaLog(fortress.address, access=fortress.user("w1")) as log:
        error = refused(lambda: act(log))
    assert isinstance(error, BrokerRefused), error
    told(fortress, "w1", what, "no right to it")
    shown(f"A worker that {case}", "hermes worker", error.exit_code, f"error: {error}")


def test_status_tells_of_them(fortress: Fortress) -> None:
    """A line for each kind, with how often; the broker's own machine alone knows."""
    with KafkaLog(fortress.address, access=fortress.user("w1")) as log:
        refused(lambda: log.append(names.physical(RUN, "ledger"), b"x").offset())
    done = fortress.shell("broker", "status")
    assert f"refused: w1 at 127.0.0.1: write hermes.{RUN}.ledger: no right to it (" in done.stdout
    (broker,) = fortress.shell.json("broker", "status")["brokers"]
    assert broker["secrets"] == str(fortress.secrets)
    whats = {one["what"] for one in broker["refused"]}
    assert f"write hermes.{RUN}.ledger" in whats


# --- revoked ------------------------------------------------------------------------------------


def test_who_is_revoked_stops_at_once(fortress: Fortress, shown: Shown) -> None:
    """Its open connections, writing and reading; who else there is goes on."""
    fortress.user("w2")
    topic = names.physical(RUN, "from.w1")
    stopped: dict[str, float] = {}
    writing, reading = threading.Event(), threading.Event()

    def until_refused(what: str, act: Callable[[], object], goes: threading.Event) -> None:
        try:
            while True:
                act()
                goes.set()
                time.sleep(0.05)
        except BrokerRefused:
            stopped[what] = time.monotonic()

    with (
        KafkaLog(fortress.address, access=fortress.user("w1")) as log,
        KafkaLog(fortress.address, access=fortress.user("w2")) as other,
    ):
        reader = log.reader()
        reader.follow(names.physical(RUN, "model"), 0)
        acts = [
            ("writing", lambda: log.append(topic, b"x").offset(), writing),
            ("reading", lambda: reader.poll(0.2), reading),
        ]
        threads = [threading.Thread(target=until_refused, args=act) for act in acts]
        for thread in threads:
            thread.start()
        assert writing.wait(10)
        assert reading.wait(10)
        began = time.monotonic()
        done = fortress.shell("revoke", "w1", "--broker", fortress.address)
        assert done.returncode == 0, done.stderr
        assert "w1 is locked out" in done.stdout
        took = time.monotonic() - began
        for thread in threads:
            thread.join(10)
        reader.close()
        assert stopped.keys() == {"writing", "reading"}
        assert max(stopped.values()) - began < took + 2.0, "seconds after the command has ended"
        assert other.append(names.physical(RUN, "from.w2"), b"x").offset() >= 0
    told(fortress, "w1", f"write {topic}", "revoked")
    assert not (fortress.secrets / "users" / "w1.password").exists()
    users = fortress.shell("revoke", "w1", "--broker", fortress.address)
    assert "was revoked before" in users.stdout
    shown("A worker is revoked", "hermes revoke w1", 0, done.stdout)


def test_who_was_revoked_comes_anew(fortress: Fortress) -> None:
    access = fortress.user("w9")
    with KafkaLog(fortress.address, access=access):
        pass
    assert fortress.shell("revoke", "w9", "--broker", fortress.address).returncode == 0
    error = refused(lambda: KafkaLog(fortress.address, access=access).connect())
    assert "it does not know the user 'w9', or not with this password" in error.what
    with KafkaLog(fortress.address, access=fortress.user("w9")) as log:
        assert log.append(names.physical(RUN, "logs"), b"x").offset() >= 0


def test_users_of_a_cluster_s_folder(fortress: Fortress, tmp_path: Path) -> None:
    """The folder says where its broker is and how its master gets in; its cluster key is used."""
    cluster, machine = tmp_path / "cluster", Shell(tmp_path)
    cluster.mkdir()
    (cluster / "secrets").symlink_to(fortress.secrets)
    key = fortress.secrets / "cluster.key"
    key.write_text("ab" * 32 + "\n")
    key.chmod(0o600)
    try:
        told_ = machine.json("invite", "w7", "--cluster", str(cluster))
    finally:
        key.unlink()
    assert told_["broker"] == fortress.address
    first, second = (tmp_path / "w7.key").read_text().splitlines()
    assert first == "ab" * 32
    password = (fortress.secrets / "users" / "w7.password").read_text().strip()
    assert second == f"password: {password}"
    with KafkaLog(fortress.address, access=fortress.user("w7")):
        pass
    assert machine.json("revoke", "w7", "--cluster", str(cluster))["was_user"]
    assert not machine.json("revoke", "w7", "--cluster", str(cluster))["was_user"]


@pytest.mark.parametrize("name", ["master", "broker", "A", ""])
def test_who_cannot_be_revoked(fortress: Fortress, name: str) -> None:
    done = fortress.shell("revoke", name, "--broker", fortress.address)
    assert done.returncode == 2
    assert "NAME" in done.stderr


def test_a_slip_in_a_name_locks_nobody_out(fortress: Fortress) -> None:
    fortress.user("w1")
    done = fortress.shell("revoke", "worker-99", "--broker", fortress.address)
    assert done.returncode == 2
    assert "NAME: this broker knows no worker 'worker-99'; nobody was locked out" in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "Those that may come in" in line]
    assert "w1" in line
    assert "master" not in line
    assert "locked out at" not in done.stdout
