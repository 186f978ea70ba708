"""What happens to the machines, and what they ask for. Pure.

Events are outcomes, actions are verbs. A machine is given events and returns actions; whoever
performs an action hands its outcome back as an event.
"""

from __future__ import annotations

import msgspec

from hermes.messages import (
    BlocksGranted,
    Bye,
    DataPublished,
    Envelope,
    Forked,
    Hello,
    LedgerRecord,
    Round,
    RunOpened,
    RunReopened,
    Scored,
    StateSaved,
    StopRequested,
    Update,
    VersionPublished,
)
from hermes.policy.codecs import FP32
from hermes.policy.norm import Limit
from hermes.policy.paired import Paired
from hermes.policy.verdict import GateState
from hermes.values import Base, Birth, Outer, Payload, Position, Reason


class Event(msgspec.Struct, frozen=True):
    """Base of outcomes."""


class Action(msgspec.Struct, frozen=True):
    """Base of requests to whoever performs."""


# --- the master's events ------------------------------------------------------------------------


class Opened(Event, frozen=True):
    """This master may decide: its `MasterStarted` is in force. A new run is what `run` says; one
    that was opened before goes on, by other settings where `change` has them."""

    run: RunOpened
    change: RunReopened | None = None
    forked: Forked | None = None
    """Where a new run begins, if another one stood there ..."""
    data: DataPublished | None = None
    """... with its data."""
    trims: bool = True
    """Whether the broker can forget the first records of a topic; else topics are rotated."""


class DataStored(Event, frozen=True):
    """The upload is complete."""

    data: DataPublished


class VersionStored(Event, frozen=True):
    """The tensors of a version lie in the model topic."""

    version: int
    payload: Payload
    norms: tuple[float, ...] = ()
    """Of the updates in it, in their order; empty where they were not looked at."""
    state: Payload | None = None
    """Of a fork's first version: where a copy lies of what the parent's master held beside it."""


class MergeFailed(Event, frozen=True):
    """One update cannot be merged: its bytes are gone, damaged or do not fit."""

    version: int
    birth: Birth
    reason: Reason


class UpdateScored(Event, frozen=True):
    """Losses on the validation set: of the current version, and of the update's model."""

    birth: Birth
    version: int
    loss_global: float
    loss_worker: float


class EvaluationFinished(Event, frozen=True):
    """Scores of a version on the validation set; the cost in nanoseconds."""

    version: int
    loss: float | None
    accuracy: float | None
    started: int
    cost: int
    loss_sum: float | None = None
    correct: float | None = None
    n: int = 0
    """Sums over so many samples, where they are to be put with those of workers."""


class FinalScored(Event, frozen=True):
    """Scores of the last version."""

    version: int
    validation_loss: float | None
    validation_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None


class HelloReceived(Event, frozen=True):
    """A hello whose proof holds under the cluster key."""

    position: Position
    hello: Hello


class StopReceived(Event, frozen=True):
    """A signed request to stop."""

    position: Position
    request: StopRequested


class EnvelopeReceived(Event, frozen=True):
    """A small message of a worker's topic."""

    worker: str
    position: Position
    envelope: Envelope


class ChunkSeen(Event, frozen=True):
    """A chunk passed by in a worker's topic: a sign of life."""

    worker: str


class TopicRead(Event, frozen=True):
    """This worker's topic has been read to what was its end when asked."""

    worker: str


class TailMissing(Event, frozen=True):
    """This topic no longer has the place that it was read to; it is read from its start."""

    topic: str
    reason: Reason


class GenerationAdded(Event, frozen=True):
    """The next generation of this topic is there."""

    topic: str
    generation: int


class LogsRead(Event, frozen=True):
    """The central log was read up to here."""

    position: Position


class BrokerBack(Event, frozen=True):
    """The broker was away for a while, and answers again."""


class VersionsSecured(Event, frozen=True):
    """The versions from the newest one back to one whose bytes are there were looked at, and made
    again where they could be."""

    republished: tuple[tuple[int, Payload], ...]
    """By version, in order: made again, and stored."""
    last: int
    """The newest version that there is now."""
    why: str = ""
    """Why no newer one could be had."""
    asked: int = -1
    """The newest version when that was asked."""


class StateStored(Event, frozen=True):
    """The master's own tensors at this version lie in the `state` topic."""

    version: int
    payload: Payload


class StateRestored(Event, frozen=True):
    """The master's own tensors at this version are in memory again."""

    version: int
    from_version: int
    """Of the snapshot that they were formed from."""
    lost: str = ""
    """Why they could not be had: they begin anew."""


class StopAsked(Event, frozen=True):
    """The person at this machine asks to stop, or this process cannot go on."""

    status: str
    reason: Reason


class Ticked(Event, frozen=True):
    """Time has passed."""


