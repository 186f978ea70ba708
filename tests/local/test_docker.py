"""Do docker/'s files fit together, and with what Hermes itself does? Read, not built."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import ROOT
from imitation import expanded, read_dockerfile

from hermes.broker import apache
from hermes.broker.jars import VERSION
from hermes.broker.places import Wanted
from hermes.runtime.keys import cluster_key

DOCKER = ROOT / "docker"
DOCKERFILE = read_dockerfile((DOCKER / "Dockerfile").read_text("utf-8"))
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


# --- the Dockerfile -----------------------------------------------------------------------------


def test_images_start_from_one_pinned_tag() -> None:
    bases = {stage.base for stage in DOCKERFILE.stages.values()} - DOCKERFILE.stages.keys()
    (base,) = bases
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base), base


@pytest.mark.parametrize("target", ["master", "worker"])
def test_a_target_runs_as_nobody_special_and_has_a_health_check(target: str) -> None:
    stage = DOCKERFILE.stages[target]
    steps = [*DOCKERFILE.stages[stage.base].steps, *stage.steps]
    users = [step.rest for step in steps if step.word == "USER"]
    assert users
    assert not re.match(r"(0|root)(:|$)", users[-1])
    words = {step.word for step in steps}
    assert {"HEALTHCHECK", "ENTRYPOINT", "CMD"} <= words
    assert not any(step.word == "RUN" for step in stage.steps), "the last stage only copies"


def test_what_is_copied_is_there_and_not_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in lines, "nothing goes in by accident"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    copied = set()
    for stage in DOCKERFILE.stages.values():
        for step in stage.steps:
            if step.word == "COPY" and not step.rest.startswith("--from="):
                copied |= {source.removeprefix("./") for source in step.rest.split()[:-1]}
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)


def test_links_within_the_package_lead_to_what_is_copied() -> None:
    links = [path for path in (ROOT / "hermes").rglob("*") if path.is_symlink()]
    assert links
    targets = {path.resolve().relative_to(ROOT).parts[0] for path in links}
    copies = [step.rest for step in DOCKERFILE.stages["wheel"].steps if step.word == "COPY"]
    assert targets <= {copy.split()[0] for copy in copies}


@pytest.mark.parametrize(
    "text",
    ["RUN before", "FROM python:3 AS a\nRUNN x", "FROM python:3", "FROM x AS a\nFROM y AS a"],
)
def test_what_is_no_dockerfile_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_dockerfile(text)


# --- compose.yaml -------------------------------------------------------------------------------


def test_what_services_name_is_declared() -> None:
    volumes, networks, secrets = (set(COMPOSE[key]) for key in ("volumes", "networks", "secrets"))
    for service in SERVICES.values():
        assert set(service["networks"]) <= networks
        assert {secret["source"] for secret in service.get("secrets", [])} <= secrets
        sources = {volume.partition(":")[0] for volume in service["volumes"]}
        assert {source for source in sources if not source.startswith(".")} <= volumes
    used = {volume.partition(":")[0] for s in SERVICES.values() for volume in s["volumes"]}
    assert volumes <= used


def test_there_are_a_broker_a_master_and_three_workers() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{VERSION}"
    targets = [service["build"]["target"] for service in OURS.values()]
    assert targets == ["master", "worker", "worker", "worker"]
    assert set(targets) <= DOCKERFILE.stages.keys()
    command = SERVICES["master"]["command"]
    assert command[command.index("--expect") + 1] == str(targets.count("worker"))
    names = [s["environment"].get("HERMES_NAME") for s in OURS.values()]
    assert len(set(names)) == len(names)
    for service in OURS.values():
        build = service["build"]
        assert (DOCKER / build["context"] / build["dockerfile"]).resolve() == DOCKER / "Dockerfile"


def test_every_container_of_ours_is_confined_and_waits_for_a_healthy_broker() -> None:
    assert "healthcheck" in SERVICES["kafka"]
    for service in OURS.values():
        assert service["depends_on"] == {"kafka": {"condition": "service_healthy"}}
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["user"].startswith("${HERMES_UID:?")
        assert service["environment"]["HERMES_BROKER"] == "kafka:9092"


def test_a_broker_without_tls_is_to_be_reached_from_its_own_network_only() -> None:
    assert all("ports" not in service for service in SERVICES.values())
    assert COMPOSE["networks"] == {"cluster": {"internal": True}}
    assert all("network_mode" not in service for service in SERVICES.values())


def test_the_images_kafka_has_the_properties_that_ours_has() -> None:
    """As the image reads them: prefix KAFKA_, _ for a dot."""
    given = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in SERVICES["kafka"]["environment"].items()
        if name != "KAFKA_HEAP_OPTS"
    }
    wanted = Wanted(9092, "0.0.0.0", "kafka:9092", None)
    lines = apache._properties(wanted, Path("/var/lib/kafka/data")).splitlines()
    ours = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    controller = ours.pop("controller.quorum.bootstrap.servers")
    assert given.pop("controller.quorum.voters") == "1@127.0.0.1:9093"
    assert given == {key: text.replace(controller, "127.0.0.1:9093") for key, text in ours.items()}
    heap = SERVICES["kafka"]["environment"]["KAFKA_HEAP_OPTS"]
    assert heap == " ".join(apache.HEAP)


def test_variables_have_a_default_or_an_error_that_says_what_to_do() -> None:
    text = (DOCKER / "compose.yaml").read_text("utf-8")
    for inside in re.findall(r"\$\{([^}]*)\}", text):
        name, mark, rest = re.match(r"(\w+)(:[-?])?(.*)", inside).groups()  # type: ignore[union-attr]
        assert mark, name
        assert mark == ":-" or "docker/prepare" in rest
    assert expanded("${HERMES_JOB:-digits.py}", {}) == "digits.py"


# --- the secrets --------------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A copy of docker/ after docker/prepare."""
    folder = tmp_path / "docker"
    shutil.copytree(DOCKER, folder, ignore=shutil.ignore_patterns("secrets", "runs", ".env"))
    subprocess.run([str(folder / "prepare")], check=True, capture_output=True)
    return folder


