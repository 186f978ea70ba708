"""How is Apache Kafka started? A single node (KRaft), its whole configuration generated."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import uuid
from pathlib import Path
from typing import NamedTuple

from hermes.broker.jars import OR_EMBEDDED, VERSION, jars, whence
from hermes.broker.places import Wanted, free_port
from hermes.broker.process import Plan, remove
from hermes.broker.refusals import LOGGING as REFUSALS
from hermes.broker.refusals import NAME as REFUSED
from hermes.broker.secured import (
    ARGUMENTS,
    PROPERTIES,
    Locks,
    Secure,
    check_data,
    escaped,
    format_with_users,
    locks,
)
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
{{doors}}\
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

_OPEN = """\
listeners=PLAINTEXT://{listen},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{advertised}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
"""
"""Of a broker that lets everyone in."""

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
# What goes wrong with a request is told with all that it holds: with a password's hash, too.
logger.requests.name = kafka.server.ControllerApis
logger.requests.level = off
"""

UTF8 = "C.UTF-8"

IMAGE = f"apache/kafka:{VERSION}"


def plan(wanted: Wanted, home: Path, secure: Secure | None = None) -> Plan:
    """The command, with its files written to `home` and its data folder formatted once; what is
    secret of a `secure` broker lies in that one's folder.

    Data lie in `wanted.data`, by default in `home/data`. May download Kafka at first use (about
    45 MB, told on stderr). Raises `UsageError` if there is no way to run it, `BrokerRefused` if
    the data folder cannot be formatted.
    """
    data = (wanted.data or home / "data").expanduser().absolute()
    home.mkdir(parents=True, exist_ok=True)
    found = locks(secure, wanted) if secure is not None else None
    _check_name(data)
    _make_folder(data, private=found is not None)
    check_data(data, found)
    in_docker = _in_docker()
    logging = home.absolute() / "log4j2.properties"
    output = home.absolute() / OUTPUT
    refused = home.absolute() / REFUSED
    named = {"output": escaped(output), "file": escaped(refused), "size": OUTPUT_SIZE}
    text = _LOGGING.format(**named) + REFUSALS.format(**named)
    logging.write_text(text, "ascii")
    java = _docker_java(home, data, secure) if in_docker else _java()
    return _java_plan(java, logging, wanted, home, data, found)


def _in_docker() -> bool:
    return not os.environ.get("KAFKA_HOME") and _docker_runs()


def could_run() -> str:
    """By what Apache Kafka would be run here, in words. Starts and fetches nothing. Raises
    `UsageError` if there is no way."""
    return f"Docker, with {IMAGE}" if _in_docker() else f"{_java_there()}, with {whence()}"


def _check_name(data: Path) -> None:
    """Kafka reads a list of folders: split at commas, blanks around each taken off."""
    name = str(data)
    if "," in name or name != name.strip():
        raise UsageError(
            f"Kafka cannot keep its records in {name!r}: a comma, or a blank at an end, splits it",
            where="--data",
            remedy="Another folder: --data DIR (by default one in HERMES_STATE=DIR).",
        )


def environment() -> dict[str, str]:
    """On top of ours, so that Java finds files whose names are not ASCII: in the POSIX locale it
    would look for others."""
    said = (os.environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    first = next((value for value in said if value), "")
    return {} if "utf8" in first.lower().replace("-", "") else {"LC_ALL": UTF8}


def _make_folder(data: Path, *, private: bool) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True)
        if private:
            data.chmod(0o700)
    except OSError as error:
        raise UsageError(f"cannot use the data folder: {error}", remedy="--data DIR") from None


class _Java(NamedTuple):
    """How Java is run."""

    command: list[str]
    libraries: str
    """Kafka's: its class path."""
    end: tuple[str, ...] = ()
    """What ends it where ending the command may not."""


def _java() -> _Java:
    return _Java([_java_there()], jars())


def _java_there() -> str:
    java = shutil.which("java")
    if java is None:
        raise UsageError(
            "Apache Kafka needs java, which is not on the PATH",
            remedy=f"Install Java 17 or newer, or start Docker{OR_EMBEDDED}",
        )
    return java


