"""Where is a run read from that is to be verified? Its broker, its folder, or files of its log."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from hermes.data.cache import BlockCache
from hermes.errors import RunError
from hermes.machine.state import MasterState
from hermes.messages import DataPublished
from hermes.perform.blocks import Blocks, read_upload
from hermes.perform.desk import Judge as Scorer
from hermes.perform.store import Store
from hermes.perform.upload import Signer
from hermes.replay.run import Material
from hermes.runtime.archive import HEAD, read_archive
from hermes.runtime.export import kept_in
from hermes.runtime.folder import RunFolder
from hermes.runtime.join import ledger_of
from hermes.runtime.observe import refuse_unrecorded
from hermes.runtime.trying import fresh_trainer, job_of, rebuilt
from hermes.train import Trainer
from hermes.transport.filed import FiledLog
from hermes.transport.log import Log, Record
from hermes.verify.findings import NOWHERE, Finding
from hermes.verify.run import Report, Source, ledger_in
from hermes.verify.scores import Judge

WHOLE = 1 << 50
"""Bytes of blocks that are kept on disk while a run is trained again: all that there are."""


def at_broker(log: Log, run: str) -> Source:
    """The run as its topics have it. Raises `RunError` where the broker has no such run."""
    ledger_of(log, run)
    return Source(run, log.place, "live", ledger_in(log, run), log)


def in_files(log: FiledLog) -> Source:
    """An exported log. Raises `RunError` where it has no ledger."""
    run = log.index.run
    ledger_of(log, run)
    return Source(run, log.place, "exported", ledger_in(log, run), log)


def in_folder(folder: RunFolder, log: Log | None, why: str) -> Source:
    """The ledger as the run's folder has it, the tensors as its broker does (`log`; None: `why`
    says why it cannot be asked). Raises `RunError` where its records are gone."""
    refuse_unrecorded(folder)
    return Source(folder.run, str(folder.path), "saved", _archived(folder), log, why)


def _archived(folder: RunFolder) -> Callable[[int], Iterator[Record]]:
    def read(first: int) -> Iterator[Record]:
        return (raw for raw in read_archive(folder.ledger) if raw.offset >= first)

    return read


@contextlib.contextmanager
def judging(source: Source, key: bytes) -> Iterator[Callable[[MasterState], Judge]]:
    """Gives whoever measures models on the run's own data: its job is run for that, once its
    signature is verified. Raises `RunError`, `Unverified`, `JobError`, `BrokerError`."""
    log, run = source.tensors, source.run
    if log is None:
        raise RunError(
            f"scores are measured on the run's data, which cannot be had: {source.why}",
            where=f"run {run}",
            remedy="Leave out --scores, or name a broker with --broker.",
        )
    with contextlib.ExitStack() as cleanup:

        def made(state: MasterState) -> Judge:
            opened, data = state.opened, state.data
            if opened is None or data is None:
                raise RunError("it has no data to measure scores on", where=f"run {run}")
            Signer(data.run or run, key).verify(data)
            store = Store(log, data.run or run)
            cleanup.callback(store.close)
            upload, manifest = read_upload(store, data)
            _, trainer = rebuilt(upload, opened.seed, None)
            folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="hermes-")))
            cache = BlockCache(folder, state.settings.cache.max << 20)
            return Scorer(lambda: trainer, Blocks(store, manifest, cache), store).scores

        yield made


@contextlib.contextmanager
def training(
    source: Source, key: bytes, device: str | None, threads: int
) -> Iterator[Callable[[DataPublished, int], Material]]:
    """Gives what is needed to train the run again, on its own data: its job is run for that, once
    its signature is verified. Raises `Unverified`, `JobError`, `BrokerError`."""
    with contextlib.ExitStack() as cleanup:

        def made(data: DataPublished, seed: int) -> Material:
            assert source.tensors is not None
            Signer(data.run or source.run, key).verify(data)
            store = Store(source.tensors, data.run or source.run)
            cleanup.callback(store.close)
            upload, manifest = read_upload(store, data)
            job = job_of(upload, device)
            folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="hermes-")))
            blocks = Blocks(store, manifest, BlockCache(folder, WHOLE))

            def trainer() -> Trainer:
                fresh = fresh_trainer(job, seed)
                fresh.use_threads(threads)
                return fresh

            return Material(job, trainer, lambda: blocks)

        yield made


# --- what else a place holds --------------------------------------------------------------------


class _Result(msgspec.Struct, frozen=True):
    """What `result.json` says that the ledger says, too."""

    status: str
    version: int | None
    digest: str | None
    samples: int


def of_folder(folder: RunFolder, report: Report) -> tuple[list[Finding], list[str]]:
    """How the files of a run's folder agree with its ledger: findings, and notes for people."""
    found, notes = _models(folder, report)
    found += _torn(folder)
    try:
        told = msgspec.json.decode(folder.result.read_bytes(), type=_Result)
    except (OSError, msgspec.DecodeError):
        return found, notes
    state = report.state
    newest = state.newest
    ours = _Result(
        state.status,
        newest.version if newest else None,
        newest.payload.digest if newest else None,
        newest.samples if newest else 0,
    )
    if state.stopped is not None and ours == told:
        return found, [*notes, "result.json says what the ledger says"]
    if state.stopped is None and report.state.authority.term > 1:
        return found, [*notes, "result.json is from before the run went on"]
    says = f"status {told.status}, version {told.version}, samples {told.samples}"
    again = f"the ledger ends at status {ours.status}, version {ours.version}, {ours.samples}"
    found.append(Finding("file", NOWHERE, str(folder.result), says, again))
    return found, notes


def _models(folder: RunFolder, report: Report) -> tuple[list[Finding], list[str]]:
    kept = kept_in(folder, report.published)
    notes = [f"{path.name} is version {number}" for number, path in sorted(kept.versions.items())]
    found = [
        Finding("file", NOWHERE, str(path), "it is a model of this run", "no version has its bytes")
        for path in kept.damaged
    ]
    return found, notes


def _torn(folder: RunFolder) -> list[Finding]:
    """An archive that cannot be read to its end."""
    frames = sum(HEAD + len(raw.value) for raw in read_archive(folder.ledger))
    size = folder.ledger.stat().st_size
    if frames == size:
        return []
    says = f"it holds {size} bytes"
    follows = f"its records end after {frames}: what follows is torn or damaged"
    return [Finding("file", NOWHERE, str(folder.ledger), says, follows)]


def of_files(log: FiledLog) -> list[Finding]:
    """Files of an exported log that are not what was exported."""
    return [
        Finding("file", NOWHERE, f"{log.place}/{name}", "the index names its digest", what)
        for name, what in sorted(log.damage.items())
    ]
