"""What travels: the messages and the ledger's entries, as values. Pure.

Messages are nouns. Fields are only ever added at the end, with a default, so that an older reader
can still be told "another version" instead of misreading. `PROTOCOL` counts changes that an older
reader must not follow.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from hermes.policy.codecs import FP32
from hermes.values import Base, Birth, BlockRange, Outer, Payload, Position, Reason, Superstep

PROTOCOL = 4


Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""A number that a peer claims: never negative, and exact as a float."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of everything that travels under a tag."""


# --- what anyone sends to the lobby -------------------------------------------------------------


class Software(Message, frozen=True):
    """Versions of what a process runs."""

    hermes: str
    protocol: int
    python: str
    framework: str
    machine: str = ""
    """What it runs on, for people: "Linux x86_64, 2 cores, 24 GiB"."""


SIMULATED = Software("0", PROTOCOL, "3", "none")
"""What a simulated process says of itself: no release, and no machine."""


class Own(Message, frozen=True):
    """What a worker says of the data that it has brought, and that never travels."""

    samples: Count
    kind: str
    """Types and shapes of a sample: two workers of one run bring the same."""
    digest: str
    """HMAC-SHA256 (hex) of the file's digest under the cluster key: whoever comes back has the same
    data."""


class Hello(Message, frozen=True):
    """A worker knocks. `proof` is an HMAC-SHA256 (hex) under the cluster key over all the rest."""

    run: str
    worker: str
    incarnation: str
    nonce: str
    software: Software
    previous: str = ""
    """The incarnation before this one, read from the locked outbox; "" if there was none."""
    proof: str = ""
    own: Own | None = None
    """Of a worker that brings its own data."""


class StopRequested(Message, frozen=True):
    """Somebody who has the cluster key asks the master to stop."""

    run: str
    nonce: str
    reason: str
    proof: str = ""


# --- what a worker sends to its own topic -------------------------------------------------------


class Update(Message, frozen=True):
    """What a worker learned since its base: names the chunks that hold its model."""

    birth: Birth
    base: Base
    samples: Count
    """Sample passes trained since the base."""
    rounds: Count
    oldest: Count
    """The version at which the oldest step in it was computed; staleness counts from that."""
    payload: Payload
    codec: str = FP32
    """As what its tensors travel."""


class Round(Message, frozen=True):
    """A finished round: times, losses, the gate's decision and its inputs."""

    round: Count
    base: Count
    steps: Count
    samples: Count
    busy: Count
    """Nanoseconds of training and probing."""
    waited: Count
    """Nanoseconds since the round before, less `busy`."""
    loss: float | None
    """Mean training loss; None where it is not finite."""
    probe: float | None
    verdict: str
    """"push", "quiet" or "veto"; where all step together "flag" in the place of a push."""
    reason: Reason
    finished: tuple[int, ...]
    """Numbers of the grants that this round used up."""
    update: Update | None = None
    moved: Count = 0
    """Of `waited`, nanoseconds in which tensors were under way: the update before was stored, a
    version was loaded."""
    trainer: str = ""
    """In an incarnation's first round: framework and device, such as "torch 2.15.0 on cpu"."""
    upon: tuple[int, ...] = ()
    """Offsets of the last ledger record acted on: as each version since the round before was asked
    for, at last as this round began. With them a round can be trained again (`hermes replay`)."""


class Resent(Message, frozen=True):
    """An update by itself; its birth tells whose. One of an incarnation before, from the outbox;
    one that was stored once more; or where all step together, one whose rounds were told before."""

    update: Update


class Heartbeat(Message, frozen=True):
    """A sign of life; never an input."""

    steps: int
    """How far the worker is, in total: alive without progress is stuck, not dead."""
    last: int
    """Number of the last message sent before it, so that a lost last message is missed too."""
    traffic: tuple[int, ...] = ()
    """Bytes (sent, received) of this process so far, by kind: data, model, update, control,
    logs."""


class Bye(Message, frozen=True):
    """The worker leaves of its own will."""

    reason: str
    traffic: tuple[int, ...] = ()
    """As in a heartbeat."""
    failed: bool = False
    """It cannot train this job; the reason says why."""


class Scored(Message, frozen=True):
    """What a version is worth on the sender's own validation samples; 0 samples: it could not be
    read."""

    number: Count
    """Of the question (`EvaluationAsked`)."""
    version: Count
    loss_sum: float | None
    """Of all samples; None where it is not finite."""
    correct: float | None
    """The metric, summed over all samples (of accuracy: how many are right); None where the job has
    none, or it is not finite."""
    n: Count
    """Samples."""
    busy: Count = 0
    """Nanoseconds that it took."""


