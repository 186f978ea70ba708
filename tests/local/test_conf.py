"""What is a user told of a bad file of conf/? File, line, key, what was found, what is allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from commands import Shown
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from schemas import fits

from hermes import meanings
from hermes.cli.entry import run
from hermes.cluster import allowed, schema
from hermes.cluster.conf import FILES, Config, Defaults, Master, Node, Settings, load
from hermes.cluster.faults import SHOWN, ConfError
from hermes.errors import UsageError
from hermes.policy import presets
from hermes.policy.presets import PRESETS, SECTIONS

ROOT = Path(__file__).parents[2]

CONFIG = """\
{
  "$schema": "schemas/config.json",
  "version": 1,
  "defaults": {
    "user": "pi",
    "port": 22,
    "key": null,
    "python": "python3.11",
    "folder": "~/.hermes-edge",
    "threads": 2,
    "device": "auto",
    "extras": ["torch"],
    "packages": "venv",
    "tmux": true
  },
  "nodes": [
    {"name": "worker-1", "host": "10.0.0.11"},
    {
      "name": "worker-2",
      "host": "node2.local",
      "user": "anna",
      "port": 2222,
      "key": null,
      "fingerprint": "SHA256:0123456789012345678901234567890123456789012",
      "python": "/opt/py/bin/python3",
      "folder": "/opt/hermes",
      "threads": null,
      "device": "cuda:0",
      "extras": [],
      "packages": "system",
      "tmux": false
    }
  ]
}
"""
MASTER = """\
{
  "version": 1,
  "address": "10.0.0.1",
  "port": 9093,
  "listen": "0.0.0.0",
  "broker": "apache",
  "access": null,
  "data": "/var/lib/hermes",
  "out": "~/training",
  "security": "on",
  "wheels": null
}
"""
SETTINGS = """\
{
  "version": 1,
  "strategy": "hermes-paper",
  "gate": {
    "alpha": -1.2
  },
  "stop": {"samples": 1e5,
    "patience": "off",
    "seconds": null
  },
  "storage": {"max": "2GB"}
}
"""

TEXTS = {"config": CONFIG, "master": MASTER, "settings": SETTINGS}

DOCUMENTS = schema.documents()


def lay(folder: Path, **texts: str) -> Path:
    """A cluster's folder with these files: config, master, settings."""
    conf = folder / "conf"
    conf.mkdir(parents=True, exist_ok=True)
    for name, text in {**TEXTS, **texts}.items():
        (conf / f"{name}.json").write_text(text, "utf-8")
    return folder


def faults(folder: Path) -> list[str]:
    """`config.json:7: what`, of each mistake."""
    with pytest.raises(ConfError) as told:
        load(folder)
    assert all(fault.remedy for fault in told.value.faults)
    return [f"{Path(fault.place).name}: {fault.what}" for fault in told.value.faults]


def refused(folder: Path) -> ConfError | None:
    """What a folder is refused with; None: it is read."""
    try:
        load(folder)
    except ConfError as error:
        return error
    return None


# --- what is read -------------------------------------------------------------------------------


def test_what_the_files_say_is_in_force(tmp_path: Path) -> None:
    cluster = load(lay(tmp_path))
    first, second = cluster.nodes
    assert (first.name, first.user, first.python, first.threads) == (
        "worker-1",
        "pi",
        "python3.11",
        2,
    )
    assert (second.user, second.port, second.threads, second.tmux) == ("anna", 2222, None, False)
    assert cluster.master.port == 9093
    assert cluster.path(cluster.master.data) == Path("/var/lib/hermes")
    assert cluster.path("x") == tmp_path / "x"
    assert cluster.path("~/x") == Path.home() / "x"
    assert cluster.secrets == tmp_path / "secrets"
    assert cluster.key_of(first) is None
    assert cluster.settings.values == {
        "gate.alpha": -1.2,
        "stop.samples": 100_000,
        "stop.patience": None,
        "stop.seconds": None,
        "storage.max": "2GB",
    }
    in_force = presets.resolve(cluster.settings.strategy, cluster.layers())
    assert (in_force.gate.alpha, in_force.stop.samples) == (-1.2, 100_000)


