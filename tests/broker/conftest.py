"""Brokers for the tests: started once a session, on free ports, with temporary data."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from hermes.broker.control import Child
from hermes.transport.kafka import KafkaLog
from hermes.transport.log import Log
from hermes.transport.memory import MemoryLog

KINDS = [
    "memory",
    pytest.param("embedded", marks=pytest.mark.broker),
    pytest.param("apache", marks=pytest.mark.broker),
]

_numbers = count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where a broker goes away, the client library may leave a socket to the collector: that is its
    own, and no message of ours. `collected` has it come to light in these tests, not in others."""
    text = "Exception ignored in. <(socket|hermes.transport.kafka._Wide)"
    left = f"ignore:{text}:pytest.PytestUnraisableExceptionWarning"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(left))


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """What a module leaves is collected before the next one begins."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def embedded() -> Iterator[Child]:
    with Child("embedded") as broker:
        yield broker


@pytest.fixture(scope="session")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with Child("apache", data=tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(params=KINDS)
def log(request: pytest.FixtureRequest) -> Iterator[Log]:
    """A log of each kind, for the tests that every kind must pass."""
    if request.param == "memory":
        with MemoryLog() as memory:
            yield memory
    else:
        broker: Child = request.getfixturevalue(request.param)
        with KafkaLog(broker.address) as connected:
            yield connected


@pytest.fixture
def name() -> str:
    """A topic's name that no other test uses."""
    return f"hermes.test.topic-{next(_numbers)}"


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A state folder of the test's own."""
    monkeypatch.setenv("HERMES_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def topic(log: Log, name: str) -> Iterator[str]:
    """A topic of `log`, deleted afterwards."""
    log.create([name])
    yield name
    log.delete([name])


@pytest.fixture
def topics(log: Log) -> Iterator[Callable[[int], list[str]]]:
    """Makes topics of `log`; they are deleted afterwards."""
    made: list[str] = []

    def make(number: int) -> list[str]:
        names = [f"hermes.test.topic-{next(_numbers)}" for _ in range(number)]
        log.create(names)
        made.extend(names)
        return names

    yield make
    log.delete(made)