class Moved(Message, frozen=True):
    """The marker that ends a generation of this worker's topic: what follows lies in the next.
    Never an input."""

    generation: int


WorkerBody: TypeAlias = Round | Resent | Heartbeat | Bye | Moved | Scored


class Envelope(Message, frozen=True):
    """One small message on `from.<worker>`."""

    sender: str
    """Incarnation that sends; fencing is judged by it."""
    number: int
    """1, 2, 3, ... within the incarnation; 0 for a heartbeat."""
    seen: int
    """Offset of the last ledger record that the worker acted on; -1 for none."""
    chain: bytes
    """The chain up to and including that record."""
    body: WorkerBody


# --- the ledger ---------------------------------------------------------------------------------


class MasterStarted(Message, frozen=True):
    """A master of this term and nonce claims the run (protocol 3)."""

    term: int
    nonce: str


class RunOpened(Message, frozen=True):
    """What the run is. `key_proof` lets a worker see that it holds another cluster key."""

    run: str
    settings: dict[str, object]
    seed: int
    expect: int
    opened: str
    """Wall time, ISO 8601 UTC: for people only; "" in virtual time, which has no date."""
    software: Software
    key_proof: str

    @property
    def virtual(self) -> bool:
        """Whether the run is a simulation."""
        return not self.opened


class DataPublished(Message, frozen=True):
    """The upload: job source and all splits. Readers use only what this names."""

    source: Payload
    manifest: Payload
    signature: str
    """HMAC-SHA256 (hex) over (run id, digest of source and ARGS, digest of the manifest)."""
    block: int
    """Samples a block."""
    blocks: dict[str, int]
    """Blocks by split."""
    samples: dict[str, int]
    """Samples by split."""
    first_size: int
    """Samples of a first grant."""
    batch: int
    """The job's batch, in samples."""
    run: str = ""
    """The run in whose `data` topic all of it lies; "": this one."""
    buffers: tuple[str, ...] = ()
    """Names of the model's tensors that are not learned: they are merged by value. Whoever forms a
    version again needs to know them, and not to run the job for it."""
    pools: tuple[int, ...] = ()
    """Samples of each pool that the train split was divided into, whose blocks lie pool after pool;
    empty: it was not divided."""
    shares: tuple[float, ...] = ()
    """Train, probe, validation: as each worker cuts the data that it brings; empty: none is
    brought, it is granted by the block."""
    kind: str = ""
    """Where data are brought: types and shapes of a sample of the master's validation set; "": it
    has none."""
    metric: str = ""
    """What is measured beside the loss: "custom" is a function of the job's own. Where data are
    brought, "" is nothing; elsewhere it is the accuracy, or nothing."""


class WorkerAdmitted(Message, frozen=True):
    """All that a worker needs to take part; it needs no history."""

    worker: str
    incarnation: str
    hello: str
    """Nonce of the hello that this answers."""
    opened: RunOpened
    data: DataPublished
    version: VersionPublished
    taken: dict[str, int]
    """Number of the last message taken, by incarnation of this worker."""
    started: bool
    software: Software | None = None
    """As its hello has it."""
    generation: int = 0
    """Of its own topic."""
    logs: int = 0
    """Generation of the topic `logs`."""
    clocks: dict[str, int] = {}
    """Rounds of each worker alive, this one among them, whose outcome the ledger has; only where a
    rule asks for it."""
    pool: int = -1
    """The pool that it is granted from; -1 where there are none."""
    own: Own | None = None
    """The data that it brings."""


class WorkerRefused(Message, frozen=True):
    """This hello is refused."""

    worker: str
    hello: str
    reason: Reason


class TrainingStarted(Message, frozen=True):
    """As many workers as expected are there."""

    workers: int


class BlocksGranted(Message, frozen=True):
    """Blocks of the endless walk, exclusively this worker's until finished or returned; or, where
    it brings its data, `size` samples of its own walk."""

    worker: str
    number: int
    ranges: tuple[BlockRange, ...]
    size: int
    """The first `size` samples of the blocks count."""
    batch: int
    start: int = -1
    """Place in the worker's own endless walk over its train samples; -1: blocks are granted."""


class BlocksReturned(Message, frozen=True):
    """What a worker held goes back to the head of the walk."""

    worker: str
    numbers: tuple[int, ...]
    reason: str