def test_each_value_knows_its_line(tmp_path: Path) -> None:
    places = {key: Path(place).name for key, place in load(lay(tmp_path)).places.items()}
    assert places["nodes[0].user"] == "config.json:5", "that of the defaults"
    assert places["nodes[1].user"] == "config.json:21"
    assert places["nodes[0].threads"] == "config.json:10"
    assert places["nodes[1].threads"] == "config.json:27", "also of a null"
    assert "nodes[0].fingerprint" not in places
    assert places["master.port"] == "master.json:4"
    assert places["stop.patience"] == "settings.json:8"
    assert places["strategy"] == "settings.json:3"


def test_a_layer_names_the_line_of_its_setting(tmp_path: Path) -> None:
    layers = {next(iter(one.values)): one for one in load(lay(tmp_path)).layers()}
    assert Path(layers["gate.alpha"].where).name == "settings.json:5"
    assert not layers["gate.alpha"].typed, "a run may choose another strategy"


def test_a_mark_at_the_beginning_and_windows_lines_are_no_mistake(tmp_path: Path) -> None:
    text = "\ufeff" + CONFIG.replace("\n", "\r\n")
    lay(tmp_path)
    (tmp_path / "conf" / "config.json").write_bytes(text.encode())
    assert Path(load(tmp_path).places["nodes[1].user"]).name == "config.json:21"


def test_the_repositorys_own_files_load() -> None:
    assert len(load(ROOT).nodes) == 4


# --- whatever is written is read back -----------------------------------------------------------


def off_or(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | value


NAMES = st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True).filter(
    lambda name: name not in allowed.RESERVED
)
HOSTS = (
    st.ip_addresses(v=4).filter(lambda ip: not ip.is_unspecified).map(str)
    | st.ip_addresses(v=6).filter(lambda ip: not ip.is_unspecified).map(str)
    | st.from_regex(r"[a-z][a-z0-9]{0,20}(\.[a-z]{2,9})?", fullmatch=True)
)
SHARED: dict[str, st.SearchStrategy[Any]] = {
    "user": off_or(st.from_regex(r"[a-z_][a-z0-9_-]{0,20}", fullmatch=True)),
    "port": st.integers(1, 65535),
    "python": st.sampled_from(["python3", "~/py/bin/python", "/usr/bin/python3.12"]),
    "folder": st.sampled_from(["~/.hermes-edge", "/opt/hermes", "/home/pi/hermes"]),
    "threads": off_or(st.integers(1, 64)),
    "device": off_or(st.sampled_from(["auto", "cpu", "mps", "cuda", "cuda:3"])),
    "extras": st.lists(st.sampled_from(allowed.EXTRAS), unique=True).map(tuple),
    "packages": st.sampled_from(["venv", "system"]),
    "tmux": st.booleans(),
}
FINGERPRINTS = off_or(st.from_regex(r"SHA256:[A-Za-z0-9+/]{43}", fullmatch=True))
DEFAULTS = st.builds(Defaults, **{key: st.just(UNSET) | one for key, one in SHARED.items()})
NODES = st.builds(Node, name=NAMES, host=HOSTS, fingerprint=FINGERPRINTS, **SHARED)
CONFIGS = st.builds(
    Config,
    defaults=DEFAULTS,
    nodes=st.lists(NODES, max_size=5, unique_by=(lambda n: n.name, lambda n: n.host.lower())).map(
        tuple
    ),
)
MASTERS = st.builds(
    Master,
    address=off_or(HOSTS),
    port=st.integers(1, 65535),
    listen=st.sampled_from(["0.0.0.0", "::", "10.0.0.1"]),
    broker=st.sampled_from(["apache", "kafka.example.org:9093", "[::1]:9092"]),
    data=st.sampled_from(["broker", "/var/lib/hermes", "~/b", "a folder/ä"]),
    out=st.just(".") | st.just("out"),
    security=st.sampled_from(["on", "off"]),
)
VALUES = {
    "stop.samples": off_or(st.integers(1, 2**53)),
    "stop.accuracy": off_or(st.floats(0.1, 1)),
    "storage.max": st.sampled_from(["auto", "2GB", None, 10**9]),
    "retention.keep": st.sampled_from(["all", "last:5"]),
    "workers.max": st.integers(1, 1000),
    "round.epochs": st.integers(1, 50),
    "codec.up": st.sampled_from(["fp32", "fp16"]),
}
CHOSEN = st.builds(
    Settings,
    strategy=st.sampled_from(sorted(set(PRESETS) - {"central"})),
    values=st.fixed_dictionaries({}, optional=VALUES).map(
        lambda values: {k: v for k, v in values.items() if k != "round.epochs"}
    ),
)


