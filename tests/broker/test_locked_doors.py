"""Who does not belong is refused: with the cause, within 5 seconds, and it is told in the status.

On Apache Kafka with TLS, passwords (SCRAM) and rights, as `hermes broker start --secure` starts it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import DIGITS, ENDLESS, Shell, Shown, wait_for
from fortress import LONG_AGO, Fortress, raised
from msgspec.structs import replace

from hermes.broker.ca import Authority
from hermes.codec import encode, proof_of
from hermes.errors import BrokerError, BrokerRefused, HermesError
from hermes.messages import Hello
from hermes.runtime.software import software
from hermes.transport import names
from hermes.transport.access import Access, Secret
from hermes.transport.kafka import KafkaLog
from hermes.transport.rights import of_run, of_worker

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

SOON = 5.0
"""Seconds within which a cause is told."""

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


# --- a whole run --------------------------------------------------------------------------------


def invited(fortress: Fortress, folder: Path, name: str) -> tuple[Shell, list[str]]:
    """A machine of its own for a worker, and the line to type there."""
    key = folder / f"{name}.key"
    told = fortress.shell.json("invite", name, "--broker", fortress.address, "--to", str(key))
    line = str(told["join"]).split()
    assert line[:3] == ["hermes", "worker", "--join"]
    assert key.stat().st_mode & 0o777 == 0o600
    machine = Shell(folder / name)
    machine.folder.mkdir()
    return machine, [*line[1:-1], str(key)]


def secrets_of(fortress: Fortress) -> dict[str, str]:
    """Everything that nobody else may see, by what it is."""
    found = {file.stem: file.read_text().strip() for file in (fortress.secrets / "users").iterdir()}
    key = (fortress.shell.folder / "config" / "cluster.key").read_text().strip()
    authority = (fortress.secrets / "ca.key").read_text().splitlines()[1]
    return {**found, "cluster key": key, "authority's key": authority}


def raw(secrets: dict[str, str]) -> dict[str, bytes]:
    """As bytes; the cluster key as those that it stands for, too."""
    found = {name: text.encode() for name, text in secrets.items()}
    return {**found, "cluster key, raw": bytes.fromhex(secrets["cluster key"])}


def in_processes(wanted: dict[str, bytes]) -> list[str]:
    """Which of these stand in a process's command line or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        for place in ("cmdline", "environ"):
            try:
                content = (process / place).read_bytes()
            except OSError:
                continue
            found += [f"{name} in {process / place}" for name in wanted if wanted[name] in content]
    return found


def in_files(wanted: dict[str, bytes], folder: Path, but: tuple[Path, ...]) -> list[str]:
    """Which of these lie in files below a folder, but for those that are meant to hold them."""
    found = []
    for file in folder.rglob("*"):
        if file.is_file() and not any(place == file or place in file.parents for place in but):
            content = file.read_bytes()
            found += [f"{name} in {file}" for name in wanted if wanted[name] in content]
    return found


def test_a_whole_run_behind_locked_doors(fortress: Fortress, tmp_path: Path) -> None:
    """It finishes and is verified; nothing that it leaves, and no process while it goes on, holds a
    password or the cluster key. A hello of it that is sent again admits nobody."""
    shell, run = fortress.shell, "safe"
    at = ("--broker", fortress.address)
    rules = ("--set", "stop.samples=12000", "--set", "stop.patience=off")
    master = shell.start("master", DIGITS, *at, "--run", run, "--expect", "2", *rules, "--json")
    wait_for(master, r"--join (\S+)")
    machines = [invited(fortress, tmp_path, name) for name in ("w1", "w2")]
    workers = [machine.start(*line, "--run", run) for machine, line in machines]
    wanted = raw(secrets_of(fortress))
    seen: list[str] = []
    wait_for(master, r"w2", seen)
    assert in_processes(wanted) == []
    with KafkaLog(fortress.address, access=fortress.master) as log:
        topic = names.physical(run, names.LOBBY)
        reader = log.reader()
        reader.follow(topic, 0)
        hello = reader.poll(10)[0]
        reader.close()
        with KafkaLog(fortress.address, access=fortress.user("w2")) as thief:
            thief.append(topic, hello.value).offset()
    out, said = master.communicate(timeout=150)
    assert master.returncode == 0, said
    for worker in workers:
        worker.terminate()
        _, told_ = worker.communicate(timeout=30)
        assert not any(text in told_ for text in secrets_of(fortress).values())
    assert not any(text in out + said + "".join(seen) for text in secrets_of(fortress).values())
    done = shell("verify", run, "--key-file", "config/cluster.key")
    assert done.returncode == 0, done.stdout + done.stderr
    state = shell.json("status", run)
    assert state["broker"] == fortress.address
    assert state["refused"] == [], "nothing that a run does by itself is refused"
    with KafkaLog(fortress.address, access=fortress.user("w1")) as log:
        refused(lambda: log.append(names.physical(run, names.LEDGER), b"x").offset())
    told(fortress, "w1", f"write {names.physical(run, names.LEDGER)}", "no right to it")
    shown_ = " ".join(shell("status", run).stdout.split())
    assert f"refused: w1 at 127.0.0.1: write hermes.{run}.ledger: no right to it (once," in shown_
    assert re.search(r"w1 is admitted", (shell.folder / f"runs/{run}/central.log").read_text())
    central = (shell.folder / f"runs/{run}/central.log").read_text()
    assert central.count("w1 is admitted") + central.count("w2 is admitted") == 2
    meant = (fortress.secrets, shell.folder / "config")
    found = in_files(wanted, shell.folder, meant)
    keys = tuple(tmp_path / f"{name}.key" for name in ("w1", "w2"))
    found += in_files(wanted, tmp_path, keys)
    assert found == []
    assert in_files(wanted, fortress.secrets, ()), "the search finds them where they are"


