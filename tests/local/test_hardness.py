"""What a peer may send, and what may break, without ending a run for all."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from hermes.codec import encode
from hermes.messages import PROTOCOL, Hello, Software
from hermes.perform.keeper import ChunkKeeper
from hermes.transport import names, tensors
from hermes.transport.log import Record
from hermes.transport.memory import MemoryLog

TOPIC = names.physical("r", "from.w1")


def _chunks(log: MemoryLog, topic: str, data: bytes, name: str) -> list[Record]:
    reader = log.reader()
    reader.follow(topic, log.ends([topic])[topic])
    tensors.send_payload(log, topic, "from.w1", 0, data, name, chunk_size=10)
    return reader.poll(0.0)


def test_another_workers_chunks_are_not_taken_for_ours() -> None:
    """Chunks are kept by topic: a forged payload id in another topic changes nothing."""
    log, keeper, name = MemoryLog(), ChunkKeeper(), "ab" * 16
    other = names.physical("r", "from.w2")
    log.create([TOPIC, other])
    payload = tensors.send_payload(log, TOPIC, "from.w1", 0, b"x" * 35, name, chunk_size=10)
    for record in _chunks(log, other, b"y" * 35, name):
        keeper.add(record)
    assert keeper.take(TOPIC, payload) is None
    for record in _chunks(log, TOPIC, b"x" * 35, name):
        keeper.add(record)
    again = replace(payload, first=0, last=100)
    assert keeper.take(TOPIC, again) == b"x" * 35
    assert keeper.take(TOPIC, again) is None


def test_damaged_chunks_are_left_to_a_fetch() -> None:
    """Bytes that are not those announced are not used, and are no error yet."""
    log, keeper, name = MemoryLog(), ChunkKeeper(), "ab" * 16
    log.create([TOPIC])
    payload = tensors.send_payload(log, TOPIC, "from.w1", 0, b"x" * 35, name, chunk_size=10)
    for record in _chunks(log, TOPIC, b"z" * 35, name):
        keeper.add(record)
    assert keeper.take(TOPIC, replace(payload, last=100)) is None


def test_what_is_kept_is_bounded_whatever_its_size() -> None:
    """A flood of tiny or empty chunks pushes out the oldest."""
    log, keeper = MemoryLog(), ChunkKeeper(limit=50_000)
    log.create([TOPIC])
    for number in range(200):
        for record in _chunks(log, TOPIC, b"x" * (number % 3), f"{number:032x}"):
            keeper.add(record)
    assert len(keeper) < 60


def test_a_hello_of_nonsense_is_no_crash() -> None:
    """A proof of any text is compared, and does not hold."""
    from hermes.codec import verified

    software = Software("0", PROTOCOL, "3", "")
    for proof in ("", "é", "\x00", "x" * 10_000):
        assert not verified(b"k", Hello("r", "w", "i", "n", software, "", proof))
    assert len(encode(Hello("r", "w", "i", "n", software, "", "é"))) > 0


@pytest.mark.parametrize("processes", [1, 4])
def test_a_key_is_made_once(tmp_path: Path, processes: int) -> None:
    """Whoever comes second takes the first one's key; nothing else is left in the folder."""
    import os
    import subprocess
    import sys

    code = "from hermes.runtime.keys import *; print(fingerprint(cluster_key()))"
    environment = {**os.environ, "HERMES_CONFIG": str(tmp_path / "config")}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(processes)
    ]
    found = {process.communicate()[0] for process in started}
    assert len(found) == 1
    (only,) = found
    assert len(only.strip()) == 16
    assert [path.name for path in (tmp_path / "config").iterdir()] == ["cluster.key"]
    assert (tmp_path / "config" / "cluster.key").stat().st_mode & 0o777 == 0o600
