"""Can a worker do it? A process of its own, which has nothing but what travels: the job's text, a
batch and a block. `python -m hermes.checkup.elsewhere FOLDER` is that process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hermes.errors import JobError, UsageError

if TYPE_CHECKING:
    from hermes.messages import JobSource

STEPS = 3
"""Of the batch, so that the optimizer's state is in memory, too."""

TRYING = 3600.0
"""Seconds that the other process may take; Ctrl-C ends it sooner."""

SOURCE, BATCH, BLOCK, WEIGHTS, ANSWER = "job", "batch", "block", "weights", "answer.json"
"""Files of the folder that the two processes share."""

Shapes = dict[str, tuple[str, tuple[int, ...]]]


class Answer(msgspec.Struct):
    """What a worker's process found."""

    shapes: Shapes = {}
    """Of the model's tensors: type and shape, by name."""
    peak: int | None = None
    """Bytes of memory that it took at most."""
    what: str = ""
    """The mistake, if there is one."""
    where: str = ""
    remedy: str = ""
    only_here: str = ""
    """What went wrong in an empty folder, where all went well in this one."""


class Work(msgspec.Struct):
    """What a worker is sent, to try."""

    seed: int
    device: str | None
    threads: int
    batch: bytes | None
    """None where the data could not be had: then the job is only built."""
    block: bytes | None
    weights: bytes | None


def tried(source: JobSource, work: Work) -> Answer:
    """What comes of it in another process, in an empty folder; where that fails, in this one.
    Leaves nothing behind. Raises `JobError` where the process dies."""
    with tempfile.TemporaryDirectory(prefix="hermes-check-") as folder:
        place = Path(folder)
        _put(place, source, work)
        empty = place / "empty"
        empty.mkdir()
        answer = _asked(place, empty)
        if not answer.what:
            return answer
        here = _asked(place, Path.cwd())
    if here.what:
        return answer
    here.only_here = str(JobError(answer.what, where=answer.where))
    return here


def _put(place: Path, source: JobSource, work: Work) -> None:
    from hermes.codec import encode

    (place / SOURCE).write_bytes(encode(source))
    (place / BATCH).write_bytes(msgspec.msgpack.encode(work))


def _asked(place: Path, cwd: Path) -> Answer:
    """Start it, wait for it (Ctrl-C ends both), read what it found."""
    answer = place / ANSWER
    answer.unlink(missing_ok=True)
    known = os.environ.get("PYTHONPATH", "")
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, known)))}
    command = [sys.executable, "-m", "hermes.checkup.elsewhere", str(place)]
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TRYING,
        )
    except subprocess.TimeoutExpired:
        raise JobError(
            f"a worker's process was not done with {STEPS} steps of it within {TRYING:g} s",
            remedy="Does the job wait for something when it is imported?",
        ) from None
    if answer.exists():
        return msgspec.json.decode(answer.read_bytes(), type=Answer)
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
    raise JobError(
        f"a worker's process died of it (code {done.returncode}): {last}",
        remedy="If that is a signal 9, memory ran out; else look at what the job does when it is "
        "imported.",
    )


# --- in that process ----------------------------------------------------------------------------


def main(folder: str) -> None:
    """Do a worker's work on what lies in `folder`, and write the answer there."""
    import hermes.runtime.worker
    import hermes.transport.kafka  # noqa: F401  (what a worker has in memory, too)

    place, answer = Path(folder), Answer()
    try:
        _work(place, answer)
    except UsageError as error:
        answer.what, answer.where, answer.remedy = error.what, error.where, error.remedy
    (place / ANSWER).write_bytes(msgspec.json.encode(answer))


def _work(place: Path, answer: Answer) -> None:
    """What was found before a mistake is in `answer`, too. Raises `UsageError`."""
    from hermes.checkup.memory import peak
    from hermes.codec import decode, decode_tensors, encode_tensors
    from hermes.data.blocks import decode_block
    from hermes.messages import JobSource
    from hermes.runtime.trying import rebuilt, shapes_of

    source = decode((place / SOURCE).read_bytes(), 1 << 30)
    work = msgspec.msgpack.decode((place / BATCH).read_bytes(), type=Work)
    assert isinstance(source, JobSource)
    _, trainer = rebuilt(source, work.seed, work.device)
    trainer.use_threads(work.threads)
    answer.shapes = shapes_of(trainer.weights())
    if work.batch is not None and work.block is not None and work.weights is not None:
        trainer.load(decode_tensors(work.weights))
        batch = decode_tensors(work.batch)
        for _ in range(STEPS):
            trainer.step(batch["x"], batch["y"], 1.0)
        trainer.evaluate([decode_block(work.block)])
        encode_tensors(trainer.weights())
    answer.peak = peak()


if __name__ == "__main__":
    main(sys.argv[1])
