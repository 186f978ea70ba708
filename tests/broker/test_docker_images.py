"""Do docker/'s images build, and does compose.yaml's cluster train? Imitated: there is no engine.

Each step and command is run as it stands (see tests/imitation.py), the broker by what the image's
own start runs, the containers as the user, with the secret, the volumes and the read-only files
that compose.yaml gives them. Not imitated: base images, network, limits of CPU, capabilities.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import ROOT
from imitation import Docker, Image, expanded, lacking, read_dockerfile

from hermes.broker.jars import jars
from hermes.broker.places import free_port
from hermes.errors import BrokerUnreachable
from hermes.transport.probe import probe

REASON = lacking()
pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(REASON is not None, reason=f"images cannot be imitated: {REASON}"),
    pytest.mark.timeout(500),  # packages are fetched, as by docker build
]

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
FETCHING = ("PIP_", "SSL_", "REQUESTS_", "HTTP_", "HTTPS_", "http_", "https_")
"""How this machine reaches packages; a build has the engine's own way."""


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    outside = {name: text for name, text in os.environ.items() if name.startswith(FETCHING)}
    made = Docker(ROOT, outside)
    yield made
    made.close()


@pytest.fixture(scope="module")
def images(docker: Docker) -> dict[str, Image]:
    """By target."""
    file = read_dockerfile((ROOT / "docker" / "Dockerfile").read_text("utf-8"))
    return {target: docker.build(file, target, {}) for target in ("worker", "master")}


