"""Do the files of a cluster's conf/ say what they may say? All mistakes are told together."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hermes.cluster import allowed, keyfile, located
from hermes.cluster.conf import (
    FILES,
    VERSION,
    Cluster,
    Config,
    Defaults,
    Master,
    Node,
    Settings,
    beside,
)
from hermes.cluster.faults import SHOWN, ConfError, Fault, nearest, plain, told
from hermes.cluster.located import Located, NotJson, spelt
from hermes.errors import SettingError, UsageError
from hermes.policy import presets
from hermes.policy.presets import Layer
from hermes.policy.ranges import Allowed, settled

LARGE = 4_000_000
"""Bytes of a file that somebody wrote, at most."""

SCHEMA = "$schema"

SECRET = re.compile(
    r"(.*[_-])?(password|passwort|passwd|passphrase|pass|pwd|secret|token|credentials?|api_?key"
    r"|private_?key|sasl_plain_password)",
    re.IGNORECASE,
)
"""Keys under which people write what must not be here."""

WRITTEN_OUT = re.compile(r"PRIVATE KEY-----|://[^/\s@]*:[^/\s@]*@|^[^\s@/:]+:[^\s@]+@")
"""Values that hold a secret whatever their key."""

NO_SECRETS = (
    "No passwords in files: nodes are entered with SSH keys, from a file of mode 0600 (its path is "
    '"key") or an agent; those of the broker are made by `hermes up`, in secrets/. If it was real, '
    "change it."
)

_KEYS = {FILES[0]: "config", FILES[1]: "master", FILES[2]: "settings"}


class File:
    """One file: what it says, and the mistakes that were found in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self.located: Located | None = None
        self.faults: list[Fault] = []

    def refuse(self, path: located.Path, what: str, remedy: str) -> None:
        """Note a mistake."""
        line = self.located.line(path) if self.located else 0
        self.faults.append(Fault(self.name, line, what, remedy))

    def place(self, path: located.Path) -> str:
        """File and line of a value."""
        return f"{self.name}:{self.located.line(path) if self.located else 0}"

    def tree(self) -> dict[str, Any] | None:
        """What it says, without secrets; None where that is not worth a closer look."""
        text = self._text()
        if text is None:
            return None
        try:
            self.located = located.locate(text)
        except NotJson as error:
            what = f"it is not JSON: {error.what} (line {error.line}, column {error.column})"
            remedy = _json_remedy(error.what, _rest(text, error.line, error.column))
            self.faults.append(Fault(self.name, error.line, what, remedy))
            return None
        for path, first, second in self.located.twice:
            what = f"{_spelt(path)} stands twice: on line {first}, and here"
            self.faults.append(Fault(self.name, second, what, "Take one of them out."))
        tree = self.located.tree
        if not isinstance(tree, dict):
            self.refuse((), f"it is {_kind(tree)}", "It is an object: { ... }. See docs/conf.md.")
            return None
        return tree if self._version(tree) else None

    def _text(self) -> str | None:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            self._whole("there is no such file", "Write one: hermes init makes all three.")
            return None
        except OSError as error:
            self._whole(f"it cannot be read: {error.strerror or error}", "Make it readable.")
            return None
        try:
            text = data.decode("utf-8-sig") if len(data) <= LARGE else None
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            what = f"byte {data[error.start]:#04x} is not UTF-8"
            self.faults.append(Fault(self.name, line, what, "Save the file as UTF-8."))
            return None
        if text is None:
            self._whole(f"it has {len(data)} bytes", f"At most {LARGE}.")
        elif not text.strip():
            self._whole("it is empty", "See docs/conf.md, or let hermes init write one.")
            return None
        return text

    def _whole(self, what: str, remedy: str) -> None:
        self.faults.append(Fault(self.name, 0, what, remedy))

    def _version(self, tree: Mapping[str, Any]) -> bool:
        if "version" not in tree:
            self.refuse(("version",), "version is missing", f'Add "version": {VERSION}.')
        elif not allowed.VERSION.fits(tree["version"]):
            self.refuse(
                ("version",),
                f"version is {told(tree['version'])}",
                f"This Hermes reads version {VERSION}. A newer one needs the Hermes that wrote it.",
            )
            return False
        return True


def read(folder: Path) -> Cluster:
    """Read and check a cluster's folder. Raises `ConfError`."""
    place = folder / "conf"
    if not place.is_dir():
        raise UsageError(
            "there is no cluster here: no folder conf/",
            where=str(folder.absolute()),
            remedy="Name its folder, or make one: hermes init DIR --workers HOST,HOST",
        )
    files = {name: File(place / name) for name in FILES}
    config = _config(files[FILES[0]], folder)
    master = _master(files[FILES[1]], folder)
    settings = _settings(files[FILES[2]])
    faults = [fault for file in files.values() for fault in file.faults]
    if faults or config is None or master is None or settings is None:
        raise ConfError(faults)
    places = {
        key: file.place(path)
        for name, file in files.items()
        for key, path in _said(name, file, config)
    }
    return Cluster(config, master, settings, folder, places)