class RoundNoted(Message, frozen=True):
    """A round counts, quiet or not."""

    worker: str
    round: int
    base: int
    steps: int
    samples: int
    busy: int
    waited: int
    loss: float | None
    verdict: str
    reason: Reason
    finished: tuple[int, ...]
    moved: int = 0
    trainer: str = ""
    upon: tuple[int, ...] = ()


class UpdateTaken(Message, frozen=True):
    """An update is accepted and waits to be merged or rejected."""

    worker: str
    update: Update


class UpdateRejected(Message, frozen=True):
    """An update will never be merged."""

    worker: str
    birth: Birth
    reason: Reason


class Contribution(Message, frozen=True):
    """One update in a version, with its weight."""

    worker: str
    birth: Birth
    weight: float
    samples: int
    norm: float = 0.0
    """How far its model lay from its base (`policy.norm`); 0: not looked at."""


class VersionPublished(Message, frozen=True):
    """A global model. `keep` is the weight of the version that it replaces (interpolation)."""

    version: int
    payload: Payload
    members: tuple[Contribution, ...]
    rule: str
    keep: float
    samples: int
    """Sample passes merged so far, all versions together: progress counts them."""
    reason: Reason
    outer: Outer | None = None
    """The step that was taken, where the rule keeps momentum."""
    superstep: Superstep | None = None
    """What each worker trains on it, where the rule sets quotas."""
    codec: str = FP32
    """As what its tensors lie there; the digest is that of those bytes."""


class StepClosed(Message, frozen=True):
    """Where all step together: everybody alive has taken its step, and goes on."""

    step: int
    """1, 2, 3, ... in this run."""
    version: int
    """The newest when it closed."""
    sync: bool
    """Whether a version is made now."""
    pushers: tuple[str, ...]
    """The workers that push for it; everybody else goes on at once."""
    reason: Reason


class ShardResized(Message, frozen=True):
    """The size of this worker's next grants."""

    worker: str
    size: int
    batch: int
    reason: Reason


class VersionEvaluated(Message, frozen=True):
    """A version's scores on the validation set."""

    version: int
    loss: float | None
    accuracy: float | None
    started: int
    cost: int
    """Run time at which it began, and how long it took, in nanoseconds."""
    n: int = 0
    """Samples that the workers' sums are over; 0: it was the master's own validation set, or
    nobody answered."""
    workers: tuple[str, ...] = ()
    """Whose sums these are; "" is the master's own validation set."""


class WorkerLost(Message, frozen=True):
    """A worker was not heard in time; its blocks are returned."""

    worker: str
    reason: Reason


class WorkerBack(Message, frozen=True):
    """A lost worker was heard again."""

    worker: str


class WorkerLeft(Message, frozen=True):
    """A worker said bye, or a newer incarnation took its place."""

    worker: str
    reason: str
    unable: bool = False
    """It came and cannot train this job."""


class ResendAsked(Message, frozen=True):
    """A number is missing: send again from it on."""

    worker: str
    incarnation: str
    first: int


class RunStopped(Message, frozen=True):
    """No version is published after this."""

    status: str
    """"finished" (a stopping rule held), "stopped" (asked to) or "failed"."""
    reason: Reason


class RunScored(Message, frozen=True):
    """The final scores: the last version on validation and test."""

    version: int
    validation_loss: float | None
    validation_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None


class EvaluationAsked(Message, frozen=True):
    """These workers are asked what this version, the newest, is worth on the validation samples
    that they have brought."""

    version: int
    number: int
    """1, 2, 3, ... within the run."""
    workers: tuple[str, ...]
    """"" is the master's own validation set."""


class ScoreNoted(Message, frozen=True):
    """An answer counts; one of 0 samples says that none will come."""

    worker: str
    number: int
    version: int
    loss_sum: float | None
    correct: float | None
    n: int
    busy: int


class RunReopened(Message, frozen=True):
    """From here on the run goes by these settings; one that had stopped goes on."""

    settings: dict[str, object]
    reason: Reason
    expect: int = 0
    """Workers that are expected from now on; 0: as many as before."""


class Forked(Message, frozen=True):
    """The run begins where another one stood (protocol 14)."""

    parent: str
    version: int
    offset: int
    """Of the last record of the parent's ledger that it follows from ..."""
    chain: bytes
    """... and the chain up to and including that."""
    digest: str
    """Of the version, SHA-256 hex."""
    samples: int
    """Merged into it."""
    cursor: int
    """Where the parent's walk over the blocks stood."""
    changes: dict[str, object]
    """Settings that differ from the parent's, by dotted key."""
    cursors: tuple[int, ...] = ()
    """Where its walk over each pool stood."""


