"""How is Apache Kafka started? A single node (KRaft), its whole configuration generated."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import uuid
from pathlib import Path

from hermes.broker.jars import VERSION, jars
from hermes.broker.places import Wanted, free_port
from hermes.broker.process import Plan
from hermes.errors import BrokerRefused, UsageError
from hermes.transport.address import Address
from hermes.transport.settings import MAX_RECORD

FORMATTING = 120.0
"""Seconds that Kafka may take to format its data folder, once: it takes 3."""

HEAP = ("-Xms128m", "-Xmx512m")

_PROPERTIES = f"""\
# Written by Hermes at every start: changes are lost.
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{{controller}}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{{listen}},CONTROLLER://127.0.0.1:{{controller}}
advertised.listeners=PLAINTEXT://{{advertised}}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={{data}}
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
message.max.bytes={MAX_RECORD}
log.message.timestamp.type=LogAppendTime
log.retention.check.interval.ms=60000
log.segment.bytes=134217728
queued.max.request.bytes=134217728
# A broker that was killed comes back when its old registration is over: 4 s, not 12.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
"""

OUTPUT = "broker.log"
"""Of the folder `home`: what it prints, and what it logs."""
OUTPUT_SIZE = 10 << 20
"""Bytes of that before it is rotated; three old ones are kept."""

_LOGGING = """\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {output}
appender.file.filePattern = {output}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %p %m (%c{{1}})%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = {size}
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""


def plan(wanted: Wanted, home: Path) -> Plan:
    """The command, with its files written to `home` and its data folder formatted once.

    Data lie in `wanted.data`, by default in `home/data`. May download Kafka at first use (about
    45 MB, told on stderr). Raises `UsageError` if there is no way to run it, `BrokerRefused` if
    the data folder cannot be formatted.
    """
    data = (wanted.data or home / "data").expanduser().absolute()
    home.mkdir(parents=True, exist_ok=True)
    _make_folder(data)
    if not os.environ.get("KAFKA_HOME") and _docker_runs():
        return _docker_plan(wanted, home, data)
    return _java_plan(wanted, home, data)


def _make_folder(data: Path) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot use the data folder: {error}", remedy="--data DIR") from None


def _java_plan(wanted: Wanted, home: Path, data: Path) -> Plan:
    java = shutil.which("java")
    if java is None:
        raise UsageError(
            "Apache Kafka needs java, which is not on the PATH",
            remedy="Install Java 17 or newer, or start Docker, or use --kind embedded",
        )
    properties = home / "server.properties"
    properties.write_text(_properties(wanted, data), "utf-8")
    logging = home / "log4j2.properties"
    output = home.absolute() / OUTPUT
    logging.write_text(_LOGGING.format(output=output, size=OUTPUT_SIZE), "utf-8")
    program = [
        java,
        *HEAP,
        "-XX:+UseG1GC",
        "-XX:MaxGCPauseMillis=20",
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={logging.as_uri()}",
        "-cp",
        jars(),
    ]
    _format_once([*program, "kafka.tools.StorageTool"], properties, data)
    command = [*program, "kafka.Kafka", str(properties)]
    return Plan(command, wanted.local, data, end_with_parent=signal.SIGTERM)


def _properties(wanted: Wanted, data: Path) -> str:
    return _PROPERTIES.format(
        controller=free_port(),
        listen=Address(wanted.listen, wanted.port),
        advertised=wanted.advertised,
        data=data,
    )


def _format_once(tool: list[str], properties: Path, data: Path) -> None:
    if (data / "meta.properties").exists():
        return
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
    try:
        done = subprocess.run(
            [*tool, "format", "--standalone", "-t", cluster, "-c", str(properties)],
            capture_output=True,
            text=True,
            check=False,
            timeout=FORMATTING,
        )
    except subprocess.TimeoutExpired:
        raise BrokerRefused(
            f"Kafka has not formatted its data folder within {FORMATTING:g} s", where=str(data)
        ) from None
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-2000:]
        raise BrokerRefused(f"Kafka cannot format its data folder:\n{said}", where=str(data))


def _docker_runs() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        asked = subprocess.run([docker, "info"], capture_output=True, check=False, timeout=10)
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


def _docker_plan(wanted: Wanted, home: Path, data: Path) -> Plan:
    """The official image formats its data itself; `docker run` in the foreground hands our
    SIGTERM on to it."""
    settings = home / "docker"
    settings.mkdir(exist_ok=True)
    inside = Path("/var/lib/kafka/data")
    (settings / "server.properties").write_text(_properties(wanted, inside), "utf-8")
    command = [
        shutil.which("docker") or "docker",
        "run",
        "--rm",
        f"--name=hermes-broker-{wanted.port}",
        "--network=host",
        f"--user={os.getuid()}:{os.getgid()}",
        f"--env=KAFKA_HEAP_OPTS={' '.join(HEAP)}",
        f"--volume={settings}:/mnt/shared/config:ro",
        f"--volume={data}:{inside}",
        f"apache/kafka:{VERSION}",
    ]
    return Plan(command, wanted.local, data, end_with_parent=signal.SIGTERM)
