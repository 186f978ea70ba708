"""Is each version what its updates give, bit for bit? From one to the next, a few models in memory.

A version whose digest was just proven is the beginning of the next: nothing of it is fetched for
that. What is stored of it is read all the same, since others start from it. Where a version cannot
be formed again (an update, or the version before, is gone) its stored bytes are the new beginning.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from hermes.codec import decode_tensors, digest_of
from hermes.coded import decode_update
from hermes.errors import DecodeError, Defect, DigestMismatch, PeerError
from hermes.machine.events import Part, Recipe
from hermes.messages import VersionPublished
from hermes.perform.merging import Sources, packed
from hermes.perform.remake import Remade, Start, remake
from hermes.policy import norm
from hermes.policy.aggregate import check_form
from hermes.report.why.recompute import as_float
from hermes.values import Birth, Payload, Tensors
from hermes.verify.findings import Finding, update_called
from hermes.verify.payloads import DAMAGED, LOST, NO_BROKER, RETENTION, Absent, Payloads
from hermes.verify.plan import Back, Key, Named, Plan, Publish, Reset, Save, key_of
from hermes.verify.scores import Judge, Measured, Recorded

FIRST = "first"
"""It was not made of updates: the job's first weights, or another run's version."""
NO_START = "no start"
"""The version before it could not be had, or what the master held at it."""
DIFFERS = "differs"
REWOUND = "rewound"
"""It was lost, as the ledger says."""

CLOSE = 1e-6
"""Relative: what comes of a reduction may differ from platform to platform (protocol 11)."""

WORDS = {
    RETENTION: "retention",
    LOST: "lost by the broker",
    DAMAGED: "damaged",
    NO_BROKER: "not at hand",
    FIRST: "not made of updates",
    NO_START: "the version before it is gone",
    DIFFERS: "differs",
    REWOUND: "lost, as the ledger says",
}
"""Why something could not be done, for people."""


class Looked(NamedTuple):
    """What came of one version."""

    version: int
    offset: int
    formed: str
    """"": formed again, with the digest that the ledger names; else why not."""
    stored: str
    """"": its bytes are there and have that digest; else why not."""
    lacks: str = ""
    """What was missing to form it, in words."""

    @property
    def outcome(self) -> str:
        """ "recomputed", "checked" (its bytes are there), or why neither."""
        if self.formed == DIFFERS or self.stored == DAMAGED:
            return DIFFERS
        if not self.formed:
            return "recomputed"
        return self.stored or "checked"


class Held(NamedTuple):
    """The version that is at hand; `moments` is None where they are not known."""

    key: Key
    model: Tensors
    moments: Tensors | None
    formed: bool = False
    """Whether `moments` were formed here, not read from a snapshot."""


class Walk:
    """Goes through the versions in order."""

    def __init__(
        self,
        plan: Plan,
        payloads: Payloads,
        told: Callable[[int], None],
        judge: Judge | None = None,
    ) -> None:
        """`told`: called with each version's number once it was looked at; `judge` measures scores
        again, where that is asked for."""
        self.measured = Measured(judge)
        self.looked: list[Looked] = []
        self.states: list[str] = []
        """Outcomes of the snapshots of what the master held: "recomputed", "checked" or why not."""
        self.norms = 0
        """Norms of updates that were measured again."""
        self.found: list[Finding] = []
        self._plan, self._payloads, self._told = plan, payloads, told
        self._held: Held | None = None
        self._before: VersionPublished | None = None
        self._stash: dict[Key, Tensors] = {}
        """What the master held at versions that the run goes back to."""

    def go(self) -> None:
        """All of them. Raises `BrokerUnreachable`."""
        for step in self._plan.steps:
            if isinstance(step, Publish):
                self._version(step)
                self._told(step.version.version)
            elif isinstance(step, Save):
                self._saved(step)
            elif isinstance(step, Reset):
                self._reset(step)
            else:
                self._back(step)

    # --- one version ----------------------------------------------------------------------------

    def _version(self, step: Publish) -> None:
        formed, lacks = self._formed(step)
        stored = self._stored(step, keep=bool(formed))
        number = step.version.version
        self.looked.append(Looked(number, step.offset, formed, stored, lacks))
        if formed and stored:
            self._held = None
        self._measure(step)
        self._before = step.version
        held = self._held
        if held is not None and held.moments is not None and step.key in self._plan.returned:
            self._stash[step.key] = held.moments

    def _measure(self, step: Publish) -> None:
        if self._held is not None and self._held.key == step.key:
            for recorded in self._plan.scores.get(step.key, ()):
                self.measured.compare(recorded, self._held.model, step.key[1])

    def _losses(self, step: Publish, name: str, model: Tensors, digest: str) -> None:
        """A loss that a merge was weighed by."""
        facts = step.version.reason.facts
        if name in facts and self.measured.wanted:
            what = f"version {step.version.version}, {name}"
            recorded = Recorded(step.offset, what, "validation", as_float(facts[name]))
            self.measured.compare(recorded, model, digest)

    def _formed(self, step: Publish) -> tuple[str, str]:
        """Form it, and hold it; else ("why not", what is missing)."""
        before = self._before
        if not step.version.members or before is None:
            return FIRST, ""
        missing = self._out_of_reach(step)
        if missing is not None:
            return missing
        try:
            start = self._seat(before, step.version.rule == "momentum")
        except Absent as error:
            return NO_START, f"version {before.version}: {error.what}"
        offsets = {named.update.birth: named for named in step.updates}
        try:
            remade = self._remade(start, step, offsets)
        except Absent as error:
            return self._missing(error, step)
        except DigestMismatch as error:
            self._differs(step, f"its updates give {error.what.split('digest ')[-1][:12]}")
            return DIFFERS, ""
        except (PeerError, Defect) as error:
            self._differs(step, f"its updates give none: {error.what}")
            return DIFFERS, ""
        self._held = Held(step.key, remade.model, remade.moments, formed=True)
        return "", ""

    def _out_of_reach(self, step: Publish) -> tuple[str, str] | None:
        """Whether it is known beforehand that an update cannot be had: then nothing is fetched."""
        for named in step.updates:
            code = self._payloads.known(named.update.payload)
            if code:
                return code, f"{_name(named)}: {WORDS[code]}"
        return None

    def _remade(self, start: Start, step: Publish, named: dict[Birth, Named]) -> Remade:
        self._held = None  # the start is let go of as soon as the next is formed
        members = {part.birth: part for part in step.version.members}

        def update(part: Part, like: Tensors) -> Tensors:
            data = self._payloads.get(part.update.payload)
            local = decode_update(data, part.update.codec, like)
            refusal = check_form(local, like)
            if refusal is not None:
                raise PeerError(f"{_name(named[part.update.birth])} does not fit: {refusal.code}")
            return local

        def base(payload: Payload) -> Tensors:
            return decode_tensors(self._payloads.get(payload))

        def weigh(part: Part, local: Tensors, against: Tensors) -> None:
            recorded = members[part.update.birth].norm
            if recorded:
                found = norm.distance(local, against, self._plan.buffers)
                self._norm(step, named[part.update.birth], recorded, found)
            self._losses(step, "loss_global", start.model, start.digest)
            self._losses(step, "loss_worker", local, part.update.payload.digest)

        recipe = Recipe(step.version, self._plan.parts(step))
        sources = Sources(update, base, weigh)
        (remade,) = remake(start, [recipe], self._plan.buffers, sources)
        return remade

    def _norm(self, step: Publish, named: Named, recorded: float, found: float) -> None:
        self.norms += 1
        if not math.isclose(recorded, found, rel_tol=CLOSE):
            what = f"version {step.version.version}, {_name(named)}"
            says, again = f"norm {recorded:.9g} is recorded", f"measured again: {found:.9g}"
            self.found.append(Finding("version", step.offset, what, says, again))

    def _stored(self, step: Publish, *, keep: bool) -> str:
        """Whether its bytes are there; with `keep` they are the new beginning."""
        version, what = step.version, f"version {step.version.version}"
        try:
            data = self._payloads.get(self._plan.lies[version.payload.digest])
        except Absent as error:
            if step.key in self._plan.dropped:
                return REWOUND
            self._absent(error, step.offset, what)
            return error.code
        if keep:
            try:
                self._held = Held(step.key, decode_tensors(data), self._moments(version))
            except DecodeError as error:
                self._differs(step, f"what lies there are no tensors: {error.what}")
                return DAMAGED
        return ""

    # --- the beginning --------------------------------------------------------------------------

    def _seat(self, before: VersionPublished, momentum: bool) -> Start:
        """The version that is replaced, and what the master held at it. Raises `Absent`."""
        key, held = key_of(before), self._held
        if held is None or held.key != key:
            self._held = None
            payload = self._plan.lies[before.payload.digest]
            model = decode_tensors(self._payloads.get(payload))
            held = self._held = Held(key, model, self._moments(before))
        if momentum and held.moments is None:
            raise Absent(NO_START, "what the master held at it is gone", before.payload)
        return Start(*key, held.model, held.moments or {})

    def _moments(self, version: VersionPublished) -> Tensors | None:
        """What the master held at a version that was not formed here."""
        key = key_of(version)
        if key in self._stash:
            return self._stash.pop(key)
        payload = self._plan.snapshots.get(key)
        if payload is not None:
            try:
                return decode_tensors(self._payloads.get(payload))
            except PeerError:
                return None  # told where it is looked at
        return {} if version.rule != "momentum" else None

    def _back(self, step: Back) -> None:
        self._before = step.version
        if self._held is not None and self._held.key != key_of(step.version):
            self._held = None

    # --- what the master held -------------------------------------------------------------------

    def _reset(self, step: Reset) -> None:
        if self._held is not None and self._held.key == step.key:
            self._held = self._held._replace(moments={}, formed=True)
        else:
            self._stash[step.key] = {}

    def _saved(self, step: Save) -> None:
        what = f"what the master held at version {step.saved.version}"
        named, held, outcome = step.saved.payload, self._held, ""
        if held is not None and held.key == step.key and held.formed and held.moments is not None:
            found, outcome = digest_of(packed(held.moments)), "recomputed"
            if found != named.digest:
                says = f"the ledger names {named.digest[:12]}"
                follows = f"its updates give {found[:12]}"
                self.found.append(Finding("state", step.offset, what, says, follows))
                outcome = DIFFERS
        try:
            self._payloads.get(named)
        except Absent as error:
            self._absent(error, step.offset, what, kind="state")
            outcome = outcome or error.code
        self.states.append(outcome or "checked")

    # --- what is wrong --------------------------------------------------------------------------

    def _missing(self, absent: Absent, step: Publish) -> tuple[str, str]:
        """An update, or a base, cannot be had."""
        named = next((n for n in step.updates if n.update.payload == absent.payload), None)
        what = _name(named) if named is not None else "a base"
        offset = named.offset if named is not None else step.offset
        told = absent.code == LOST and absent.payload.topic in self._plan.tails
        if step.key in self._plan.dropped:
            return REWOUND, what
        if not told:
            self._absent(absent, offset, what, kind="update")
        return absent.code, f"{what}: {WORDS[absent.code]}"

    def _absent(self, error: Absent, offset: int, what: str, kind: str = "version") -> None:
        """What is gone without a record that lets it go, or is not what was announced."""
        if error.code in (LOST, DAMAGED):
            says = f"its bytes lie in {error.where}"
            follows = f"they are {WORDS[error.code]}: {error.what}"
            self.found.append(Finding(kind, offset, what, says, follows))

    def _differs(self, step: Publish, follows: str) -> None:
        says = f"the ledger names the digest {step.version.payload.digest[:12]}"
        what = f"version {step.version.version}"
        self.found.append(Finding("version", step.offset, what, says, follows))


def _name(named: Named) -> str:
    birth = named.update.birth
    return update_called(birth.number, named.worker, birth.incarnation)