def _said(name: str, file: File, config: Config) -> Iterator[tuple[str, located.Path]]:
    """Everything that a file says: under which name, and where."""
    assert file.located is not None
    for path in file.located.lines:
        if path and path[0] not in (SCHEMA, "version"):
            yield f"master.{spelt(path)}" if name == FILES[1] else spelt(path), path
    if name == FILES[0]:
        for index in range(len(config.nodes)):
            for key in file.located.tree.get("defaults", {}):
                if ("nodes", index, key) not in file.located.lines:
                    yield f"nodes[{index}].{key}", ("defaults", key)


# --- keys and values ----------------------------------------------------------------------------


def _object(
    file: File, path: located.Path, tree: Any, known: Mapping[str, Allowed]
) -> dict[str, Any]:
    """What an object says that it may say; mistakes are noted."""
    if not isinstance(tree, dict):
        file.refuse(path, f"{spelt(path)} is {told(tree)}", f"It is {allowed.OBJECT.words}.")
        return {}
    found: dict[str, Any] = {}
    for key, value in tree.items():
        at = (*path, key)
        if _secret(file, at, value) or (key == SCHEMA and not path):
            continue
        if key not in known:
            file.refuse(at, f"unknown key {_spelt(at)}", nearest(key, known, allowed.ALSO))
        elif known[key].fits(value := settled(known[key], value)):
            found[key] = value
        else:
            remedy = allowed.about_host(value) if key == "host" else ""
            remedy = remedy or f"It is {known[key].words}."
            file.refuse(at, f"{_spelt(at)} is {told(value)}", remedy)
    return found


def _secret(file: File, path: located.Path, value: Any) -> bool:
    """Whether this is what must not be in a file; it is not repeated in the message."""
    by_key = SECRET.fullmatch(str(path[-1])) is not None
    by_value = isinstance(value, str) and WRITTEN_OUT.search(value) is not None
    if not (by_key or by_value):
        return False
    what = "is no key of this file" if by_key else "seems to hold a password or a private key"
    file.refuse(path, f"{_spelt(path)} {what}", NO_SECRETS)
    return True


def _spelt(path: located.Path) -> str:
    """As `spelt`, fit for a terminal whatever the keys are."""
    return plain(spelt(path), SHOWN)


def _kind(tree: Any) -> str:
    return "a list" if isinstance(tree, list) else told(tree)


def _rest(text: str, line: int, column: int) -> str:
    """What stands there."""
    lines = text.split("\n")
    return lines[line - 1][column - 1 :].strip() if line <= len(lines) else ""


def _json_remedy(what: str, there: str) -> str:
    if there.lstrip(", \t").startswith(("//", "/*", "#")):
        return "There are no comments in JSON: take it out. See docs/conf.md."
    if "property name" in what:
        return "Is there a comma too many before it, or a key without double quotes?"
    if "delimiter" in what:
        return "Is there a comma missing before it?"
    return "JSON has double quotes, no comments, no comma after the last one. See docs/conf.md."


# --- config.json ----------------------------------------------------------------------------------


def _config(file: File, folder: Path) -> Config | None:
    tree = file.tree()
    if tree is None:
        return None
    top = _object(file, (), tree, allowed.CONFIG)
    shared = {key: one for key, one in allowed.NODE.items() if key not in allowed.OWN}
    defaults = _object(file, ("defaults",), top.get("defaults", {}), shared)
    if "nodes" not in tree:
        file.refuse(("nodes",), "nodes is missing", 'Add "nodes": [{"name": ..., "host": ...}].')
    nodes = [_node(file, index, node) for index, node in enumerate(top.get("nodes", []))]
    _check_twice(file, nodes, defaults)
    _check_keys(file, defaults, ("defaults",), folder)
    for index, node in enumerate(nodes):
        _check_keys(file, node, ("nodes", index), folder)
    if file.faults:
        return None
    return Config(
        defaults=msgspec.convert(defaults, Defaults),
        nodes=tuple(msgspec.convert({**defaults, **node}, Node) for node in nodes),
    )


def _node(file: File, index: int, tree: Any) -> dict[str, Any]:
    path: located.Path = ("nodes", index)
    found = _object(file, path, tree, allowed.NODE)
    for key in ("name", "host"):
        if isinstance(tree, dict) and key not in tree:
            words = allowed.NODE[key].words
            file.refuse(path, f"{spelt((*path, key))} is missing", f"It is {words}.")
    return found


