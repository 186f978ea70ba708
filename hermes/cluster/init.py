"""What does a new cluster's folder hold? Nothing that is there is overwritten."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hermes.cluster import address, allowed, keyfile, schema
from hermes.cluster.conf import FILES, VERSION, beside
from hermes.errors import UsageError
from hermes.policy.presets import DEFAULT_STRATEGY

FRAMEWORKS: Mapping[str, tuple[str, ...]] = {
    "numpy": (),
    "torch": ("torch",),
    "keras-tensorflow": ("keras-tensorflow",),
    "keras-torch": ("keras-torch",),
}
"""What a job is written in -> the extras that a node needs for it."""

IGNORED = """\
# Keys and passwords, the broker's records, what runs leave.
*.key
secrets/
broker/
runs/
"""

README = """\
# A Hermes cluster

{count} and this machine, which has the broker and the master. Three files say so:

- `conf/config.json`: the nodes
- `conf/master.json`: this machine
- `conf/settings.json`: strategy and settings of the runs

`hermes config` shows what is in force, and where each value comes from. `job.py` is what is
trained: edit the model, the data, and when to stop. Then, in this folder:

    hermes doctor                     # looks at every node before anything is touched
    hermes up                         # starts the broker here, and a worker at each node
    hermes run job.py --cluster .     # trains; hermes status --watch, hermes why worker-1
    hermes down                       # ends broker and workers

No file here holds a password: nodes are entered with SSH keys, or an agent. What `hermes up` makes
for the broker goes to `secrets/`, which is for nobody else.
"""


JOB_HEAD = '''"""What this cluster trains: the model, the data, when to stop. Edit them, then

    hermes check job.py               # tries it, and says what a run will cost
    hermes run job.py                 # on this machine alone
    hermes run job.py --cluster .     # on the cluster, after hermes up

As it stands it learns to read 1797 handwritten digits of 8 x 8 pixels.
"""'''


class Worker(NamedTuple):
    """One of --workers."""

    host: str
    port: int | None = None
    user: str | None = None


class Wanted(NamedTuple):
    """What was typed."""

    workers: tuple[Worker, ...]
    user: str | None = None
    key: Path | None = None
    framework: str = "numpy"


def parse_workers(text: str) -> tuple[Worker, ...]:
    """`HOST,USER@HOST:PORT,[ADDRESS]:PORT` as workers. Raises `UsageError`."""
    found = [_worker(part.strip()) for part in text.split(",")]
    seen: dict[tuple[str, int], Worker] = {}
    for worker in found:
        place = (worker.host.lower().rstrip("."), worker.port or 22)
        if place in seen:
            raise _refused(
                f"{worker.host!r} with port {place[1]} is there twice", "Name each node once."
            )
        seen[place] = worker
    return tuple(found)


def _worker(text: str) -> Worker:
    user, at, rest = text.rpartition("@")
    if ":" in user:
        raise _refused(
            "there is a ':' before an '@'",
            "USER@HOST, without a password: nodes are entered with SSH keys or an agent.",
        )
    match = re.fullmatch(
        r"\[([^\[\]]+)\](?::(\d+))?|([^:\[\]]+)(?::(\d+))?|([^\[\]]*:[^\[\]]*:[^\[\]]*)", rest
    )
    if match is None or not text:
        raise _refused(
            f"{text!r} is no node" if text else "there is an empty part",
            "Commas between HOST, HOST:PORT or USER@HOST:PORT; IPv6: [ADDRESS]:PORT.",
        )
    host = match[1] or match[3] or match[5]
    digits = match[2] or match[4]
    worker = Worker(host, int(digits) if digits else None, user if at else None)
    for key in ("host", "port", "user"):
        value = getattr(worker, key)
        if value is not None and not allowed.NODE[key].fits(value):
            words = allowed.NODE[key].words.removesuffix("; or null")
            remedy = allowed.about_host(value) if key == "host" else ""
            raise _refused(f"the {key} {value!r} in {text!r}", remedy or f"It is {words}.")
    return worker


def _refused(what: str, remedy: str) -> UsageError:
    return UsageError(what, where="--workers", remedy=remedy)


def check(wanted: Wanted) -> None:
    """Raise `UsageError` for a user or a key that cannot be."""
    if wanted.user is not None and not allowed.NODE["user"].fits(wanted.user):
        words = allowed.NODE["user"].words.removesuffix("; or null")
        raise UsageError(f"the user {wanted.user!r}", where="--user", remedy=f"It is {words}.")
    if wanted.key is not None and (found := keyfile.trouble(beside(Path(), str(wanted.key)))):
        raise UsageError(f"{wanted.key}, {found.what}", where="--key", remedy=found.remedy)


def make(folder: Path, wanted: Wanted) -> list[Path]:
    """Write a cluster's folder; the files. Raises `UsageError`, and then nothing is written."""
    check(wanted)
    contents = texts(wanted)
    _refuse_overwriting(folder, contents)
    written: list[Path] = []
    try:
        for name, text in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                written.append(path)
                file.write(text)
    except OSError as error:
        for path in written:
            with contextlib.suppress(OSError):
                path.unlink()
        raise UsageError(
            f"it cannot be written: {error.strerror or error}",
            where=str(error.filename or folder),
            remedy="Name another folder: hermes init DIR --workers HOST,HOST",
        ) from None
    return written


