"""What does docs/settings.md say? All settings, from their declarations: `scripts/settings-doc`."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from typing import Any, NamedTuple

import msgspec

from hermes import meanings
from hermes.policy.presets import DEFAULT_STRATEGY, PRESETS, Settings

HEAD = f"""# Settings

Written by `scripts/settings-doc` from the declarations in `hermes/policy/`: edit those.

A setting is given as `--set KEY=VALUE`, as often as you like. VALUE is read as JSON where it is
JSON (`-1.6`, `true`), else as text; `off` switches off what may be off. Later ones win: default,
strategy, job file, flag. A key that does not exist or is set twice, a value of the wrong type
or out of range, values that cannot work together, and a setting typed for a run in which it can
never take effect (such as `gate.alpha` under `gate.rule=open`) are errors that say where it was set
and what to do (exit code 2); what is merely odd, or comes from the job file, is a warning. All
settings in force are in the ledger's `RunOpened`.

`--strategy NAME` stands for several of them at once (default: `{DEFAULT_STRATEGY}`); what they
mean is told in [strategies.md](strategies.md).
"""

ABOUT = {
    "gate": "is a round worth pushing?",
    "close": "when does a version close?",
    "continue": "when does a worker go on?",
    "merge": "how do updates become a version?",
    "size": "how much work does each worker get?",
    "round": "how long is a round?",
    "codec": "as what do tensors travel?",
    "data": "which samples may a worker be granted?",
    "stop": "when is the run finished?",
    "workers": "how many, and when is one lost?",
    "optimizer": "what becomes of a worker's optimiser?",
    "cache": "what stays on a worker's disk?",
    "storage": "how much may the run keep at its broker?",
    "retention": "what stays at the broker, and what goes?",
}


class Row(NamedTuple):
    """One setting."""

    key: str
    type: str
    default: str
    meaning: str


def document() -> str:
    """The whole page."""
    parts = [HEAD]
    for section in msgspec.structs.fields(Settings):
        if isinstance(section.type, type) and issubclass(section.type, msgspec.Struct):
            rows = rows_of(section.encode_name, section.type)
            parts.append(f"## `{section.encode_name}`: {ABOUT[section.encode_name]}\n")
            parts.append(table(("key", "type", "default", "meaning"), rows))
    parts.append("## What a strategy stands for\n\nAll other keys keep their default.\n")
    parts.append(table(("key", *(f"`{name}`" for name in PRESETS)), strategies()))
    return "\n".join(parts)


def rows_of(section: str, kind: type[msgspec.Struct]) -> list[Row]:
    """The settings of one section, in the order of their declaration."""
    told = meanings_of(inspect.getsource(kind))
    hints = typing.get_type_hints(kind)
    return [
        Row(
            f"`{section}.{field.encode_name}`",
            type_name(hints[field.name]),
            f"`{shown(field.default)}`",
            told[field.name],
        )
        for field in msgspec.structs.fields(kind)
    ]


def meanings_of(source: str) -> dict[str, str]:
    """What each field of a class means, fit for a table."""
    return {name: text.replace("|", "\\|") for name, text in meanings.of(source).items()}


def strategies() -> list[tuple[str, ...]]:
    """Each key that a strategy sets, and what each strategy sets it to."""
    keys = sorted({key for preset in PRESETS.values() for key in preset})
    return [
        (f"`{key}`", *(f"`{shown(p[key])}`" if key in p else "default" for p in PRESETS.values()))
        for key in keys
    ]


def type_name(kind: Any) -> str:
    """A type as people say it."""
    parts = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    words = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return " or ".join("off" if part is type(None) else words[part] for part in parts)


def shown(value: object) -> str:
    """A value as it is typed after `--set KEY=`."""
    if value is None:
        return "off"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def table(head: tuple[str, ...], rows: typing.Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Write the page to standard output."""
    sys.stdout.write(document())


if __name__ == "__main__":
    main()
