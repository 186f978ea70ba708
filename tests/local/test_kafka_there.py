"""Does the doctor say, before anything is started, whether there is a Kafka to start?"""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes.broker.apache import could_run
from hermes.broker.jars import VERSION
from hermes.cluster import doctor
from hermes.errors import UsageError


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of the PATH; it is empty, and no Kafka is anywhere."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HERMES_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    return folder


def program(folder: Path, name: str, code: int = 0) -> Path:
    """A program that ends with this code; it is there to be found."""
    file = folder / name
    file.write_text(f"#!/bin/sh\nexit {code}\n")
    file.chmod(0o700)
    return file


def test_without_java_there_is_none(programs: Path) -> None:
    finding = doctor._could_start("10.0.0.1:9092")
    assert (finding.level, finding.text) == ("bad", "no Apache Kafka")
    assert "java, which is not on the PATH" in finding.what
    assert finding.remedy == "Install Java 17 or newer, or start Docker"

    program(programs, "docker", code=1)  # a client without an engine
    assert doctor._could_start("10.0.0.1:9092").level == "bad"


def test_java_alone_is_not_enough(programs: Path) -> None:
    program(programs, "java")
    finding = doctor._could_start("10.0.0.1:9092")
    assert finding.level == "bad"
    assert "no mvn to fetch it with" in finding.what
    assert finding.remedy == "Unpack Kafka 4 and set KAFKA_HOME, or install Docker or Maven"


def test_it_is_there_or_can_be_fetched_or_docker_has_it(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = program(programs, "java")
    program(programs, "mvn", code=9)  # it is asked for nothing
    assert could_run().startswith(f"{java}, with what Maven fetches at the first start (45 MB")
    assert not (tmp_path / "cache").exists(), "nothing is done"

    kept = tmp_path / "cache" / f"kafka-{VERSION}"
    kept.mkdir(parents=True)
    assert could_run() == f"{java}, with {kept}"

    program(programs, "docker")
    assert could_run() == f"Docker, with apache/kafka:{VERSION}"
    finding = doctor._could_start("10.0.0.1:9092")
    assert finding.level == "fine"
    assert finding.text.startswith("not up yet; will be at 10.0.0.1:9092, run by Docker")

    monkeypatch.setenv("KAFKA_HOME", str(tmp_path / "kafka"))
    with pytest.raises(UsageError, match="has no folder libs"):
        could_run()
    (tmp_path / "kafka" / "libs").mkdir(parents=True)
    assert could_run() == f"{java}, with {tmp_path}/kafka/libs"
