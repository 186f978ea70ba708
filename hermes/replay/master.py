"""Does a master decide the same again? Its machine and its desk, given what came from outside.

Each entry of the ledger either stands for something that came from outside, which the machine is
told again, or has to follow from that. Versions are formed of what the workers trained again.

At which moment of a batch an event was decided is not recorded, nor when a deadline woke the
machine: where the answer depends on it (the grace of a quorum), both ends of that time are tried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from hermes.machine.apply import apply, apply_entries
from hermes.machine.events import (
    Action,
    Event,
    Merge,
    MergeFailed,
    Opened,
    RestoreState,
    SaveState,
    Score,
    SecureVersions,
    StateRestored,
    StateStored,
    StoreFirst,
    UpdateScored,
    VersionsSecured,
    VersionStored,
)
from hermes.machine.ledger import starts_master
from hermes.machine.master import Decision, decide
from hermes.machine.soft import Soft
from hermes.machine.state import MasterState
from hermes.messages import (
    Entry,
    MasterStarted,
    RunScored,
    StateSaved,
    Trimmed,
    UpdateTaken,
    VersionEvaluated,
    VersionPublished,
    WorkerAdmitted,
)
from hermes.perform.desk import Desk
from hermes.policy.presets import from_tree
from hermes.replay.causes import NUDGE, Scene, cause, reopened
from hermes.replay.differs import Differs, compare
from hermes.replay.held import Held
from hermes.replay.story import Story, Told
from hermes.values import Tensors
from hermes.verify.scores import alike

MEASURED = (VersionEvaluated, RunScored)
"""Entries that say what was measured: `hermes verify --scores` measures it again."""

CLOSED_BY_TIME = "waited"
"""The fact of a quorum's reason that a clock has measured."""


