"""What may an editor offer in conf/*.json? JSON Schemas, made from the types: `scripts/schemas`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from hermes import meanings
from hermes.cluster import allowed
from hermes.cluster.conf import FILES, Config, Master, Node, Settings
from hermes.policy import presets
from hermes.policy.ranges import Allowed

DIALECT = "https://json-schema.org/draft/2020-12/schema"

FOLDER = "schemas"
"""Beside the files, in conf/."""

Schema = dict[str, Any]


def documents() -> dict[str, Schema]:
    """File of conf/ -> its schema."""
    return dict(zip(FILES, (_config(), _master(), _settings()), strict=True))


def write(conf: Path) -> list[Path]:
    """Write the schemas into this conf/; the files."""
    folder = conf / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in documents().items():
        (folder / name).write_text(as_text(schema), encoding="utf-8")
    return [folder / name for name in FILES]


def as_text(schema: Schema) -> str:
    """A schema as its file holds it."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def reference(name: str) -> str:
    """What stands under `$schema` in the file of this name."""
    return f"{FOLDER}/{name}"


def fields(kind: type[msgspec.Struct], known: Mapping[str, Allowed]) -> Iterator[tuple[str, Any]]:
    """Key -> its schema, for each field of a type."""
    told = meanings.of_class(kind)
    for field in msgspec.structs.fields(kind):
        key = field.encode_name
        if key in known:
            about = f"{told[field.name]} It is {known[key].words}."
            schema = {"description": about, **known[key].schema}
            if field.default is not msgspec.NODEFAULT:
                default = msgspec.to_builtins(field.default)
                schema["default"] = list(default) if isinstance(default, tuple) else default
            yield key, schema


def _file(about: str, keys: Mapping[str, Schema], required: list[str]) -> Schema:
    described = {"$schema": {"description": "This schema, for editors.", "type": "string"}, **keys}
    return {"$schema": DIALECT, "title": about, **_object(described, required)}


def _object(keys: Mapping[str, Schema], required: list[str] | None = None) -> Schema:
    found = {"type": "object", "properties": dict(keys), "additionalProperties": False}
    return {**found, "required": required} if required else found


def _config() -> Schema:
    keys = dict(fields(Config, allowed.CONFIG))
    node = dict(fields(Node, allowed.NODE))
    shared = {key: schema for key, schema in node.items() if key not in allowed.OWN}
    keys["defaults"].update(_object(shared))
    keys["defaults"].pop("default", None)
    keys["nodes"]["items"] = _object(node, ["name", "host"])
    return _file("The nodes of a Hermes cluster", keys, ["version", "nodes"])


def _master() -> Schema:
    keys = dict(fields(Master, allowed.MASTER))
    return _file("The machine of a Hermes cluster's master and broker", keys, ["version"])


def _settings() -> Schema:
    told = meanings.of_class(Settings)
    keys: dict[str, Schema] = dict(fields(Settings, {"version": allowed.VERSION}))
    keys["strategy"] = {
        "description": told["strategy"],
        "enum": list(presets.PRESETS),
        "default": presets.DEFAULT_STRATEGY,
    }
    for section in msgspec.structs.fields(presets.Settings):
        if section.encode_name in presets.SECTIONS:
            kind = section.type
            group = _object(dict(fields(kind, presets.SECTIONS[section.encode_name])))
            about = (kind.__doc__ or "").partition("\n")[0]
            keys[section.encode_name] = {"description": about, **group}
    return _file("Strategy and settings of a Hermes cluster's runs", keys, ["version"])


def main() -> None:
    """Write the schemas into the conf/ that is named."""
    for path in write(Path(sys.argv[1])):
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
