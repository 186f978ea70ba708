"""Peers that forge, lie, send rubbish or are of another make: nobody dies of it, and it is told."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import DIGITS, ENDLESS, Shell, Shown, wait_for
from msgspec.structs import replace

from hermes.broker.control import Child
from hermes.codec import encode, encode_tensors, proof_of
from hermes.messages import (
    PROTOCOL,
    Envelope,
    Hello,
    LedgerRecord,
    LogLine,
    MasterStarted,
    Round,
    Software,
    Update,
)
from hermes.perform.ledger import Ledger
from hermes.runtime.keys import cluster_key
from hermes.runtime.quarantine import read_quarantine
from hermes.runtime.software import software
from hermes.transport import names, tensors
from hermes.transport.kafka import KafkaLog
from hermes.values import Base, Birth, Payload, Reason

pytestmark = pytest.mark.broker

RUN = "r"


class Crowd:
    """A run that goes on for ever, of one good worker, and a way to its broker for bad ones."""

    def __init__(self, shell: Shell, broker: str, keep: str) -> None:
        self.shell, self.broker = shell, broker
        rules = (*ENDLESS, "--set", f"retention.keep={keep}")
        self.master = shell.start(
            "master", DIGITS, "--broker", broker, "--run", RUN, "--expect", "1", *rules
        )
        self.token = wait_for(self.master, r"--join (\S+)")[1]
        self.worker = self.start_worker("w1", "home")
        self.key = cluster_key(shell.folder / "config/cluster.key")
        self.log = KafkaLog(broker).connect()
        self.ledger = Ledger(self.log, names.physical(RUN, names.LEDGER), watcher=self._keep)
        self.reader = self.log.reader()
        self.reader.follow(names.physical(RUN, names.LEDGER), 0)
        self.entries: list[Any] = []
        self.until(lambda: self.version() > 0)

    def start_worker(self, name: str, state: str) -> subprocess.Popen[str]:
        return self.shell.start(
            "worker", "--broker", self.broker, "--run", RUN, "--name", name, "--state", state
        )

    def __call__(self, *args: str) -> subprocess.CompletedProcess[str]:
        return self.shell(*args, "--broker", self.broker)

    def _keep(self, _raw: Any, record: LedgerRecord, _state: Any) -> None:
        self.entries += record.entries

    def until(self, holds: Callable[[], Any], timeout: float = 20.0) -> Any:
        """What it gives, once that is something."""
        end = time.monotonic() + timeout
        while not (found := holds()):
            assert time.monotonic() < end, self.central()[-1500:]
            time.sleep(0.05)
        return found

    def look(self) -> None:
        """Read on in the ledger (over one connection, unlike `Ledger.fold`)."""
        while records := self.reader.poll(0.05):
            for record in records:
                self.ledger._take(record)

    def version(self) -> int:
        self.look()
        newest = self.ledger.state.newest
        return newest.version if newest else -1

    def goes_on(self) -> None:
        """The run publishes, and nobody has died."""
        before = self.version()
        self.until(lambda: self.version() > before)
        assert self.master.poll() is None
        assert self.worker.poll() is None

    def entry(self, kind: type, holds: Callable[[Any], bool] = lambda _: True) -> Any:
        """The first ledger entry of this kind that is as wanted, once it comes."""

        def look() -> Any:
            self.look()
            return next((e for e in self.entries if isinstance(e, kind) and holds(e)), None)

        return self.until(look)

    def central(self) -> str:
        return (self.shell.folder / f"runs/{RUN}/central.log").read_text()

    def topic(self, short: str) -> str:
        return names.physical(RUN, short)

    def close(self) -> None:
        self.log.close()
        for process in (self.worker, self.master):
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """Nothing is let go of: the bad ones write to the topics' first generations."""
    yield from crowded(tmp_path_factory, "all")


@pytest.fixture
def short_of_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """Topics go on in new generations all the time, and the old ones go."""
    yield from crowded(tmp_path_factory, "last:2")


def crowded(tmp_path_factory: pytest.TempPathFactory, keep: str) -> Iterator[Crowd]:
    shell = Shell(tmp_path_factory.mktemp("crowd"))
    with Child("embedded") as broker:
        made = Crowd(shell, broker.address, keep)
        yield made
        made.close()
    for process in shell.started:
        if process.poll() is None:
            process.kill()
            process.communicate()