class MasterAgain:
    """The master of a run, all its terms."""

    def __init__(self, story: Story, held: Held, first: Callable[[], Tensors]) -> None:
        """`first` gives the weights that the run began with."""
        self.state = MasterState()
        self.entries: Counter[str] = Counter()
        """Entries that were decided again, by kind."""
        self.given: Counter[str] = Counter()
        """Entries that were taken as they are."""
        self._story, self._held, self._first = story, held, first
        self._desk: Desk | None = None
        self._soft = Soft()
        self._view = self.state
        self._stored: VersionStored | MergeFailed | None = None
        """The version under way: formed, and not yet published."""
        self._saved: StateStored | None = None
        self._outcomes: list[Event] = []
        """What the machine is told before anything else happens."""
        self._actions: list[Action] = []
        self._versions = list(story.versions)
        self._starts = False

    def begin(self, desk: Desk) -> None:
        """The data is there: from now on there is somebody who merges."""
        self._desk = desk

    def take(self, told: Told) -> None:
        """One record more. Raises `Differs`."""
        record = told.record
        if starts_master(record):
            self._soft, self._stored, self._saved = Soft(), None, None
            self._outcomes, self._starts = [], True
        else:
            self._view = self.state
            self._account_for(told)
        self.state = self._view = apply(self.state, record, told.offset, told.digest)
        self._perform(told)

    # --- the entries of a record ----------------------------------------------------------------

    def _account_for(self, told: Told) -> None:
        entries = [one for one in told.record.entries if not isinstance(one, Trimmed)]
        self.given.update(["Trimmed"] * (len(told.record.entries) - len(entries)))
        if self._starts:
            self._starts = False
            if self.state.opened is not None:
                self._outcomes.append(self._opened_again(entries))
        place = self._settle(told, entries)
        while place < len(entries):
            place += self._next(told, entries[place:])

    def _settle(self, told: Told, left: Sequence[Entry]) -> int:
        """Tell what was performed at once; how many entries that accounts for."""
        found = 0
        while self._outcomes:
            found += self._tell(told, self._outcomes.pop(0), left[found:])
            self._perform(told)
        return found

    def _opened_again(self, entries: Sequence[Entry]) -> Opened:
        assert self.state.opened is not None
        return Opened(self.state.opened, reopened(entries), trims=self._story.trims)

    def _next(self, told: Told, left: Sequence[Entry]) -> int:
        """Account for the first of these entries, and for what comes with it."""
        entry = left[0]
        if self._closes_before(entry):
            found = self._tell(told, NUDGE, left)
            self._perform(told)
            found += self._settle(told, left[found:])
            if found:
                return found
        scene = Scene(left, told.record, self._view, self._merging)
        event = self._performed(entry) or cause(scene)
        if event is None:
            self._view = apply_entries(self._view, [entry])
            self.given[type(entry).__name__] += 1
            return 1
        if isinstance(event, Opened):
            event = replace(event, trims=self._story.trims)
        found = self._tell(told, event, left)
        if not found:
            says = f"{type(entry).__name__} is recorded"
            raise Differs(told.offset, _name(entry), says, "again: nothing of that is decided")
        return found

    @property
    def _merging(self) -> int | None:
        return self._soft.merge.version if self._soft.merge is not None else None

    def _closes_before(self, entry: Entry) -> bool:
        """Whether a version was closed by the clock before this: it is published, or comes to be
        without the update that is taken here."""
        if self._merging is not None or self._view.newest is None:
            return False
        if isinstance(entry, VersionPublished):
            return True
        if not isinstance(entry, UpdateTaken) or not self._versions:
            return False
        members = {(one.worker, one.birth) for one in self._versions[0][1].members}
        pending = {(one.worker, one.update.birth) for one in self._view.pending}
        return members <= pending and (entry.worker, entry.update.birth) not in members

    def _performed(self, entry: Entry) -> Event | None:
        """The outcome of what the machine had asked for, where this entry is of that."""
        if isinstance(entry, VersionPublished) and self._stored is not None:
            stored, self._stored = self._stored, None
            self._versions.pop(0)
            return stored
        if isinstance(entry, StateSaved) and self._saved is not None:
            saved, self._saved = self._saved, None
            return saved
        failed = self._stored
        if isinstance(failed, MergeFailed) and getattr(entry, "birth", None) == failed.birth:
            self._stored = None
            return failed
        return None

    # --- deciding -------------------------------------------------------------------------------

    def _tell(self, told: Told, event: Event, left: Sequence[Entry]) -> int:
        """The machine is told; how many entries that accounts for. Raises `Differs`."""
        decision = self._decided(told, event)
        again = [one for one in decision.entries if not isinstance(one, Trimmed)]
        for recorded, entry in zip(left, again, strict=False):
            compare(told.offset, _name(recorded), recorded, _with_measured(entry, recorded))
            count = self.given if isinstance(entry, MEASURED) else self.entries
            count[type(entry).__name__] += 1
        if len(again) > len(left):
            extra = again[len(left)]
            says = f"nothing more is recorded with {type(event).__name__}"
            raise Differs(told.offset, _name(extra), says, "again: that is decided, too")
        self._view, self._soft = decision.state, decision.soft
        self._actions += decision.actions
        return len(again)

    def _decided(self, told: Told, event: Event) -> Decision:
        """By the time of the record or, where that closes a version too soon, by that of the
        record before it."""
        now = max(told.record.time, self._view.time)
        decision = decide(self._view, self._soft, now, event)
        if all(map(self._is_wanted, decision.actions)):
            return decision
        earlier = decide(self._view, self._soft, self.state.time, event)
        return earlier if all(map(self._is_wanted, earlier.actions)) else decision

    def _is_wanted(self, action: Action) -> bool:
        """Whether a version of these members was published next."""
        if not isinstance(action, Merge) or not self._versions:
            return True
        members = [(one.worker, one.birth) for one in self._versions[0][1].members]
        return members == [(part.worker, part.update.birth) for part in action.parts]

    # --- performing -----------------------------------------------------------------------------

    def _perform(self, told: Told) -> None:
        """What was decided is acknowledged: do it. Whatever it comes to is told in its turn."""
        actions, self._actions = self._actions, []
        for action in actions:
            performer = PERFORM.get(type(action))
            if performer is not None:
                performer(self, action, told)

    def _first_version(self, action: StoreFirst, told: Told) -> None:
        offset, version = self._due(0, told)
        self._held.expect(version.payload, _name(version), offset)
        assert self._desk is not None
        self._stored = self._desk.store_first(self._first(), codec=action.codec)

    def _merge(self, action: Merge, told: Told) -> None:
        if not self._versions:
            return  # the run ended before it was published
        assert self._desk is not None
        offset, version = self._due(action.version, told)
        for field in ("rule", "keep", "outer", "codec"):
            what = f"{_name(version)}, {field}"
            compare(offset, what, getattr(version, field), getattr(action, field))
        weights = [part.weight for part in version.members]
        compare(offset, f"{_name(version)}, weights", weights, [p.weight for p in action.parts])
        self._held.expect(version.payload, _name(version), offset)
        outcome = self._desk.perform(action)
        assert isinstance(outcome, VersionStored | MergeFailed)
        self._stored = outcome

    def _due(self, number: int, told: Told) -> tuple[int, VersionPublished]:
        """The version that was published next."""
        offset, version = self._versions[0]
        if version.version != number:
            says = f"version {version.version} is the next one"
            raise Differs(told.offset, f"version {number}", says, "again: this one is made")
        return offset, version

    def _score(self, action: Score, _told: Told) -> None:
        """Losses are given where a version names them: they come of reductions."""
        assert self._desk is not None
        outcome = self._desk.perform(action)
        if isinstance(outcome, UpdateScored) and self._versions:
            offset, version = self._versions[0]
            facts = version.reason.facts
            if [one.birth for one in version.members] == [action.update.birth]:
                outcome = _as_recorded(outcome, facts, offset, version)
        if isinstance(outcome, MergeFailed):
            self._stored = outcome
        else:
            self._outcomes.append(outcome)

    def _save(self, action: SaveState, told: Told) -> None:
        named = self._story.saved.get(action.version.version)
        if named is None:
            return  # the run ended before that was recorded
        assert self._desk is not None
        what = f"what the master held at version {named.version}"
        self._held.expect(named.payload, what, told.offset)
        outcome = self._desk.perform(action)
        assert isinstance(outcome, StateStored)
        self._saved = outcome

    def _secure(self, action: SecureVersions, _told: Told) -> None:
        newest = action.versions[0].version
        self._outcomes.append(VersionsSecured((), newest, asked=newest))

    def _restore(self, action: RestoreState, _told: Told) -> None:
        """It is in memory still."""
        version = action.version.version
        self._outcomes.append(StateRestored(version, version))