def tree_of(chosen: Settings) -> dict[str, Any]:
    """Settings as their file holds them."""
    tree: dict[str, Any] = {"version": 1, "strategy": chosen.strategy}
    for key, value in chosen.values.items():
        group, _, last = key.partition(".")
        tree.setdefault(group, {})[last] = value
    return tree


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(CONFIGS, MASTERS, CHOSEN)
def test_what_is_written_from_the_types_is_read_back(
    tmp_path: Path, config: Config, master: Master, chosen: Settings
) -> None:
    trees = [msgspec.to_builtins(config), msgspec.to_builtins(master), tree_of(chosen)]
    names = (name.removesuffix(".json") for name in FILES)
    lay(tmp_path, **dict(zip(names, map(json.dumps, trees), strict=True)))
    found = load(tmp_path)
    assert (found.config, found.master, found.settings) == (config, master, chosen)
    for tree, document in zip(trees, DOCUMENTS.values(), strict=True):
        assert fits(json.loads(json.dumps(tree)), document), "what loads is right for an editor"


# --- any value replaced by junk -----------------------------------------------------------------

JUNK: list[Any] = [{"junk": 1}, [{}], "\u202e junk\ud800\x1b[31m", -1.5, 10**30, "", "x" * 5000]


def ways(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path of a tree but its root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for key, value in items:
        found.append((*path, key))
        if isinstance(value, dict | list):
            found += ways(value, (*path, key))
    return found


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(tree))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


def line_of(text: str, path: tuple[Any, ...], tree: Any) -> int:
    """Counted apart from `located`: in a text of one line a key, as many lines as stand before."""
    head = replaced(tree, path, "@here@")
    lines = json.dumps(head, indent=1).split("\n")
    assert text.count("\n") >= len(lines) - 1
    return next(number for number, line in enumerate(lines, 1) if "@here@" in line)


CASES = [
    (name, path)
    for name, text in TEXTS.items()
    for path in ways(json.loads(text))
    if path != ("$schema",)
]


@pytest.mark.parametrize(("name", "path"), CASES, ids=str)
def test_a_value_replaced_by_junk_is_told_with_its_line(
    tmp_path: Path, name: str, path: tuple[Any, ...]
) -> None:
    tree = json.loads(TEXTS[name])
    told = 0
    for junk in JUNK:
        changed = replaced(tree, path, junk)
        text = json.dumps(changed, indent=1)
        lay(tmp_path, **{name: text})
        kinds = {**allowed.NODE, **allowed.MASTER}
        if path[-1] in kinds and kinds[path[-1]].fits(junk):
            continue  # data, out and the like may be any text
        if (path[-1], junk) in (("alpha", -1.5), ("max", 10**30)):
            continue
        with pytest.raises(UsageError) as error:
            load(tmp_path)
        told += 1
        lines = {fault.line for fault in error.value.faults}  # type: ignore[attr-defined]
        begin = line_of(text, path[:-1] if path[-2:-1] == ("extras",) else path, tree)
        inside = json.dumps(junk, indent=1).count("\n")
        assert lines & set(range(begin, begin + inside + 1)), (junk, lines, begin)
        shown = str(error.value)
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e\ud800]", shown), "fit for a terminal"
        assert len(shown) < 1500 + SHOWN + len(str(tmp_path)) * 10
    assert told >= 3


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(CASES),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    ),
)
def test_any_value_at_any_place_is_read_or_refused(
    tmp_path: Path, case: tuple[str, tuple[Any, ...]], value: Any
) -> None:
    name, path = case
    tree = json.loads(TEXTS[name])
    lay(tmp_path, **{name: json.dumps(replaced(tree, path, value), indent=1)})
    told = refused(tmp_path)
    if told is not None:
        assert told.faults
        assert all(fault.line for fault in told.faults)
        str(told).encode()


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_text_with_a_hole_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    name, text = data.draw(st.sampled_from(sorted(TEXTS.items())))
    begin = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(begin, min(len(text), begin + 30)))
    lay(tmp_path, **{name: text[:begin] + text[end:]})
    told = refused(tmp_path)
    if told is not None:
        lines = text.count("\n") + 1
        assert told.faults
        assert all(0 <= fault.line <= lines for fault in told.faults)


