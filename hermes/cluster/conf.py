"""What does a cluster consist of? The three files of its folder's conf/, read and checked.

DIR/conf/config.json     the nodes
DIR/conf/master.json     this machine: the broker, where things lie, security
DIR/conf/settings.json   strategy and settings of the runs
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from hermes.policy.presets import DEFAULT_STRATEGY, Layer

VERSION = 1
"""Of the files."""

FILES = ("config.json", "master.json", "settings.json")

Packages = Literal["venv", "system"]


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file may hold, and nothing else."""


class Node(Struct, frozen=True, kw_only=True):
    """One machine that runs a worker."""

    name: str
    """Of its worker and of its user at the broker: 1 to 40 of a-z, 0-9 and -."""
    host: str
    """By which this machine reaches it: a host name or an IP address."""
    user: str | None = None
    """Who logs in there; null: the name of the user here."""
    port: int = 22
    """Of its SSH server."""
    key: str | None = None
    """The file of the private SSH key, mode 0600; null: the SSH agent, and the usual files of
    ~/.ssh."""
    fingerprint: str | None = None
    """Of its SSH host key, `SHA256:...`; null: ~/.ssh/known_hosts must know it."""
    python: str = "python3"
    """The Python there (3.10 or newer) that makes the virtual environment."""
    folder: str = "~/.hermes-edge"
    """Where Hermes keeps all that it has there; a folder of its own."""
    threads: int | None = None
    """That its worker computes with; null: all cores (NumPy: 1)."""
    device: str | None = None
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`; null: the job's own."""
    extras: tuple[str, ...] = ()
    """What is installed beside the base: `torch`, `keras-tensorflow`, `keras-torch`."""
    packages: Packages = "venv"
    """`venv`: everything goes into a virtual environment; `system`: that environment sees the
    packages which the system has, such as a PyTorch made for the board."""
    tmux: bool = True
    """Whether the worker runs in a tmux session, if there is tmux; false: in the background."""


class Defaults(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What holds for every node that says nothing else: the keys of a node."""

    user: str | UnsetType | None = UNSET
    port: int | UnsetType = UNSET
    key: str | UnsetType | None = UNSET
    python: str | UnsetType = UNSET
    folder: str | UnsetType = UNSET
    threads: int | UnsetType | None = UNSET
    device: str | UnsetType | None = UNSET
    extras: tuple[str, ...] | UnsetType = UNSET
    packages: Packages | UnsetType = UNSET
    tmux: bool | UnsetType = UNSET


class Config(Struct, frozen=True, kw_only=True):
    """The nodes: conf/config.json."""

    version: Literal[1] = 1
    """Of the file's form."""
    defaults: Defaults = Defaults()
    """Keys that hold for all nodes: any of a node's but `name`, `host` and `fingerprint`."""
    nodes: tuple[Node, ...]
    """The machines that run workers; of a loaded file each has what `defaults` gives it."""


class Master(Struct, frozen=True, kw_only=True):
    """The machine of the master, and of the broker: conf/master.json."""

    version: Literal[1] = 1
    """Of the file's form."""
    address: str | None = None
    """By which the workers reach this machine's broker; null: the address that this machine has on
    its way to the first node."""
    port: int = 9092
    """Of the broker."""
    listen: str = "0.0.0.0"  # noqa: S104  (workers are elsewhere; security is on)
    """The address of this machine at which the broker listens; 0.0.0.0: all of them."""
    broker: str = "apache"
    """`apache`: Apache Kafka, started here; or the HOST:PORT of a broker that runs already."""
    access: str | None = None
    """The file that says how to get into a broker that runs already; null: none is needed, or this
    machine knows it."""
    data: str = "broker"
    """The folder of the broker's records."""
    out: str = "."
    """The folder that contains runs/."""
    security: Literal["on", "off"] = "on"
    """`on`: TLS, a user for each node, rights for each topic; `off`: whoever reaches the port may
    read and write everything."""
    wheels: str | None = None
    """A folder of wheels from which nodes install, for nodes that reach no package index; null:
    the index that pip uses there."""


class Settings(Struct, frozen=True, kw_only=True):
    """What the runs of this cluster start from: conf/settings.json."""

    version: Literal[1] = 1
    """Of the file's form."""
    strategy: str = DEFAULT_STRATEGY
    """A strategy's name."""
    values: Mapping[str, Any] = MappingProxyType({})
    """Key -> value, such as `gate.alpha`; None is off. In the file: groups, `"gate": {"alpha":
    -1.3}`."""


class Cluster(NamedTuple):
    """A cluster's folder, read."""

    config: Config
    master: Master
    settings: Settings
    folder: Path
    places: Mapping[str, str]
    """`nodes[1].port`, `master.port`, `gate.alpha` -> the file and line that says it; what is not
    in here has its default."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The machines that run workers."""
        return self.config.nodes

    @property
    def secrets(self) -> Path:
        """The folder of keys and passwords; mode 0700."""
        return self.folder / "secrets"

    @property
    def out(self) -> Path:
        """The folder that contains runs/."""
        return self.path(self.master.out)

    def path(self, text: str) -> Path:
        """A path of one of the files: relative ones begin at the cluster's folder."""
        return beside(self.folder, text)

    def key_of(self, node: Node) -> Path | None:
        """The file of its SSH key; None: the agent and the usual files."""
        return self.path(node.key) if node.key else None

    def layers(self) -> tuple[Layer, ...]:
        """The settings, for `presets.resolve`: one layer each, so that an error names the line."""
        return tuple(
            Layer(self.places.get(key, str(self.folder / "conf" / FILES[2])), {key: value}, False)
            for key, value in self.settings.values.items()
        )


def beside(folder: Path, text: str) -> Path:
    """A path that is written in a file: relative ones begin at the cluster's folder, and a home
    that nobody has is no home (`Path.expanduser` would raise)."""
    return folder / os.path.expanduser(text)  # noqa: PTH111


def load(folder: Path) -> Cluster:
    """Read and check a cluster's folder. Raises `ConfError` (a `UsageError`), which tells all
    mistakes of all three files."""
    from hermes.cluster.reading import read

    return read(folder)