def _check_twice(
    file: File, nodes: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any]
) -> None:
    """Note nodes of one name, and nodes at one address."""
    names: dict[str, int] = {}
    places: dict[tuple[str, int], int] = {}
    usual = defaults.get("port", 22)
    for index, node in enumerate(nodes):
        if (name := node.get("name")) is not None:
            first = names.setdefault(name, index)
            if first != index:
                _refuse_second(file, "name", first, index, told(name))
        if (host := node.get("host")) is not None:
            port = node.get("port", usual)
            first = places.setdefault((host.lower().rstrip("."), port), index)
            if first != index:
                _refuse_second(file, "host", first, index, f"{told(host)} with port {port}")


def _refuse_second(file: File, key: str, first: int, second: int, value: str) -> None:
    assert file.located is not None
    line = file.located.line(("nodes", first, key))
    file.refuse(
        ("nodes", second, key),
        f"nodes[{second}].{key} is {value}, as that of nodes[{first}] (line {line})",
        "Each node has a name, and an address (host and port), of its own.",
    )


def _check_keys(file: File, tree: Mapping[str, Any], path: located.Path, folder: Path) -> None:
    """Note a file of an SSH key that is not there, is the public half, or that others can read."""
    if tree.get("key") is None:
        return
    at = (*path, "key")
    key = beside(folder, tree["key"])
    found = keyfile.trouble(key)
    if found is not None:
        file.refuse(at, f"{spelt(at)} is {told(str(key))}, {found.what}", found.remedy)


# --- master.json ----------------------------------------------------------------------------------


def _master(file: File, folder: Path) -> Master | None:
    tree = file.tree()
    if tree is None:
        return None
    found = _object(file, (), tree, allowed.MASTER)
    if found.get("access") is not None and found.get("broker", "apache") == "apache":
        file.refuse(
            ("access",),
            f"access is {told(found.pop('access'))}, and broker is apache",
            "The way into a broker that is started here is made with it: leave access out, or "
            "name the HOST:PORT of the broker that it is for.",
        )
    for key, is_there, what in (
        ("access", os.path.isfile, "no file"),  # which, unlike Path's, never raise
        ("wheels", os.path.isdir, "no folder"),
    ):
        if found.get(key) is not None:
            place = beside(folder, found[key])
            if not is_there(place):
                remedy = f"There is {what} {told(str(place))}."
                file.refuse((key,), f"{key} is {told(found[key])}", remedy)
    return None if file.faults else msgspec.convert(found, Master)


# --- settings.json --------------------------------------------------------------------------------


def _settings(file: File) -> Settings | None:
    tree = file.tree()
    if tree is None:
        return None
    strategy = tree.get("strategy", presets.DEFAULT_STRATEGY)
    values: dict[str, Any] = {}
    for group, content in tree.items():
        if group in ("version", "strategy", SCHEMA) or _secret(file, (group,), content):
            continue
        if group not in presets.SECTIONS:
            file.refuse((group,), f"unknown key {_spelt((group,))}", _group_of(group))
        elif not isinstance(content, dict):
            keys = ", ".join(presets.SECTIONS[group])
            remedy = f"It is an object with any of the keys {keys}."
            file.refuse((group,), f"{group} is {told(content)}", remedy)
        else:
            values |= _group(file, group, content)
    if strategy not in presets.PRESETS if isinstance(strategy, str) else True:
        known = nearest(str(strategy), presets.PRESETS)
        remedy = f"{known} All of them: {', '.join(presets.PRESETS)}."
        file.refuse(("strategy",), f"strategy is {told(strategy)}", remedy)
    if not file.faults:
        _check_together(file, strategy, values, chosen="strategy" in tree)
    return None if file.faults else Settings(strategy=strategy, values=values)


def _group(file: File, group: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one group that can be, by dotted key; null and "off" switch one off."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if _secret(file, (group, key), value):
            continue
        dotted = f"{group}.{key}"
        try:
            found |= presets.one(dotted, None if value == "off" else value)
        except SettingError as error:
            file.refuse((group, key), plain(error.what), error.remedy)
    return found


def _group_of(key: str) -> str:
    """What to do about a key that is no group."""
    if key in presets.known_keys():
        group, _, last = key.partition(".")
        return f'Write it in its group: "{group}": {{"{last}": ...}}.'
    try:
        presets.one(key, None)
    except SettingError as error:
        return f"{error.remedy} Groups: {', '.join(presets.SECTIONS)}."
    raise AssertionError(key)


def _check_together(file: File, strategy: str, values: dict[str, Any], *, chosen: bool) -> None:
    """Note settings that cannot work together. One without effect is a mistake where the file
    names the strategy, too; else a run may choose another one."""
    layers = [Layer(file.place(tuple(k.split("."))), {k: v}, chosen) for k, v in values.items()]
    try:
        presets.resolve(strategy, layers)
    except SettingError as error:
        line = error.where.rpartition(":")[2]
        at = int(line) if line.isdecimal() else 1
        file.faults.append(Fault(file.name, at, plain(error.what), error.remedy))
