"""`hermes export` of a model: which version, from where, in which format?"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from hermes.cli.connect import BRIEF, connected
from hermes.cli.export import Wish, Written, missing, place_of, shown
from hermes.cli.seen import Seen, live_log
from hermes.cli.trouble import warn
from hermes.errors import RunError

if TYPE_CHECKING:
    from hermes.messages import VersionPublished
    from hermes.runtime.export import Kept, Progress
    from hermes.transport.kafka import KafkaLog

LARGE = 8_000_000
"""Bytes of a model from which on its transfer is shown."""


class Found(NamedTuple):
    """A model's bytes, and where they were had."""

    data: bytes | bytearray
    source: str


def export_model(
    wish: Wish, seen: Seen, versions: Mapping[int, VersionPublished], *, quiet: bool
) -> Written:
    """Write one version of the model. Raises `RunError` for one that is not there, `CheckFailed`
    for damaged files, `UsageError`."""
    from hermes.coded import plain
    from hermes.runtime.export import digest_of_file, put

    if wish.format == "pt" and _framework(seen).startswith("keras"):
        raise RunError(
            "its model is one of Keras, whose weights no model of PyTorch takes under their names",
            where=f"run {seen.view.run}",
            remedy="Take --format keras: Keras opens it on PyTorch as on TensorFlow. Or --format "
            "safetensors: the weights alone, by their paths in Keras.",
        )
    if wish.format == "pt" and importlib.util.find_spec("torch") is None:
        raise missing("torch", "pip install 'hermes-edge[torch]', or take --format safetensors")
    architecture = _architecture(seen) if wish.format == "keras" else ""
    number = _number(wish.version, seen, versions)
    path = place_of(wish, f"{seen.view.run}-v{number}.{wish.format}")
    found = _find(seen, versions, number, quiet=quiet)
    model = plain(found.data)
    put(path, _formed(wish.format, model, architecture, str(path)))
    about = {
        "version": number,
        "said": _said(seen, versions, number),
        "source": found.source,
        "model_digest": versions[number].payload.digest,
    }
    load = _load(wish.format, shown(path), _framework(seen).partition(" ")[0])
    return Written(path, path.stat().st_size, digest_of_file(path), load, about)


def _architecture(seen: Seen) -> str:
    """The layers of a run's model of Keras; Keras is then loaded, on its backend. Raises `RunError`
    where they are not known, `UsageError` where Keras is not here."""
    from hermes.keras_backend import VARIABLE, backend_now, load

    name, _, backend = _framework(seen).partition(" on ")
    run = f"run {seen.view.run}"
    there = seen.folder is not None and seen.folder.architecture.exists()
    if not there and not name.startswith("keras"):
        raise RunError(
            f"its model is not one of Keras, but of {name or 'a framework that is not known'}",
            where=run,
            remedy="Take --format pt or --format safetensors.",
        )
    if seen.folder is None or not there:
        raise RunError(
            "the model's layers are not known here: they lie in the run's folder, where its master "
            "ran",
            where=run,
            remedy="Export it there, or name that folder's place with --out.",
        )
    os.environ.setdefault(VARIABLE, backend or "tensorflow")
    load()
    if not backend_now():
        raise missing("keras", f"pip install 'hermes-edge[keras-{os.environ[VARIABLE]}]'")
    return seen.folder.architecture.read_text("utf-8")


def _formed(
    format_: str, model: bytes | bytearray, architecture: str, where: str
) -> bytes | bytearray | memoryview:
    """The bytes of the file."""
    if format_ == "safetensors":
        return model
    if format_ == "pt":
        from hermes.runtime.export import state_dict_bytes

        return state_dict_bytes(model)
    from hermes.codec import decode_tensors
    from hermes.train.keras_file import keras_bytes

    return keras_bytes(architecture, decode_tensors(model), where)


