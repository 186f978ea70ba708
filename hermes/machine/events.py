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
    Hello,
    LedgerRecord,
    Round,
    RunOpened,
    StopRequested,
    Update,
    VersionPublished,
)
from hermes.values import Base, Birth, Payload, Position, Reason


class Event(msgspec.Struct, frozen=True):
    """Base of outcomes."""


class Action(msgspec.Struct, frozen=True):
    """Base of requests to whoever performs."""


# --- the master's events ------------------------------------------------------------------------


class Opened(Event, frozen=True):
    """This master may decide: its `MasterStarted` is in force. A new run is what `run` says."""

    run: RunOpened


class DataStored(Event, frozen=True):
    """The upload is complete."""

    data: DataPublished


class VersionStored(Event, frozen=True):
    """The tensors of a version lie in the model topic."""

    version: int
    payload: Payload


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


class Score(Action, frozen=True):
    """Losses of this update's model and of the version; outcome `UpdateScored`, `MergeFailed`."""

    version: VersionPublished
    worker: str
    update: Update


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


class Evaluate(Action, frozen=True):
    """Score a version on the validation set; outcome `EvaluationFinished`."""

    version: VersionPublished


class ScoreLast(Action, frozen=True):
    """Score the last version on validation and test; outcome `FinalScored`."""

    version: VersionPublished


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


class BlocksFetched(Event, frozen=True):
    """The blocks of this grant are at hand."""

    grant: int


class VersionLoaded(Event, frozen=True):
    """The local model is now this version."""

    base: Base


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


class FetchBlocks(Action, frozen=True):
    """Bring the blocks of a grant to this machine; outcome `BlocksFetched`."""

    grant: BlocksGranted


class DropGrant(Action, frozen=True):
    """The grant is finished or returned: what was fetched for it may go."""

    grant: int


class LoadVersion(Action, frozen=True):
    """Make this version the local model; outcome `VersionLoaded`."""

    version: VersionPublished


class StoreUpdate(Action, frozen=True):
    """Send the local model in chunks and keep it in the outbox; outcome `UpdateStored`."""


class Send(Action, frozen=True):
    """Send a small message under this number and keep it until the ledger has passed it."""

    number: int
    body: Round | Bye


class SendAgain(Action, frozen=True):
    """Send everything kept of this incarnation from this number on, in order."""

    first: int


class SendResent(Action, frozen=True):
    """Send an update of an incarnation before, under this number."""

    number: int
    update: Update


class SendBeat(Action, frozen=True):
    """Send a heartbeat."""

    steps: int
    last: int


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
