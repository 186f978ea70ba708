"""What is in force in a cluster, and where does each value come from?

Of nodes and of the master: default, file. Of a run's settings: default, strategy, job, file,
environment, flag; the later wins.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from hermes.cluster import address
from hermes.cluster.conf import Cluster, Node
from hermes.policy import presets
from hermes.policy.presets import PRESETS, Layer, Settings

DEFAULT = "default"


class Value(NamedTuple):
    """One value in force."""

    key: str
    value: Any
    origin: str
    """`default`, `strategy hermes`, `conf/config.json:7`, `job.py:12`, `HERMES_SET`, `--set`."""


class Asked(NamedTuple):
    """What beside the files asks for something: a job, the environment, flags."""

    strategy: str | None = None
    strategy_from: str = "--strategy"
    job: Layer | None = None
    typed: tuple[Layer, ...] = ()
    """Of the environment, then of flags."""


class InForce(NamedTuple):
    """All of it."""

    nodes: tuple[tuple[Value, ...], ...]
    """Of each node, each of its keys."""
    master: tuple[Value, ...]
    settings: tuple[Value, ...]
    odd: tuple[str, ...]
    """What may be a mistake, with what to do about it."""


def in_force(cluster: Cluster, asked: Asked | None = None) -> InForce:
    """What is in force. Raises `SettingError` where what was asked for beside the files cannot
    be."""
    asked = asked or Asked()
    settings, layers = resolved(cluster, asked)
    odd = (*oddities(cluster, settings), *presets.warnings(settings, layers))
    nodes = tuple(
        tuple(_of_struct(node, f"nodes[{index}]", cluster.places))
        for index, node in enumerate(cluster.nodes)
    )
    master = tuple(
        value
        for value in _of_struct(cluster.master, "master", cluster.places)
        if value.key != "master.version"
    )
    return InForce(nodes, master, tuple(_of_settings(cluster, asked, settings, layers)), odd)


def resolved(cluster: Cluster, asked: Asked) -> tuple[Settings, tuple[Layer, ...]]:
    """A run's settings, and who asked for them. Raises `SettingError`."""
    job = () if asked.job is None else (asked.job,)
    layers = (*job, *cluster.layers(), *asked.typed)
    return presets.resolve(asked.strategy or cluster.settings.strategy, layers), layers


def _of_struct(struct: Any, prefix: str, places: Mapping[str, str]) -> Iterator[Value]:
    for field in msgspec.structs.fields(struct):
        key = f"{prefix}.{field.name}"
        yield Value(key, getattr(struct, field.name), places.get(key, DEFAULT))


def _of_settings(
    cluster: Cluster, asked: Asked, settings: Settings, layers: Sequence[Layer]
) -> Iterator[Value]:
    by_file = cluster.places.get("strategy", DEFAULT)
    yield Value("strategy", settings.strategy, asked.strategy_from if asked.strategy else by_file)
    origins = dict.fromkeys(PRESETS[settings.strategy], f"strategy {settings.strategy}")
    for layer in layers:
        origins |= dict.fromkeys(layer.values, layer.where)
    tree = presets.to_tree(settings)
    for key in presets.known_keys():
        if key != "strategy":
            group, _, last = key.partition(".")
            yield Value(key, tree[group][last], origins.get(key, DEFAULT))


# --- what may be a mistake ------------------------------------------------------------------------


def oddities(cluster: Cluster, settings: Settings) -> Iterator[str]:
    """What these files say that may be a mistake."""
    at = cluster.places
    if not cluster.nodes:
        yield (
            f"{at.get('nodes', 'conf/config.json')}: there is no node: hermes up starts a broker "
            "alone, and workers have to join by themselves (hermes worker --join TOKEN)"
        )
    if len(cluster.nodes) > settings.workers.max:
        yield (
            f"there are {len(cluster.nodes)} nodes, and workers.max={settings.workers.max} admits "
            f'fewer: "workers": {{"max": {len(cluster.nodes)}}} in conf/settings.json'
        )
    for index, node in enumerate(cluster.nodes):
        if address.is_example(node.host):
            yield (
                f"{at[f'nodes[{index}].host']}: {node.host} is an address for examples: write "
                "your node's there"
            )
    yield from _odd_master(cluster)


def _odd_master(cluster: Cluster) -> Iterator[str]:
    master, at = cluster.master, cluster.places
    away = [node for node in cluster.nodes if not address.is_loopback(node.host)]
    if master.broker == "apache":
        for key in ("address", "listen"):
            value = getattr(master, key)
            if away and value is not None and address.is_loopback(value):
                place = at.get(f"master.{key}", "conf/master.json")
                yield (
                    f"{place}: {key} is {value}, which is every machine's own: {away[0].name} "
                    f"cannot reach a broker there. {_remedy_of(key, away[0])}"
                )
    else:
        unused = [key for key in ("address", "port", "listen", "data") if f"master.{key}" in at]
        for key in unused:
            yield (
                f"{at[f'master.{key}']}: {key} says nothing where broker is {master.broker}: that "
                "one runs already. Leave it out."
            )
    if master.security == "off":
        yield (
            f"{at['master.security']}: security is off: whoever reaches the broker reads and "
            "writes everything. Leave it out, but in a network of yours alone."
        )


def _remedy_of(key: str, node: Node) -> str:
    if key == "listen":
        return "Take 0.0.0.0, or this machine's address in their network."
    found = address.towards(node.host, node.port)
    return f"On the way to it this machine is {found}." if found else "Take this machine's own."


# --- what null stands for -------------------------------------------------------------------------


def meant(value: Value, cluster: Cluster) -> str:
    """A value for people: what a null stands for here."""
    last = value.key.rpartition(".")[2]
    if value.value is None and value.key.startswith("nodes["):
        return {
            "user": f"{_user()} (as here)",
            "key": "the agent, else ~/.ssh",
            "fingerprint": "as in known_hosts",
            "threads": "all cores (NumPy: 1)",
            "device": "the job's",
        }.get(last, "-")
    if value.value is None and value.key == "master.address":
        first = cluster.nodes[0] if cluster.nodes else None
        found = address.towards(first.host, first.port) if first else None
        return f"{found} (on the way to {first.name})" if first and found else "not found"
    if value.key in ("master.data", "master.out") and isinstance(value.value, str):
        return str(cluster.path(value.value).absolute())
    if value.value is None:
        return "none" if value.key.startswith("master.") else "off"
    if isinstance(value.value, tuple):
        return ", ".join(value.value) or "none"
    if isinstance(value.value, bool):
        return "true" if value.value else "false"
    return f"{value.value:g}" if isinstance(value.value, float) else str(value.value)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name
        return "your name"