# --- mistakes, one by one -----------------------------------------------------------------------

Change = tuple[str, str, str, str]
"""(file, what is replaced, by what, where and what is told)"""

WRONG: list[Change] = [
    ("config", '"port": 2222', '"port": 70000', "config.json:22: nodes[1].port is 70000"),
    ("config", '"port": 2222', '"port": "22"', 'config.json:22: nodes[1].port is "22"'),
    ("config", '"port": 2222', '"port": true', "config.json:22: nodes[1].port is true"),
    ("config", '"user": "anna"', '"usr": "anna"', "config.json:21: unknown key nodes[1].usr"),
    ("config", '"worker-2"', '"Worker 2"', 'config.json:19: nodes[1].name is "Worker 2"'),
    ("config", '"worker-2"', '"master"', 'config.json:19: nodes[1].name is "master"'),
    (
        "config",
        '"worker-2"',
        '"worker-1"',
        'config.json:19: nodes[1].name is "worker-1", as that of nodes[0] (line 17)',
    ),
    ("config", "node2.local", "node2.local:22", "nodes[1].host is"),
    ("config", "node2.local", "anna@node2", "nodes[1].host is"),
    ("config", "node2.local", "10.0.0.300", 'nodes[1].host is "10.0.0.300"'),
    ("config", "node2.local", "0.0.0.0", "nodes[1].host is"),
    ("config", "node2.local", "-oProxyCommand=x", "nodes[1].host is"),
    ("config", "node2.local", "a b", "nodes[1].host is"),
    ("config", "cuda:0", "gpu", 'config.json:28: nodes[1].device is "gpu"'),
    ("config", '"extras": []', '"extras": ["tf"]', 'nodes[1].extras is ["tf"]'),
    ("config", '"/opt/hermes"', '"/"', 'nodes[1].folder is "/"'),
    ("config", '"/opt/hermes"', '"~"', 'nodes[1].folder is "~"'),
    ("config", '"/opt/hermes"', '"/home/pi"', 'nodes[1].folder is "/home/pi"'),
    ("config", '"/opt/hermes"', '"~/../x"', 'nodes[1].folder is "~/../x"'),
    ("config", '"/opt/hermes"', '"/opt/$(rm)"', 'nodes[1].folder is "/opt/$(rm)"'),
    ("config", "/opt/py/bin/python3", "python3; rm", 'nodes[1].python is "python3; rm"'),
    ("config", "SHA256:0", "MD5:0", "nodes[1].fingerprint is"),
    ("config", '"host": "node2.local",', "", "config.json:18: nodes[1].host is missing"),
    ("config", '"version": 1', '"version": 2', "config.json:3: version is 2"),
    ("config", '"version": 1,', "", "config.json:1: version is missing"),
    ("config", '"tmux": true\n', '"tmux": true,\n', "config.json:1"),
    ("config", '"name": "worker-2",', '"name": "a", "name": "b",', "nodes[1].name stands twice"),
    ("config", '"user": "pi"', '"name": "pi"', "config.json:5: unknown key defaults.name"),
    ("master", '"10.0.0.1"', '"10.0.0.1:9092"', 'master.json:3: address is "10.0.0.1:9092"'),
    ("master", '"apache"', '"rabbit"', 'master.json:6: broker is "rabbit"'),
    (
        "master",
        '"access": null',
        '"access": "x.json"',
        'master.json:7: access is "x.json", and broker is apache',
    ),
    (
        "master",
        '"apache",\n  "access": null',
        '"kafka:9093",\n  "access": "x.json"',
        'master.json:7: access is "x.json"',
    ),
    ("master", '"wheels": null', '"wheels": "none"', 'master.json:11: wheels is "none"'),
    ("master", '"on"', '"maybe"', 'master.json:10: security is "maybe"'),
    ("settings", "hermes-paper", "hermes-papr", 'settings.json:3: strategy is "hermes-papr"'),
    ("settings", '"alpha"', '"alhpa"', "settings.json:5: unknown setting 'gate.alhpa'"),
    ("settings", "-1.2", "1.2", "settings.json:5: gate.alpha is 1.2"),
    ("settings", "2GB", "2 GiBi", "settings.json:11: storage.max is '2 GiBi'"),
    ("settings", '"stop"', '"stopp"', "settings.json:7: unknown key stopp"),
    (
        "settings",
        '"storage": {"max": "2GB"}',
        '"gate.beta": 0.1',
        "settings.json:11: unknown key gate.beta",
    ),
    (
        "settings",
        '"alpha": -1.2',
        '"veto": 3',
        "settings.json:5: gate.veto would never take effect",
    ),
    (
        "settings",
        '"storage": {"max": "2GB"}',
        '"close": {\n"rule": "all"}',
        "settings.json:12: close.rule=all waits for a push of every worker",
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "remedy"),
    [
        ("node2.local", "192.168.1.999", "four numbers from 0 to 255"),
        (
            "node2.local",
            "anna@node2",
            'its own: "host": "node2", "user": "anna".',
        ),
        ("node2.local", "n2:2222", 'port has a key of its own: "host": "n2", "port": 2222.'),
        ("node2.local", "0.0.0.0", "It is a host name or an IP address"),
        ('"port": 2222,', '"port": 2222, // of SSH', "There are no comments in JSON"),
        ('"port": 2222,', '"port": 2222 // of SSH', "There are no comments in JSON"),
    ],
)
def test_what_people_write_is_answered(old: str, new: str, remedy: str, tmp_path: Path) -> None:
    assert CONFIG.count(old) == 1
    lay(tmp_path, config=CONFIG.replace(old, new))
    with pytest.raises(ConfError) as told:
        load(tmp_path)
    assert remedy in told.value.remedy