def texts(wanted: Wanted) -> dict[str, str]:
    """Every file of the folder, by its path there."""
    files = {
        f"conf/{FILES[0]}": config_text(wanted),
        f"conf/{FILES[1]}": master_text(wanted),
        f"conf/{FILES[2]}": settings_text(),
    }
    for name, document in schema.documents().items():
        files[f"conf/{schema.reference(name)}"] = schema.as_text(document)
    files["job.py"] = job_text(wanted.framework)
    many = len(wanted.workers)
    files["README.md"] = README.format(count=f"{many} node{'' if many == 1 else 's'}")
    files[".gitignore"] = IGNORED
    return files


def config_text(wanted: Wanted) -> str:
    """conf/config.json, a node a line."""
    defaults: dict[str, Any] = {}
    if wanted.user is not None:
        defaults["user"] = wanted.user
    if wanted.key is not None:
        defaults["key"] = _portable(wanted.key)
    if FRAMEWORKS[wanted.framework]:
        defaults["extras"] = list(FRAMEWORKS[wanted.framework])
    nodes = []
    for number, worker in enumerate(wanted.workers, 1):
        node: dict[str, Any] = {"name": f"worker-{number}", "host": worker.host}
        if worker.port is not None:
            node["port"] = worker.port
        if worker.user is not None:
            node["user"] = worker.user
        nodes.append(node)
    return _text(FILES[0], {"defaults": defaults, "nodes": nodes})


def master_text(wanted: Wanted) -> str:
    """conf/master.json."""
    first = wanted.workers[0]
    own = address.towards(first.host, first.port or 22)
    return _text(FILES[1], {"address": own, "port": 9092, "security": "on"})


def settings_text() -> str:
    """conf/settings.json: stopping is the job's own."""
    return _text(FILES[2], {"strategy": DEFAULT_STRATEGY})


def job_text(framework: str) -> str:
    """The job to begin with: an example, which trains as it stands, with a head of its own."""
    name = framework.partition("-")[0]
    text = Path(__file__).with_name(f"{name}.job.py").read_text("utf-8")
    return re.sub(r'\A""".*?"""', lambda _: JOB_HEAD, text, count=1, flags=re.DOTALL)


def _text(name: str, content: Mapping[str, Any]) -> str:
    """A file of conf/: JSON with a key a line, and the items of lists a line each."""
    tree = {"$schema": schema.reference(name), "version": VERSION, **content}
    lines = []
    for key, value in tree.items():
        if isinstance(value, list):
            items = ",\n".join(f"    {json.dumps(item, ensure_ascii=False)}" for item in value)
            told = f"[\n{items}\n  ]"
        else:
            told = json.dumps(value, ensure_ascii=False)
        lines.append(f"  {json.dumps(key)}: {told}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _portable(path: Path) -> str:
    """A path that was typed here, as it is understood from the cluster's folder."""
    whole = beside(Path(), str(path)).absolute()
    with contextlib.suppress(ValueError, RuntimeError):
        return f"~/{whole.relative_to(Path.home())}"
    return str(whole)


def _refuse_overwriting(folder: Path, contents: Mapping[str, str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(
            "it is no folder", where=str(folder), remedy="Name another: hermes init DIR ..."
        )
    there = [name for name in contents if (folder / name).exists() or (folder / name).is_symlink()]
    if there:
        raise UsageError(
            f"nothing was written: there is already {', '.join(there)}",
            where=str(folder.absolute()),
            remedy="Name another folder, or edit what is there: docs/conf.md; hermes config",
        )