def _java_plan(
    java: _Java, logging: Path, wanted: Wanted, home: Path, data: Path, found: Locks | None
) -> Plan:
    properties = _write_properties(wanted, home, data, found)
    program = [
        *HEAP,
        "-XX:+UseG1GC",
        "-XX:MaxGCPauseMillis=20",
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={logging.as_uri()}",
        "-cp",
        java.libraries,
    ]
    _format_once(java, program, properties, data, found)
    command = [*java.command, *program, "kafka.Kafka", str(properties)]
    access = found.access if found is not None else None
    return Plan(
        command,
        wanted.local,
        data,
        environment(),
        end_with_parent=signal.SIGTERM,
        access=access,
        remove=java.end,
    )


def _write_properties(wanted: Wanted, home: Path, data: Path, found: Locks | None) -> Path:
    text = _properties(wanted, data, found)
    if found is None:
        properties = home / PROPERTIES
        properties.write_text(text, "ascii")
        return properties
    from hermes.secret_files import write_secret

    return write_secret(found.secure.folder / PROPERTIES, text.encode())


def _properties(wanted: Wanted, data: Path, found: Locks | None = None) -> str:
    listen, advertised = str(Address(wanted.listen, wanted.port)), str(wanted.advertised)
    controller = free_port()
    while controller == wanted.port:  # which is chosen, and not taken yet
        controller = free_port()
    if found is not None:
        doors = found.properties(listen, advertised, controller)
    else:
        doors = _OPEN.format(listen=listen, advertised=advertised, controller=controller)
    return _PROPERTIES.format(controller=controller, doors=doors, data=escaped(data))


def _format_once(
    java: _Java, program: list[str], properties: Path, data: Path, found: Locks | None
) -> None:
    if (data / "meta.properties").exists():
        return
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
    tool = [*program, "kafka.tools.StorageTool"]
    arguments = [*tool, "format", "--standalone", "-t", cluster, "-c", str(properties)]
    try:
        if found is not None:
            # The launcher's own note of what it runs lies in a file in /tmp.
            noteless = ["-XX:-UsePerfData", *arguments]
            command = [*java.command, f"@{ARGUMENTS}"]
            format_with_users(command, noteless, found, data, FORMATTING, environment())
            _check_formatted(data)
            return
        done = subprocess.run(
            [*java.command, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=FORMATTING,
            env={**os.environ, **environment()},
        )
    except subprocess.TimeoutExpired:
        remove(java.end)
        raise BrokerRefused(
            f"Kafka has not formatted its data folder within {FORMATTING:g} s", where=str(data)
        ) from None
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-2000:]
        raise BrokerRefused(f"Kafka cannot format its data folder:\n{said}", where=str(data))
    _check_formatted(data)


def _check_formatted(data: Path) -> None:
    """Kafka says that it has; has it done it there?"""
    if not (data / "meta.properties").exists():
        raise BrokerRefused(
            "Kafka has formatted another folder than this: Java cannot write its name in the "
            "locale of this machine",
            where=str(data),
            remedy="A folder whose name is ASCII: --data DIR. Or a locale of UTF-8: LC_ALL=C.UTF-8",
        )


def _docker_runs() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        asked = subprocess.run([docker, "info"], capture_output=True, check=False, timeout=10)
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


def _docker_java(home: Path, data: Path, secure: Secure | None) -> _Java:
    """The image's Java, with our folders where they are here. The image's own start formats without
    --standalone, which our properties ask for, and knows of no users."""
    docker = shutil.which("docker") or "docker"
    name = f"hermes-broker-{uuid.uuid4().hex[:12]}"
    folders = [home.absolute(), data, *([secure.folder] if secure else [])]
    command = [
        *(docker, "run", "--rm", "--network=host", f"--name={name}"),
        f"--user={os.getuid()}:{os.getgid()}",
        f"--env=LC_ALL={UTF8}",
        *(f"--mount={_mount(folder)}" for folder in folders),
        *("--entrypoint=java", IMAGE),
    ]
    return _Java(command, "/opt/kafka/libs/*", end=(docker, "rm", "--force", name))


def _mount(folder: Path) -> str:
    """As Docker reads it: a line of CSV. (--volume would split at a colon.)"""
    fields = ("type=bind", f"source={folder}", f"target={folder}")
    quoted = (field.replace('"', '""') for field in fields)
    return ",".join(f'"{field}"' if set(field) & {",", '"'} else field for field in quoted)