class Cluster:
    """compose.yaml's services: the broker at a free port, the others as containers."""

    def __init__(self, docker: Docker, images: dict[str, Image], folder: Path) -> None:
        self.docker, self.images = docker, images
        self.home = folder / "docker"
        shutil.copytree(ROOT / "docker", self.home, ignore=shutil.ignore_patterns("runs", ".env"))
        subprocess.run([str(self.home / "prepare")], check=True, capture_output=True)
        lines = (self.home / ".env").read_text().splitlines()
        self.variables = dict(line.split("=", 1) for line in lines)
        self.port, self.controller = free_port(), free_port()
        self.folder = folder
        self.started: dict[str, subprocess.Popen[str]] = {}

    def told(self, text: str) -> str:
        """With variables filled in, and with places of this machine."""
        text = expanded(text, self.variables)
        for there, here in (
            ("PLAINTEXT://0.0.0.0:9092", f"PLAINTEXT://127.0.0.1:{self.port}"),
            ("kafka:9092", f"127.0.0.1:{self.port}"),
            ("/tcp/127.0.0.1/9092", f"/tcp/127.0.0.1/{self.port}"),
            ("127.0.0.1:9093", f"127.0.0.1:{self.controller}"),
            ("/var/lib/kafka/data", str(self.folder / "records")),
        ):
            text = text.replace(there, here)
        return text

    def kafka(self) -> None:
        """As its image: its wrapper makes properties of variables and formats; then Kafka."""
        for name in ("default", "mounted", "final"):
            (self.folder / name).mkdir()
        given = SERVICES["kafka"]["environment"]
        environment = {name: self.told(text) for name, text in given.items()}
        environment |= {"CLUSTER_ID": "5L6g3nShT-eMCtK--X86sw", "PATH": os.environ["PATH"]}
        java = [str(shutil.which("java")), *environment["KAFKA_HEAP_OPTS"].split(), "-cp", jars()]
        setup = [*java, "kafka.docker.KafkaDockerWrapper", "setup"]
        for name in ("default", "mounted", "final"):
            setup += [f"--{name}-configs-dir", str(self.folder / name)]
        subprocess.run(setup, check=True, env=environment, cwd=self.folder, capture_output=True)
        properties = str(self.folder / "final" / "server.properties")
        self.started["kafka"] = subprocess.Popen(
            [*java, "kafka.Kafka", properties],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"]},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def healthy(self) -> bool:
        """What compose asks of the broker, and whether it answers as a broker."""
        kind, *command = SERVICES["kafka"]["healthcheck"]["test"]
        assert kind == "CMD"
        asked = subprocess.run([self.told(word) for word in command], capture_output=True)
        if asked.returncode:
            return False
        try:
            return bool(probe(f"127.0.0.1:{self.port}"))
        except BrokerUnreachable:
            return False

    def container(self, name: str) -> tuple[Image, dict[str, str], str]:
        """A service's files, environment and user."""
        service = SERVICES[name]
        mounts = dict.fromkeys(service["tmpfs"], "")
        for volume in service["volumes"]:
            source, target, *_ = volume.split(":")
            mounts[target] = str((self.home / source).resolve()) if source[0] == "." else ""
        mounts["/jobs"] = str(ROOT / "examples")
        for secret in service["secrets"]:
            file = self.home / COMPOSE["secrets"][secret["source"]]["file"]
            assert file.name == secret["target"], "a folder of secrets stands for one mount each"
            mounts["/run/secrets"] = str(file.parent)
        image = self.docker.container(name, self.images[service["build"]["target"]], mounts)
        environment = {key: self.told(text) for key, text in service["environment"].items()}
        return image, environment, self.told(service["user"])

    def start(self, name: str, **more: str) -> subprocess.Popen[str]:
        """A service, as its image's entrypoint and its own or the image's command say."""
        image, environment, user = self.container(name)
        command = [self.told(word) for word in SERVICES[name].get("command", image.command)]
        self.started[name] = subprocess.Popen(
            self.docker.command(image, [*image.entrypoint, *command], environment | more, user),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self.started[name]

    def close(self) -> None:
        """End what is left."""
        for process in self.started.values():
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture
def cluster(docker: Docker, images: dict[str, Image], tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(docker, images, tmp_path)
    yield made
    made.close()


def until(holds: Callable[[], bool]) -> None:
    """pytest's time-out bounds it."""
    while not holds():
        time.sleep(0.2)


def test_images_hold_hermes_for_a_user_that_is_not_root(
    docker: Docker, images: dict[str, Image]
) -> None:
    for image in images.values():
        assert docker.run(image, ["hermes", "--version"], {}).stdout.startswith("hermes ")
        assert docker.run(image, ["id", "-u"], {}).stdout.strip() == "10001"
        owner = docker.run(image, ["stat", "-c", "%U", "/opt/hermes/bin/hermes"], {}).stdout
        assert owner.strip() == "root", "nothing that is run can be changed by who runs it"
    plots = ["python", "-c", "import matplotlib"]
    docker.run(images["master"], plots, {})
    with pytest.raises(AssertionError, match="No module named 'matplotlib'"):
        docker.run(images["worker"], plots, {})


def test_the_composed_cluster_trains_and_stops(cluster: Cluster) -> None:
    cluster.kafka()
    until(cluster.healthy)
    workers = [cluster.start(name) for name in SERVICES if name.startswith("worker-")]
    master = cluster.start("master", HERMES_SET="stop.samples=5000")
    said, _ = master.communicate()
    assert master.returncode == 0, said

    runs = cluster.home / "runs" / "runs"
    result = json.loads((runs / "latest" / "result.json").read_text())
    assert result["status"] == "finished"
    assert set(result["workers"]) == {"worker-1", "worker-2", "worker-3"}
    owner = (runs / "latest" / "result.json").stat().st_uid
    assert str(owner) == cluster.variables["HERMES_UID"]

    image = cluster.docker.images["worker"]
    environment = {"HERMES_BROKER": f"127.0.0.1:{cluster.port}"}
    cluster.docker.run(image, image.health, environment)
    for worker in workers:
        assert worker.poll() is None, "a worker waits for the next run"
        worker.terminate()  # as `docker stop`
    for worker in workers:
        said, _ = worker.communicate(timeout=30)  # compose's grace
        assert worker.returncode in (0, 130), said