# --- the master's actions -----------------------------------------------------------------------


class UploadData(Action, frozen=True):
    """Stream the job and the dataset; outcome `DataStored`."""


class StoreFirst(Action, frozen=True):
    """Store version 0; outcome `VersionStored`."""

    codec: str = FP32
    """As what it is stored."""


class Score(Action, frozen=True):
    """Losses of this update's model and of the version; outcome `UpdateScored`, `MergeFailed`."""

    version: VersionPublished
    worker: str
    update: Update
    limit: Limit | None = None
    """What its norm may be; None: anything."""
    base: Payload | None = None
    """Where its base lies, which an update that is no model is held against."""


class Part(msgspec.Struct, frozen=True):
    """An update in a merge, with its weight and where its base lies."""

    worker: str
    update: Update
    weight: float
    base: Payload


class Merge(Action, frozen=True):
    """Form version `version` out of `current` and the parts, in their order, and store it;
    outcome `VersionStored` or `MergeFailed`."""

    version: int
    current: VersionPublished
    rule: str
    keep: float
    parts: tuple[Part, ...]
    outer: Outer | None = None
    """The step, where the rule keeps momentum."""
    limit: Limit | None = None
    """What the norm of a part may be; None: anything, and norms are not looked at."""
    codec: str = FP32
    """As what the version is stored."""


class Recipe(msgspec.Struct, frozen=True):
    """A version, and the parts that it was made of, in their order."""

    version: VersionPublished
    parts: tuple[Part, ...]


class SecureVersions(Action, frozen=True):
    """See that the newest version's bytes are in the log; else make them again from an older one
    whose bytes are, and the recipes. Outcome `VersionsSecured`."""

    versions: tuple[VersionPublished, ...]
    """The newest first."""
    recipes: tuple[Recipe, ...]
    """In the order of the versions."""
    snapshots: tuple[StateSaved, ...]


class SaveState(Action, frozen=True):
    """Store the master's own tensors at this version; outcome `StateStored`."""

    version: VersionPublished


class RestoreState(Action, frozen=True):
    """Have the master's own tensors at this version again; outcome `StateRestored`."""

    version: VersionPublished
    snapshots: tuple[StateSaved, ...]
    """The newest first."""
    recipes: tuple[Recipe, ...]
    """In the order of the versions."""
    versions: tuple[VersionPublished, ...] = ()
    """All that are kept: a recipe leads from one to the next."""


class AddGeneration(Action, frozen=True):
    """Create this generation of a topic; outcome `GenerationAdded`."""

    topic: str
    generation: int


class Trim(Action, frozen=True):
    """What lies before this place of a topic is let go of."""

    topic: str
    generation: int
    before: int


class Evaluate(Action, frozen=True):
    """Score a version on the validation set; outcome `EvaluationFinished`."""

    version: VersionPublished


class ScoreLast(Action, frozen=True):
    """Score the last version on validation and test; outcome `FinalScored`."""

    version: VersionPublished


class SetAside(Action, frozen=True):
    """What came does not count, and should not have come: keep it apart, with its reason."""

    at: Position
    reason: Reason
    worker: str = ""
    update: Update | None = None
    """The update that it is about, where it is about one."""


class ReadToEnd(Action, frozen=True):
    """Read this worker's topic to its present end; outcome `TopicRead`."""

    worker: str


class FollowWorker(Action, frozen=True):
    """Create this worker's topic if need be and read it from here on."""

    worker: str
    after: Position | None


class FollowLobby(Action, frozen=True):
    """Read the lobby from here on."""

    after: Position | None


class Finish(Action, frozen=True):
    """All is decided: write the results."""


# --- the worker's events ------------------------------------------------------------------------


class Began(Event, frozen=True):
    """The process is up; `previous` and `undecided` are what the outbox remembers."""

    nonce: str
    previous: str
    undecided: tuple[Update, ...]


class LedgerSeen(Event, frozen=True):
    """A record of the ledger, with its offset and the SHA-256 of its bytes."""

    record: LedgerRecord
    offset: int
    digest: bytes


class LedgerTorn(Event, frozen=True):
    """The ledger no longer has the place that it was read to: the broker has lost its end."""

    why: str


class BlocksFetched(Event, frozen=True):
    """The blocks of this grant are at hand."""

    grant: int


class VersionLoaded(Event, frozen=True):
    """The local model is now this version."""

    base: Base


class VersionMissing(Event, frozen=True):
    """The version's bytes are not there, or are not what they should be."""

    version: int
    payload: str
    """Its id."""