class Forger:
    """Somebody who has the key and speaks the protocol, in bad faith."""

    def __init__(self, crowd: Crowd, name: str) -> None:
        self.crowd, self.name, self.incarnation, self.number = crowd, name, f"inc-{name}", 0
        hello(crowd, name, self.incarnation, software(""))
        from hermes.messages import WorkerAdmitted

        self.admitted = crowd.entry(WorkerAdmitted, lambda e: e.worker == name)

    def push(self, payload: Payload, samples: int = 10) -> Birth:
        """Claim an update whose model lies there."""
        self.number += 1
        birth = Birth(self.incarnation, self.number)
        newest = self.crowd.ledger.state.newest
        assert newest is not None
        base = Base(newest.version, newest.payload.digest)
        update = Update(birth, base, samples, 1, newest.version, payload)
        body = Round(
            self.number, newest.version, 1, 1, 1000, 0, 0.5, 0.5, "push", Reason("x"), (), update
        )
        state = self.crowd.ledger.state.authority
        envelope = Envelope(self.incarnation, self.number, state.offset, state.chain, body)
        self.crowd.log.append(self.topic, encode(envelope)).offset()
        return birth

    @property
    def topic(self) -> str:
        return self.crowd.topic(f"from.{self.name}")

    def send(self, data: bytes) -> Payload:
        return tensors.send_payload(self.crowd.log, self.topic, f"from.{self.name}", 0, data)

    def refused(self, birth: Birth) -> Reason:
        from hermes.messages import UpdateRejected

        return self.crowd.entry(UpdateRejected, lambda e: e.birth == birth).reason

    def model(self, change: Callable[[dict[str, np.ndarray]], None]) -> bytes:
        """The newest version, changed."""
        from hermes.codec import decode_tensors
        from hermes.perform.store import Store

        self.crowd.version()
        newest = self.crowd.ledger.state.newest
        assert newest is not None
        store = Store(self.crowd.log, RUN)
        try:
            model = {k: v.copy() for k, v in decode_tensors(store.get(newest.payload)).items()}
        finally:
            store.close()
        change(model)
        return encode_tensors(model)


def hello(crowd: Crowd, name: str, incarnation: str, made_of: Software) -> None:
    """Knock."""
    bare = Hello(RUN, name, incarnation, f"nonce-{incarnation}", made_of)
    signed = replace(bare, proof=proof_of(crowd.key, bare))
    crowd.log.append(crowd.topic(names.LOBBY), encode(signed)).offset()


# --- who may take part (e) ----------------------------------------------------------------------

