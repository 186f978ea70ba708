"""What may each key of conf/config.json and conf/master.json be? No file is looked at here."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

from hermes.job import DEVICES
from hermes.policy.ranges import SWITCH, Allowed, one_of, whole

EXTRAS = ("torch", "keras-tensorflow", "keras-torch")
"""What a worker may need beside the base install."""

RESERVED = ("broker", "master")
"""Users of the broker that are no nodes."""

HOST = "a host name or an IP address, without user and port: those have keys of their own"

MANY = 4096


def is_host(text: Any) -> bool:
    """Whether it is a host name or an address by which something can be reached."""
    if not isinstance(text, str):
        return False
    try:
        return not ipaddress.ip_address(text).is_unspecified
    except ValueError:
        pass
    if len(text) > 253 or re.fullmatch(r"[\d.]+", text):
        return False
    label = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    return re.fullmatch(rf"{label}(?:\.{label})*\.?", text) is not None


def about_host(text: Any) -> str:
    """What is wrong with a text that is no host, where that can be told; else nothing."""
    if not isinstance(text, str):
        return ""
    match = re.fullmatch(r"(?:([^@:]*)@)?([^@:]+)(?::(\d{1,5}))?", text)
    if match is not None and (match[1] or match[3]) and is_host(match[2]):
        parts = [("host", f'"{match[2]}"')]
        parts += [("user", f'"{match[1]}"')] if match[1] else []
        parts += [("port", match[3])] if match[3] else []
        told = ", ".join(f'"{key}": {value}' for key, value in parts)
        others = " and ".join(key for key, _ in parts[1:])
        keys = "a key of its own" if len(parts) == 2 else "keys of their own"
        return f"{others} {'has' if len(parts) == 2 else 'have'} {keys}: {told}."
    if re.fullmatch(r"[\d.]+", text) and text.strip("0."):
        return "An IPv4 address has four numbers from 0 to 255: 192.168.1.21."
    return ""


def is_address(text: Any) -> bool:
    """Whether it is HOST:PORT; an IPv6 address stands in brackets."""
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^:\[\]]+)):(\d{1,5})", text, re.ASCII)
    return match is not None and is_host(match[1] or match[2]) and 0 < int(match[3]) < 65536


def off_or(allowed: Allowed) -> Allowed:
    """As allowed, or null."""
    return allowed._replace(
        words=f"{allowed.words}; or null",
        fits=lambda value: value is None or allowed.fits(value),
        schema={"anyOf": [allowed.schema, {"type": "null"}]},
    )


def text(words: str, fits: Callable[[str], bool]) -> Allowed:
    """A text of which this holds."""
    return Allowed(
        words, lambda value: isinstance(value, str) and fits(value), schema={"type": "string"}
    )


def pattern(words: str, regex: str) -> Allowed:
    """A text of this form."""
    return text(words, lambda value: re.fullmatch(regex, value, re.ASCII) is not None)._replace(
        schema={"type": "string", "pattern": f"^(?:{regex})$"}
    )


def _is_path(value: str) -> bool:
    return bool(value.strip()) and value.isprintable() and not value.startswith("-")


def _is_place(value: str) -> bool:
    """Whether a folder at a node may be filled, and removed again with all that it holds."""
    match = re.fullmatch(r"(~)?((?:/[\w.+@-]+)+)/?", value, re.ASCII)
    if match is None:
        return False
    parts = match[2].strip("/").split("/")
    if "." in parts or ".." in parts:
        return False
    return bool(match[1]) or len(parts) > (2 if parts[0] == "home" else 1)


def _is_extras(value: Any) -> bool:
    listed = isinstance(value, list | tuple) and all(one in EXTRAS for one in value)
    return listed and len(set(value)) == len(value)


VERSION = Allowed(
    "1",
    lambda value: value == 1 and not isinstance(value, bool),
    whole=True,
    schema={"const": 1},
)

PORT = whole(1, 65535)
FILE = text("the path of a file, relative to the cluster's folder, or from / or ~", _is_path)
FOLDER = text("the path of a folder, relative to the cluster's folder, or from / or ~", _is_path)
LIST = Allowed("a list", lambda value: isinstance(value, list), schema={"type": "array"})
OBJECT = Allowed(
    "an object, { ... }", lambda value: isinstance(value, dict), schema={"type": "object"}
)

NODE: Mapping[str, Allowed] = {
    "name": pattern(
        f"1 to 40 of a-z, 0-9 and -, and none of {', '.join(RESERVED)}",
        rf"(?!(?:{'|'.join(RESERVED)})$)[a-z0-9-]{{1,40}}",
    ),
    "host": text(HOST, is_host),
    "user": off_or(
        pattern("a user's name at the node: letters, digits, _ . -", r"[A-Za-z_][\w.-]{0,63}\$?")
    ),
    "port": PORT,
    "key": off_or(FILE),
    "fingerprint": off_or(
        pattern(
            "what `ssh-keygen -lf` prints of the node's host key: SHA256: and 43 characters",
            r"SHA256:[A-Za-z0-9+/]{43}",
        )
    ),
    "python": pattern(
        "a command or a path at the node, without blanks: python3, python3.12, ~/py/bin/python",
        r"(?!-)[\w./~+-]{1,200}",
    ),
    "folder": text(
        "a folder of Hermes's own at the node, such as ~/.hermes-edge or /opt/hermes", _is_place
    ),
    "threads": off_or(whole(1, MANY)),
    "device": off_or(pattern("auto, cpu, cuda, cuda:N or mps", DEVICES)),
    "extras": Allowed(
        f"a list of {', '.join(EXTRAS)}, each once",
        _is_extras,
        schema={"type": "array", "items": {"enum": list(EXTRAS)}, "uniqueItems": True},
    ),
    "packages": one_of("venv", "system"),
    "tmux": SWITCH,
}
"""Of a node; `defaults` has the same keys, but for those that are a node's own."""

OWN = ("name", "host", "fingerprint")
"""Keys of a node that no other node shares."""

CONFIG: Mapping[str, Allowed] = {"version": VERSION, "defaults": OBJECT, "nodes": LIST}

MASTER: Mapping[str, Allowed] = {
    "version": VERSION,
    "address": off_or(text(HOST, is_host)),
    "port": PORT,
    "listen": text(
        "an address of this machine, 0.0.0.0 (all of IPv4) or :: (all)",
        lambda value: value in ("0.0.0.0", "::") or is_host(value),  # noqa: S104  (allowed)
    ),
    "broker": text(
        "apache, for one that is started here, or the HOST:PORT of one that runs",
        lambda value: value == "apache" or is_address(value),
    ),
    "access": off_or(FILE),
    "data": FOLDER,
    "out": FOLDER,
    "security": one_of("on", "off"),
    "wheels": off_or(FOLDER),
}

ALSO = {
    "address": "host",
    "hostname": "host",
    "ip": "host",
    "username": "user",
    "login": "user",
    "identity_file": "key",
    "identityfile": "key",
    "ssh_key": "key",
    "key_file": "key",
    "host_key": "fingerprint",
    "cores": "threads",
    "cpus": "threads",
    "gpu": "device",
    "id": "name",
    "workers": "nodes",
    "hosts": "nodes",
    "host": "address",
    "advertise": "address",
    "advertised": "address",
    "tls": "security",
}
"""What others call these things -> how they are called here, where there is such a key."""