class RoundFinished(Event, frozen=True):
    """The round was trained, and probed where the gate wants it."""

    round: int
    steps: int
    samples: int
    busy: int
    loss: float
    probe: float | None
    trainer: str = ""
    """Framework and device."""
    drift: float = 0.0
    """L2 norm of what was learned and not sent, where the gate wants it."""
    paired: Paired | None = None
    """How that did on the probe beside its version, where it would be pushed and is to be
    tested."""
    gradient: float = 0.0
    """L2 norm of the gradient of the last step, where the gate wants it."""


class VersionScored(Event, frozen=True):
    """A version on this worker's own validation samples; the fields are those of `Scored`."""

    number: int
    version: int
    loss_sum: float | None
    correct: float | None
    n: int
    busy: int


class UpdateStored(Event, frozen=True):
    """The chunks of the update are in the topic."""

    payload: Payload


class BeatDue(Event, frozen=True):
    """It is time for a heartbeat; `steps` counts all that this process trained."""

    steps: int


class KnockDue(Event, frozen=True):
    """No answer came to the hello; `nonce` is fresh."""

    nonce: str


class Interrupted(Event, frozen=True):
    """The person at this machine wants the worker to leave."""

    reason: str


# --- the worker's actions -----------------------------------------------------------------------


class SendHello(Action, frozen=True):
    """Knock with this nonce."""

    nonce: str
    previous: str


class Segment(msgspec.Struct, frozen=True):
    """Samples `start` .. `stop` - 1 of one pass over a grant, in the order of that pass."""

    grant: int
    pass_: int
    start: int
    stop: int
    size: int
    """Samples that the pass orders: the grant's, less what is held out of it for the probe."""


class Train(Action, frozen=True):
    """Train one round; outcome `RoundFinished`.

    Where `joined`, batches run on across segments; else each segment is cut for itself and its
    short last batch is kept.
    """

    round: int
    segments: tuple[Segment, ...]
    batch: int
    joined: bool
    progress: float
    """Of the run, 0 .. 1: what the job's schedule is a function of."""
    probe: str
    """"" (none), "fixed" (the probe blocks) or "fresh15" (what the grant holds out)."""
    drift: bool = False
    """Whether the gate wants to know how far the unsent steps led."""
    gate: GateState | None = None
    """Where a push is put to a test first: what the gate remembers, to see whether it is one."""
    unsent: int = 0
    """Sample passes of rounds before, not sent."""
    gradient: bool = False
    """Whether the gate wants to know how large the last step's gradient is."""


class FetchBlocks(Action, frozen=True):
    """Bring the blocks of a grant to this machine; outcome `BlocksFetched`."""

    grant: BlocksGranted


class DropGrant(Action, frozen=True):
    """The grant is finished or returned: what was fetched for it may go."""

    grant: int


class LoadVersion(Action, frozen=True):
    """Make this version the local model; outcome `VersionLoaded`.

    Less what the worker pushed and no version up to this one holds, and less what it has not sent
    (protocol 7), where there is any.
    """

    version: VersionPublished
    pending: tuple[str, ...] = ()
    """Payload ids of the updates that are pushed and neither merged nor rejected."""
    keeps: bool = False
    """Whether what was learned since the last push stays in the local model."""


class ScoreVersion(Action, frozen=True):
    """Score this version on the validation samples that this worker has brought, and leave the
    local model as it is; outcome `VersionScored`."""

    number: int
    """Of the question."""
    version: VersionPublished


class StoreUpdate(Action, frozen=True):
    """Send the local model (and back into it what is pushed and pending) in chunks, and keep it in
    the outbox; outcome `UpdateStored`."""


class Send(Action, frozen=True):
    """Send a small message under this number and keep it until the ledger has passed it."""

    number: int
    body: Round | Bye | Scored


class SendAgain(Action, frozen=True):
    """Send everything kept of this incarnation from this number on, in order."""

    first: int


class SendResent(Action, frozen=True):
    """Send an update by itself, under this number: one of an incarnation before, one that was
    stored once more, or, where all step together, one whose rounds were told before."""

    number: int
    update: Update


class SendBeat(Action, frozen=True):
    """Send a heartbeat."""

    steps: int
    last: int


class MoveTopic(Action, frozen=True):
    """End this generation of our topic with a marker, and write to the next one; 0: nothing was
    written there by us, and the marker is for whoever was before us."""

    generation: int


class MoveLogs(Action, frozen=True):
    """Lines for people go to this generation of `logs` from now on."""

    generation: int


class Forget(Action, frozen=True):
    """The ledger has taken everything up to this number; kept messages may go."""

    up_to: int


class ForgetUpdate(Action, frozen=True):
    """The ledger has decided this update; its tensors may go."""

    birth: Birth


class Leave(Action, frozen=True):
    """Stop this process. `code` is "done", "refused", "fenced", "interrupted" or "again" (start
    over as a fresh incarnation)."""

    code: str
    reason: str