def _with_measured(entry: Entry, recorded: Entry) -> Entry:
    """With what a clock has measured, as it is recorded; and with the settings as they were written
    down, where they mean the same: a newer Hermes knows more of them."""
    if isinstance(entry, WorkerAdmitted) and isinstance(recorded, WorkerAdmitted):
        ours, theirs = entry.opened.settings, recorded.opened.settings
        same = from_tree(ours) == from_tree(theirs)
        return replace(entry, opened=replace(entry.opened, settings=theirs)) if same else entry
    if not isinstance(entry, VersionPublished) or not isinstance(recorded, VersionPublished):
        return entry
    reason, known = entry.reason, recorded.reason.facts
    if CLOSED_BY_TIME not in reason.facts or CLOSED_BY_TIME not in known:
        return entry
    facts = {**reason.facts, CLOSED_BY_TIME: known[CLOSED_BY_TIME]}
    return replace(entry, reason=replace(reason, facts=facts))


def _as_recorded(
    outcome: UpdateScored, facts: dict[str, Any], offset: int, version: VersionPublished
) -> UpdateScored:
    """Raises `Differs` where a loss is another one."""
    found: dict[str, float] = {}
    for name in ("loss_global", "loss_worker"):
        said, again = facts.get(name), getattr(outcome, name)
        if not isinstance(said, int | float) or not alike(float(said), again):
            says = f"{name} {said} is recorded"
            raise Differs(offset, _name(version), says, f"again: {again}")
        found[name] = float(said)
    return replace(outcome, **found)


def _name(entry: Entry) -> str:
    """In words: "RoundNoted of worker-2"."""
    kind = type(entry).__name__
    if isinstance(entry, VersionPublished):
        return f"version {entry.version}"
    if isinstance(entry, MasterStarted):
        return f"term {entry.term}"
    worker = getattr(entry, "worker", None)
    return f"{kind} of {worker}" if worker is not None else kind


PERFORM: dict[type, Callable[[MasterAgain, Any, Told], None]] = {
    StoreFirst: MasterAgain._first_version,
    Merge: MasterAgain._merge,
    Score: MasterAgain._score,
    SaveState: MasterAgain._save,
    SecureVersions: MasterAgain._secure,
    RestoreState: MasterAgain._restore,
}
"""Action -> who performs it. The others only read, wait or tell."""
