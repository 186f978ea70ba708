"""Does an outbox know what its dead processes have left: what they pushed, and who they were?"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hermes.messages import Update
from hermes.runtime import pushes
from hermes.runtime.outbox import Outbox
from hermes.runtime.pushes import Known, Push, read_journal
from hermes.values import Base, Birth, Payload


def update(number: int, incarnation: str = "a") -> Update:
    payload = Payload("00" * 16, "from.w", 0, 3, 4, 2, 9, "cd" * 32)
    return Update(Birth(incarnation, number), Base(7, "ab" * 32), 64, 1, 7, payload)


def told(folder: Path) -> list[tuple[type, int]]:
    return [(type(line), line.number) for line in read_journal(folder)]


def test_each_push_is_told_once(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, "r")
    for number in (1, 2):
        outbox.keep(update(number))
    outbox.forget(Birth("a", 1))
    outbox.forget(Birth("a", 1))  # as a repeated record of the ledger would
    outbox.close()
    Outbox(tmp_path, "r").close()
    assert told(tmp_path) == [(Push, 1), (Push, 2), (Known, 1)]
    first = next(read_journal(tmp_path))
    assert isinstance(first, Push)
    assert (first.birth, first.base, first.samples) == (Birth("a", 1), 7, 64)
    assert (first.base_digest, first.digest) == ("ab" * 32, "cd" * 32)


def test_a_process_that_died_between_outbox_and_journal(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, "r")
    outbox.keep(update(1))
    outbox.keep(update(2))
    outbox.close()
    path = tmp_path / pushes.NAME
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:20])  # the machine died within the line
    again = Outbox(tmp_path, "r")
    again.forget(Birth("a", 2))
    again.close()
    assert told(tmp_path) == [(Push, 1), (Push, 2), (Known, 2)]


def test_the_journal_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushes, "LARGEST", 2000)
    outbox = Outbox(tmp_path, "r")
    for number in range(100):
        outbox.keep(update(number))
        outbox.forget(Birth("a", number))
    outbox.close()
    files = sorted(tmp_path.glob(f"{pushes.NAME}*"))
    assert [path.name for path in files] == [pushes.NAME, f"{pushes.NAME}.1"]
    assert all(path.stat().st_size <= 2000 for path in files)
    numbers = [number for _, number in told(tmp_path)]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 99


def test_whoever_knocked_last_is_named_first(tmp_path: Path) -> None:
    """A process may be admitted and die before it sees so: its next names it, and, where its hello
    never came, the one before it."""

    def life(incarnation: str, *, admitted: bool = False) -> tuple[str, Outbox]:
        outbox = Outbox(tmp_path, "r")
        outbox.knock(incarnation)
        if admitted:
            outbox.begin(incarnation)
        return outbox.left.previous, outbox

    named, outbox = life("a", admitted=True)
    assert named == ""
    outbox.close()
    named, outbox = life("b")
    assert named == "a"
    outbox.close()
    named, outbox = life("c")
    assert named == "b"
    assert outbox.refused("c"), "b never came: there is a to name"
    outbox.close()
    named, outbox = life("d")
    assert named == "a"
    assert not outbox.refused("d"), "somebody else has the name"
    outbox.close()


def test_an_outbox_of_before_is_read(tmp_path: Path) -> None:
    old = {"run": "r", "incarnation": "a", "updates": [msgspec.to_builtins(update(1))]}
    (tmp_path / "outbox.msgpack").write_bytes(msgspec.msgpack.encode(old))
    outbox = Outbox(tmp_path, "r")
    assert outbox.left.previous == "a"
    assert [one.birth for one in outbox.left.updates] == [Birth("a", 1)]
    outbox.close()
    assert told(tmp_path) == [(Push, 1)]