def test_a_job_of_somebody_who_has_no_cluster_key(
    fortress: Fortress, shown: Shown, tmp_path: Path
) -> None:
    """Whoever has stolen the master's access file can begin a run: no worker runs its job, and no
    hello is taken by it."""
    thief = Shell(tmp_path / "thief")
    thief.folder.mkdir()
    thief.environment["HERMES_ACCESS"] = str(fortress.secrets / "access.json")
    run, at = "forged", ("--broker", fortress.address)
    master = thief.start("master", DIGITS, *at, "--run", run, "--expect", "1")
    wait_for(master, r"--join (\S+)")
    machine, line = invited(fortress, tmp_path, "w1")
    began = time.monotonic()
    done = machine(*line, "--run", run)
    assert done.returncode == 2, done.stderr
    assert "this worker has another cluster key than the run's master" in done.stderr
    took = time.monotonic() - began
    key = bytes.fromhex((fortress.shell.folder / "config/cluster.key").read_text())
    bare = Hello(run, "w1", "inc", "nonce", software(""))
    with KafkaLog(fortress.address, access=fortress.user("w1")) as log:
        signed = encode(replace(bare, proof=proof_of(key, bare)))
        log.append(names.physical(run, names.LOBBY), signed).offset()
    end = time.monotonic() + SOON
    while not thief.json("status", run)["quarantined"]["count"]:
        assert time.monotonic() < end
    assert took < 2 * SOON, "with the start of Python, on a busy machine"
    thief.close()
    shown("A job that is not signed with our key", "hermes worker", 2, done.stderr)


def test_a_run_goes_on_without_a_worker_that_is_revoked(
    fortress: Fortress, shown: Shown, tmp_path: Path
) -> None:
    """The worker ends within seconds and says why; the run's status tells of both."""
    shell, run, at = fortress.shell, "revoking", ("--broker", fortress.address)
    master = shell.start("master", DIGITS, *at, "--run", run, "--expect", "2", *ENDLESS)
    wait_for(master, r"--join (\S+)")
    machines = [invited(fortress, tmp_path, name) for name in ("w1", "w2")]
    workers = [machine.start(*line, "--run", run) for machine, line in machines]
    central = shell.folder / f"runs/{run}/central.log"

    def until(holds: Callable[[], object], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, central.read_text()[-2000:]
            time.sleep(0.2)

    until(lambda: central.exists() and central.read_text().count("push (") > 3, 60)
    done = shell("revoke", "w2", *at)
    assert done.returncode == 0, done.stderr
    began = time.monotonic()
    _, said = workers[1].communicate(timeout=30)
    assert time.monotonic() - began < 2 * SOON
    assert workers[1].returncode == 3, said
    assert "the broker does not let us" in said
    shown("A worker of a run is revoked", "hermes worker", 3, said)
    until(lambda: "w2" in central.read_text().rpartition("is lost")[0][-200:], 40)
    before = shell.json("status", run)
    assert before["workers"]["w2"]["status"] != "alive"
    assert {one["why"] for one in before["refused"] if one["user"] == "w2"} == {"revoked"}
    until(lambda: shell.json("status", run)["version"] > before["version"], 20)
    assert workers[0].poll() is None
    for process in (workers[0], master):
        process.terminate()
        process.communicate(timeout=40)