@pytest.mark.parametrize(("name", "old", "new", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_a_bad_value(
    name: str, old: str, new: str, said: str, tmp_path: Path, shown: Shown
) -> None:
    text = TEXTS[name]
    assert text.count(old) == 1 or old.startswith('"version')
    lay(tmp_path, **{name: text.replace(old, new, 1)})
    found = faults(tmp_path)
    if said == "config.json:1":  # Pythons differ: at the comma, or after it
        assert re.match(
            r"config\.json:1[45]: it is not JSON: .* \(line 1[45], column \d+\)", *found
        )
    else:
        assert len(found) == 1
        assert said in found[0]
    with pytest.raises(ConfError) as told:
        load(tmp_path)
    shown(f"`{new}` in conf/{name}.json", "hermes config", 2, f"error: {told.value}")


def test_the_nearest_key_is_proposed(tmp_path: Path) -> None:
    for typed, meant in (("hst", "host"), ("ip", "host"), ("ssh-key", "key"), ("cores", "threads")):
        lay(tmp_path, config=CONFIG.replace('"tmux": false', f'"tmux": false, "{typed}": "x"'))
        with pytest.raises(ConfError, match=rf"Did you mean {meant}\?"):
            load(tmp_path)


def test_two_nodes_at_one_address(tmp_path: Path) -> None:
    for host, port, told in (
        ("10.0.0.11", 22, True),
        ("10.0.0.11", 2222, False),
        ("10.0.0.12", 22, False),
    ):
        text = CONFIG.replace("node2.local", host).replace("2222", str(port))
        lay(tmp_path, config=text)
        if told:
            assert faults(tmp_path) == [
                'config.json:20: nodes[1].host is "10.0.0.11" with port 22, as that of nodes[0] '
                "(line 17)"
            ]
        else:
            load(tmp_path)


def test_all_bad_values_of_all_files_are_told_together(tmp_path: Path, shown: Shown) -> None:
    lay(
        tmp_path,
        config=CONFIG.replace("2222", "0").replace("anna", "an na"),
        master=MASTER.replace("9093", "-1"),
        settings=SETTINGS.replace("-1.2", "3").replace("2GB", '2GB", "min": "'),
    )
    assert faults(tmp_path) == [
        'config.json:21: nodes[1].user is "an na"',
        "config.json:22: nodes[1].port is 0",
        "master.json:4: port is -1",
        "settings.json:5: gate.alpha is 3",
        "settings.json:11: unknown setting 'storage.min'",
    ]
    with pytest.raises(ConfError) as told:
        load(tmp_path)
    shown("five mistakes in three files", "hermes config", 2, f"error: {told.value}")


# --- files as a whole ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file(name: str, tmp_path: Path, shown: Shown) -> None:
    path = lay(tmp_path) / "conf" / name
    for content, said in (
        (None, "there is no such file"),
        (b"", "it is empty"),
        (b" \n\n", "it is empty"),
        (b'{"version": 1,\n "a" 2}', "it is not JSON: Expecting ':' delimiter (line 2, column 6)"),
        (b"[]", "it is a list"),
        (b"3", "it is 3"),
        (b'{"version": 1,\n "user": "\xe4"}', "byte 0xe4 is not UTF-8"),
        (b'{"version": 99}', "version is 99"),
        (b'{"version": NaN}', "it is not JSON: NaN is no number"),
        (b"[" * 200_000, "it is not JSON: objects and lists stand in one another too deep"),
        (b" " * 5_000_000, "it has 5000000 bytes"),
    ):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        (found,) = faults(tmp_path)
        assert re.match(rf"{name}(:\d)?: ", found)
        assert said in found
        with pytest.raises(ConfError) as told:
            load(tmp_path)
        if name == FILES[0]:
            what = "missing" if content is None else repr(content[:30].decode("latin1"))
            shown(f"conf/{name}: {what}", "hermes config", 2, f"error: {told.value}")
    path.unlink()
    path.mkdir()
    assert "it cannot be read: Is a directory" in faults(tmp_path)[0]


def test_a_bad_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], shown: Shown) -> None:
    assert run(["config", str(tmp_path / "absent")]) == 2
    said = capsys.readouterr().err
    assert "there is no cluster here: no folder conf/" in said
    assert "hermes init" in said
    shown("a folder without conf/", "hermes config absent", 2, said)