def test_prepare_makes_a_key_that_hermes_takes_and_keeps_it(prepared: Path) -> None:
    file = prepared / "secrets" / "cluster.key"
    key = cluster_key(file)
    found = file.stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    told = dict(line.split("=") for line in (prepared / ".env").read_text().splitlines())
    assert told == {"HERMES_UID": str(found.st_uid), "HERMES_GID": str(found.st_gid)}
    assert found.st_uid != 0, "the containers are nobody's root"
    subprocess.run([str(prepared / "prepare")], check=True, capture_output=True)
    assert cluster_key(file) == key
    ignored = (prepared / ".gitignore").read_text().split()
    assert {"/secrets/", "/.env", "/runs/"} <= set(ignored)


def entered(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """What the entrypoint does with the secrets in a folder; as nobody, where we are root."""
    kept = folder / "memory"
    kept.mkdir(exist_ok=True)
    kept.chmod(0o777)
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    return subprocess.run(
        [*(drop if os.geteuid() == 0 else []), "/bin/sh", str(folder / "entrypoint"), *command],
        capture_output=True,
        text=True,
        cwd="/",
        env={
            "PATH": "/usr/bin:/bin",
            "HERMES_SECRETS": str(folder / "secrets"),
            "HERMES_KEY_FILE": str(kept / "hermes" / "cluster.key"),
        },
    )


@pytest.fixture
def mounted() -> Iterator[Path]:
    """A folder of secrets that anybody may look into, as /run/secrets; a test's own is private."""
    with tempfile.TemporaryDirectory(prefix="hermes-container-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copy(DOCKER / "entrypoint", folder / "entrypoint")
        (folder / "secrets").mkdir()
        (folder / "secrets").chmod(0o755)
        yield folder


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="as in a container")


@linux
def test_a_secret_for_all_to_read_becomes_its_users_own(mounted: Path) -> None:
    for name in ("cluster.key", "access.json"):
        (mounted / "secrets" / name).write_text(f"of {name}\n")
        (mounted / "secrets" / name).chmod(0o444)
    for _ in range(2):  # a container that is started again
        done = entered(mounted, "sh", "-c", 'cat "$HERMES_KEY_FILE"; exit 7')
        assert (done.returncode, done.stdout) == (7, "of cluster.key\n"), done.stderr
    kept = mounted / "memory" / "hermes"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    for name in ("cluster.key", "access.json"):
        assert (kept / name).read_text() == f"of {name}\n"
        assert stat.S_IMODE((kept / name).stat().st_mode) == 0o600


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else than the owner")
def test_a_secret_of_somebody_else_is_told_with_a_remedy(mounted: Path) -> None:
    (mounted / "secrets" / "cluster.key").write_text("of root\n")
    (mounted / "secrets" / "cluster.key").chmod(0o600)
    done = entered(mounted, "echo", "started")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be read by user 65534" in done.stderr
    assert "user: UID:GID" in done.stderr


@linux
def test_without_secrets_the_command_is_run_all_the_same(mounted: Path) -> None:
    assert entered(mounted, "echo", "started").stdout == "started\n"


def test_the_health_check_names_the_cause() -> None:
    done = subprocess.run(
        [sys.executable, str(DOCKER / "healthy")],
        capture_output=True,
        text=True,
        env={**os.environ, "HERMES_BROKER": "127.0.0.1:9"},
    )
    assert done.returncode == 1
    assert "nothing listens there" in done.stderr