OTHER = """
import sys
from hermes.runtime import software, worker
from hermes.messages import Software
worker.software = lambda framework: Software({hermes!r}, {protocol}, "3", framework)
from hermes.cli.entry import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(("hermes", "protocol"), [("0.0.1", PROTOCOL), ("1", PROTOCOL + 1)])
def test_a_bad_version_of_a_worker(
    crowd: Crowd, shown: Shown, tmp_path: Path, hermes: str, protocol: int
) -> None:
    """Of Hermes or of its protocol: it is refused, and both sides say so."""
    import sys

    name = f"old-{protocol}"
    done = subprocess.run(
        [
            *(sys.executable, "-c", OTHER.format(hermes=hermes, protocol=protocol), "worker"),
            *("--broker", crowd.broker, "--run", RUN, "--name", name, "--state", str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        env=crowd.shell.environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert (
        f"{name}: the master refuses this worker: other-version (worker {hermes}, " in done.stderr
    )
    assert "Install the master's version of hermes-edge here" in done.stderr
    crowd.until(lambda: f"{name} is refused: other-version" in crowd.central())
    crowd.goes_on()
    shown("A worker of another version", "hermes worker", 2, done.stderr)


def test_a_bad_second_worker_of_one_name(crowd: Crowd, shown: Shown, tmp_path: Path) -> None:
    """On another machine (another state folder): refused while the first is heard."""
    done = crowd("worker", "--run", RUN, "--name", "w1", "--state", str(tmp_path))
    assert done.returncode == 2
    assert "w1: the master refuses this worker: name-taken" in done.stderr
    assert "choose another --name" in done.stderr
    crowd.until(lambda: "w1 is refused: name-taken" in crowd.central())
    crowd.goes_on()
    shown("A second worker of one name, elsewhere", "hermes worker --name w1", 2, done.stderr)


def test_a_bad_second_worker_on_one_machine(crowd: Crowd, shown: Shown) -> None:
    """The outbox is locked: it does not even knock."""
    done = crowd("worker", "--run", RUN, "--name", "w1", "--state", "home")
    assert done.returncode == 2
    assert "another worker named 'w1' is on this machine already" in done.stderr
    assert "Choose another --name" in done.stderr
    shown("A second worker of one name, here", "hermes worker --name w1", 2, done.stderr)


@pytest.fixture
def wrong_key(tmp_path: Path) -> str:
    path = tmp_path / "wrong.key"
    path.write_text("ab" * 32)
    path.chmod(0o600)
    return str(path)


def test_a_bad_key_of_a_worker(crowd: Crowd, shown: Shown, wrong_key: str) -> None:
    done = crowd("worker", "--run", RUN, "--name", "w9", "--key-file", wrong_key)
    assert done.returncode == 2
    assert "error: run r: this worker has another cluster key than the run's master" in done.stderr
    assert "--key-file" in done.stderr
    shown("A worker with another cluster key", "hermes worker --key-file K", 2, done.stderr)


def test_a_bad_key_of_a_stop(crowd: Crowd, shown: Shown, wrong_key: str) -> None:
    began, lobby = time.monotonic(), [crowd.topic(names.LOBBY)]
    before = crowd.log.ends(lobby)
    done = crowd("stop", RUN, "--key-file", wrong_key)
    assert crowd.log.ends(lobby) == before, "nobody was asked"
    assert time.monotonic() - began < 10, "nor waited for: that takes so long, and a start"
    assert done.returncode == 2
    assert "the run's master has another cluster key, and would not listen to us" in done.stderr
    assert "--key-file" in done.stderr
    crowd.goes_on()
    shown("A request to stop with another cluster key", "hermes stop --key-file K", 2, done.stderr)


def test_a_bad_token(crowd: Crowd, shown: Shown, wrong_key: str) -> None:
    done = crowd.shell("worker", "--join", crowd.token, "--name", "w9", "--key-file", wrong_key)
    assert done.returncode == 2
    assert re.search(r"the master has the cluster key \w{16}, this worker \w{16}", done.stderr)
    assert "--key-file" in done.stderr
    shown("A token for another key", "hermes worker --join TOKEN --key-file K", 2, done.stderr)


def test_a_bad_second_knock_admits_no_ghost(crowd: Crowd) -> None:
    """A worker that was refused has left; its second hello, read later, is ignored."""
    old = Software("0.0.1", PROTOCOL, "3", "")
    hello(crowd, "ghost", "inc-ghost", old)
    crowd.until(lambda: "ghost is refused" in crowd.central())
    hello(crowd, "ghost", "inc-ghost", software(""))
    crowd.goes_on()
    crowd.goes_on()
    assert "ghost" not in crowd.ledger.state.members


# --- what lies in the topics (f) ----------------------------------------------------------------

RUBBISH = {
    "no message": (b"rubbish", "not a message of Hermes"),
    "another protocol": (b"HM\xff1234", "a message of another protocol than"),
    "damaged": (b"HM" + bytes([PROTOCOL]) + b"\xc1\xff", "a damaged message"),
    "empty": (b"", "not a message of Hermes"),
    "too long": (encode(LogLine("x", "info", "t", "a" * 5000)), "bytes; the limit is 4096"),
}


def test_bad_records_in_every_topic(crowd: Crowd, shown: Shown) -> None:
    """Set aside with a reason, topic and offset; the run goes on."""
    read = [names.LOBBY, names.LOGS, "from.w1"]
    shorts = [*read, names.LEDGER, names.MODEL, names.DATA]
    wrote = {
        (short, crowd.log.append(crowd.topic(short), data).offset()): why
        for data, why in RUBBISH.values()
        for short in shorts
    }
    path = crowd.shell.folder / f"runs/{RUN}/log/quarantine.jsonl"

    def told() -> dict[tuple[str, int], str]:
        return {(a.topic, a.offset): a.reason for a in read_quarantine(path, 1000).last}

    seen = {place: why for place, why in wrote.items() if place[0] in (*read, names.LEDGER)}
    crowd.until(lambda: seen.keys() <= told().keys())
    for (short, offset), why in seen.items():
        assert ("void: " if short == names.LEDGER else why) in told()[short, offset]
    crowd.goes_on()
    for short in ("lobby", "ledger"):
        crowd.until(lambda short=short: f"quarantined: {short}, offset" in crowd.central())
    done = crowd.shell("status", RUN)
    assert re.search(r"quarantined +\d+ records?; the last: ", done.stdout)
    shown("Rubbish in the topics: the run goes on", "hermes status", 0, done.stdout)


def test_a_bad_place_for_a_message(crowd: Crowd) -> None:
    """A good message where it does not belong, and a forged master, count for nothing."""
    line = encode(LogLine("x", "info", "t", "do not believe me"))
    at = crowd.log.append(crowd.topic("from.w1"), line).offset()
    claim = LedgerRecord(7, "n", 0, b"", 0, (), (MasterStarted(7, "n"),))
    crowd.log.append(crowd.topic(names.LEDGER), encode(claim)).offset()
    path = crowd.shell.folder / f"runs/{RUN}/log/quarantine.jsonl"
    crowd.until(
        lambda: any(
            (a.topic, a.offset, a.reason) == ("from.w1", at, "a LogLine does not belong here")
            for a in read_quarantine(path, 1000).last
        )
    )
    crowd.until(
        lambda: any(a.reason == "void: term-not-next" for a in read_quarantine(path, 1000).last)
    )
    assert "do not believe me" not in crowd.central()
    crowd.goes_on()


def test_a_bad_key_in_the_lobby(crowd: Crowd) -> None:
    """A hello that is not signed with the cluster key is not answered, and told."""
    bare = Hello(RUN, "stranger", "inc-s", "nonce", software(""), "", "0" * 64)
    crowd.log.append(crowd.topic(names.LOBBY), encode(bare)).offset()
    path = crowd.shell.folder / f"runs/{RUN}/log/quarantine.jsonl"
    crowd.until(
        lambda: any(
            a.reason.startswith("signed with another cluster key, or forged: worker 'stranger'")
            for a in read_quarantine(path, 1000).last
        )
    )
    crowd.goes_on()


def _little(model: dict[str, np.ndarray]) -> None:
    """A good update; one that changes nothing need not be fetched at all."""
    next(iter(model.values())).flat[0] += 1e-3


def _nan(model: dict[str, np.ndarray]) -> None:
    next(iter(model.values())).flat[0] = np.nan


def _inf(model: dict[str, np.ndarray]) -> None:
    next(iter(model.values())).flat[0] = np.inf


def _shape(model: dict[str, np.ndarray]) -> None:
    name = next(iter(model))
    model[name] = np.zeros((3, 3), np.float32)


def _names(model: dict[str, np.ndarray]) -> None:
    model["another"] = np.zeros(2, np.float32)


def test_bad_updates_are_rejected_with_their_reason(crowd: Crowd) -> None:
    """NaN, infinity, another shape, other names, no tensors, a wrong digest, a missing chunk, a
    length that cannot be: each by its reason. A chunk that came twice does no harm."""
    forger = Forger(crowd, "forger")
    wanted: dict[Birth, str] = {}
    for change, code in (
        (_nan, "not-finite"),
        (_inf, "not-finite"),
        (_shape, "wrong-shape"),
        (_names, "wrong-names"),
    ):
        wanted[forger.push(forger.send(forger.model(change)))] = code
    wanted[forger.push(forger.send(b"these are no tensors"))] = "unreadable"
    good = forger.send(forger.model(_little))
    wanted[forger.push(replace(good, digest="0" * 64))] = "unreadable"
    wanted[forger.push(replace(good, chunks=2, last=good.last, first=good.last - 1))] = "unreadable"
    wanted[forger.push(replace(good, length=1 << 50))] = "malformed"
    wanted[forger.push(replace(good, last=1 << 40))] = "malformed"
    wanted[forger.push(good, samples=0)] = "malformed"
    for birth, code in wanted.items():
        assert forger.refused(birth).code == code
    crowd.goes_on()


def test_a_bad_chunk_twice_does_no_harm(crowd: Crowd) -> None:
    """A duplicate, a chunk of another payload and a header that lies, amid an update's own."""
    from hermes.messages import VersionPublished

    forger = Forger(crowd, "stutterer")
    log, topic = crowd.log, forger.topic
    data = forger.model(_little)
    name = "ab" * 16
    tensors.send_payload(log, topic, f"from.{forger.name}", 0, data, name, chunk_size=10_000)
    log.append(topic, b"short", tensors.Chunk("cd" * 16, 0, 1, 999).headers()).offset()
    again = tensors.send_payload(
        log, topic, f"from.{forger.name}", 0, data, name, chunk_size=10_000
    )
    birth = forger.push(replace(again, first=0))
    merged = crowd.entry(
        VersionPublished, lambda entry: any(part.birth == birth for part in entry.members)
    )
    assert merged.version > 0
    crowd.goes_on()