# --- secrets ------------------------------------------------------------------------------------

WRITTEN_DOWN = [
    ("config", '"user": "anna"', '"user": "anna", "password": "hunter2"'),
    ("config", '"user": "pi"', '"user": "pi", "ssh_password": "hunter2"'),
    ("config", '"user": "anna"', '"Passphrase": "hunter2"'),
    ("config", "node2.local", "anna:hunter2@node2.local"),
    ("config", '"key": null,\n      "f', '"key": "-----BEGIN PRIVATE KEY-----hunter2",\n      "f'),
    ("config", '"version": 1,', '"version": 1, "token": {"a": "hunter2"},'),
    ("master", '"access": null', '"password": "hunter2"'),
    ("master", '"apache"', '"sasl://me:hunter2@kafka:9093"'),
    ("settings", '"alpha": -1.2', '"secret": "hunter2"'),
    ("settings", '"version": 1,', '"version": 1, "password": "hunter2",'),
]


@pytest.mark.parametrize(("name", "old", "new"), WRITTEN_DOWN)
def test_a_password_in_a_file_is_refused_and_not_repeated(
    name: str, old: str, new: str, tmp_path: Path
) -> None:
    text = TEXTS[name]
    assert old in text
    lay(tmp_path, **{name: text.replace(old, new, 1)})
    with pytest.raises(ConfError) as told:
        load(tmp_path)
    assert "hunter2" not in str(told.value)
    assert "No passwords in files" in str(told.value)
    line = text[: text.index(old)].count("\n") + 1
    assert line in {fault.line for fault in told.value.faults}


def keyed(folder: Path, key: Path | str) -> Path:
    return lay(folder, config=CONFIG.replace('"key": null', f'"key": {json.dumps(str(key))}', 1))


