"""Where are Kafka's Java libraries? Under KAFKA_HOME, else in our cache, else fetched by Maven."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hermes.broker.places import cache_folder
from hermes.errors import UsageError

VERSION = "4.3.1"
"""Of Apache Kafka. (4.4.0 asks for an artifact that is not published.)"""

OR_EMBEDDED = ", or use --kind embedded"
"""Of a remedy, where another kind of broker would do."""

FETCHING = 1800.0
"""Seconds that Maven may take."""

_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>hermes</groupId>
  <artifactId>broker</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>2.25.2</version>
    </dependency>
  </dependencies>
</project>
"""


def jars() -> str:
    """Java's class path, its star left for java to expand. Raises `UsageError`."""
    folder = _kept()
    if not folder.is_dir():
        _fetch(folder, _maven())
    return f"{folder}/*"


def whence() -> str:
    """Where they would come from, in words. Fetches nothing. Raises `UsageError` as `jars`."""
    folder = _kept()
    if folder.is_dir():
        return str(folder)
    _maven()
    return f"what Maven fetches at the first start (45 MB, to {folder})"


def _kept() -> Path:
    """Their folder, there or not. Raises `UsageError`."""
    home = os.environ.get("KAFKA_HOME")
    if not home:
        return cache_folder() / f"kafka-{VERSION}"
    libraries = Path(home).expanduser() / "libs"
    if not libraries.is_dir():
        raise UsageError(
            f"KAFKA_HOME={home} has no folder libs",
            remedy="Point it at an unpacked Kafka, or leave it unset.",
        )
    return libraries


def _maven() -> str:
    maven = shutil.which("mvn")
    if maven is None:
        raise UsageError(
            "no Apache Kafka here: KAFKA_HOME is not set, Docker does not run, and there is no mvn "
            "to fetch it with",
            remedy=f"Unpack Kafka 4 and set KAFKA_HOME, or install Docker or Maven{OR_EMBEDDED}",
        )
    return maven


def _fetch(folder: Path, maven: str) -> None:
    """Fetch into a folder beside it and rename: it is there whole, or not at all."""
    print(  # noqa: T201  (people wait for it)
        f"hermes: fetching Apache Kafka {VERSION} (45 MB) into {folder}, once ...",
        file=sys.stderr,
        flush=True,
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as work:
        pom = Path(work) / "pom.xml"
        pom.write_text(_POM, "utf-8")
        done = _run(
            [
                maven,
                "-q",
                "-B",
                f"-f{pom}",
                "dependency:copy-dependencies",
                "-DincludeScope=runtime",
                f"-DoutputDirectory={work}/lib",
            ]
        )
        if done.returncode:
            said = (done.stdout + done.stderr).strip()[-2000:]
            raise UsageError(
                f"Maven could not fetch Apache Kafka:\n{said}",
                remedy="Is the network there? Or unpack Kafka 4 yourself and set KAFKA_HOME.",
            )
        try:
            (Path(work) / "lib").rename(folder)
        except OSError:
            if not folder.is_dir():  # another process was faster: then its folder is as good
                raise


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=FETCHING
        )
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"Maven has not fetched Apache Kafka within {FETCHING:g} s",
            remedy="Is the network there? Or unpack Kafka 4 yourself and set KAFKA_HOME.",
        ) from None