def test_bad_records_are_counted_in_the_result(crowd: Crowd) -> None:
    """The last of these tests: the run is stopped, and its result counts what was set aside."""
    import json

    done = crowd("stop", RUN)
    assert done.returncode == 0, done.stderr
    crowd.master.communicate(timeout=30)
    assert crowd.master.returncode == 0
    folder = crowd.shell.folder / f"runs/{RUN}"
    result = json.loads((folder / "result.json").read_bytes())
    assert result["quarantined"] == read_quarantine(folder / "log/quarantine.jsonl").total > 0
    updates = result["updates"]
    assert updates["pushed"] == updates["applied"] + updates["rejected"] + updates["undecided"]


def test_a_worker_begins_again_after_the_bad_end_of_a_generation(short_of_memory: Crowd) -> None:
    """A forged master makes it begin again, and the generation that it would end is long gone."""
    crowd, first = short_of_memory, short_of_memory.topic("from.w1")
    crowd.until(lambda: first not in crowd.log.topics(first))
    claim = LedgerRecord(7, "n", 0, b"", 0, (), (MasterStarted(7, "n"),))
    crowd.log.append(crowd.topic(names.LEDGER), encode(claim)).offset()
    crowd.until(lambda: crowd.central().count("admitted to r") > 1)
    crowd.goes_on()