def test_a_bad_key_file(tmp_path: Path, shown: Shown) -> None:
    key = tmp_path / "id"
    for content, mode, said in (
        (None, 0o600, "which cannot be read: No such file or directory"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", 0o644, "which others can read"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", 0o640, "which others can read"),
        ("ssh-ed25519 AAAA me@here\n", 0o644, "a public key"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\n", 0o600, "a key in PuTTY's form"),
        ("hello\n", 0o600, "no SSH key"),
    ):
        key.unlink(missing_ok=True)
        if content is not None:
            key.write_text(content)
            key.chmod(mode)
        (found,) = faults(keyed(tmp_path, key))
        assert found.startswith("config.json:7: defaults.key is ")
        assert found.endswith(said)
        with pytest.raises(ConfError) as told:
            load(tmp_path)
        shown(f"an SSH key: {said}", "hermes config", 2, f"error: {told.value}")


@pytest.mark.parametrize("path", ["~nobody-of-this-name/id", "x" * 5000, "a/" * 3000])
def test_a_path_of_any_kind_is_told_and_breaks_nothing(tmp_path: Path, path: str) -> None:
    found = faults(keyed(tmp_path, path))
    assert [text.partition(" is ")[0] for text in found] == ["config.json:7: defaults.key"]
    lay(tmp_path, master=MASTER.replace('"wheels": null', f'"wheels": "{path}"'))
    assert [text.partition(" is ")[0] for text in faults(tmp_path)] == ["master.json:11: wheels"]


def test_a_key_file_is_found_from_the_clusters_folder(tmp_path: Path) -> None:
    key = tmp_path / "id"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    key.chmod(0o600)
    cluster = load(keyed(tmp_path, "id"))
    assert [cluster.key_of(node) for node in cluster.nodes] == [key, None]


# --- for editors, and the page ------------------------------------------------------------------


def test_the_schemas_are_current() -> None:
    """If this fails: scripts/schemas."""
    for name, document in DOCUMENTS.items():
        assert (ROOT / "conf" / "schemas" / name).read_text("utf-8") == schema.as_text(document)
        tree = json.loads((ROOT / "conf" / name).read_text("utf-8"))
        assert tree["$schema"] == schema.reference(name)
        assert (ROOT / "conf" / tree["$schema"]).is_file()
        assert fits(tree, document)


def test_the_schemas_refuse_what_is_told_as_a_mistake() -> None:
    """Not all of it: what a host is, or what goes together, is no editor's to say."""
    for name in TEXTS:
        text = TEXTS[name]
        assert fits(json.loads(text), DOCUMENTS[f"{name}.json"])
    for name, old, new in (
        ("config", "2222", "70000"),
        ("config", '"user": "anna"', '"usr": "anna"'),
        ("config", "cuda:0", "gpu"),
        ("config", '"host": "node2.local",', ""),
        ("master", '"on"', '"maybe"'),
        ("settings", "hermes-paper", "hermes-papr"),
        ("settings", "-1.2", "1.2"),
        ("settings", '"alpha"', '"alhpa"'),
    ):
        text = TEXTS[name]
        tree = json.loads(text.replace(old, new, 1))
        assert not fits(tree, DOCUMENTS[f"{name}.json"]), new


@pytest.mark.parametrize("section", SECTIONS)
def test_a_schema_is_no_narrower_than_what_may_be(section: str) -> None:
    values: list[Any] = [None, "off", "auto", True, 0, 1, 2, 3, 1.0, 0.5, -1.3, 1e9, 2**53, "x"]
    values += ["last:3", "all", *PRESETS["hermes"].values(), *PRESETS["selsync"].values()]
    for key, one in SECTIONS[section].items():
        for value in values:
            meant = None if value == "off" else value
            if one.fits(meant):
                assert fits(value, dict(one.schema)), (key, value)


def test_every_key_is_checked_and_told() -> None:
    for kind, keys in ((Node, allowed.NODE), (Master, allowed.MASTER), (Config, allowed.CONFIG)):
        assert set(keys) == {field.name for field in msgspec.structs.fields(kind)}
        assert set(meanings.of_class(kind)) == set(keys)
    shared = {field.name for field in msgspec.structs.fields(Defaults)}
    assert shared == set(allowed.NODE) - set(allowed.OWN)


def rows(kind: type[msgspec.Struct], skip: tuple[str, ...] = ()) -> list[str]:
    """The table of a file's keys, as docs/conf.md has it."""
    told: Mapping[str, str] = meanings.of_class(kind)
    found = []
    for field in msgspec.structs.fields(kind):
        if field.name not in skip:
            default = "must be said"
            if field.default is not msgspec.NODEFAULT:
                default = f"`{json.dumps(msgspec.to_builtins(field.default))}`"
            found.append(f"| `{field.name}` | {default} | {told[field.name]} |")
    return found


def test_the_page_tells_every_key_as_it_is_declared() -> None:
    page = (ROOT / "docs" / "conf.md").read_text("utf-8")
    for row in (*rows(Node), *rows(Master, skip=("version",))):
        assert row in page, row
    assert all(f"## `{name}.json`" in page for name in TEXTS)
