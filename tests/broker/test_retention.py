"""Topics stay flat while a run goes on: trimmed where the broker can forget, rotated where not."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from commands import DIGITS, Shell

from hermes.broker.control import Child
from hermes.transport import names
from hermes.transport.kafka import KafkaLog

pytestmark = pytest.mark.broker

VERSIONS = 100
KEPT = 4
SETTINGS = (
    f"stop.versions={VERSIONS}",
    "stop.samples=off",
    "stop.accuracy=off",
    "stop.patience=off",
    f"retention.keep=last:{KEPT}",
)


@pytest.fixture(params=["embedded", "apache"])
def broker(request: pytest.FixtureRequest) -> Child:
    return request.getfixturevalue(request.param)


def test_only_what_is_needed_stays(shell: Shell, broker: Child) -> None:
    run = f"kept-{uuid4().hex[:8]}"
    asked = [part for text in SETTINGS for part in ("--set", text)]
    args = ("run", DIGITS, "--broker", broker.address, "--run", run, "--workers", "2")
    done = shell(*args, "--strategy", "bsp", "--json", *asked)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["version"] == VERSIONS
    each = 39_000  # bytes of a version of digits
    with KafkaLog(broker.address) as log:
        for short in ("model", "from.worker-1", "from.worker-2"):
            records, generations = left(log, run, short)
            assert records < 0.8 * VERSIONS, (short, records, generations)
            assert generations == [0] or (broker.kind == "embedded" and generations[0] > 0)
        whole = log.starts([names.physical(run, "ledger"), names.physical(run, "data")])
        assert set(whole.values()) == {0}, "ledger and data are never trimmed"
    if broker.kind == "embedded":  # Kafka frees segments a minute or two later
        assert result["storage"]["topics"]["model"] < 0.8 * VERSIONS * each
    found = shell("verify", run, "--json")
    assert found.returncode == 0, found.stderr
    status = shell("status", run)
    assert "topics" in status.stdout
    assert "model" in status.stdout
    assert shell("clean", run, "--yes").returncode == 0
    with KafkaLog(broker.address) as log:
        assert log.topics(names.prefix_of(run)) == [], "all generations go"


def left(log: KafkaLog, run: str, short: str) -> tuple[int, list[int]]:
    """Records of a topic that are there, and in which generations."""
    first = names.physical(run, short)
    found = [name for topic in log.topics(first) if (name := names.parse(topic))]
    topics = [names.physical(run, short, name.generation) for name in found if name.short == short]
    starts, ends = log.starts(topics), log.ends(topics)
    records = sum(ends[topic] - starts[topic] for topic in topics)
    return records, sorted(name.generation for name in found if name.short == short)