def _number(wanted: str, seen: Seen, versions: Mapping[int, VersionPublished]) -> int:
    """Which version that is. Raises `RunError`."""
    run = f"run {seen.view.run}"
    if not versions:
        raise RunError("no version of the model was published", where=run)
    if wanted == "last":
        return max(versions)
    if wanted == "best":
        best = seen.view.state.evaluations.best
        if best is None:
            raise RunError(
                "no version has been evaluated", where=run, remedy="Take --version last."
            )
        return best.version
    number = int(wanted.lstrip("v"))
    if number not in versions:
        raise RunError(
            f"there is no version {number}",
            where=run,
            remedy=f"Versions 0 .. {max(versions)} were published.",
        )
    return number


def _said(seen: Seen, versions: Mapping[int, VersionPublished], number: int) -> str:
    best = seen.view.state.evaluations.best
    says = ["the last"] if number == max(versions) else []
    if best is not None and best.version == number:
        says += [f"the best on validation (loss {best.loss:.4g})"]
    return f" ({', '.join(says)})" if says else ""


def _framework(seen: Seen) -> str:
    """Its name and release, such as "keras 3.15.1 on torch"."""
    opened = seen.view.state.opened
    return opened.software.framework if opened else ""


def _load(format_: str, path: str, framework: str) -> str:
    if format_ == "pt":
        return f'model.load_state_dict(torch.load("{path}", weights_only=True))'
    if format_ == "keras":
        return f'model = keras.saving.load_model("{path}")'
    if framework == "torch":
        return f'model.load_state_dict(safetensors.torch.load_file("{path}"))'
    return f'weights = safetensors.numpy.load_file("{path}")'


# --- finding ------------------------------------------------------------------------------------


def _find(
    seen: Seen, versions: Mapping[int, VersionPublished], number: int, *, quiet: bool
) -> Found:
    from hermes.runtime.export import GONE, fetch, kept_in, oldest_there, refusal

    kept = kept_in(seen.folder, versions)
    if number in kept.versions:
        found = Found(kept.versions[number].read_bytes(), str(kept.versions[number]))
        return _warned(kept, found)
    payload, run = versions[number].payload, seen.view.run
    with _at_broker(seen) as (log, why):
        if log is None:
            raise refusal(number, why, _there(kept), kept.damaged)
        try:
            with _progress(payload.length, quiet) as progress:
                data = fetch(log, run, payload, progress)
        except GONE as error:
            oldest = oldest_there(log, run, versions)
            why = f"{seen.broker} does not keep it any more ({error.what})"
            raise refusal(number, why, _there(kept, oldest, max(versions)), kept.damaged) from None
    return _warned(kept, Found(data, seen.broker or ""))


def _warned(kept: Kept, found: Found) -> Found:
    """Tell of damaged files, though there was another source."""
    for path in kept.damaged:
        warn(f"{path}: its bytes are those of no version in the ledger; taken from {found.source}")
    return found


@contextmanager
def _at_broker(seen: Seen) -> Iterator[tuple[KafkaLog | None, str]]:
    """The run's broker; or None and why it cannot be asked."""
    from hermes.runtime.join import runs_at

    if seen.broker is None:
        yield None, "nothing says where its broker was"
    elif seen.view.live:
        with connected(seen.broker, first=BRIEF) as log:
            yield log, ""
    else:
        with live_log(seen.broker) as there:
            if there is None:
                yield None, f"the folder keeps the last and the best; {seen.broker} is gone"
            elif seen.view.run not in runs_at(there):
                yield None, f"the broker at {seen.broker} has no such run"
            else:
                yield there, ""


def _there(kept: Kept, oldest: int | None = None, last: int = -1) -> str:
    """Which versions are to be had."""
    parts = [f"v{number} ({path.name})" for number, path in sorted(kept.versions.items())]
    if oldest is not None:
        parts.append(f"v{oldest} .. v{last} at the broker")
    return ", ".join(parts) or "none"


@contextmanager
def _progress(length: int, quiet: bool) -> Iterator[Progress | None]:
    """A bar on stderr, for a large model and a person."""
    if quiet or length < LARGE or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("fetching"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=length)
        yield lambda taken: bar.update(task, completed=taken)
