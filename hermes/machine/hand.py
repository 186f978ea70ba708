"""What does a worker know, and how is its next step made? Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from hermes.errors import Defect
from hermes.machine.events import (
    Action,
    DropGrant,
    Leave,
    Send,
)
from hermes.machine.ledger import Authority
from hermes.machine.rounds import Plan
from hermes.machine.rules import Rules
from hermes.messages import (
    BlocksGranted,
    Bye,
    Round,
    Update,
    VersionPublished,
)
from hermes.policy.gate import GateState
from hermes.policy.presets import Settings
from hermes.values import Base


class Question(msgspec.Struct, frozen=True):
    """What is this version worth on our own validation samples?"""

    number: int
    version: VersionPublished


class WorkerState(msgspec.Struct, frozen=True):
    """What a worker knows. `phase` says what it is doing:

    knocking -> idle -> loading -> idle -> training -> pushing -> waiting -> idle; at last, gone.
    Where all step together: training -> stepped -> idle or pushing.
    Whoever brings its data is asked what a version is worth: idle or waiting -> scoring, and back.
    """

    name: str
    incarnation: str
    phase: str = "knocking"
    hellos: tuple[str, ...] = ()
    """Nonces of the hellos sent."""
    over: str = ""
    """While knocking: that the run has stopped, as a record says that may or may not count."""
    previous: str = ""
    left_over: tuple[Update, ...] = ()
    """Undecided updates of incarnations before, to be sent once admitted."""
    authority: Authority = Authority()
    admitted: bool = False
    settings: Settings = Settings()
    newest: VersionPublished | None = None
    started: bool = False
    stopped: bool = False
    brings: bool = False
    """Whether we bring our data, and may be asked."""
    asked: Question | None = None
    """What we owe an answer to."""
    ending: str = ""
    """That the run has stopped: we leave once nothing is asked any more."""
    base: Base | None = None
    """The version that the local model started from; None: a new one is to be loaded."""
    grants: tuple[BlocksGranted, ...] = ()
    sought: frozenset[int] = frozenset()
    """Grants whose blocks were sent for ..."""
    fetched: frozenset[int] = frozenset()
    """... and those whose blocks are here."""
    offset: int = 0
    """Samples of the first grant that are used up."""
    stuck: bool = False
    """That we get nowhere, as the ledger says: our blocks go to others, until we are back with a
    step, a round or an update. Whoever has none of these to show knocks anew."""
    rests: bool = False
    """That others are so much quicker that we have no work (`size.slowest`)."""
    current: Plan | None = None
    """The round being trained."""
    done: Round | None = None
    """The round that is being pushed."""
    gate: GateState | None = None
    round: int = 0
    number: int = 0
    """Of the last message sent."""
    taken: int = 0
    """Number of the last message that the ledger has taken."""
    unsent_samples: int = 0
    unsent_rounds: int = 0
    waiting_for: tuple[Update, ...] = ()
    """Pushed, and neither merged nor rejected."""
    oldest: int | None = None
    """The version at which the oldest step was computed that was not sent yet."""
    anew: bool = False
    """Its local model holds an update that was rejected: the newest version is taken again."""
    clocks: Mapping[str, int] = {}
    """Rounds of each worker alive whose outcome the ledger has; kept where a rule asks for it."""
    unnoted: int = 0
    """Rounds that were not worth a push and are not in the ledger yet."""
    pushed: Update | None = None
    """The last update of this incarnation, whose model is still the local one while it waits."""
    again: bool = False
    """It is being stored once more: the master could not read it."""
    unreadable: str = ""
    """Id of the newest payload, where that could not be read: another is waited for ..."""
    missed: int = 0
    """... for so many heartbeats; then it is tried again."""
    generation: int = 0
    """Of our topic: where we write ..."""
    moves_to: int = 0
    """... and where we are to write as soon as nothing is being stored."""
    logs: int = 0
    """Generation of the topic `logs`."""
    ended: int = 0
    """Run time of the end of the last round."""
    moving: int = 0
    """Run time at which tensors began to be stored or loaded; 0: none are under way."""
    moved: int = 0
    """Nanoseconds of that since the end of the last round."""
    upon: tuple[int, ...] = ()
    """Offsets of the last ledger record acted on, as versions were asked for since the last round,
    and as the one under way began."""


class Step(msgspec.Struct, frozen=True):
    """The state after an event, and what is to be done."""

    state: WorkerState
    actions: tuple[Action, ...] = ()
    changed: bool = True
    """Whether anything has changed but for how far the ledger is read."""


class Hand:
    """A step in the making."""

    def __init__(self, rules: Rules, state: WorkerState, now: int) -> None:
        self.rules, self.state, self.now = rules, state, now
        self.actions: list[Action] = []
        self.changed = False
        """Whether anything has changed that makes something due."""

    def become(self, **changes: Any) -> None:
        """Change the state."""
        self.state = replace(self.state, **changes)
        self.changed = True

    def follow(self, authority: Authority) -> None:
        """The ledger is read as far as this. Nothing is ever due for that alone."""
        self.state = replace(self.state, authority=authority)


def check(state: WorkerState) -> None:
    """Raise `Defect` if anything that must always hold does not."""
    if state.phase == "waiting" and not state.waiting_for:
        raise Defect("waits for nothing", where=state.name)
    if state.phase == "training" and state.current is None:
        raise Defect("trains nothing", where=state.name)
    if state.taken > state.number:
        raise Defect(
            f"the ledger took number {state.taken}, only {state.number} were sent",
            where=state.name,
        )
    if not state.fetched | state.sought <= {grant.number for grant in state.grants}:
        raise Defect("keeps or seeks blocks that it does not hold", where=state.name)


def leave(hand: Hand, code: str, reason: str) -> None:
    """Say bye, where somebody listens, and leave."""
    if hand.state.admitted:
        hand.become(number=hand.state.number + 1)
        hand.actions.append(Send(hand.state.number, Bye(reason)))
    hand.actions.append(Leave(code, reason))
    hand.become(phase="gone")


def gone(hand: Hand, code: str, reason: str) -> None:
    """Leave without a word."""
    hand.actions.append(Leave(code, reason))
    hand.become(phase="gone")


def drop(hand: Hand, numbers: tuple[int, ...]) -> None:
    """These grants are finished or returned: let go of them."""
    state = hand.state
    if state.grants and state.grants[0].number in numbers:
        hand.become(offset=0)
    held = [grant.number for grant in state.grants]
    hand.become(
        grants=tuple(grant for grant in state.grants if grant.number not in numbers),
        sought=state.sought - set(numbers),
        fetched=state.fetched - set(numbers),
    )
    hand.actions += [DropGrant(number) for number in numbers if number in held]