# --- repair: what a broker had acknowledged and lost ---------------------------------------------


class StateSaved(Message, frozen=True):
    """The master's own tensors at this version lie in the `state` topic."""

    version: int
    payload: Payload


class StateReset(Message, frozen=True):
    """The master's own tensors could not be had again: they begin anew at this version."""

    version: int
    reason: Reason


class Republished(Message, frozen=True):
    """A version whose bytes were gone lies here now: the very same bytes."""

    version: int
    payload: Payload


class Rewound(Message, frozen=True):
    """Versions were lost and could not be made again: the run goes on from an older one."""

    version: VersionPublished
    dropped: tuple[int, ...]
    lost: tuple[Contribution, ...]
    """The updates that the dropped versions held."""
    reason: Reason


class TailLost(Message, frozen=True):
    """The end of a topic, acknowledged once, is not there any more: it is read from its start, and
    the numbers decide; of the ledger: what was lost was written again."""

    topic: str
    reason: Reason


# --- retention (protocol 13) ---------------------------------------------------------------------


class Trimmed(Message, frozen=True):
    """What lies before this place of a topic may go, whole generations among it."""

    topic: str
    generation: int
    before: int


class Rotated(Message, frozen=True):
    """A topic goes on in this generation, which is there."""

    topic: str
    generation: int


Entry: TypeAlias = (
    MasterStarted
    | RunOpened
    | DataPublished
    | WorkerAdmitted
    | WorkerRefused
    | TrainingStarted
    | BlocksGranted
    | BlocksReturned
    | RoundNoted
    | UpdateTaken
    | UpdateRejected
    | VersionPublished
    | StepClosed
    | ShardResized
    | VersionEvaluated
    | WorkerLost
    | WorkerBack
    | WorkerLeft
    | ResendAsked
    | RunStopped
    | RunScored
    | EvaluationAsked
    | ScoreNoted
    | RunReopened
    | Forked
    | StateSaved
    | StateReset
    | Republished
    | Rewound
    | TailLost
    | Trimmed
    | Rotated
)


class Consumed(Message, frozen=True):
    """An input topic is read up to and including this place."""

    position: Position
    incarnation: str
    number: int
    """Number of the last message taken of that incarnation; 0 in the lobby."""


class LedgerRecord(Message, frozen=True):
    """One decision, or the decisions over one batch of inputs (protocol 2)."""

    term: int
    nonce: str
    n: int
    """0, 1, 2, ... within the nonce."""
    chain: bytes
    """Running hash over all valid records before this one; empty for `MasterStarted`."""
    time: int
    """Run time, nanoseconds."""
    consumed: tuple[Consumed, ...]
    entries: tuple[Entry, ...]


# --- what the data topic holds beside the blocks ------------------------------------------------


class JobSource(Message, frozen=True):
    """The user's file, and what stood after `--`."""

    name: str
    text: str
    args: tuple[str, ...]
    backend: str = ""
    """What Keras computes on; "" for a job without Keras."""


class Block(Message, frozen=True):
    """One block of a split: where it lies, and the SHA-256 (hex) of its bytes."""

    offset: int
    length: int
    digest: str


class Manifest(Message, frozen=True):
    """All blocks of an upload, by split, in the order of their indices."""

    blocks: dict[str, tuple[Block, ...]]


# --- the central log ----------------------------------------------------------------------------


class LogLine(Message, frozen=True):
    """One line of the central log."""

    source: str
    level: str
    at: str
    text: str


class MasterBeat(Message, frozen=True):
    """The master is alive; sent to `logs` every 2 s (protocol 3)."""

    term: int
    nonce: str
    count: int
    used: int = 0
    """Bytes that the run has at its broker ..."""
    limit: int = 0
    """... and may have; 0: no limit, or not said."""
    traffic: dict[str, tuple[int, ...]] = {}
    """Bytes moved so far, as in a heartbeat, by process: "master", and each worker's name."""
    aside: dict[str, int] = {}
    """What was set aside so far, by reason."""
    topics: dict[str, int] = {}
    """Of `used`, bytes by topic (short names)."""
    hourly: int = 0
    """Bytes an hour that come to the topics, as measured; 0: not yet."""
    of: str = ""
    """What is used: the broker's "disk" or "memory", or "storage" where it does not say."""


AnyMessage: TypeAlias = (
    Hello | StopRequested | Envelope | LedgerRecord | JobSource | Manifest | LogLine | MasterBeat
)
