"""Does every strategy run on real brokers as it does in the simulator, and can its run be verified?

Workers in threads of this process, each with its own connection: one run each, a few versions long.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from test_runtime import Cluster

from hermes.broker.control import Child
from hermes.codec import decode
from hermes.messages import Entry, LedgerRecord, RoundNoted, StepClosed, VersionPublished
from hermes.runtime.archive import read_archive
from hermes.runtime.folder import RunFolder
from hermes.runtime.sources import at_broker
from hermes.transport.kafka import KafkaLog
from hermes.verify.run import verify

pytestmark = pytest.mark.broker


class Case(NamedTuple):
    """A strategy, and what makes it do all that is its own within a few versions."""

    strategy: str
    settings: dict[str, Any]
    closes: str
    """Why its versions close."""
    speeds: tuple[float | None, float | None] = (None, None)
    """Of the two workers, where their speeds count: chance decides who is quicker otherwise."""


CASES = {
    case.strategy: case
    for case in (
        Case("asp", {}, "each-push"),
        Case("ssp", {"continue__slack": 1}, "each-push"),
        Case("fedbuff", {"close__count": 2, "round__steps": 4}, "count-pushed"),
        Case("ebsp", {"size__lookahead": 3}, "all-pushed"),
        Case("selsync", {"gate__delta": 0.05}, "synced"),
        Case("fastest-alone", {"round__steps": 4}, "all-pushed", (1.0, 0.25)),
        Case(
            "hermes",
            {"codec__up": "fp16", "codec__down": "fp16", "gate__veto": 0.5, "size__first": 60},
            "quorum",
        ),
    )
}

VERSIONS = 6


@pytest.mark.parametrize("kind", ["embedded", "apache"])
@pytest.mark.parametrize("name", CASES)
def test_a_run_is_done_and_verified(
    name: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    broker: Child = request.getfixturevalue(kind)
    case, run = CASES[name], f"strategy-{name}"
    cluster = Cluster(broker.address, run, tmp_path)
    cluster.start_master(case.strategy, 2, stop__versions=VERSIONS, **case.settings)
    for index, speed in enumerate(case.speeds, 1):
        pace = {} if speed is None else {"speed": speed, "step_seconds": 0.1}
        cluster.start_worker(f"worker-{index}", **pace)
    result = cluster.finish()
    assert (result["status"], result["version"]) == ("finished", VERSIONS)
    counted = result["updates"]
    pushed = sum(worker["pushes"] for worker in result["workers"].values())
    assert counted["pushed"] == pushed > 0
    assert pushed == counted["applied"] + counted["rejected"] + counted["undecided"]

    with KafkaLog(broker.address) as log:
        report = verify(at_broker(log, run))
        assert report.findings == []
        assert [one.outcome for one in report.versions] == ["checked", *["recomputed"] * VERSIONS]
        rows = report.updates.table().values()
        assert sum(row["applied"] for row in rows) == counted["applied"]
    check_what_is_its_own(case, entries_of(RunFolder(tmp_path, run).ledger))


def entries_of(saved: Path) -> list[Entry]:
    """All that was decided, as the master's folder has it."""
    records = [decode(record.value) for record in read_archive(saved)]
    return [e for record in records if isinstance(record, LedgerRecord) for e in record.entries]


def check_what_is_its_own(case: Case, entries: list[Entry]) -> None:
    """Versions closed as the strategy has it, and its own machinery was at work."""
    versions = [e for e in entries if isinstance(e, VersionPublished)]
    assert {version.reason.code for version in versions[1:]} == {case.closes}
    rounds = [e for e in entries if isinstance(e, RoundNoted)]
    if case.strategy == "selsync":
        steps = [e for e in entries if isinstance(e, StepClosed)]
        assert [step.step for step in steps] == list(range(1, len(steps) + 1))
        assert sum(step.sync for step in steps) >= VERSIONS
        assert {e.verdict for e in rounds} <= {"flag", "quiet"}
    elif case.strategy == "ebsp":
        assert all(version.superstep is not None for version in versions[1:])
    elif case.strategy == "fastest-alone":
        assert len({part.worker for version in versions[2:] for part in version.members}) == 1
    elif case.strategy == "hermes":
        assert {version.codec for version in versions} == {"fp16"}
        assert any("d" in e.reason.facts for e in rounds), "no push was put to the test"
